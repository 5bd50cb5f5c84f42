package raftnode

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// notingMachine notes what is applied, in order with what else a test notes.
type notingMachine struct {
	StateMachine
	events *[]string
}

func (m notingMachine) Apply(entries iter.Seq2[uint64, []byte], last uint64, meta []byte) (results []any, err error) {
	event := "apply"
	for index := range entries {
		event += fmt.Sprint(" ", index)
		results = append(results, nil)
	}
	if event += fmt.Sprint(" up to ", last); meta != nil {
		event += " with records"
	}
	*m.events = append(*m.events, event)
	return results, nil
}

func confEntry(t *testing.T, index, sequence uint64, typ raftpb.ConfChangeType, id uint64, cc confContext) *raftpb.Entry {
	t.Helper()
	payload, err := json.Marshal(cc)
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&raftpb.ConfChange{Type: typ.Enum(), NodeId: new(id), Context: appendEntry(nil, kindConfChange, requestID{Incarnation{9}, sequence}, payload)})
	if err != nil {
		t.Fatal(err)
	}
	return &raftpb.Entry{Term: new(uint64(2)), Index: new(index), Type: raftpb.EntryConfChange.Enum(), Data: data}
}

// Raft knows of a change before its entry counts as applied and before anybody
// is answered: until then it does not let this member campaign, and after that it
// counts votes by the new configuration. A rejected change is told as nothing,
// which frees the next one. The batch ends at each.
func TestRaftKnowsOfAChangeBeforeItCountsAsApplied(t *testing.T) {
	var events []string
	var applied atomic.Uint64
	applied.Store(1)
	a := &applier{self: Incarnation{9}, sm: notingMachine{events: &events}, waiters: newWaiters(), applied: &applied}
	a.members.Store(bootstrapMembership([]Peer{{1, "http://a:1"}}))
	a.confChange = func(cc *raftpb.ConfChange) error {
		what := "nothing"
		if cc != nil {
			what = fmt.Sprint("add ", cc.GetNodeId())
		}
		events = append(events, fmt.Sprintf("raft: %s, applied %d", what, applied.Load()))
		return nil
	}
	a.changed = func(m *membership) { events = append(events, fmt.Sprint("members: ", len(m.Members))) }
	for sequence := range uint64(2) {
		a.waiters.add(sequence+101, func(_ any, err error) {
			events = append(events, fmt.Sprintf("answer %d: %v, applied %d", sequence+1, err, applied.Load()))
		})
	}
	m := &raftpb.Message{Entries: []*raftpb.Entry{
		testEntry(2, 2, 0),
		confEntry(t, 3, 101, raftpb.ConfChangeAddLearnerNode, 2, confContext{PeerURL: "http://b:1"}),
		confEntry(t, 4, 102, raftpb.ConfChangeAddLearnerNode, 2, confContext{PeerURL: "http://b:1"}),
		testEntry(2, 5, 0),
	}}
	if err := a.process([]*raftpb.Message{m}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"raft: add 2, applied 1", "apply 2 up to 3 with records", "members: 2", "answer 1: <nil>, applied 3",
		"raft: nothing, applied 3", "apply up to 4", "answer 2: member 2 is in the cluster already, at http://b:1, applied 4",
		"apply 5 up to 5",
	}
	if !slices.Equal(events, want) {
		t.Errorf("got\n%q\nwant\n%q", events, want)
	}
}

// A decision about the records that panics would do so on every replica and at
// each start: it is a rejection, which its proposer hears of, and the entries
// around it are applied.
func TestDecisionThatPanicsIsRejected(t *testing.T) {
	var events []string
	var applied atomic.Uint64
	applied.Store(1)
	a := &applier{self: Incarnation{9}, sm: notingMachine{events: &events}, waiters: newWaiters(), applied: &applied}
	a.members.Store(nil) // every decision fails on it
	a.confChange = func(cc *raftpb.ConfChange) error {
		events = append(events, fmt.Sprint("raft: ", cc))
		return nil
	}
	for sequence := range uint64(2) {
		a.waiters.add(sequence+101, func(_ any, err error) {
			var e *Error
			events = append(events, fmt.Sprint("answer: ", errors.As(err, &e) && e.Code == CodeCommandFailed))
		})
	}
	attributes := &raftpb.Entry{Term: new(uint64(2)), Index: new(uint64(4)), Type: raftpb.EntryNormal.Enum(),
		Data: appendEntry(nil, kindAttributes, requestID{Incarnation{9}, 102}, []byte(`{"id":1}`))}
	m := &raftpb.Message{Entries: []*raftpb.Entry{
		testEntry(2, 2, 0),
		confEntry(t, 3, 101, raftpb.ConfChangeAddLearnerNode, 2, confContext{PeerURL: "http://b:1"}),
		attributes,
		testEntry(2, 5, 0),
	}}
	if err := a.process([]*raftpb.Message{m}); err != nil {
		t.Fatal(err)
	}
	want := []string{"raft: <nil>", "apply 2 up to 3", "answer: true", "apply up to 4", "answer: true", "apply 5 up to 5"}
	if !slices.Equal(events, want) {
		t.Errorf("got\n%q\nwant\n%q", events, want)
	}
}
