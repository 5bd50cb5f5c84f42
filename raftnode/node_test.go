package raftnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

func TestOneNodeKeepsItsLogAcrossRestarts(t *testing.T) {
	c := newTestCluster(t, 1)
	var want []string
	for round := range 4 {
		c.start(1)
		c.leader()
		for i := range 10 {
			line := fmt.Sprintf("%d.%d", round, i)
			if _, err := c.propose(1, line); err != nil {
				t.Fatal(err)
			}
			want = append(want, line)
		}
		c.stop(1)
	}
	c.start(1)
	eventually(t, "replay", func() bool { return slices.Equal(c.sms[1].lines(), want) })
}

func TestThreeNodesSurviveTheLeader(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.leader()
	for i := range 30 {
		c.mustPropose(uint64(i%3)+1, fmt.Sprint("a", i))
	}
	old := c.leader()
	c.stop(old)
	alive := uint64(1)
	if old == 1 {
		alive = 2
	}
	c.mustPropose(alive, "after the leader")
	c.start(old)
	c.mustPropose(old, "back again")
	c.agree(32)
}

// Every proposal of concurrent callers gets its own result.
func TestResultsBelongToTheirProposals(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.leader()
	for id := range c.nodes {
		c.mustPropose(id, fmt.Sprint("ready", id))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[string]any{}
	for id := range c.nodes {
		for w := range 8 {
			wg.Go(func() {
				for i := range 20 {
					line := fmt.Sprintf("%d/%d/%d", id, w, i)
					r, err := c.propose(id, line)
					if err != nil {
						t.Errorf("%s: %v", line, err)
						continue
					}
					mu.Lock()
					got[line] = r
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	c.agree(3 * 8 * 20)
	lines := c.sms[1].lines()
	for line, r := range got {
		if lines[r.(int)-1] != line {
			t.Fatalf("%s was told position %v, which holds %s", line, r, lines[r.(int)-1])
		}
	}
}

func TestReadIndexSeesWhatWasAcknowledgedElsewhere(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.leader()
	for i := range 50 {
		line := fmt.Sprint("line", i)
		c.mustPropose(uint64(i%3)+1, line)
		reader := uint64((i+1)%3) + 1
		if err := c.nodes[reader].ReadIndex(context.Background()); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(c.sms[reader].lines(), line) {
			t.Fatalf("member %d does not have %s after ReadIndex", reader, line)
		}
	}
}

func TestMinorityRefusesAndMajorityGoesOn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	old := c.leader()
	c.mustPropose(old, "before")
	c.cutLinks(func(from, to uint64) bool { return from == old || to == old })
	other := old%3 + 1
	c.mustPropose(other, "majority")
	eventually(t, "the old leader to know", func() bool { return c.nodes[old].Status().Leader == 0 })
	_, err := c.propose(old, "minority")
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeNoLeader {
		t.Fatalf("minority write: %v, want %s", err, CodeNoLeader)
	}
	if err := c.nodes[old].ReadIndex(context.Background()); !errors.As(err, &e) || e.Code != CodeNoLeader {
		t.Fatalf("minority read: %v, want %s", err, CodeNoLeader)
	}
	c.cutLinks(func(from, to uint64) bool { return false })
	c.mustPropose(old, "healed")
	c.agree(3)
	if slices.Contains(c.sms[1].lines(), "minority") {
		t.Fatal("a refused write took effect")
	}
}

// A proposal under way when the leader is lost is answered at once, and as
// unknown.
func TestOutcomeIsUnknownWhenTheLeaderIsLost(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	old := c.leader()
	c.mustPropose(old, "before")
	c.cutLinks(func(from, to uint64) bool { return from == old || to == old })
	_, err := c.propose(old, "limbo")
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeOutcomeUnknown {
		t.Fatalf("got %v, want %s", err, CodeOutcomeUnknown)
	}
}

func TestLaggingAndFreshMembersGetASnapshot(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	c.tune = func(cfg *Config) { cfg.CatchUpBytes = 4 << 10 }
	c.startAll()
	c.leader()
	c.mustPropose(1, "first")
	lagging := c.leader()%3 + 1
	c.stop(lagging)
	leader := c.leader()
	for i := range 300 {
		c.mustPropose(leader, fmt.Sprint(i, strings.Repeat("x", 100)))
	}
	first, err := c.nodes[leader].storage.FirstIndex()
	if err != nil || first < 50 {
		t.Fatalf("the log was not compacted: it begins at %d, %v", first, err)
	}
	c.start(lagging)
	c.agree(301)

	// A fresh member joins and needs a snapshot as well.
	c.peers = append(c.peers, Peer{ID: 4, URL: "http://" + testaddr.Addr(t)})
	if err := c.nodes[lagging].AddMember(context.Background(), 4, c.peers[3].URL, false); err != nil {
		t.Fatal(err)
	}
	tune := c.tune
	c.tune = func(cfg *Config) { tune(cfg); cfg.Join = cfg.ID == 4 }
	c.start(4)
	c.agree(301)
	eventually(t, "promotion", func() bool { return c.nodes[4].applier.members.Load().isVoter(4) })
	c.mustPropose(4, "from the new one")
	c.agree(302)

	// Everyone restarts from the snapshots.
	for id := range c.nodes {
		c.stop(id)
	}
	c.start(1, 2, 3, 4)
	c.mustPropose(4, "after the restart")
	c.agree(303)
}

func TestMembershipOperations(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	c.mustPropose(1, "x")
	follower := leader%3 + 1
	ctx := context.Background()
	n := c.nodes[follower]
	for _, tt := range []struct {
		name string
		err  error
		code string
	}{
		{"id 0", n.AddMember(ctx, 0, "http://127.0.0.1:1", false), CodeMemberID},
		{"bad URL", n.AddMember(ctx, 4, "127.0.0.1:1", false), CodeMemberURL},
		{"taken id", n.AddMember(ctx, 1, "http://127.0.0.1:1", false), CodeMemberExists},
		{"taken URL", n.AddMember(ctx, 4, c.peers[0].URL, false), CodeMemberExists},
		{"unknown", n.RemoveMember(ctx, 9), CodeMemberNotFound},
		{"promote unknown", n.Promote(ctx, 9), CodeMemberNotFound},
		{"promote voter", n.Promote(ctx, 1), CodeMemberExists},
		{"transfer to unknown", n.TransferLeadership(ctx, 9), CodeMemberNotFound},
	} {
		var e *Error
		if !errors.As(tt.err, &e) || e.Code != tt.code {
			t.Errorf("%s: %v, want %s", tt.name, tt.err, tt.code)
		}
	}
	if err := n.AddMember(ctx, 5, "http://127.0.0.1:1", true); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if err := n.Promote(ctx, 5); !errors.As(err, &e) || e.Code != CodeLearnerBehind {
		t.Errorf("promote a learner that never ran: %v", err)
	}
	if err := n.RemoveMember(ctx, 5); err != nil {
		t.Fatal(err)
	}
	if err := n.AddMember(ctx, 5, "http://127.0.0.1:1", true); !errors.As(err, &e) || e.Code != CodeMemberIDUsed {
		t.Errorf("add a removed id: %v", err)
	}
	if err := n.TransferLeadership(ctx, follower); err != nil {
		t.Fatal(err)
	}
	if got := c.leader(); got != follower {
		t.Errorf("member %d leads after the transfer to %d", got, follower)
	}

	third := 6 - leader - follower
	c.stop(third)
	eventually(t, "the third member to count as gone", func() bool {
		return slices.ContainsFunc(n.MemberStatus(ctx), func(m MemberStatus) bool { return m.ID == third && !m.Active })
	})
	if err := n.RemoveMember(ctx, leader); !errors.As(err, &e) || e.Code != CodeQuorumAtRisk {
		t.Errorf("remove a member that the quorum needs: %v", err)
	}
	c.start(third)
	// The leader removes itself: it hands over first.
	eventually(t, "the removal of the leader", func() bool { return n.RemoveMember(ctx, follower) == nil })
	<-n.Failed()
	if !errors.Is(n.Err(), ErrRemoved) {
		t.Errorf("removed member ended with %v", n.Err())
	}
	c.mustPropose(leader, "with two")
}

// A directory that is not the member's own must never take part.
func TestForeignDirectoriesAreRefused(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.leader()
	for id := range c.nodes {
		c.mustPropose(id, fmt.Sprint("ready", id))
	}
	registered := func(n *Node) bool {
		for _, m := range n.Members() {
			if m.Incarnation.IsZero() {
				return false
			}
		}
		return true
	}
	eventually(t, "registration", func() bool { return registered(c.nodes[1]) && registered(c.nodes[2]) })

	c.stop(3)
	saved := filepath.Join(c.dir, "saved")
	if err := os.Rename(c.memberDir(3), saved); err != nil {
		t.Fatal(err)
	}
	t.Run("wiped", func(t *testing.T) {
		n, err := c.open(3)
		if err != nil {
			t.Fatal(err)
		}
		<-n.Failed()
		var refused *IdentityError
		if !errors.As(n.Err(), &refused) || !strings.Contains(n.Err().Error(), "raft-chat members replace 3") {
			t.Errorf("got %v", n.Err())
		}
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Run("copied", func(t *testing.T) {
		c.stop(2)
		if err := os.RemoveAll(c.memberDir(3)); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(c.memberDir(3), os.DirFS(c.memberDir(2))); err != nil {
			t.Fatal(err)
		}
		c.start(2)
		_, err := c.open(3)
		var refused *IdentityError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "belongs to member 2") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("other list", func(t *testing.T) {
		c.stop(1)
		all := c.peers
		c.peers = all[:1]
		_, err := c.open(1)
		c.peers = all
		var refused *IdentityError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), all[1].URL) {
			t.Errorf("got %v", err)
		}
		c.start(1)
	})
	if err := os.RemoveAll(c.memberDir(3)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(saved, c.memberDir(3)); err != nil {
		t.Fatal(err)
	}
	c.start(3)
	c.mustPropose(3, "the right directory is welcome")
	c.agree(4)
}

func TestTwoNodesCannotShareADirectory(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	url := c.peers[0].URL
	c.peers[0].URL = "http://" + testaddr.Addr(t)
	_, err := c.open(1)
	c.peers[0].URL = url
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("got %v", err)
	}
}

// Whoever is asked to remove the leader hears of the outcome, also the leader
// itself, which ends over it.
func TestRemovalOfTheLeaderIsAnswered(t *testing.T) {
	for _, name := range []string{"through a follower", "through the leader"} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			c.startAll()
			leader := c.leader()
			asked := c.nodes[leader]
			if name == "through a follower" {
				asked = c.nodes[leader%3+1]
			}
			for id := range c.nodes {
				c.mustPropose(id, fmt.Sprint("ready", id))
			}
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := asked.RemoveMember(ctx, leader); err != nil {
				t.Fatal(err)
			}
			<-c.nodes[leader].Failed()
			c.mustPropose(leader%3+1, "goes on")
		})
	}
}
