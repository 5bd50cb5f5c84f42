package planted

// Bugs lists every bug.
func Bugs() []Bug { return append(raftnodeBugs(), chatBugs()...) }

func raftnodeBugs() []Bug {
	return []Bug{{
		Name: "acknowledge-unsaved", What: "entries are acknowledged from memory and saved with the next vote",
		File: "raftnode/appender.go",
		Old:  "		if err := a.disk.Save(state, entries); err != nil {",
		New: `		if !dirty {
			a.state = proto.CloneOf(state)
			err := a.remember(entries)
			entries = nil
			return err
		}
		if err := a.disk.Save(state, entries); err != nil {`,
	}, {
		Name: "lost-vote", What: "a vote within a term is not saved",
		File: "raftnode/appender.go",
		Old:  "dirty = dirty || m.GetTerm() != state.GetTerm() || m.GetVote() != state.GetVote()",
		New:  "dirty = dirty || m.GetTerm() != state.GetTerm() && m.GetVote() == 0",
	}, {
		Name: "change-commit-unwritten", What: "that a change of the configuration is committed is not written until something else is",
		File: "raftnode/appender.go",
		Old:  " || a.changes.committedBy(commit)\n",
		New:  "\n",
	}, {
		Name: "change-commit-unsynced", What: "a commit index that is written alone stays in a buffer",
		File: "raftnode/disk.go",
		Old:  "		return d.wal.Sync() // Save does not, for a commit index alone\n	})\n}\n\n// SaveSnapshot",
		New:  "		return nil\n	})\n}\n\n// SaveSnapshot",
		Test: []string{"./raftnode", "-run", "Commit"},
	}, {
		Name: "change-unproven", What: "a node starts with two changes of the configuration in its log and takes neither for committed",
		File: "raftnode/replica.go",
		Old:  "max(rec.state.GetCommit(), applied, provenCommit(rec.entries))",
		New:  "max(rec.state.GetCommit(), applied)",
		Test: []string{"./raftnode", "-run", "Change"},
	}, {
		Name: "commit-goes-back", What: "what waited to be written takes back the commit index of a mark",
		File: "raftnode/appender.go",
		Old:  "			commit := max(m.GetCommit(), state.GetCommit())",
		New:  "			commit := m.GetCommit()",
		Test: []string{"./raftnode", "-run", "Commit"},
	}, {
		Name: "another-nodes-entry", What: "a waiter is resolved by another node's entry of the same number",
		File: "raftnode/applier.go",
		Old:  "		if it.id.proposer == a.self {\n			a.waiters.resolve(it.id.sequence, results[i], nil)\n		}",
		New:  "		a.waiters.resolve(it.id.sequence, results[i], nil)",
	}, {
		Name: "request-ids-reused", What: "request ids begin anew at each start",
		File: "raftnode/replica.go",
		Old:  "sequence: max(boots<<40, r.sequence), term:",
		New:  "sequence: 0, term:",
	}, {
		Name: "stale-read", What: "a linearizable read does not wait until its index is applied",
		File: "raftnode/core.go",
		Old:  "for n < len(r.confirmed) && r.confirmed[n].index <= applied {",
		New:  "for n < len(r.confirmed) && applied > 0 {",
	}, {
		Name: "lease-read", What: "a leader answers reads without asking anybody",
		File: "raftnode/replica.go",
		Old:  "ReadOnlyOption: raft.ReadOnlySafe,",
		New:  "ReadOnlyOption: raft.ReadOnlyLeaseBased,",
	}, {
		Name: "unknown-as-refused", What: "what was proposed under a lost leader is answered as refused",
		File: "raftnode/core.go",
		Old:  "	c.waiters.failAll(errUnknown)\n	c.inFlight = c.inFlight[:0]",
		New:  "	c.waiters.failAll(errNoLeader)\n	c.inFlight = c.inFlight[:0]",
	}, {
		Name: "no-high-water", What: "a node starts and votes with a log that has lost its end",
		File: "raftnode/tide.go",
		Old:  "	return t, t.last.holds(high)",
		New:  "	return t, nil",
	}, {
		Name: "high-water-late", What: "the high-water record follows a vote in the background only",
		File: "raftnode/highwater.go",
		Old:  "	return w.term != old.term || w.vote != old.vote || w.shorter(old)",
		New:  "	return w.shorter(old) && false",
		Test: []string{"./raftnode", "-run", "HighWater|Tide|Vote"},
	}, {
		Name: "any-directory", What: "a wiped directory is admitted under its old id",
		File: "raftnode/hello.go",
		Old:  "	if !known.IsZero() && known != inc {",
		New:  "	if !known.IsZero() && known != inc && inc.IsZero() {",
		Test: []string{"./raftnode"},
	}, {
		Name: "directories-forgotten", What: "nobody knows which directory a member has registered",
		File: "raftnode/replica.go",
		Old:  "		if x, ok := m.member(id); ok && !x.Incarnation.IsZero() {",
		New:  "		if x, ok := m.member(id); ok && x.ID != id {",
	}, {
		Name: "log-not-asked", What: "who a member is, is forgotten over a restart before the store was flushed",
		File: "raftnode/replica.go",
		Old:  "	return r.logged[id]",
		New:  "	return Incarnation{}",
		Test: []string{"./raftnode", "-run", "Incarnation"},
	}, {
		Name: "nobody-vouches", What: "a member that was away refuses a leader that was added meanwhile",
		File: "raftnode/hello.go",
		Old:  "	return ok && m.admits(id, inc, x.Incarnation, url) == nil",
		New:  "	return ok && m.admits(id, inc, x.Incarnation, url) == nil && id == 0",
		Test: []string{"./raftnode", "-run", "Away|Vouch"},
	}, {
		Name: "founding-unheard", What: "an empty directory founds a cluster although one that runs knows its member",
		File: "raftnode/founding.go",
		Old:  "		case f.cfg.Anyway:\n",
		New:  "		case f.cfg.Anyway, c.Standing == StandingWiped:\n",
		Test: []string{"./raftnode", "-run", "FoundingRound"},
	}, {
		Name: "founded-without-majority", What: "a cluster is founded by fewer than a majority of the list",
		File: "raftnode/founding.go",
		Old:  "	return votes >= f.majority\n",
		New:  "	return votes > 0\n",
	}, {
		Name: "founding-vote-unsaved", What: "a vote is told before it is durable",
		File: "raftnode/foundry.go",
		Old:  "	if !step.Save {",
		New:  "	if !step.Save || step.Found == nil {",
		Test: []string{"./raftnode", "-run", "VoteIsDurable"},
	}, {
		Name: "founders-unbound", What: "other founders are proposed than a majority may have accepted",
		File: "raftnode/founding.go",
		Old:  "	if last.Accepted != (Ballot{}) && !void(last.Founders, present, b) {",
		New:  "	if last.Accepted != (Ballot{}) && len(present) == 0 {",
		Test: []string{"./raftnode", "-run", "FoundingAgrees"},
	}, {
		Name: "founders-void-too-soon", What: "accepted founders are given up although one of them may have founded",
		File: "raftnode/founding.go",
		Old:  "		if i < 0 || present[i].Incarnation == x.Incarnation && present[i].Promised != b {",
		New:  "		if i < 0 && len(present) == 1 {",
		Test: []string{"./raftnode", "-run", "FoundingAgrees"},
	}, {
		Name: "founding-after-a-promise", What: "an earlier attempt is carried out after a later one was promised",
		File: "raftnode/founding.go",
		Old:  "	if b == (Ballot{}) || f.state.Promised != b {",
		New:  "	if b == (Ballot{}) {",
		Test: []string{"./raftnode", "-run", "FoundingIsLeft"},
	}, {
		Name: "founders-forgotten", What: "the records of a new cluster do not name its founders' directories",
		File: "raftnode/node.go",
		Old:  "	first := bootstrapMembership(n.identity.Cluster, n.identity.Founders...)",
		New:  "	first := bootstrapMembership(n.identity.Cluster)",
		Test: []string{"./raftnode", "-run", "FoundersAreKnown"},
	}, {
		Name: "adopted-twice", What: "a second directory is let in for a member that came late",
		File: "raftnode/members.go",
		Old:  "	return m.register(id, inc, old.Attributes)",
		New:  "	old.Incarnation = inc\n	next := m.clone()\n	next.set(old)\n	return next, nil",
		Test: []string{"./raftnode", "-run", "AdoptedOnce"},
	}, {
		Name: "never-greeted-again", What: "a member that went away is not greeted, so that a directory made anew hears of nobody",
		File: "raftnode/peers.go",
		Old:  "		x.absent.Store(true)",
		New:  "		x.absent.Store(false)",
		Test: []string{"./raftnode", "-run", "EmptyDirectory/first_list"},
	}, {
		Name: "old-copy-founds", What: "a copy of a directory from before it had a log is taken for the member",
		File: "raftnode/members.go",
		Old:  "!known.IsZero() && x.Attributes != (Attributes{}):",
		New:  "!known.IsZero() && x.ID == 0:",
		Test: []string{"./raftnode", "-run", "Standing"},
	}, {
		Name: "mark-without-flush", What: "the log is released for a store that was not flushed",
		File: "raftnode/replica.go",
		Old:  "	index, err := r.sm.Flush()",
		New:  "	index, _ := r.sm.Applied()\n	var err error",
	}, {
		Name: "commit-not-raised", What: "the commit index stays behind a flushed store",
		File: "raftnode/replica.go",
		Old:  "max(rec.state.GetCommit(), applied, provenCommit(rec.entries))",
		New:  "max(rec.state.GetCommit(), provenCommit(rec.entries))",
	}, {
		Name: "rejected-change-made", What: "raft carries out a configuration change that the records rejected",
		File: "raftnode/applier.go",
		Old:  "		if s.err != nil {\n			cc = nil\n		}\n",
		New:  "",
		Test: []string{"./raftnode"},
	}, {
		Name: "stale-entries", What: "entries from before a received snapshot come back at a start",
		File: "raftnode/disk.go",
		Old:  "		if e.GetTerm() < term {\n			return entries[:i]\n		}",
		New:  "		if e.GetTerm() < term && i < 0 {\n			return entries[:i]\n		}",
		Test: []string{"./raftnode"},
	}, {
		Name: "snapshot-unread", What: "a received snapshot is taken before its content was verified",
		File: "raftnode/snapfile.go",
		Old:  "	_, err := io.Copy(io.Discard, content)\n	return err",
		New:  "	_, _ = io.Copy(io.Discard, content)\n	return nil",
	}, {
		Name: "members-not-installed", What: "a snapshot is installed without its member records",
		File: "raftnode/replica.go",
		Old:  "	r.applier.setMembership(index, members)\n",
		New:  "	_ = members\n",
	}, {
		Name: "snapshot-directory-unsynced", What: "the name of a snapshot file is not synced before the log mentions it",
		File: "raftnode/disk.go",
		Old:  "	if err := d.syncDir(filepath.Join(d.dir, snapDir)); err != nil {\n		return err\n	}\n",
		New:  "",
		Test: []string{"./raftnode"},
	}, {
		Name: "start-unsaved", What: "a member tells others of a start that its directory does not remember",
		File: "raftnode/identity.go",
		Old:  "	id.Starts = id.Starts.With(newBootID())\n	return id.save(dir)",
		New:  "	err := id.save(dir)\n	id.Starts = id.Starts.With(newBootID())\n	return err",
		Test: []string{"./raftnode", "-run", "OlderCopy"},
	}, {
		Name: "start-not-noted", What: "the start of a member is noted in memory alone",
		File: "raftnode/boots.go",
		Old:  "	if err := next.save(p.n.cfg.Dir); err != nil {",
		New:  "	if err := error(nil); err != nil {",
		Test: []string{"./raftnode", "-run", "OlderCopy|Copy"},
	}, {
		Name: "copies-admitted", What: "a directory that was put back is let in",
		File: "raftnode/boots.go",
		Old:  "func (l BootList) Has(id BootID) bool { return id == 0 || slices.Contains(l, id) }",
		New:  "func (l BootList) Has(id BootID) bool { return id == 0 || slices.Contains(l, id) || len(l) > 0 }",
	}, {
		Name: "own-disk-alone", What: "a node refuses messages for its own disk alone, not for another voter's",
		File: "raftnode/verdict.go",
		Old:  "	v.low = w.lowVoter(voters)\n",
		New:  "	v.low = 0\n",
	}, {
		Name: "low-for-ever", What: "that a disk has room again is not heard",
		File: "raftnode/verdict.go",
		Old:  "			s.told, s.low = told, d.Low\n",
		New:  "			s.told, s.low = told, d.Low || s.low\n",
	}, {
		Name: "clock-of-one", What: "a clock is judged against the one that is most behind, not against the median",
		File: "raftnode/watch.go",
		Old:  "	return offsets[(len(offsets)-1)/2]",
		New:  "	return offsets[0]",
		Test: []string{"./raftnode", "-run", "Clock|Median"},
	}, {
		Name: "clock-unjudged", What: "a node proposes whatever its clock says",
		File: "raftnode/verdict.go",
		Old:  "		v.ahead, v.off = ahead, ahead.Abs() > limit",
		New:  "		v.ahead, v.off = ahead, false",
	}, {
		Name: "heir-once", What: "a leader that is to stop asks one other member to take over, and no more",
		File: "raftnode/handover.go",
		Old:  "|| len(heirs) == 1 ||",
		New:  "|| len(heirs) > 0 ||",
		Test: []string{"./raftnode", "-run", "Bequeath"},
	}, {
		Name: "first-start-only", What: "of each member only the first start that was met is remembered",
		File: "raftnode/boots.go",
		Old:  "m.Older(id, boots) || m[id] == boots[len(boots)-1] {",
		New:  "m.Older(id, boots) || m[id] != 0 {",
	}, {
		Name: "call-back-of-a-copy", What: "a call back asks for the secret alone, not which directory it is",
		File: "raftnode/trust.go",
		Old:  "	if err := p.noteStart(x.id, reply.Starts); err != nil {\n		return err\n	}\n",
		New:  "",
		Test: []string{"./raftnode", "-run", "Copy"},
	}, {
		Name: "outlier-goes-on", What: "a member whose state a majority contradicts goes on",
		File: "raftnode/agreement.go",
		Old:  "	case decided && v.Own != v.Majority:",
		New:  "	case decided && v.Own != v.Majority && len(v.Differ) == 0:",
	}, {
		Name: "compares-with-a-replaced-state", What: "a comparison goes on with what this member held before a snapshot",
		File: "raftnode/agreement.go",
		Old:  "!known || hash != own {",
		New:  "known && index == 0 && hash != own {",
		Test: []string{"./raftnode", "-run", "Agreement"},
	}, {
		Name: "outlier-comes-back", What: "a start brings a directory back whose state a majority contradicted",
		File: "raftnode/identity.go",
		Old:  "	if id.Outlier != \"\" {",
		New:  "	if id.Outlier != \"\" && id.MemberID == 0 {",
		Test: []string{"./raftnode", "-run", "Outlier"},
	}, {
		Name: "few-stop-many", What: "two that agree stop a third, however many voters there are",
		File: "raftnode/agreement.go",
		Old:  "votes[hash] > len(voters)/2 {",
		New:  "votes[hash] > 1 {",
		Test: []string{"./raftnode", "-run", "CompareStates|NoMajority"},
	}}
}
