package raftnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// A member that was away while another one was added, and was then made the
// leader, can learn of it from nobody but that leader. Found by the simulator.
func TestMemberThatWasAwayFollowsANewLeader(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	// An election on a busy machine would bring a leader that it knows.
	slow := func(cfg *Config) { cfg.TickInterval = 200 * time.Millisecond }
	c.tune = slow
	c.startAll()
	leader := c.leader()
	away := leader%3 + 1
	stays := 6 - leader - away
	c.mustPropose(leader, "before")
	c.agree(1)
	c.cutLinks(func(from, to uint64) bool { return from == away || to == away })

	fresh := Peer{ID: 4, URL: "http://" + testaddr.Addr(t)}
	eventually(t, "the change", func() bool { return c.nodes[leader].AddMember(context.Background(), 4, fresh.URL, false) == nil })
	old := c.peers
	c.peers = append(slices.Clone(c.peers), fresh)
	c.tune = func(cfg *Config) { slow(cfg); cfg.Join = cfg.ID == 4 }
	c.start(4)
	eventually(t, "a voter", func() bool { return c.nodes[leader].applier.members.Load().isVoter(4) })
	eventually(t, "the transfer", func() bool { return c.nodes[leader].TransferLeadership(context.Background(), 4) == nil })
	c.mustPropose(stays, "by the new leader")
	term := c.nodes[stays].Status().Term
	c.peers = old

	c.cutLinks(func(_, _ uint64) bool { return false })
	c.agree(2)
	if led, follows := c.nodes[stays].Status(), c.nodes[away].Status(); led.Leader != 4 || led.Term != term || follows.Leader != 4 {
		t.Errorf("member %d leads in term %d and was elected in %d; the member that was away follows %d", led.Leader, led.Term, term, follows.Leader)
	}
}

