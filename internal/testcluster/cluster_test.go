package testcluster

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/internal/slow"
)

// post posts until the message is acknowledged.
func post(t *testing.T, c *Cluster, node uint64, m Message) (stored Message, repeated bool) {
	t.Helper()
	Eventually(t, "a post of "+m.Message, func() (err error) {
		stored, repeated, err = c.Client().Post(t.Context(), c.URL(node), m)
		return err
	})
	return stored, repeated
}

// others are the running nodes but one.
func others(c *Cluster, but uint64) []uint64 {
	return slices.DeleteFunc(c.Running(), func(id uint64) bool { return id == but })
}

// checkAll judges what the load did and what every running node stores.
func checkAll(c *Cluster, load *Load) {
	c.t.Helper()
	load.Stop()
	c.Agree()
	var urls []string
	for _, id := range c.Running() {
		urls = append(urls, c.URL(id))
	}
	load.Check(urls)
}

// oracles gives messages as the oracle is told of them.
func oracles(messages []Message) (told []oracle.Message) {
	for _, m := range messages {
		told = append(told, m.Oracle())
	}
	return told
}

// same compares times as times: one moment has many representations.
func same(a, b Message) bool { return a.Oracle() == b.Oracle() }

func TestOneNodeKeepsItsStateOverStopAndKill(t *testing.T) {
	c := New(t, 1, nil)
	history := NewHistory()
	for i, end := range []func(uint64){c.Stop, c.Kill, c.Kill, c.Stop} {
		m := Message{Room: "general", User: "ann", Message: fmt.Sprint("message ", i), ClientMessageID: fmt.Sprint(i)}
		sent := history.Send(m.Oracle())
		stored, _ := post(t, c, 1, m)
		sent.Acknowledged(stored.Oracle())
		end(1)
		if _, err := c.Client().Page(t.Context(), c.URL(1), "general", ""); err == nil {
			t.Fatal("a node that does not run answers")
		}
		c.Start(1)
		read := history.Read(m.Room)
		Eventually(t, "a read", func() error {
			page, err := c.Client().Page(t.Context(), c.URL(1), m.Room, "")
			if err == nil {
				read.Returned(uint64(len(page)), oracles(page))
			}
			return err
		})
	}
	replicas, err := c.Client().Collect(t.Context(), c.URLs())
	if err != nil {
		t.Fatal(err)
	}
	history.Replica(replicas[0])
	for _, v := range history.Check() {
		t.Error(v)
	}
}

func TestRetryOnAnotherNodeAfterTheLeaderDiedIsTheSameMessage(t *testing.T) {
	slow.Test(t)
	c := New(t, 3, nil)
	for round := range 3 {
		leader := c.Leader()
		m := Message{Room: "general", User: "ann", Message: "once", ClientMessageID: fmt.Sprint("round ", round)}
		first, repeated := post(t, c, leader, m)
		if repeated {
			t.Fatalf("%+v counts as a repeat", first)
		}
		c.Kill(leader)
		for _, id := range others(c, leader) {
			again, repeated := post(t, c, id, m)
			if !repeated || !same(again, first) {
				t.Errorf("node %d answers the retry with %+v (repeated: %v), the first answer was %+v", id, again, repeated, first)
			}
		}
		c.Start(leader)
		if again, repeated := post(t, c, leader, m); !repeated || !same(again, first) {
			t.Errorf("the restarted node answers the retry with %+v (repeated: %v), the first answer was %+v", again, repeated, first)
		}
	}
	c.Agree()
}

func TestMessagesStayInPlaceOverFailovers(t *testing.T) {
	slow.Test(t)
	c := New(t, 3, nil)
	c.Leader()
	load := StartLoad(t, 8, c.URLs())
	load.Await(100)
	for round := range 4 {
		leader := c.Leader()
		if round%2 == 0 {
			c.Kill(leader)
		} else {
			c.Stop(leader)
		}
		load.Await(100) // two nodes go on
		c.Start(leader)
		load.Await(100)
	}
	checkAll(c, load)
}

func TestWholeClusterDies(t *testing.T) {
	slow.Test(t)
	c := New(t, 3, nil)
	load := StartLoad(t, 8, c.URLs())
	for range 3 {
		load.Await(100)
		for _, id := range c.Running() {
			c.Kill(id)
		}
		for id := range uint64(3) {
			c.Start(id + 1)
		}
	}
	load.Await(100)
	checkAll(c, load)
}

