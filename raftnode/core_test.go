package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// sim is three cores in one goroutine. Messages, disks and the apply steps
// move only when the test says so; nothing depends on time. Followers are
// never ticked so far that raft's random election timeout matters.
type sim struct {
	t       *testing.T
	members []*simMember // member id - 1
	net     []*raftpb.Message
	drop    func(m *raftpb.Message) bool
	sent    map[raftpb.MessageType]int
	events  []string // outcomes in the order in which they were told
}

type simMember struct {
	*core
	storage   *raft.MemoryStorage
	applied   atomic.Uint64
	lines     []string
	holdDisk  bool
	holdApply bool
	appends   []*raftpb.Message
	applies   []*raftpb.Message
}

func newSim(t *testing.T) *sim {
	s := &sim{t: t, drop: func(*raftpb.Message) bool { return false }, sent: map[raftpb.MessageType]int{}}
	peers := []Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}
	logger := slog.New(slog.DiscardHandler)
	for id := uint64(1); id <= 3; id++ {
		m := &simMember{storage: raft.NewMemoryStorage()}
		if err := m.storage.ApplySnapshot(bootstrapSnapshot(peers)); err != nil {
			t.Fatal(err)
		}
		if err := m.storage.SetHardState(&raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}); err != nil {
			t.Fatal(err)
		}
		m.applied.Store(1)
		rn, err := raft.NewRawNode(&raft.Config{
			ID: id, ElectionTick: 10, HeartbeatTick: 1, Storage: m.storage, Applied: 1,
			AsyncStorageWrites: true, PreVote: true, CheckQuorum: true, StepDownOnRemoval: true,
			MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256, MaxUncommittedEntriesSize: 4 << 10,
			ReadOnlyOption: raft.ReadOnlySafe, Logger: raftLogger{logger},
		})
		if err != nil {
			t.Fatal(err)
		}
		m.core = &core{id: id, self: Incarnation{byte(id)}, logger: logger, rn: rn, waiters: newWaiters(), applied: &m.applied,
			electionTicks: 10, maxInFlight: 2, sequence: id << 40, term: 1, commit: 1}
		s.members = append(s.members, m)
	}
	return s
}

func (s *sim) at(id uint64) *simMember { return s.members[id-1] }

// elect makes a member the leader, also while another one leads.
func (s *sim) elect(id uint64) {
	s.t.Helper()
	m := s.at(id)
	if m.lead == raft.None {
		if err := m.rn.Campaign(); err != nil {
			s.t.Fatal(err)
		}
	} else {
		m.step(&raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: new(m.lead), To: new(id), Term: new(m.term)})
	}
	s.run()
	if m.role != raft.StateLeader {
		s.t.Fatalf("member %d is %v", id, m.role)
	}
}

// run goes on until nothing moves any more.
func (s *sim) run() {
	for moved := true; moved; {
		moved = false
		for _, m := range s.members {
			m.advanceReads()
			for {
				out, any := m.ready()
				if !any {
					break
				}
				moved = true
				s.net = append(s.net, out.send...)
				if out.append != nil {
					m.appends = append(m.appends, out.append)
				}
				if out.apply != nil {
					m.applies = append(m.applies, out.apply)
				}
				if len(out.snapshots) > 0 {
					s.t.Fatal("a snapshot is asked for")
				}
			}
			moved = s.write(m) || moved
			moved = s.apply(m) || moved
		}
		net := s.net
		s.net = nil
		for _, msg := range net {
			s.sent[msg.GetType()]++
			if !s.drop(msg) {
				s.at(msg.GetTo()).step(msg)
				moved = true
			}
		}
	}
}

func (s *sim) respond(m *simMember, message *raftpb.Message) {
	for _, r := range message.GetResponses() {
		if r.GetTo() == m.id {
			m.step(r)
		} else {
			s.net = append(s.net, r)
		}
	}
}

func (s *sim) write(m *simMember) bool {
	if m.holdDisk || len(m.appends) == 0 {
		return false
	}
	for _, a := range m.appends {
		if len(a.GetEntries()) > 0 {
			if err := m.storage.Append(a.GetEntries()); err != nil {
				s.t.Fatal(err)
			}
		}
		s.respond(m, a)
	}
	m.appends = nil
	return true
}