// Who is vouched for is who the records name, from the directory they name.
func TestVouching(t *testing.T) {
	m := bootstrapMembership([]Peer{{1, "http://a:1"}, {2, "http://b:1"}})
	inc := Incarnation{2}
	m, refused := m.register(2, inc, Attributes{})
	if refused != nil {
		t.Fatal(refused)
	}
	gone := m.clone()
	gone.Removed = []uint64{2}
	for _, tt := range []struct {
		name string
		m    *membership
		id   uint64
		inc  Incarnation
		url  string
		want bool
	}{
		{"a member", m, 2, inc, "http://b:1", true},
		{"a member that has not registered", m, 1, Incarnation{1}, "http://a:1", true},
		{"another directory", m, 2, Incarnation{3}, "http://b:1", false},
		{"another URL", m, 2, inc, "http://c:1", false},
		{"a stranger", m, 3, inc, "http://b:1", false},
		{"a removed member", gone, 2, inc, "http://b:1", false},
		{"without records", &membership{}, 2, inc, "http://b:1", false},
	} {
		if got := tt.m.vouches(tt.id, tt.inc, tt.url); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A wiped directory may know none of the members of today, so that nobody it
// asks can refuse it. A member that greets it tells it, a stranger does not.
func TestWipedDirectoryLearnsFromAGreeting(t *testing.T) {
	n := openLone(t)
	m := addMember(t, n)
	hello := func(edit func(*helloRequest)) {
		q := m.hello()
		edit(&q)
		postTo(n, helloPath, mustJSON(t, q))
	}
	strange := Incarnation{9}
	for _, edit := range []func(*helloRequest){
		func(q *helloRequest) { q.From, q.Expected = 99, strange },
		func(q *helloRequest) { q.From, q.Expected, q.Joining = 99, strange, true },
		func(q *helloRequest) { q.Expected, q.Secret = strange, newSecret() },
		func(q *helloRequest) { q.Expected, q.Secret = strange, secret{} },
		func(q *helloRequest) { q.Expected, q.Joining = strange, true },
		func(q *helloRequest) { q.Expected, q.PeerURL = strange, "http://127.0.0.1:1" },
		func(q *helloRequest) { q.Expected = Incarnation{} },
		func(q *helloRequest) { q.Expected = n.identity.Incarnation },
	} {
		hello(edit)
		if err := n.Err(); err != nil {
			t.Fatalf("stopped by a stranger, or by a member that expects nothing else: %v", err)
		}
	}
	hello(func(q *helloRequest) { q.Expected = strange })
	var identity *IdentityError
	if err := n.Err(); !errors.As(err, &identity) {
		t.Errorf("told that another directory is expected, the node ends with %v", err)
	}
}

// What the log says of a member's directory counts before it is applied: a
// restarted member would admit a wiped one otherwise. Found by the simulator.
func TestIncarnationInTheLogCountsAtOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	for _, p := range c.peers {
		foundedDir(t, c.memberDir(p.ID), p.ID, c.peers)
	}
	c.startAll()
	c.mustPropose(1, "x")
	eventually(t, "all members to be registered", func() bool {
		for _, n := range c.nodes {
			for _, m := range n.Members() {
				if m.Incarnation.IsZero() {
					return false
				}
			}
		}
		return true
	})
	want := c.nodes[3].identity.Incarnation
	for id := range uint64(3) {
		c.stop(id + 1)
	}
	// Alone, nothing is committed, and so nothing applied: the ledger was never flushed.
	if _, err := os.Stat(c.memberDir(1) + "/ledger"); err == nil {
		t.Fatal("the state machine was flushed")
	}
	c.start(1)
	if m, _ := c.nodes[1].applier.members.Load().member(3); !m.Incarnation.IsZero() {
		t.Fatal("the records have it already")
	}
	if got := c.nodes[1].peers.incarnationOf(3); got != want {
		t.Errorf("member 3 is known by %v, want %v", got, want)
	}
}

// The boots are in a file of their own, which somebody may bring back from an
// older copy of the directory.
func TestRequestIDsGoOnAfterThoseInTheLog(t *testing.T) {
	self, other := Incarnation{1}, Incarnation{2}
	data := func(inc Incarnation, sequence uint64) []byte {
		return appendEntry(nil, kindApplication, requestID{inc, sequence}, []byte("x"))
	}
	change, err := proto.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(2)), Context: data(self, 7<<40+9)})
	if err != nil {
		t.Fatal(err)
	}
	rec := bootstrapLog([]Peer{{1, "http://a:1"}, {2, "http://b:1"}})
	for i, e := range []*raftpb.Entry{
		{Data: data(self, 7<<40+8)}, {Data: data(other, 9<<40)}, {Type: raftpb.EntryConfChange.Enum(), Data: change}, {Data: data(self, 3)}, {},
	} {
		e.Term, e.Index = new(uint64(1)), new(uint64(i+2))
		rec.entries = append(rec.entries, e)
	}
	for boots, want := range map[uint64]uint64{3: 7<<40 + 9, 7: 7<<40 + 9, 8: 8 << 40} {
		sm, err := openLedger(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		r, err := OpenReplica(ReplicaConfig{ID: 1, Incarnation: self, Boots: boots, Bootstrap: []Peer{{1, "http://a:1"}, {2, "http://b:1"}},
			Disk: &recordingDisk{}, StateMachine: sm, ElectionTicks: 10, MaxInFlight: 1, CatchUpBytes: 1 << 20}, shown(rec))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.core.sequence; got != want {
			t.Errorf("with %d boots the request ids go on after %d, want %d", boots, got, want)
		}
	}
}

func TestStatedIncarnations(t *testing.T) {
	entry := func(kind entryKind, inc Incarnation, payload string) *raftpb.Entry {
		return &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Data: appendEntry(nil, kind, requestID{inc, 1}, []byte(payload))}
	}
	got := statedIncarnations([]*raftpb.Entry{
		{Type: raftpb.EntryNormal.Enum()},
		entry(kindApplication, Incarnation{1}, `{"id":1}`),
		entry(kindAttributes, Incarnation{2}, `{"id":2}`),
		entry(kindAttributes, Incarnation{3}, `{"id":3,"name":"n"}`),
		entry(kindAttributes, Incarnation{4}, `{"id":3}`), // will be rejected when it is applied
		entry(kindAttributes, Incarnation{5}, `{`),
		{Type: raftpb.EntryConfChange.Enum(), Data: []byte{1}},
	})
	if want := fmt.Sprint(map[uint64]Incarnation{2: {2}, 3: {3}}); fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
}
