package planted

func chatBugs() []Bug {
	return []Bug{{
		Name: "no-dedup", What: "a client message id is not looked up",
		File: "chat/cmd_post.go",
		Old:  "	case f.prior.seq == 0:",
		New:  "	case true:",
	}, {
		Name: "trim-frees-ids", What: "a client message id is free again once its message was dropped",
		File: "chat/cmd_post.go",
		Old:  "			if f.prior, err = a.prior(rm, c.clientID); err != nil {\n				return res, err\n			}",
		New:  "			if f.prior, err = a.prior(rm, c.clientID); err != nil {\n				return res, err\n			}\n			if f.prior.dropped {\n				f.prior = dedupRecord{}\n			}",
	}, {
		Name: "tombstones-per-apply", What: "that a message was dropped in the running Apply is not known to what follows in it",
		File: "chat/dedup.go",
		Old:  "	a.priors[dedupKey{rm.number, clientID}] = r\n	f :=",
		New:  "	f :=",
		Test: []string{"./chat", "-run", "Scripts|Trim"},
	}, {
		Name: "purge-without-window", What: "a purge forgets up to whatever its proposer says",
		File: "chat/cmd_purge.go",
		Old:  "	return min(c.beforeUS, nowUS-s.dedupWindow.Microseconds())",
		New:  "	return c.beforeUS",
		Test: []string{"./chat", "-run", "Scripts|Trim"},
	}, {
		Name: "dedup-not-in-snapshot", What: "client message ids are left out of snapshots",
		File: "chat/snapshot.go",
		Old:  "		key := it.Key()\n		if len(buf) >= contentChunk {",
		New:  "		key := it.Key()\n		if key[0] == prefixDedup {\n			continue\n		}\n		if len(buf) >= contentChunk {",
	}, {
		Name: "applied-index-left-out", What: "a batch does not hold the applied index of its entries",
		File: "chat/apply.go",
		Old:  "	return results, a.batch.Set(countersKey(), a.now.append(nil), nil)",
		New:  "	before := a.now\n	if before.id%5 == 4 {\n		return results, nil\n	}\n	return results, a.batch.Set(countersKey(), before.append(nil), nil)",
	}, {
		Name: "time-goes-back", What: "messages are dated by whoever proposes them",
		File: "chat/apply.go",
		Old:  "	a.postedUS = max(a.now.postedAtUS, a.entry.timeUS)",
		New:  "	a.postedUS = a.entry.timeUS",
	}, {
		Name: "apply-depends-on-cache", What: "apply looks at what this node happens to have cached",
		File: "chat/apply.go",
		Old:  "	a.postedUS = max(a.now.postedAtUS, a.entry.timeUS)",
		New:  "	a.postedUS = max(a.now.postedAtUS, a.entry.timeUS+int64(a.rooms.order.Len()))",
	}, {
		Name: "store-directory-unsynced", What: "the names of a swapped store are not synced",
		File: "chat/snapshot.go",
		Old:  "	return errors.Join(d.Sync(), d.Close())",
		New:  "	return d.Close()",
	}, {
		Name: "restored-in-place", What: "a snapshot is built under the name that makes it count",
		File: "chat/snapshot.go",
		Old:  "	tmp := s.fs.PathJoin(s.dir, tmpName)\n	defer func() {",
		New:  "	tmp := s.fs.PathJoin(s.dir, newName)\n	defer func() {",
		Test: []string{"./chat", "-run", "Restore|Swap|FullDisk"},
	}, {
		Name: "open-waits-for-ever", What: "who waits for the engine is not told that the disk is full",
		File: "chat/engine.go",
		Old:  "	case <-t.failed:\n		timer :=",
		New:  "	case <-t.failed:\n		<-done\n		timer :=",
		Test: []string{"./chat", "-run", "FullDisk"},
	}, {
		Name: "cursor-off-by-one", What: "a stream's cursor stops one short",
		File: "chat/stream.go",
		Old:  "		st.cursor = d.Messages[len(d.Messages)-1].ID",
		New:  "		st.cursor = d.Messages[len(d.Messages)-1].ID - 1",
	}, {
		Name: "wake-before-commit", What: "subscribers are woken before they can see why",
		File: "chat/hub.go",
		Old:  "	publish()\n	h.mu.Unlock()\n	h.signal()\n}\n\n// reset forgets",
		New:  "	h.mu.Unlock()\n	h.signal()\n	publish()\n}\n\n// reset forgets",
		Test: []string{"./chat"},
	}, {
		Name: "one-is-woken", What: "only one subscriber of a room is woken",
		File: "chat/hub.go",
		Old:  "		case s.wake <- struct{}{}:\n",
		New:  "		case s.wake <- struct{}{}:\n			return\n",
	}, {
		Name: "gap-untold", What: "a stream passes over dropped messages in silence",
		File: "chat/merge.go",
		Old:  "	place(gaps, until)",
		New:  "	gaps = nil",
	}, {
		Name: "restore-wakes-nobody", What: "subscribers are not told that a snapshot has replaced the store",
		File: "chat/snapshot.go",
		Old:  "	s.hub.reset(func() { s.published.Store(p) })",
		New:  "	s.published.Store(p)",
		Test: []string{"./chat"},
	}, {
		Name: "seq-per-node", What: "a room that is not cached is counted anew",
		File: "chat/apply.go",
		Old:  "	rm := &room{name: strings.Clone(name), roomRecord: rec, roomState: st}",
		New:  "	st.messages = 0\n	rm := &room{name: strings.Clone(name), roomRecord: rec, roomState: st}",
	}, {
		Name: "hash-of-the-entry-before", What: "the hash of a past entry is that of the one before it",
		File: "chat/hashes.go",
		Old:  "		return h.recent[i].hash, true",
		New:  "		return h.recent[max(i-1, 0)].hash, true",
		Test: []string{"./chat", "-run", "Hash"},
	}}
}
