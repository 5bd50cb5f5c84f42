package raftnode

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// screened is a member of three that a test sends messages to, over a disk that
// keeps nothing.
type screened struct {
	*Replica
	tb     testing.TB
	staged map[uint64][]byte
	failed error
	sent   []*raftpb.Message
}

func newScreened(tb testing.TB) *screened {
	sm, err := openLedger(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	s := &screened{tb: tb, staged: map[uint64][]byte{}}
	peers := []Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}
	s.Replica, err = OpenReplica(ReplicaConfig{
		ID: 1, Incarnation: Incarnation{1}, Boots: 1, Bootstrap: peers, Disk: &recordingDisk{}, StateMachine: sm,
		ElectionTicks: 10, MaxInFlight: 8, CatchUpBytes: 1 << 20,
		Staged: func(index uint64, f func(io.Reader) error) error { return f(bytes.NewReader(s.staged[index])) },
	}, NewLog(peers))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// settle does all the work that waits.
func (s *screened) settle() {
	for s.failed == nil {
		work, any := s.Ready()
		if !any {
			return
		}
		s.sent = append(s.sent, work.Send...)
		s.sent = append(s.sent, work.Snapshots...)
		do := func(m *raftpb.Message, step func(...*raftpb.Message) ([]*raftpb.Message, error)) {
			if m == nil || s.failed != nil {
				return
			}
			responses, err := step(m)
			if s.failed = err; err != nil {
				return
			}
			for _, r := range responses {
				if r.GetTo() == 1 {
					s.Step(r)
				} else {
					s.sent = append(s.sent, r)
				}
			}
		}
		do(work.Append, s.Append)
		do(work.Apply, s.Apply)
	}
}

// lead makes it the leader, by the votes of member 2.
func (s *screened) lead() {
	for s.Status().Role != "leader" {
		s.Tick()
		s.settle()
		for _, m := range s.takeSent() {
			if kind := m.GetType(); m.GetTo() == 2 && (kind == raftpb.MsgPreVote || kind == raftpb.MsgVote) {
				answer := raftpb.MsgVoteResp
				if kind == raftpb.MsgPreVote {
					answer = raftpb.MsgPreVoteResp
				}
				s.Step(message(answer, 2, m.GetTerm()))
				s.settle()
			}
		}
	}
	s.settle()
}

func (s *screened) takeSent() []*raftpb.Message {
	sent := s.sent
	s.sent = nil
	return sent
}

func message(kind raftpb.MessageType, from, term uint64) *raftpb.Message {
	m := &raftpb.Message{Type: kind.Enum(), From: new(from), To: new(uint64(1))}
	if term > 0 {
		m.Term = new(term)
	}
	return m
}

func with(m *raftpb.Message, edit func(m *raftpb.Message)) *raftpb.Message {
	edit(m)
	return m
}

func position(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// An impossible message is dropped and counted, whatever number in it is out of
// bounds; raft would panic on most of these. The possible one next to it is not.
func TestImpossibleMessagesAreDropped(t *testing.T) {
	entry := func(term, index uint64) *raftpb.Entry {
		return &raftpb.Entry{Term: new(term), Index: new(index), Data: appendEntry(nil, kindApplication, requestID{}, []byte("x"))}
	}
	change := func(id uint64) *raftpb.Entry {
		data, err := proto.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(id), Context: appendEntry(nil, kindConfChange, requestID{}, []byte(`{"peer_url":"http://d:1"}`))})
		if err != nil {
			t.Fatal(err)
		}
		return &raftpb.Entry{Type: raftpb.EntryConfChange.Enum(), Data: data}
	}
	appending := func(edit func(m *raftpb.Message)) *raftpb.Message {
		return with(message(raftpb.MsgApp, 2, 5), func(m *raftpb.Message) {
			m.Index, m.LogTerm, m.Commit = new(uint64(1)), new(uint64(1)), new(uint64(1))
			m.Entries = []*raftpb.Entry{entry(5, 2), entry(5, 3)}
			edit(m)
		})
	}
	snapshot := func(edit func(meta *raftpb.SnapshotMetadata)) *raftpb.Message {
		return with(message(raftpb.MsgSnap, 2, 5), func(m *raftpb.Message) {
			m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(50)), Term: new(uint64(4)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}}}}
			edit(m.Snapshot.Metadata)
		})
	}
	of := func(cs *raftpb.ConfState) *raftpb.Message {
		return snapshot(func(meta *raftpb.SnapshotMetadata) { meta.ConfState = cs })
	}
	prop := func(entries ...*raftpb.Entry) *raftpb.Message {
		return with(message(raftpb.MsgProp, 2, 0), func(m *raftpb.Message) { m.Entries = entries })
	}
	unknown := func(e *raftpb.Entry) *raftpb.Entry {
		e.ProtoReflect().SetUnknown([]byte{15 << 3, 1})
		return e
	}
	for _, tt := range []struct {
		what   string
		m      *raftpb.Message
		reason string
		lead   bool // to a leader of term 2 with a log of 2 entries
	}{
		{what: "heartbeat", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.Commit = new(uint64(1)) })},
		{what: "commit 10⁹", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.Commit = new(uint64(1e9)) }), reason: badIndex},
		{what: "commit behind the log's end", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.Commit = new(uint64(2)) }), reason: badIndex},
		{what: "the highest commit", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.Commit = new(uint64(math.MaxUint64)) }), reason: badIndex},
		{what: "heartbeat with half a position", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.Context = []byte{1} }), reason: badContext},
		{what: "heartbeat with entries", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{entry(5, 2)} }), reason: badMessage},
		{what: "heartbeat without a term", m: message(raftpb.MsgHeartbeat, 2, 0), reason: badTerm},
		{what: "the highest term", m: message(raftpb.MsgHeartbeat, 2, math.MaxUint64), reason: badTerm},
		{what: "a term out of reach", m: message(raftpb.MsgAppResp, 2, 2+1<<32), reason: badTerm},
		{what: "a term within reach", m: message(raftpb.MsgAppResp, 2, 1+1<<32)},
		{what: "from nobody", m: message(raftpb.MsgHeartbeat, 0, 5), reason: badSender},
		{what: "from itself", m: message(raftpb.MsgHeartbeat, 1, 5), reason: badSender},
		{what: "to another", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.To = new(uint64(2)) }), reason: badReceiver},
		{what: "to the append step", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.To = new(uint64(raft.LocalAppendThread)) }), reason: badReceiver},
		{what: "local", m: message(raftpb.MsgHup, 2, 5), reason: badType},
		{what: "of the storage", m: message(raftpb.MsgStorageAppendResp, 2, 5), reason: badType},
		{what: "transfer", m: message(raftpb.MsgTransferLeader, 2, 5), reason: badType},
		{what: "forget", m: message(raftpb.MsgForgetLeader, 2, 5), reason: badType},
		{what: "an unknown type", m: message(99, 2, 5), reason: badType},
		{what: "a negative type", m: message(-1, 2, 5), reason: badType},
		{what: "responses", m: with(message(raftpb.MsgHeartbeat, 2, 5), func(m *raftpb.Message) { m.Responses = []*raftpb.Message{message(raftpb.MsgHup, 1, 0)} }), reason: badMessage},

		{what: "entries", m: appending(func(*raftpb.Message) {})},
		{what: "entries with a gap", m: appending(func(m *raftpb.Message) { m.Entries[1] = entry(5, 4) }), reason: badEntries},
		{what: "entries that begin too early", m: appending(func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{entry(5, 1)} }), reason: badEntries},
		{what: "terms that go down", m: appending(func(m *raftpb.Message) { m.Entries[1] = entry(4, 3) }), reason: badEntries},
		{what: "an entry of a later term", m: appending(func(m *raftpb.Message) { m.Entries[1] = entry(6, 3) }), reason: badEntries},
		{what: "an entry without a term", m: appending(func(m *raftpb.Message) { m.LogTerm, m.Entries = nil, []*raftpb.Entry{entry(0, 2)} }), reason: badEntries},
		{what: "an entry of another type", m: appending(func(m *raftpb.Message) { m.Entries[1].Type = raftpb.EntryConfChangeV2.Enum() }), reason: badEntries},
		{what: "an empty change", m: appending(func(m *raftpb.Message) { m.Entries[1].Type, m.Entries[1].Data = raftpb.EntryConfChange.Enum(), nil }), reason: badEntries},
		{what: "an entry with a field that the log refuses", m: appending(func(m *raftpb.Message) { unknown(m.Entries[1]) }), reason: badEntries},
		{what: "the highest index", m: appending(func(m *raftpb.Message) { m.Index = new(uint64(math.MaxUint64)) }), reason: badIndex},
		{what: "a log term above the term", m: appending(func(m *raftpb.Message) { m.LogTerm = new(uint64(6)) }), reason: badTerm},
		{what: "the highest commit, which does not count", m: appending(func(m *raftpb.Message) { m.Commit = new(uint64(maxIndex)) })},

		{what: "snapshot of index 0", m: snapshot(func(meta *raftpb.SnapshotMetadata) { meta.Index = nil }), reason: badIndex},
		{what: "snapshot of the highest index", m: snapshot(func(meta *raftpb.SnapshotMetadata) { meta.Index = new(uint64(math.MaxUint64)) }), reason: badIndex},
		{what: "snapshot of a later term", m: snapshot(func(meta *raftpb.SnapshotMetadata) { meta.Term = new(uint64(6)) }), reason: badTerm},
		{what: "snapshot message without one", m: message(raftpb.MsgSnap, 2, 5), reason: badIndex},
		{what: "snapshot without voters", m: of(&raftpb.ConfState{Learners: []uint64{1}}), reason: badSnapshot},
		{what: "snapshot without this node", m: of(&raftpb.ConfState{Voters: []uint64{2}}), reason: badSnapshot},
		{what: "snapshot with a learner that votes", m: of(&raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{2}}), reason: badSnapshot},
		{what: "snapshot with an id twice", m: of(&raftpb.ConfState{Voters: []uint64{1, 1}}), reason: badSnapshot},
		{what: "snapshot with id 0", m: of(&raftpb.ConfState{Voters: []uint64{0, 1}}), reason: badSnapshot},
		{what: "snapshot with the apply step", m: of(&raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{raft.LocalApplyThread}}), reason: badSnapshot},
		{what: "snapshot with the append step", m: of(&raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{raft.LocalAppendThread}}), reason: badSnapshot},
		{what: "snapshot in a change", m: of(&raftpb.ConfState{Voters: []uint64{1}, VotersOutgoing: []uint64{2}}), reason: badSnapshot},

		{what: "proposal", m: prop(&raftpb.Entry{Data: entry(0, 0).Data}), lead: true},
		{what: "proposal of a change", m: prop(change(7)), lead: true},
		{what: "no proposal", m: prop(), reason: badEntries, lead: true},
		{what: "proposal with a term", m: with(prop(entry(0, 0)), func(m *raftpb.Message) { m.Term = new(uint64(2)) }), reason: badTerm, lead: true},
		{what: "proposal that nobody can apply", m: prop(&raftpb.Entry{Data: []byte("x")}), reason: badEntries, lead: true},
		{what: "a change that nobody can apply", m: prop(&raftpb.Entry{Type: raftpb.EntryConfChange.Enum(), Data: []byte{0xff}}), reason: badEntries, lead: true},
		{what: "a change with the apply step", m: prop(change(raft.LocalApplyThread)), reason: badEntries, lead: true},
		{what: "a change with the append step", m: prop(change(raft.LocalAppendThread)), reason: badEntries, lead: true},
		{what: "a change of the other kind", m: prop(&raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte{1}}), reason: badEntries, lead: true},
		{what: "read", m: with(message(raftpb.MsgReadIndex, 2, 0), func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{{Data: make([]byte, 16)}} }), lead: true},
		{what: "read without a name", m: message(raftpb.MsgReadIndex, 2, 0), reason: badEntries, lead: true},
		{what: "read with a long name", m: with(message(raftpb.MsgReadIndex, 2, 0), func(m *raftpb.Message) { m.Entries = []*raftpb.Entry{{Data: make([]byte, 100)}} }), reason: badEntries, lead: true},
		{what: "append of another leader of the term", m: with(message(raftpb.MsgApp, 2, 2), func(m *raftpb.Message) { m.Index, m.LogTerm = new(uint64(1)), new(uint64(1)) }), reason: badSender, lead: true},
		{what: "acknowledgement", m: with(message(raftpb.MsgAppResp, 2, 2), func(m *raftpb.Message) { m.Index = new(uint64(2)) }), lead: true},
		{what: "acknowledgement beyond the log", m: with(message(raftpb.MsgAppResp, 2, 2), func(m *raftpb.Message) { m.Index = new(uint64(3)) }), reason: badIndex, lead: true},
		{what: "acknowledgement of the highest index", m: with(message(raftpb.MsgAppResp, 2, 2), func(m *raftpb.Message) { m.Index = new(uint64(math.MaxUint64)) }), reason: badIndex, lead: true},
		{what: "rejection with the highest hint", m: with(message(raftpb.MsgAppResp, 2, 2), func(m *raftpb.Message) {
			m.Index, m.Reject, m.RejectHint = new(uint64(1)), new(true), new(uint64(math.MaxUint64))
		}), reason: badIndex, lead: true},
		{what: "answer to a heartbeat", m: message(raftpb.MsgHeartbeatResp, 2, 2), lead: true},
		{what: "answer to what it asked when it led in this term, before its last start", m: with(message(raftpb.MsgHeartbeatResp, 2, 1), func(m *raftpb.Message) { m.Context = position(21) })},
		{what: "half an answer", m: with(message(raftpb.MsgHeartbeatResp, 2, 2), func(m *raftpb.Message) { m.Context = []byte{1, 2, 3} }), reason: badContext, lead: true},
		{what: "answer to what was not asked", m: with(message(raftpb.MsgHeartbeatResp, 2, 2), func(m *raftpb.Message) { m.Context = position(1) }), reason: badContext, lead: true},
		{what: "answer to everything", m: with(message(raftpb.MsgHeartbeatResp, 2, 2), func(m *raftpb.Message) { m.Context = position(math.MaxUint64) }), reason: badContext, lead: true},
	} {
		s := newScreened(t)
		if tt.lead {
			s.lead()
			if got := s.Status(); got.Term != 2 || s.core.last != 2 {
				t.Fatalf("leads in term %d with %d entries", got.Term, s.core.last)
			}
		}
		s.receive(tt.m)
		s.settle()
		want := map[string]uint64{}
		if tt.reason != "" {
			want[tt.reason] = 1
		}
		if got := s.Dropped(); !maps.Equal(got, want) {
			t.Errorf("%s: dropped %v, want %v", tt.what, got, want)
		}
		if s.failed != nil {
			t.Errorf("%s: the node stops: %v", tt.what, s.failed)
		}
	}
}