func (s *sim) apply(m *simMember) bool {
	if m.holdApply || len(m.applies) == 0 {
		return false
	}
	for _, a := range m.applies {
		for _, e := range a.GetEntries() {
			if len(e.GetData()) > 0 {
				_, id, payload, err := decodeEntry(e.GetData())
				if err != nil {
					s.t.Fatal(err)
				}
				m.lines = append(m.lines, string(payload))
				m.applied.Store(e.GetIndex())
				if id.proposer == m.self {
					m.waiters.resolve(id.sequence, e.GetIndex(), nil)
				}
			}
			m.applied.Store(e.GetIndex())
		}
		s.respond(m, a)
	}
	m.applies = nil
	return true
}

// tick ticks members and lets everything settle.
func (s *sim) tick(n int, ids ...uint64) {
	for range n {
		for _, id := range ids {
			s.at(id).tick()
		}
		s.run()
	}
}

// outcome is what a caller was told.
type outcome struct {
	calls int
	err   error
}

func (o *outcome) code() string {
	var e *Error
	switch {
	case o.calls == 0:
		return "waiting"
	case o.calls > 1:
		return fmt.Sprintf("told %d times", o.calls)
	case o.err == nil:
		return "ok"
	case errors.As(o.err, &e):
		return e.Code
	}
	return o.err.Error()
}

func (s *sim) propose(id uint64, line string) *outcome {
	o := &outcome{}
	s.at(id).propose(&proposal{kind: kindApplication, payload: []byte(line), done: func(_ any, err error) {
		o.calls++
		o.err = err
		s.events = append(s.events, line+" "+o.code())
		// Told of success: a majority has it on disk, and the teller has applied it.
		if copies := s.copies(line); err == nil && copies < 2 {
			s.t.Errorf("%s was acknowledged with %d copies", line, copies)
		}
		if err == nil && !slices.Contains(s.at(id).lines, line) {
			s.t.Errorf("%s was acknowledged before it was applied", line)
		}
	}})
	return o
}

// copies counts the disks that have a line.
func (s *sim) copies(line string) (n int) {
	for _, m := range s.members {
		first, _ := m.storage.FirstIndex()
		last, _ := m.storage.LastIndex()
		if last < first {
			continue
		}
		entries, err := m.storage.Entries(first, last+1, 1<<30)
		if err != nil {
			s.t.Fatal(err)
		}
		if slices.ContainsFunc(entries, func(e *raftpb.Entry) bool {
			_, _, payload, err := decodeEntry(e.GetData())
			return err == nil && string(payload) == line
		}) {
			n++
		}
	}
	return n
}

// read asks for a linearizable read. Success must not come before everything
// that was committed anywhere by now is applied here.
func (s *sim) read(id uint64) *outcome {
	var commit uint64
	for _, m := range s.members {
		commit = max(commit, m.rn.BasicStatus().HardState.GetCommit())
	}
	o := &outcome{}
	s.at(id).read(func(err error) {
		o.calls++
		o.err = err
		s.events = append(s.events, "read "+o.code())
		if got := s.at(id).applied.Load(); err == nil && got < commit {
			s.t.Errorf("a read at member %d returned with %d applied, %d was committed before it began", id, got, commit)
		}
	})
	return o
}

func (s *sim) want(what string, o *outcome, code string) {
	s.t.Helper()
	if got := o.code(); got != code {
		s.t.Errorf("%s: %s, want %s", what, got, code)
	}
}

// cut drops everything from and to a member.
func (s *sim) cut(id uint64) {
	s.drop = func(m *raftpb.Message) bool { return m.GetFrom() == id || m.GetTo() == id }
}

func (s *sim) heal() { s.drop = func(*raftpb.Message) bool { return false } }

func dropTypes(types ...raftpb.MessageType) func(*raftpb.Message) bool {
	return func(m *raftpb.Message) bool { return slices.Contains(types, m.GetType()) }
}

