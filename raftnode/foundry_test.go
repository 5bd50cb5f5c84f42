package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// grow adds a member with a join, and waits until it votes.
func (c *testCluster) grow(via, id uint64) {
	c.t.Helper()
	fresh := Peer{ID: id, URL: "http://" + testaddr.Addr(c.t)}
	eventually(c.t, "the change", func() bool {
		return c.nodes[via].AddMember(context.Background(), id, fresh.URL, false) == nil
	})
	c.peers = append(slices.Clone(c.peers), fresh)
	tune := c.tune
	c.tune = func(cfg *Config) {
		if cfg.Join = true; tune != nil {
			tune(cfg)
		}
	}
	c.start(id)
	c.tune = tune
	eventually(c.t, "a voter", func() bool { return c.nodes[via].applier.members.Load().isVoter(id) })
}

func (c *testCluster) wipe(id uint64) {
	c.t.Helper()
	if err := os.RemoveAll(c.memberDir(id)); err != nil {
		c.t.Fatal(err)
	}
}

// refusal starts a member with a list and returns the error that ends it.
func (c *testCluster) refusal(id uint64, list []Peer) string {
	c.t.Helper()
	c.tune = func(cfg *Config) {
		// Long enough for any machine; the refusal does not wait for its end.
		cfg.Cluster, cfg.ListenFirst = list, time.Hour
	}
	defer func() { c.tune = nil }()
	n, err := c.open(id)
	if err == nil {
		select {
		case <-n.Failed():
		case <-time.After(time.Minute):
			c.t.Fatalf("member %d goes on: %s", id, n.Founding())
		}
		err = n.Err()
		if err := n.Close(context.Background()); err != nil {
			c.t.Error(err)
		}
	}
	var identity *IdentityError
	if !errors.As(err, &identity) {
		c.t.Fatalf("member %d ends with %v", id, err)
	}
	if _, err := os.Stat(filepath.Join(c.memberDir(id), walDir)); err == nil {
		c.t.Errorf("member %d has made a log", id)
	}
	return identity.Reason
}