// What was asked may be answered, once and again, and no more.
func TestAnswersToReadsAreTaken(t *testing.T) {
	s := newScreened(t)
	s.lead()
	s.Step(with(message(raftpb.MsgAppResp, 2, 2), func(m *raftpb.Message) { m.Index = new(uint64(2)) }))
	s.settle()
	s.takeSent()
	read := 0
	s.Read(func(err error) {
		if err != nil {
			t.Error(err)
		}
		read++
	})
	s.settle()
	var contexts [][]byte
	for _, m := range s.takeSent() {
		if m.GetType() == raftpb.MsgHeartbeat && m.GetTo() == 2 && len(m.GetContext()) > 0 {
			contexts = append(contexts, m.GetContext())
		}
	}
	if len(contexts) == 0 {
		t.Fatal("nobody was asked")
	}
	for range 2 {
		s.Step(with(message(raftpb.MsgHeartbeatResp, 2, 2), func(m *raftpb.Message) { m.Context = contexts[0] }))
		s.settle()
	}
	if got := s.Dropped(); read != 1 || len(got) > 0 {
		t.Errorf("%d reads answered, dropped %v", read, got)
	}
}

// A message may take back what the one before it has appended, before anybody
// has said how the log ends.
func TestCommitIsJudgedAfterATruncation(t *testing.T) {
	entries := func(term uint64, n int) (out []*raftpb.Entry) {
		for i := range n {
			out = append(out, &raftpb.Entry{Term: new(term), Index: new(uint64(i + 2))})
		}
		return out
	}
	s := newScreened(t)
	app := func(from, term uint64, n int) *raftpb.Message {
		return with(message(raftpb.MsgApp, from, term), func(m *raftpb.Message) {
			m.Index, m.LogTerm, m.Entries = new(uint64(1)), new(uint64(1)), entries(term, n)
		})
	}
	heartbeat := func(from, term, commit uint64) *raftpb.Message {
		return with(message(raftpb.MsgHeartbeat, from, term), func(m *raftpb.Message) { m.Commit = new(commit) })
	}
	s.Step(app(2, 5, 9)) // up to 10
	s.settle()
	s.Step(app(3, 6, 1)) // up to 2
	s.Step(heartbeat(3, 6, 10))
	s.settle()
	if got := s.Dropped(); !maps.Equal(got, map[string]uint64{badIndex: 1}) {
		t.Errorf("dropped %v", got)
	}
	s.Step(heartbeat(3, 6, 2))
	s.settle()
	if got := s.Status().Commit; got != 2 || len(s.Dropped()) != 1 {
		t.Errorf("commit %d, dropped %v", got, s.Dropped())
	}
}