func TestProposalIsAcknowledgedByAMajority(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.drop = dropTypes(raftpb.MsgApp)
	a := s.propose(1, "a")
	s.run()
	if s.copies("a") != 1 {
		t.Fatal("the leader has not written it")
	}
	s.want("on the leader alone", a, "waiting")

	s.at(2).holdDisk, s.at(3).holdDisk = true, true
	s.heal()
	s.tick(2, 1)
	s.want("received, not written by the followers", a, "waiting")
	s.at(3).holdDisk = false
	s.run()
	s.want("on two disks", a, "ok")

	// The leader's own disk is only one of three, but it counts only when it
	// is written.
	s.at(1).holdDisk, s.at(3).holdDisk = true, true
	b := s.propose(1, "b")
	s.run()
	s.want("on no disk", b, "waiting")
	s.at(3).holdDisk = false
	s.run()
	s.want("on one disk", b, "waiting")
	s.at(2).holdDisk, s.at(1).holdDisk = false, false
	s.run()
	s.want("everywhere", b, "ok")
}

func TestForwardedProposalIsAnsweredByTheMemberThatMadeIt(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.at(2).holdApply = true
	o := s.propose(2, "from 2")
	s.run()
	s.want("committed, not applied at 2", o, "waiting")
	if !slices.Contains(s.at(1).lines, "from 2") {
		t.Fatal("not applied at the leader")
	}
	s.at(2).holdApply = false
	s.run()
	s.want("applied", o, "ok")
}

func TestChangeOfLeaderAnswersEveryoneAtOnce(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.cut(1)
	var waiting []*outcome
	for i := range 5 {
		waiting = append(waiting, s.propose(1, fmt.Sprint("at the leader ", i)))
	}
	s.run()
	s.drop = func(m *raftpb.Message) bool {
		return m.GetFrom() == 1 || m.GetTo() == 1 || m.GetType() == raftpb.MsgProp
	}
	waiting = append(waiting, s.propose(2, "at the next leader"), s.propose(3, "at a follower"))
	s.run()
	for i, o := range waiting {
		s.want(fmt.Sprint("before: ", i), o, "waiting")
	}
	s.elect(2)
	s.want("at the next leader", waiting[5], CodeOutcomeUnknown)
	s.want("at a follower", waiting[6], CodeOutcomeUnknown)
	s.want("cut off", waiting[0], "waiting")
	s.heal()
	s.tick(1, 2)
	for i, o := range waiting {
		s.want(fmt.Sprint("after: ", i), o, CodeOutcomeUnknown)
	}
	if len(s.at(1).inFlight) != 0 || !s.at(1).accepting() {
		t.Error("what was answered counts as under way")
	}
	// The answer stays the only one, whatever becomes of the entries.
	s.want("new", s.propose(2, "new"), "waiting")
	s.tick(3, 2)
	for i, o := range waiting {
		s.want(fmt.Sprint("at the end: ", i), o, CodeOutcomeUnknown)
	}
	for _, m := range s.members {
		if !slices.Equal(m.lines, []string{"new"}) {
			t.Errorf("member %d has %q", m.id, m.lines)
		}
	}
}

// A leader that hears nobody steps down, and says so.
func TestLeaderWithoutAMajoritySaysSo(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.cut(1)
	write, read := s.propose(1, "limbo"), s.read(1)
	s.tick(20, 1)
	s.want("write", write, CodeOutcomeUnknown)
	s.want("read", read, CodeNoLeader)
	write, read = s.propose(1, "refused"), s.read(1)
	s.want("later write", write, CodeNoLeader)
	s.want("later read", read, CodeNoLeader)
	s.run()
	if s.copies("refused") != 0 {
		t.Error("a refused proposal is in a log")
	}
}

func TestReadsShareARound(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.want("first", s.propose(1, "a"), "waiting")
	s.run()
	var first []*outcome
	for range 10 {
		first = append(first, s.read(2))
	}
	s.drop = dropTypes(raftpb.MsgReadIndexResp)
	s.run()
	if got := s.sent[raftpb.MsgReadIndex]; got != 1 {
		t.Errorf("%d rounds for the first ten", got)
	}
	// Who comes later must not ride on a round that began before.
	var second []*outcome
	for range 10 {
		second = append(second, s.read(2))
		s.run()
	}
	if got := s.sent[raftpb.MsgReadIndex]; got != 1 {
		t.Errorf("%d rounds while the first is under way", got)
	}
	for _, o := range slices.Concat(first, second) {
		s.want("answer lost", o, "waiting")
	}
	s.heal()
	s.tick(3, 2)
	for _, o := range slices.Concat(first, second) {
		s.want("asked again", o, "ok")
	}
	if got := s.sent[raftpb.MsgReadIndex]; got != 3 {
		t.Errorf("%d rounds in all, want the first, its repetition and the second", got)
	}
	if len(s.at(2).reads.confirmed)+len(s.at(2).reads.round)+len(s.at(2).reads.waiting) != 0 {
		t.Error("something is left over")
	}
}