// However a cluster grew, and whatever list an empty directory is given: it does
// not found another one, and says what to do.
func TestEmptyDirectoryFoundsNoSecondCluster(t *testing.T) {
	slow.Test(t)
	for _, tt := range []struct {
		name  string
		wiped uint64
		list  func(peers []Peer) []Peer
		want  string
	}{
		{"the first member with its first list", 1, func(p []Peer) []Peer { return p[:1] }, "raft-chat members replace 1 --endpoints http://n"},
		{"the first member with the list of now", 1, func(p []Peer) []Peer { return p }, "raft-chat members replace 1 --endpoints http://n"},
		{"a member that joined, alone", 3, func(p []Peer) []Peer { return p[2:] }, "raft-chat members replace 3 --endpoints http://n"},
		{"a member that joined, with a list of strangers", 3, func(p []Peer) []Peer {
			return []Peer{p[2], {8, "http://127.0.0.1:1"}, {9, "http://127.0.0.1:2"}}
		}, "raft-chat members replace 3 --endpoints http://n"},
		{"another id at a member's address", 3, func(p []Peer) []Peer { return []Peer{p[0], p[1], {7, p[2].URL}} }, "raft-chat members add 7 http"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newTestCluster(t, 1)
			c.tune = func(cfg *Config) { cfg.ClientURL = fmt.Sprint("http://n", cfg.ID) }
			c.start(1)
			c.grow(1, 2)
			c.grow(1, 3)
			c.mustPropose(1, "before")
			c.agree(1)
			c.stop(tt.wiped)
			c.wipe(tt.wiped)
			list := tt.list(c.peers)
			id := list[len(list)-1].ID
			if id != 7 {
				id = tt.wiped
			} else {
				c.peers[2] = Peer{7, c.peers[2].URL}
			}
			got := c.refusal(id, list)
			for _, want := range []string{tt.want, "--found-anyway"} {
				if !strings.Contains(got, want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
			c.mustPropose(tt.wiped%3+1, "after")
		})
	}
}

// An address that no member has any more is told, too: the machine of a member
// that was replaced starts as its unit file says.
func TestFormerMemberFoundsNoSecondCluster(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	c.grow(1, 2)
	c.grow(1, 3)
	eventually(t, "the hand-over", func() bool { return c.nodes[2].TransferLeadership(context.Background(), 2) == nil })
	eventually(t, "the removal", func() bool {
		return c.nodes[2].RemoveMember(context.Background(), 1) == nil || c.nodes[2].applier.members.Load().isRemoved(1)
	})
	first := c.peers[:1]
	eventually(t, "its end", func() bool { return c.nodes[1].Err() != nil })
	c.stop(1)
	c.wipe(1)
	if got := c.refusal(1, first); !strings.Contains(got, "was removed") || !strings.Contains(got, "raft-chat members add 4 "+first[0].URL) {
		t.Error(got)
	}
	c.mustPropose(2, "after")
}

// Who has joined is told on an empty directory what to do as well: which one it
// is about, and the command.
func TestJoinedMemberOnAnEmptyDirectoryIsToldWhatToDo(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	c.grow(1, 2)
	c.grow(1, 3)
	join := func() error {
		t.Helper()
		c.wipe(3)
		c.tune = func(cfg *Config) { cfg.Join = true }
		defer func() { c.tune = nil }()
		n, err := c.open(3)
		if err == nil {
			<-n.Failed()
			err = errors.Join(n.Err(), n.Close(context.Background()))
		}
		return err
	}
	c.stop(3)
	c.told(join(), c.memberDir(3), "raft-chat members replace 3")
	eventually(t, "the removal", func() bool {
		return c.nodes[1].RemoveMember(context.Background(), 3) == nil || c.nodes[1].applier.members.Load().isRemoved(3)
	})
	eventually(t, "word of it", func() bool { return c.nodes[2].applier.members.Load().isRemoved(3) })
	said := c.told(join(), c.memberDir(3), "member 3 was removed", "raft-chat members add 4 "+c.peers[2].URL)
	if strings.Contains(said, "--found-anyway") {
		t.Errorf("who joins founds nothing: %s", said)
	}
}

// Also when whoever it joined by was replaced, so that another member answers there.
func TestJoinedMemberHearsFromWhoeverIsAtTheAddress(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	c.grow(1, 2)
	c.grow(1, 3)
	c.stop(2)
	c.wipe(2)
	// As if member 1 had been another one at the address where member 3 is now.
	c.tune = func(cfg *Config) {
		cfg.Join, cfg.Cluster = true, []Peer{{ID: 9, URL: c.peers[2].URL}, c.peers[1]}
	}
	n, err := c.open(2)
	c.tune = nil
	if err == nil {
		<-n.Failed()
		err = errors.Join(n.Err(), n.Close(context.Background()))
	}
	c.told(err, c.memberDir(2), "raft-chat members replace 2")
}

// told fails the test unless an error is a refusal that has each of words.
func (c *testCluster) told(err error, words ...string) string {
	c.t.Helper()
	var refused *IdentityError
	if !errors.As(err, &refused) {
		c.t.Fatalf("it ends with %v", err)
	}
	for _, w := range words {
		if !strings.Contains(refused.Reason, w) {
			c.t.Errorf("the refusal lacks %q: %s", w, refused.Reason)
		}
	}
	return refused.Reason
}

// All but one of the members of today, with empty directories and the list of
// today: they would be a majority.
func TestWipedMajorityFoundsNoSecondCluster(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	c.grow(1, 2)
	c.grow(1, 3)
	c.mustPropose(1, "before")
	for _, id := range []uint64{2, 3} {
		c.stop(id)
		c.wipe(id)
	}
	c.tune = func(cfg *Config) { cfg.ListenFirst = time.Second }
	c.start(2, 3)
	for _, id := range []uint64{2, 3} {
		eventually(t, "a refusal", func() bool { return c.nodes[id].Err() != nil })
		if err := c.nodes[id].Err(); !strings.Contains(err.Error(), fmt.Sprint("raft-chat members replace ", id)) {
			t.Error(err)
		}
	}
	if err := c.nodes[1].Err(); err != nil {
		t.Error("the member that was left:", err)
	}
}

// Any majority of a list founds the cluster, in any order; who comes late is let
// in, with its first directory alone.
func TestAnyMajorityFoundsAndTheLateMemberIsLetIn(t *testing.T) {
	slow.Test(t)
	for _, order := range [][]uint64{{1, 2, 3}, {3, 2, 1}, {2, 3, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.start(order[0])
			first := c.nodes[order[0]]
			if code := c.proposeCode(order[0], "too early"); code != CodeNoLeader {
				t.Errorf("a message is answered with %q while nothing is founded", code)
			}
			if err := first.ReadIndex(context.Background()); err == nil {
				t.Error("a read is answered while nothing is founded")
			}
			eventually(t, "word of whom it waits for", func() bool { return strings.Contains(first.Founding(), "a majority of the list has to be there") })
			c.start(order[1])
			c.mustPropose(order[0], "founded")
			if got := first.Founding(); got != "" {
				t.Error(got)
			}
			late := order[2]
			c.start(late)
			c.agree(1)
			if id := c.nodes[late].identity; id.ClusterID != first.identity.ClusterID || !id.Joined {
				t.Errorf("the late member is %+v", id)
			}
			c.stop(late)
			c.start(late)
			c.mustPropose(late, "again")
			c.agree(2)

			c.stop(late)
			c.wipe(late)
			if got := c.refusal(late, c.peers); !strings.Contains(got, "raft-chat members replace ") {
				t.Error(got)
			}
		})
	}
}