// What comes late, of a leader of before, takes nothing back.
func TestCommitIsJudgedAfterALateMessage(t *testing.T) {
	s := newScreened(t)
	s.Step(with(message(raftpb.MsgApp, 3, 6), func(m *raftpb.Message) {
		m.Index, m.LogTerm = new(uint64(1)), new(uint64(1))
		for i := range uint64(9) {
			m.Entries = append(m.Entries, &raftpb.Entry{Term: new(uint64(6)), Index: new(i + 2)})
		}
	}))
	s.settle()
	s.Step(with(message(raftpb.MsgSnap, 2, 5), func(m *raftpb.Message) {
		m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(4)), Term: new(uint64(5)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}}
	}))
	s.Step(with(message(raftpb.MsgApp, 2, 5), func(m *raftpb.Message) {
		m.Index, m.LogTerm, m.Entries = new(uint64(1)), new(uint64(1)), []*raftpb.Entry{{Term: new(uint64(5)), Index: new(uint64(2))}}
	}))
	s.Step(with(message(raftpb.MsgHeartbeat, 3, 6), func(m *raftpb.Message) { m.Commit = new(uint64(10)) }))
	s.settle()
	if got := s.Status().Commit; got != 10 || len(s.Dropped()) > 0 {
		t.Errorf("commit %d, dropped %v", got, s.Dropped())
	}
}