// Over a slow network the answer to a request comes after the next request.
func TestReadIsConfirmedByALateAnswer(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.propose(1, "a")
	s.tick(2, 1)
	var late []*raftpb.Message
	s.drop = func(m *raftpb.Message) bool {
		if m.GetType() == raftpb.MsgReadIndexResp {
			late = append(late, m)
			return true
		}
		return false
	}
	early := s.read(2)
	s.run()
	s.tick(3, 2) // asks again
	later := s.read(2)
	s.run()
	if len(late) != 2 {
		t.Fatalf("%d answers, want 2", len(late))
	}
	s.want("before an answer", early, "waiting")
	s.at(2).step(late[0])
	s.run()
	s.want("after the answer to the first request", early, "ok")
	s.want("a read that came after it", later, "waiting")
	s.heal()
	s.tick(3, 2)
	s.want("after a round of its own", later, "ok")
}

func TestReadWaitsForTheAppliedIndex(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.run()
	for id := uint64(1); id <= 3; id++ {
		s.at(id).holdApply = true
		s.propose(1, fmt.Sprint("for ", id))
		s.run()
		o := s.read(id)
		s.run()
		s.want(fmt.Sprint("confirmed, not applied at ", id), o, "waiting")
		if len(s.at(id).reads.confirmed) != 1 {
			t.Errorf("member %d: the read is not confirmed", id)
		}
		s.at(id).holdApply = false
		s.run()
		s.want(fmt.Sprint("applied at ", id), o, "ok")
	}
}

// A leader that was replaced without knowing it must not confirm reads.
func TestReplacedLeaderConfirmsNoRead(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.cut(1)
	s.elect(2)
	s.propose(2, "unseen by 1")
	s.run()
	o := s.read(1)
	s.tick(8, 1)
	s.want("cut off", o, "waiting")
	s.heal()
	s.tick(4, 2)
	s.tick(4, 1, 2)
	s.want("as a follower", o, "ok") // read checks what is applied
	if !slices.Contains(s.at(1).lines, "unseen by 1") {
		t.Error("the read came too early")
	}
}

// A new leader knows what is committed only when an entry of its own term is.
func TestNewLeaderHoldsReadsBackUntilItCommits(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.propose(1, "a")
	s.run()
	s.drop = dropTypes(raftpb.MsgApp, raftpb.MsgAppResp)
	s.at(2).step(&raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(s.at(2).term)})
	s.run()
	o := s.read(2)
	s.run()
	s.want("nothing committed in its term", o, "waiting")
	s.heal()
	s.tick(4, 2)
	s.want("committed", o, "ok")
}

func TestTransferWaitsForOwnProposals(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.drop = dropTypes(raftpb.MsgApp)
	pending := s.propose(1, "pending")
	s.run()
	moved := &outcome{}
	s.at(1).transferTo(2, func(err error) {
		moved.calls++
		moved.err = err
		s.events = append(s.events, "moved "+moved.code())
	})
	s.run()
	if got := s.at(1).rn.BasicStatus().LeadTransferee; got != raft.None {
		t.Error("the transfer began with a proposal under way")
	}
	if s.at(1).accepting() {
		t.Error("a proposal is taken in during a transfer")
	}
	var second error
	s.at(1).transferTo(3, func(err error) { second = err })
	var e *Error
	if !errors.As(second, &e) || e.Code != CodeTransferFailed {
		t.Errorf("a second transfer: %v", second)
	}
	s.heal()
	s.tick(1, 1)
	s.want("pending", pending, "ok")
	s.tick(1, 1)
	s.want("moved", moved, "ok")
	if s.at(2).role != raft.StateLeader {
		t.Error("member 2 does not lead")
	}
	if got := strings.Join(s.events, ", "); got != "pending ok, moved ok" {
		t.Error(got)
	}
	if !s.at(1).accepting() {
		t.Error("nothing is taken in after the transfer")
	}
}

