package raftnode

import (
	"context"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"

	"github.com/raft-chat/raft-chat/internal/slow"
)

func TestSuccessors(t *testing.T) {
	m := &membership{Voters: []uint64{1, 2, 3, 4}, Learners: []uint64{5}}
	for _, tt := range []struct {
		name string
		p    []progress
		want []uint64
	}{
		{"nobody", nil, nil},
		{"most of the log first", []progress{{1, 9, true, 0}, {2, 5, true, 0}, {3, 7, true, 1}, {4, 6, true, 2}}, []uint64{3, 4, 2}},
		{"silent ones last", []progress{{1, 9, true, 0}, {2, 9, true, 3}, {3, 7, true, 1}, {4, 8, true, 9}}, []uint64{3, 2, 4}},
		{"none that is inactive", []progress{{1, 9, true, 0}, {2, 9, false, 0}, {3, 7, true, 0}}, []uint64{3}},
		{"no learner", []progress{{1, 9, true, 0}, {5, 9, true, 0}}, nil},
	} {
		if got := m.successors(1, &callReply{Progress: tt.p}); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A leader that stops just after a follower did hands over to the one that lives,
// also while it has not noticed that the other is gone.
func TestHandOverJustAfterAFollowerStopped(t *testing.T) {
	slow.Test(t)
	for range 3 {
		c := newTestCluster(t, 3)
		c.startAll()
		lead := c.leader()
		c.mustPropose(lead, "before")
		gone, heir := lead%3+1, (lead+1)%3+1
		c.stop(gone)
		c.nodes[lead].HandOver(context.Background())
		if s := c.nodes[lead].Status(); s.Leader != heir {
			t.Errorf("member %d leads, want %d", s.Leader, heir)
		}
		c.mustPropose(heir, "after")
	}
}

// Whoever is asked to take over and does not is followed by the next.
func TestBequeathAsksOneAfterTheOther(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.cut(2)
	moved := &outcome{}
	s.at(1).bequeath(t.Context(), []uint64{2, 3}, func(err error) { moved.calls++; moved.err = err })
	s.run()
	s.want("at once", moved, "waiting")
	s.tick(12, 1)
	s.want("after an election timeout", moved, "ok")
	if s.at(3).role != raft.StateLeader {
		t.Error("member 3 does not lead")
	}

	none := &outcome{}
	s.at(3).bequeath(t.Context(), nil, func(err error) { none.calls++; none.err = err })
	s.want("nobody", none, CodeQuorumAtRisk)
}