// script reads numbers for FuzzMessages; those at the edges come often.
type script struct{ b []byte }

func (s *script) byte() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

func (s *script) number(around uint64) uint64 {
	switch c := s.byte(); {
	case c < 160:
		return around + uint64(c%8) - 2
	case c < 200:
		return uint64(c % 8)
	case c < 230:
		return []uint64{math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64 - 2, 1 << 63, 1 << 62, 1<<62 + 1, 1 << 32, 1e9}[c%8]
	default:
		return uint64(c) << (s.byte() % 56)
	}
}

func (s *script) entries(index, term uint64) (out []*raftpb.Entry) {
	for i := range s.byte() % 5 {
		e := &raftpb.Entry{Term: new(term), Index: new(index + uint64(i) + 1)}
		switch c := s.byte(); {
		case c < 60:
			e.Data = appendEntry(nil, kindApplication, requestID{}, []byte{c})
		case c < 90:
			e.Type = raftpb.EntryConfChange.Enum()
			change := &raftpb.ConfChange{Type: raftpb.ConfChangeType(c % 5).Enum(), NodeId: new(s.number(3)), Context: appendEntry(nil, kindConfChange, requestID{}, []byte(`{"peer_url":"http://x:`+fmt.Sprint(c)+`"}`))}
			e.Data, _ = proto.Marshal(change)
		case c < 100:
			e.Type, e.Data = raftpb.EntryType(c%4).Enum(), []byte{c, 1}
		case c < 110:
			e.Index = new(s.number(index))
		case c < 120:
			e.Term = new(s.number(term))
		}
		out = append(out, e)
	}
	return out
}