func TestTransferDoesNotWaitForAVanishedProposal(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.at(1).inFlight = append(s.at(1).inFlight, flight{77, 0})
	s.at(1).waiters.add(77, func(any, error) {})
	moved := &outcome{}
	s.at(1).transferTo(3, func(err error) { moved.calls++; moved.err = err })
	s.run()
	s.want("at once", moved, "waiting")
	s.tick(1, 1)
	s.want("after a tick", moved, "waiting")
	s.tick(1, 1)
	s.want("after two ticks", moved, "ok")
	if s.at(3).role != raft.StateLeader {
		t.Error("member 3 does not lead")
	}
}

func TestTransferEnds(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	moved := func(from, to uint64) *outcome {
		o := &outcome{}
		s.at(from).transferTo(to, func(err error) { o.calls++; o.err = err })
		s.run()
		return o
	}
	s.want("by a follower", moved(2, 3), CodeNoLeader)
	s.want("to itself", moved(1, 1), "ok")

	s.cut(2)
	o := moved(1, 2)
	s.tick(10, 1)
	s.want("within an election timeout", o, "waiting")
	s.tick(1, 1)
	s.want("to a dead member", o, CodeTransferFailed)
	if !s.at(1).accepting() || s.at(1).role != raft.StateLeader {
		t.Error("the leader does not go on")
	}
	after := s.propose(1, "after")
	s.run()
	s.want("write after a failed transfer", after, "ok")

	o = moved(1, 2)
	s.at(1).stop()
	s.want("stopped", o, CodeStopping)
}

func TestAcceptingFreesAVanishedForward(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	m := s.at(2)
	if !m.accepting() {
		t.Fatal("nothing is under way")
	}
	s.drop = dropTypes(raftpb.MsgProp)
	first := s.propose(2, "lost 1")
	if !m.accepting() {
		t.Error("one of two is under way")
	}
	second := s.propose(2, "lost 2")
	s.run()
	if m.accepting() {
		t.Error("two of two are under way")
	}
	s.tick(1, 1, 2)
	if m.accepting() {
		t.Error("freed after one tick")
	}
	s.tick(1, 1, 2)
	if !m.accepting() {
		t.Error("a vanished forward stalls the member")
	}
	s.want("first", first, "waiting")
	s.want("second", second, "waiting")
	s.heal()
	s.want("third", s.propose(2, "third"), "waiting")
	fourth := s.propose(2, "fourth")
	if m.accepting() {
		t.Error("two new ones are under way")
	}
	s.run()
	s.want("fourth", fourth, "ok")
	if !m.accepting() {
		t.Error("answered proposals count")
	}
	s.elect(3)
	s.want("first, at the end", first, CodeOutcomeUnknown)
	if len(m.inFlight) != 0 {
		t.Error("in flight for ever")
	}
}

func TestProposalsAreRefusedWhenTooMuchWaits(t *testing.T) {
	s := newSim(t)
	s.want("no leader yet", s.propose(1, "early"), CodeNoLeader)
	s.elect(1)
	s.drop = dropTypes(raftpb.MsgApp)
	var last *outcome
	for i := range 8 {
		last = s.propose(1, fmt.Sprint(i, strings.Repeat("x", 1<<10)))
	}
	s.want("beyond the uncommitted size", last, CodeOverloaded)
	s.heal()
	s.tick(4, 1)
	s.want("when that is committed", s.propose(1, "small"), "waiting")
	s.run()
	s.at(1).commit = s.at(1).applied.Load() + maxApplyLag + 1
	s.want("apply lags", s.propose(1, "lag"), CodeOverloaded)
	if s.copies("lag") != 0 {
		t.Error("a refused proposal is in a log")
	}
}

