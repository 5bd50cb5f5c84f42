package raftnode

import (
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// waitingBytes is what a member's log holds behind its applied index.
func (s *sim) waitingBytes(m *simMember) (n int64) {
	s.t.Helper()
	last, err := m.storage.LastIndex()
	if err != nil {
		s.t.Fatal(err)
	}
	if last == m.applied.Load() {
		return 0
	}
	entries, err := m.storage.Entries(m.applied.Load()+1, last+1, 1<<62)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		n += entrySize(e)
	}
	return n
}

// A follower whose apply step waits takes in entries up to a bound of bytes. It
// still hears its leader, and goes on when it has caught up.
func TestFollowerThatDoesNotApplyStopsTakingEntries(t *testing.T) {
	const bound, size = 8 << 10, 1 << 10
	s := newSim(t)
	slow := s.at(3)
	budgeted := budget.New(1 << 20)
	slow.backlog.account = budgeted.Account(budget.Log)
	s.elect(1)
	slow.holdApply, slow.backlog.limit = true, bound
	want := 0
	for i := range 100 {
		s.propose(1, fmt.Sprint(i, strings.Repeat("x", size)))
		s.run()
		want++
		// Many heartbeats, after each of which the leader tries again.
		s.at(1).tick()
		s.run()
		if n := s.waitingBytes(slow); n > bound+2*size {
			t.Fatalf("after %d entries the follower holds %d bytes that it has not applied", i, n)
		}
		if slow.lead != 1 || s.at(1).role != raft.StateLeader {
			t.Fatalf("after %d entries the leader is %d", i, slow.lead)
		}
	}
	if got := len(s.at(2).lines); got < want {
		t.Errorf("%d of %d lines at the follower that applies", got, want)
	}
	if n := s.waitingBytes(slow); n < bound/2 {
		t.Errorf("the follower holds %d bytes only", n)
	}
	if used := budgeted.Account(budget.Log).Used(); used != s.waitingBytes(slow) {
		t.Errorf("the budget says %d bytes, want %d", used, s.waitingBytes(slow))
	}
	slow.holdApply = false
	for i := 0; i < 200 && len(slow.lines) < want; i++ {
		s.run()
		s.at(1).tick()
	}
	s.run()
	if len(slow.lines) != want {
		t.Errorf("the follower has %d of %d lines when it applies again", len(slow.lines), want)
	}
	slow.tick()
	if used := budgeted.Account(budget.Log).Used(); used != 0 {
		t.Errorf("the budget says that %d bytes wait", used)
	}
}

// Proposals are refused by what waits in bytes, a leader's and a follower's own.
func TestBacklogRefusesProposals(t *testing.T) {
	for _, id := range []uint64{1, 3} {
		s := newSim(t)
		s.elect(1)
		m := s.at(id)
		m.holdApply, m.backlog.limit = true, 2<<10
		var last *outcome
		for range 10 {
			last = s.propose(id, strings.Repeat("x", 600))
			s.run()
		}
		s.want(fmt.Sprint("through ", id), last, CodeOverloaded)
		if n := s.waitingBytes(m); n > 2<<10+2*700 {
			t.Errorf("member %d holds %d bytes", id, n)
		}
	}
}

// A leader drops what others forward while it holds too much itself.
func TestBacklogDropsForwardedProposals(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	m := s.at(1)
	m.holdApply, m.backlog.limit = true, 1<<10
	for range 3 {
		s.propose(1, strings.Repeat("x", 600))
		s.run()
	}
	before, _ := m.storage.LastIndex()
	s.propose(2, "forwarded")
	s.run()
	if after, _ := m.storage.LastIndex(); after != before {
		t.Error("a forwarded entry was taken")
	}
}

// The account follows the log, also over a rewrite and a snapshot.
func TestBacklogCounts(t *testing.T) {
	entries := func(from uint64, sizes ...int) (es []*raftpb.Entry) {
		for i, n := range sizes {
			es = append(es, testEntry(1, from+uint64(i), n))
		}
		return es
	}
	held := func(es []*raftpb.Entry) (n int64) {
		for _, e := range es {
			n += entrySize(e)
		}
		return n
	}
	a := budget.New(1 << 30).Account(budget.Log)
	b := backlog{account: a}
	check := func(what string, want int64) {
		t.Helper()
		if b.sizes.total != want || a.Used() != want {
			t.Errorf("%s: %d bytes, %d of the budget, want %d", what, b.sizes.total, a.Used(), want)
		}
	}
	first := entries(2, 100, 200, 300)
	b.grow(0, first, 1)
	check("grown", held(first))
	second := entries(3, 50)
	b.grow(0, second, 1)
	check("rewritten", held(first[:1])+held(second))
	b.settle(2)
	check("applied", held(second))
	b.grow(40, nil, 2)
	check("a snapshot", 0)
	third := entries(41, 10, 20)
	b.grow(0, third, 40)
	check("behind the snapshot", held(third))
	b.settle(42)
	check("all applied", 0)
	b.grow(0, entries(43, 5), 42)
	b.release()
	if a.Used() != 0 {
		t.Error("not all is given back")
	}
	if got := (&backlog{account: budget.New(1 << 20).Account(budget.Log)}).bound(); got >= 1<<20 {
		t.Errorf("a bound of %d in a budget of 1 MiB", got)
	}
	if got := (&backlog{}).bound(); got != maxBacklog {
		t.Errorf("a bound of %d without a budget", got)
	}
}