func (s *script) message(at Status, last uint64) *raftpb.Message {
	m := message(raftpb.MessageType(s.byte()%26)-1, 2+uint64(s.byte()%4)/3, s.number(at.Term))
	if c := s.byte(); c > 240 {
		m.From, m.To = new(s.number(1)), new(s.number(1))
	}
	kind := m.GetType()
	if kind == raftpb.MsgProp || kind == raftpb.MsgReadIndex {
		m.Term = nil
	}
	m.Index, m.LogTerm = new(s.number(last)), new(s.number(at.Term))
	m.Commit = new(s.number(last))
	switch kind {
	case raftpb.MsgApp, raftpb.MsgProp, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		m.Entries = s.entries(m.GetIndex(), m.GetTerm())
	case raftpb.MsgAppResp:
		if c := s.byte(); c%4 == 0 {
			m.Reject, m.RejectHint = new(true), new(s.number(last))
		}
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		switch c := s.byte(); {
		case c < 100:
			m.Context = position(s.number(1))
		case c < 130:
			m.Context = make([]byte, c%12)
		}
	case raftpb.MsgSnap:
		cs := &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}}
		for range s.byte() % 3 {
			ids := []*[]uint64{&cs.Voters, &cs.Learners, &cs.VotersOutgoing, &cs.LearnersNext}[s.byte()%4]
			*ids = append(*ids, s.number(3))
		}
		m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(s.number(last)), Term: new(s.number(at.Term)), ConfState: cs}}
	case raftpb.MsgVote:
		if s.byte()%2 == 0 {
			m.Context = []byte("CampaignTransfer")
		}
	}
	return m
}