// A founder is known by its directory from the first entry on: it need not have
// been met.
func TestFoundersAreKnownFromTheFirstEntryOn(t *testing.T) {
	c := newTestCluster(t, 3)
	var all []Founder
	for _, p := range c.peers {
		all = append(all, Founder{p.ID, newIncarnation()})
	}
	for _, x := range all {
		id := &identity{Version: identityVersion, MemberID: x.ID, Incarnation: x.Incarnation, Cluster: c.peers}
		founded(t, "", id, all)
		if err := errors.Join(os.MkdirAll(c.memberDir(x.ID), 0o700), id.save(c.memberDir(x.ID))); err != nil {
			t.Fatal(err)
		}
	}
	c.start(1)
	for i, m := range c.nodes[1].Members() {
		if m.Incarnation != all[i].Incarnation {
			t.Errorf("member %d is known by %v", m.ID, m.Incarnation)
		}
	}
	c.start(2)
	c.leader()
	c.wipe(3)
	if got := c.refusal(3, c.peers); !strings.Contains(got, "raft-chat members replace 3") {
		t.Error(got)
	}
}

// Wherever the founding was when the power went: one cluster of all three, and
// the one that may have been founded already.
func TestCrashAtEveryStepOfFounding(t *testing.T) {
	slow.Test(t)
	b := Ballot{1, 1}
	for _, tt := range []struct {
		name   string
		leave  func(t *testing.T, dir string, id *identity, all []Founder)
		others func(id *identity, all []Founder) // nil: fresh
		bound  bool                              // the founders are settled
	}{
		{name: "made", leave: func(*testing.T, string, *identity, []Founder) {}},
		{name: "promised", leave: func(_ *testing.T, _ string, id *identity, _ []Founder) { id.Vote.Promised = b }},
		{name: "promised by all", leave: func(_ *testing.T, _ string, id *identity, _ []Founder) { id.Vote.Promised = b },
			others: func(id *identity, _ []Founder) { id.Vote.Promised = b }},
		{name: "accepted", leave: func(_ *testing.T, _ string, id *identity, all []Founder) { id.Vote = Vote{b, b, all} },
			others: func(id *identity, _ []Founder) { id.Vote.Promised = b }},
		{name: "accepted by all", leave: func(_ *testing.T, _ string, id *identity, all []Founder) { id.Vote = Vote{b, b, all} },
			others: func(id *identity, all []Founder) { id.Vote = Vote{b, b, all} }, bound: true},
		{name: "founded", leave: founded, others: func(id *identity, all []Founder) { id.Vote = Vote{b, b, all} }, bound: true},
		{name: "founded, and others have promised alone", leave: founded, others: func(id *identity, all []Founder) { id.Vote.Promised = b }, bound: true},
		{name: "a log begun", bound: true, leave: func(t *testing.T, dir string, id *identity, all []Founder) {
			founded(t, dir, id, all)
			if err := os.MkdirAll(filepath.Join(dir, walDir+".tmp"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, others: func(id *identity, all []Founder) { id.Vote = Vote{b, b, all} }},
		{name: "a whole log", bound: true, leave: func(t *testing.T, dir string, id *identity, all []Founder) {
			founded(t, dir, id, all)
			d, err := createDisk(dir, id, bootstrapSnapshot(id.Cluster), quietZap())
			if err := errors.Join(err, d.Close()); err != nil {
				t.Fatal(err)
			}
		}, others: func(id *identity, all []Founder) { id.Vote = Vote{b, b, all} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			smallSegments(t, 1<<20)
			c := newTestCluster(t, 3)
			var ids []*identity
			var all []Founder
			for _, p := range c.peers {
				id := &identity{Version: identityVersion, MemberID: p.ID, Incarnation: newIncarnation(), Cluster: c.peers, Boots: 1}
				ids, all = append(ids, id), append(all, Founder{id.MemberID, id.Incarnation})
			}
			for i, id := range ids {
				dir := c.memberDir(id.MemberID)
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					tt.leave(t, dir, id, all)
				} else if tt.others != nil {
					tt.others(id, all)
				}
				if err := id.save(dir); err != nil {
					t.Fatal(err)
				}
			}
			c.startAll()
			c.mustPropose(1, "x")
			c.agree(1)
			first := c.nodes[1].identity
			for i, id := range ids {
				now := c.nodes[id.MemberID].identity
				if now.ClusterID != first.ClusterID || now.Incarnation != all[i].Incarnation {
					t.Errorf("member %d is %+v, member 1 is %+v", id.MemberID, now, first)
				}
			}
			if want := clusterID(c.peers, all); tt.bound && first.ClusterID != want {
				t.Errorf("the cluster is %x, but may have been founded as %x", first.ClusterID, want)
			}
		})
	}
}

func founded(_ *testing.T, _ string, id *identity, all []Founder) {
	id.ClusterID, id.Founders = clusterID(id.Cluster, all), all
}

// A vote that is told is durable: what a start finds is what others were told.
func TestVoteIsDurableBeforeItIsTold(t *testing.T) {
	c := newTestCluster(t, 3)
	c.start(1)
	y := c.nodes[1].founding
	y.mu.Lock()
	y.f = NewFounding(FoundingConfig{Self: Founder{1, c.nodes[1].identity.Incarnation}, List: c.peers, Listen: time.Nanosecond})
	y.mu.Unlock()
	two := FreshState{Founder: Founder{2, Incarnation{2}}, List: clusterID(c.peers, nil), Ready: true, Attempt: Ballot{9, 2}}
	if _, err := y.round(time.Second, map[uint64]FoundingAnswer{2: {Fresh: &two}}, nil); err != nil {
		t.Fatal(err)
	}
	y.mu.Lock() // the node makes rounds of its own meanwhile
	defer y.mu.Unlock()
	id, err := loadIdentity(c.memberDir(1))
	if told := y.f.State().Vote; err != nil || id.Vote.Promised.compare(two.Attempt) < 0 || id.Vote.Promised != told.Promised {
		t.Errorf("the directory has %+v, told is %+v, error %v", id.Vote, told, err)
	}
}

// A directory that has given its word keeps to the list; one that has not takes
// another.
func TestUnfoundedDirectoryAndItsList(t *testing.T) {
	a, b, d := Peer{1, "http://a:1"}, Peer{2, "http://b:1"}, Peer{3, "http://d:1"}
	dir := t.TempDir()
	id := &identity{Version: identityVersion, MemberID: 1, Incarnation: Incarnation{1}, Cluster: []Peer{a, b, d}}
	for _, tt := range []struct {
		vote    Vote
		list    []Peer
		refused bool
	}{
		{Vote{}, []Peer{a}, false},
		{Vote{Promised: Ballot{1, 2}}, []Peer{d, b, a}, false},
		{Vote{Promised: Ballot{1, 2}}, []Peer{a}, true},
	} {
		id.Vote = tt.vote
		if err := id.save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := claimIdentity(&Config{ID: 1, Cluster: tt.list, Dir: dir})
		var identity *IdentityError
		if errors.As(err, &identity) != tt.refused {
			t.Errorf("%+v: %v", tt, err)
		}
		if !tt.refused && (peerList(got.Cluster) != peerList(tt.list) || got.Incarnation != id.Incarnation) {
			t.Errorf("%+v: %+v", tt, got)
		}
	}
	if !Unfounded(dir) || Unfounded(t.TempDir()) {
		t.Error("which directory is unfounded")
	}
}

// A claim stops nobody who has founded: both clusters go on, and say so.
func TestRivalsRaiseTheAlarm(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	c.grow(1, 2)
	c.grow(1, 3)
	c.mustPropose(1, "before")
	c.stop(1)
	c.wipe(1)
	eventually(t, "another leader", func() bool { return c.nodes[2].Status().Leader > 1 })
	c.tune = func(cfg *Config) { cfg.Cluster, cfg.FoundAnyway = c.peers[:1], true }
	c.start(1)
	for id, n := range c.nodes {
		eventually(t, fmt.Sprint("the alarm at ", id), func() bool { _, met := n.Rival(); return met })
		c.mustPropose(id, fmt.Sprint("by ", id))
	}
	r, _ := c.nodes[1].Rival()
	if r.ClusterID != c.nodes[2].identity.ClusterID || r.Member == 1 || !strings.Contains(r.String(), r.URL) {
		t.Errorf("%v", r)
	}
}

// What a stranger says is no claim: its address does not confirm it.
func TestStrangersClaimNothing(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 1)
	c.tune = func(cfg *Config) { cfg.ListenFirst = time.Second }
	l := testaddr.Listen(t)
	silent := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = silent.Serve(l) }()
	defer silent.Close()
	opened := make(chan error, 1)
	go func() {
		n, err := c.open(1)
		if err == nil {
			err = n.Close(context.Background())
		}
		opened <- err
	}()
	client := &http.Client{}
	defer client.CloseIdleConnections()
	for {
		for _, url := range []string{"http://" + l.Addr().String(), "http://192.0.2.1:1", "no URL"} {
			body := mustJSON(t, helloRequest{Version: helloVersion, caller: caller{ClusterID: 9, From: 2, Incarnation: Incarnation{2}, To: 1, Secret: newSecret()}, PeerURL: url, Expected: Incarnation{7}})
			if resp, err := client.Post(c.peers[0].URL+helloPath, "application/json", strings.NewReader(string(body))); err == nil {
				_ = resp.Body.Close()
			}
		}
		select {
		case err := <-opened:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}