func TestStopAnswersEveryone(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.at(1).holdApply = true
	confirmed := s.propose(1, "x")
	s.run()
	applied := s.read(1)
	s.run()
	s.cut(1)
	write, round := s.propose(1, "y"), s.read(1)
	s.run()
	waiting := s.read(1)
	s.at(1).stop()
	s.want("committed write", confirmed, CodeOutcomeUnknown)
	s.want("write", write, CodeOutcomeUnknown)
	s.want("confirmed read", applied, CodeStopping)
	s.want("read in a round", round, CodeStopping)
	s.want("waiting read", waiting, CodeStopping)
	s.at(1).stop()
	s.want("a second stop", write, CodeOutcomeUnknown)
}

// Raft hears of a rejected change too: it holds the next one back until then.
func TestRejectedChangeFreesTheNext(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	change := &raftpb.ConfChange{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(3))}
	if got := s.at(1).applyConfChange(nil); !slices.Equal(got.GetVoters(), []uint64{1, 2, 3}) {
		t.Errorf("after a rejected change: %v", got)
	}
	if got := s.at(1).applyConfChange(change); !slices.Equal(got.GetVoters(), []uint64{1, 2}) {
		t.Errorf("after a change: %v", got)
	}
}

// Random loss, held disks and changes of leader: everyone is told exactly
// once, what was acknowledged stays, and all logs agree.
func TestRandomSchedules(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 42))
			s := newSim(t)
			s.elect(1)
			leader := uint64(1)
			writes, reads := map[string]*outcome{}, []*outcome{}
			for step := range 120 {
				id := r.Uint64N(3) + 1
				switch r.IntN(10) {
				case 0, 1, 2, 3:
					line := fmt.Sprint("line ", step)
					writes[line] = s.propose(id, line)
				case 4:
					reads = append(reads, s.read(id))
				case 5:
					loss := r.IntN(60)
					s.drop = func(*raftpb.Message) bool { return r.IntN(100) < loss }
				case 6:
					s.at(id).holdDisk = !s.at(id).holdDisk
				case 7:
					s.at(id).holdApply = !s.at(id).holdApply
				case 8:
					m := s.at(id)
					if m.lead != raft.None && m.role != raft.StateLeader {
						m.step(&raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), From: new(m.lead), To: new(id), Term: new(m.term)})
					}
				case 9:
					s.heal()
				}
				s.run()
				for _, m := range s.members {
					if m.role == raft.StateLeader {
						m.tick()
					}
				}
				s.run()
			}
			s.heal()
			for _, m := range s.members {
				m.holdDisk, m.holdApply = false, false
			}
			s.run()
			leader = s.settle(leader)
			final := s.propose(leader, "final")
			s.tick(4, leader)
			s.want("final", final, "ok")
			for _, m := range s.members {
				if !slices.Equal(m.lines, s.at(leader).lines) {
					t.Errorf("member %d has %q, the leader %q", m.id, m.lines, s.at(leader).lines)
				}
				m.stop()
			}
			for line, o := range writes {
				n := 0
				for _, l := range s.at(leader).lines {
					if l == line {
						n++
					}
				}
				code := o.code()
				if o.calls != 1 || n > 1 || code == "ok" && n != 1 || code != "ok" && code != CodeOutcomeUnknown && n != 0 {
					t.Errorf("%s: %s, and it is there %d times", line, code, n)
				}
			}
			for _, o := range reads {
				if o.calls != 1 {
					t.Errorf("read: %s", o.code())
				}
			}
		})
	}
}

// settle makes sure that there is one leader.
func (s *sim) settle(id uint64) uint64 {
	s.t.Helper()
	for range 20 {
		var leaders []*simMember
		for _, m := range s.members {
			if m.role == raft.StateLeader {
				leaders = append(leaders, m)
			}
		}
		for _, m := range leaders {
			m.tick()
		}
		s.run()
		if len(leaders) == 1 && !slices.ContainsFunc(s.members, func(m *simMember) bool { return m.lead != leaders[0].id }) {
			return leaders[0].id
		}
		if len(leaders) == 0 {
			for _, m := range s.members {
				if m.role != raft.StateLeader {
					_ = m.rn.Campaign() // refused when it cannot
					s.run()
				}
			}
		}
	}
	s.t.Fatal("no leader")
	return id
}