func TestLeaderInTheMinority(t *testing.T) {
	c := New(t, 3, nil)
	old := c.Leader()
	before, _ := post(t, c, old, Message{Room: "general", User: "ann", Message: "before", ClientMessageID: "before"})
	c.Isolate(old)
	Eventually(t, "the isolated leader to step down", func() error {
		if h, err := c.Client().Health(t.Context(), c.URL(old)); err != nil || h.LeaderID != "" {
			return fmt.Errorf("%+v, %w", h, err)
		}
		return nil
	})
	unavailable := func(what string, err error) {
		t.Helper()
		var r *Refusal
		if !errors.As(err, &r) || r.Status != 503 || r.Code != "no_leader" {
			t.Errorf("%s without a leader: %v, want 503 no_leader", what, err)
		}
	}
	_, _, err := c.Client().Post(t.Context(), c.URL(old), Message{Room: "general", User: "bob", Message: "refused", ClientMessageID: "refused"})
	unavailable("a write", err)
	_, err = c.Client().Page(t.Context(), c.URL(old), "general", "")
	unavailable("a linearizable read", err)
	_, err = c.Client().Page(t.Context(), c.URL(old), "general", "consistency=linearizable")
	unavailable("a read that asks to be linearizable", err)
	if err := c.Client().Ready(t.Context(), c.URL(old)); err == nil {
		t.Error("a node without a leader is ready")
	}

	majority := others(c, old)
	during, _ := post(t, c, majority[0], Message{Room: "general", User: "bob", Message: "during", ClientMessageID: "during"})
	if during.Seq != 2 {
		t.Errorf("the majority stored %+v, want Seq 2", during)
	}
	page, err := c.Client().Page(t.Context(), c.URL(majority[1]), "general", "")
	if err != nil || len(page) != 2 {
		t.Errorf("the majority reads %+v, %v", page, err)
	}
	page, err = c.Client().Page(t.Context(), c.URL(old), "general", "consistency=stale")
	if err != nil || len(page) != 1 || !same(page[0], before) {
		t.Errorf("a stale read on the minority: %+v, %v, want the state before the cut", page, err)
	}

	c.Mend()
	Eventually(t, "the cut off node to catch up", func() error {
		page, err := c.Client().Page(t.Context(), c.URL(old), "general", "")
		if err != nil || len(page) != 2 {
			return fmt.Errorf("%+v, %w", page, err)
		}
		if !same(page[0], before) || !same(page[1], during) {
			t.Errorf("after mending: %+v", page)
		}
		return nil
	})
	c.Agree()
}

func TestOneLinkCutDoesNotStopWrites(t *testing.T) {
	slow.Test(t)
	c := New(t, 3, nil)
	leader := c.Leader()
	far := others(c, leader)[0]
	c.CutOneWay(leader, far)
	load := StartLoad(t, 4, c.URLs())
	load.Await(100)
	c.Mend()
	load.Await(100)
	checkAll(c, load)
}

func TestMembersComeAndGo(t *testing.T) {
	slow.Test(t)
	c := New(t, 3, nil)
	c.Leader()
	load := StartLoad(t, 4, c.URLs())
	load.Await(100)

	c.Add(1, 4)
	roles := func(node uint64) map[uint64]string {
		members, err := c.Client().Members(t.Context(), c.URL(node))
		if err != nil {
			t.Logf("members: %v", err)
		}
		roles := map[uint64]string{}
		for _, m := range members {
			roles[m.ID] = m.Role
		}
		return roles
	}
	Eventually(t, "node 4 to be a voter", func() error {
		if r := roles(4); len(r) != 4 || r[4] == "learner" || r[4] == "" {
			return fmt.Errorf("roles: %v", r)
		}
		return nil
	})
	load.Await(100)

	// The one that goes is the leader once and a follower once.
	for _, gone := range []uint64{c.Leader(), others(c, c.Leader())[0]} {
		remove(t, c, others(c, gone)[0], gone)
		c.AwaitRemoved(gone)
		load.Await(100)
	}
	load.Stop()
	left := c.Running()
	if r := roles(left[0]); len(left) != 2 || len(r) != 2 {
		t.Errorf("roles at the end: %v, running: %v", r, left)
	}
	checkAll(c, load)
}

// A member can be removed while it hears nothing. It learns of it from those
// who will not talk to it any more.
func TestNodeThatMissedItsRemovalStopsItself(t *testing.T) {
	for name, away := range map[string]struct{ leave, comeBack func(c *Cluster, id uint64) }{
		"cut off": {(*Cluster).Isolate, func(c *Cluster, _ uint64) { c.Mend() }},
		"stopped": {(*Cluster).Stop, (*Cluster).Start},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(t, 3, nil)
			leader := c.Leader()
			gone := others(c, leader)[0]
			away.leave(c, gone)
			remove(t, c, leader, gone)
			away.comeBack(c, gone)
			c.AwaitRemoved(gone)
			c.Agree()
		})
	}
}

// remove removes a member by way of another.
func remove(t *testing.T, c *Cluster, via, gone uint64) {
	t.Helper()
	Eventually(t, fmt.Sprint("DELETE /raft/", gone), func() error {
		err := c.Client().RemoveMember(t.Context(), c.URL(via), gone)
		if CodeOf(err) == "member_not_found" {
			return nil // an earlier try of unknown outcome
		}
		return err
	})
}

// Whoever is told that the leadership has moved can go on with the next
// command at the same node.
func TestTransferIsCompleteWhenItIsAnswered(t *testing.T) {
	c := New(t, 3, nil)
	for round := range 30 {
		leader := c.Leader()
		rest := others(c, leader)
		to, via := rest[round%2], rest[1-round%2]
		Eventually(t, "the node to know the leader", func() error {
			if s := c.Server(via).Node().Status(); s.Leader != leader {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if _, _, err := c.Client().Do(t.Context(), http.MethodPost, c.URL(via)+"/raft/leader", fmt.Sprintf(`{"ID":%d}`, to)); err != nil {
			t.Fatalf("transfer from %d to %d by way of %d: %v", leader, to, via, err)
		}
		if err := c.Client().RemoveMember(t.Context(), c.URL(via), 99); CodeOf(err) != "member_not_found" {
			t.Errorf("right after the transfer node %d answers a membership call with %v, want 404 member_not_found", via, err)
		}
	}
}