// stage makes the file that comes with a snapshot, as a member would.
func (s *screened) stage(m *raftpb.Message) bool {
	meta := m.GetSnapshot().GetMetadata()
	members := &membership{Version: membershipVersion, Voters: slices.Clone(meta.GetConfState().GetVoters()), Learners: slices.Clone(meta.GetConfState().GetLearners())}
	for _, id := range slices.Concat(members.Voters, members.Learners) {
		members.Members = append(members.Members, Member{ID: id, PeerURL: fmt.Sprint("http://m:", id)})
	}
	members.sort()
	content, err := json.Marshal(ledgerState{Index: meta.GetIndex(), Meta: members.encode()})
	if err != nil {
		s.tb.Fatal(err)
	}
	var b bytes.Buffer
	if err := writeSnapshot(&b, snapHeader{Index: meta.GetIndex(), Term: meta.GetTerm(), FeatureLevel: featureLevel, Membership: members.encode()}, ledgerContent(content)); err != nil {
		s.tb.Fatal(err)
	}
	if s.CheckSnapshot(m, b.Bytes()) != nil {
		return false
	}
	s.staged[meta.GetIndex()] = b.Bytes()
	return true
}

// play lets a script say what comes in which order. The core does not panic,
// and nothing but an entry that no build can read ends the node.
func play(t *testing.T, b []byte) (dropped map[string]uint64) {
	s := newScreened(t)
	if len(b) > 0 && b[0]%3 == 0 {
		s.lead()
	}
	for in := (&script{b}); len(in.b) > 0 && s.failed == nil; {
		switch c := in.byte(); {
		case c < 30:
			s.Tick()
		case c < 40:
			s.Propose([]byte("x"), func(any, error) {})
		case c < 50:
			s.Read(func(error) {})
		case c < 90:
			s.settle()
		default:
			m := in.message(s.Status(), s.core.last)
			if m.GetType() == raftpb.MsgSnap && implausible(m, 1) == "" && !s.stage(m) {
				continue
			}
			s.receive(m)
		}
	}
	s.settle()
	if s.failed != nil && !errors.Is(s.failed, errEntry) && !errors.Is(s.failed, ErrRemoved) && !strings.Contains(s.failed.Error(), "apply configuration change") {
		t.Fatalf("%x: %v", b, s.failed)
	}
	return s.Dropped()
}

func FuzzMessages(f *testing.F) {
	for _, b := range []string{"", "\x00", "0123456789"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) { play(t, b) })
}

func TestNoMessageEndsTheNode(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	dropped := map[string]uint64{}
	for range 1000 {
		b := make([]byte, 300)
		_, _ = random.Read(b)
		for reason, n := range play(t, b) {
			dropped[reason] += n
		}
	}
	for _, reason := range []string{badSender, badReceiver, badType, badTerm, badIndex, badEntries, badSnapshot, badContext} {
		if dropped[reason] == 0 {
			t.Errorf("nothing was dropped for its %s: %v", reason, dropped)
		}
	}
}
