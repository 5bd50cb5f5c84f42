package raftnode

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/testaddr"
)

func TestCaughtUp(t *testing.T) {
	const learner = 4
	for _, tt := range []struct {
		last, match uint64
		active      bool
		want        bool
	}{
		{100, 100, true, true},
		{100, 100, false, false},
		{100, 90, true, true},
		{100, 89, true, false},
		{100_000, 99_001, true, true},
		{100_000, 99_000, true, false},
		{100_000, 0, true, false},
		{100, 101, true, true}, // it was heard of after the leader looked at itself
	} {
		r := &callReply{Last: tt.last, Progress: []progress{{ID: 1, Match: tt.last, Active: true}, {ID: learner, Match: tt.match, Active: tt.active}}}
		if got := r.caughtUp(learner); got != tt.want {
			t.Errorf("%d of %d entries, active %v: %v", tt.match, tt.last, tt.active, got)
		}
	}
	if (&callReply{Last: 1}).caughtUp(learner) {
		t.Error("a member that nothing is known of counts as caught up")
	}
}

// A learner that has registered and then went away does not become a voter
// that the quorum would have to do without.
func TestLearnerThatIsAwayIsNotPromoted(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	ctx := context.Background()
	c.peers = append(c.peers, Peer{ID: 4, URL: "http://" + testaddr.Addr(t)})
	if err := c.nodes[leader].AddMember(ctx, 4, c.peers[3].URL, true); err != nil {
		t.Fatal(err)
	}
	c.tune = func(cfg *Config) { cfg.Join = cfg.ID == 4 }
	c.start(4)
	status := func(id uint64) MemberStatus {
		all := c.nodes[1].MemberStatus(ctx)
		if i := slices.IndexFunc(all, func(m MemberStatus) bool { return m.ID == id }); i >= 0 {
			return all[i]
		}
		return MemberStatus{}
	}
	eventually(t, "the learner to register", func() bool { m := status(4); return m.Active && !m.Incarnation.IsZero() })
	c.stop(4)
	eventually(t, "the learner to count as gone", func() bool { m := status(4); return m.ID == 4 && !m.Active })
	var e *Error
	if err := c.nodes[1].Promote(ctx, 4); !errors.As(err, &e) || e.Code != CodeLearnerBehind || !strings.Contains(e.Detail, "not caught up") {
		t.Errorf("promoted while it was away: %v", err)
	}
	c.start(4)
	eventually(t, "the promotion", func() bool { return c.nodes[1].Promote(ctx, 4) == nil })
}
