package raftnode

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
)

func (n *Node) transferTo(ctx context.Context, to uint64) error {
	m := n.applier.members.Load()
	if _, ok := m.member(to); !ok {
		return errorf(CodeMemberNotFound, "no member has the id %d", to)
	}
	if !m.isVoter(to) {
		return errorf(CodeLearnerBehind, "member %d is a learner and cannot lead", to)
	}
	return n.transfer(ctx, func(done func(error)) { n.core.transferTo(to, done) })
}

// transfer begins a transfer on the loop, and waits for its outcome.
func (n *Node) transfer(ctx context.Context, begin func(done func(error))) error {
	done := make(chan error, 1)
	if err := n.onLoop(ctx, func() { begin(func(err error) { done <- err }) }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errorf(CodeTransferFailed, "nobody took the leadership over in time")
	case <-n.stop:
		return errStopping
	}
}

// preferSilence is how many ticks a voter may not have been heard of and still be
// asked first to take over: a live one answers every heartbeat.
const preferSilence = 2

// successors lists who may take the leadership over, best first: whoever was
// heard of just now before whoever was not, then by what each has of the log.
func (m *membership) successors(self uint64, status *callReply) []uint64 {
	var voters []progress
	for _, p := range status.Progress {
		if p.ID != self && p.Active && m.isVoter(p.ID) {
			voters = append(voters, p)
		}
	}
	late := func(p progress) int {
		if p.silent > preferSilence {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(voters, func(a, b progress) int {
		return cmp.Or(cmp.Compare(late(a), late(b)), cmp.Compare(b.Match, a.Match))
	})
	ids := make([]uint64, len(voters))
	for i, p := range voters {
		ids[i] = p.ID
	}
	return ids
}

// heirs are the successors that suit.
func (m *membership) heirs(self uint64, status *callReply, suits func(id uint64) bool) []uint64 {
	return slices.DeleteFunc(m.successors(self, status), func(id uint64) bool { return !suits(id) })
}

// transferAway hands the leadership to another voter that suits. Each gets an
// election timeout; then the next one is asked.
func (n *Node) transferAway(ctx context.Context, suits func(id uint64) bool) error {
	status, err := n.leaderProgress(ctx)
	if err != nil {
		return err
	}
	heirs := n.applier.members.Load().heirs(n.cfg.ID, &status, suits)
	return n.transfer(ctx, func(done func(error)) { n.core.bequeath(ctx, heirs, done) })
}

// bequeath offers the leadership to one after the other, until one has it, this
// member leads no more or ctx ends.
func (c *core) bequeath(ctx context.Context, heirs []uint64, done func(error)) {
	if len(heirs) == 0 {
		done(errorf(CodeQuorumAtRisk, "no other voter answers"))
		return
	}
	c.transferTo(heirs[0], func(err error) {
		if err == nil || ctx.Err() != nil || len(heirs) == 1 || c.role != raft.StateLeader {
			done(err)
			return
		}
		c.bequeath(ctx, heirs[1:], done)
	})
}

func anybody(uint64) bool { return true }

// HandOver moves the leadership to another member if this node has it, as the
// first step of a planned stop: requests are served on while it moves. It is
// tried once, for half of the time that ctx leaves.
func (n *Node) HandOver(ctx context.Context) {
	n.handing.Do(func() { n.handOver(ctx) })
}

func (n *Node) handOver(ctx context.Context) {
	if n.Status().Leader != n.cfg.ID || len(n.applier.members.Load().Voters) == 1 {
		return
	}
	if end, bounded := ctx.Deadline(); bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
	}
	if err := n.transferAway(ctx, anybody); err != nil {
		n.logger.Warn("stopping without handing the leadership over", "error", err)
	}
}

// aside is the round in which a leader whose clock is off tried to step aside last;
// 0: it did not.
type aside uint64

// due reports whether it is to be tried, and notes that.
func (a *aside) due(round uint64) bool {
	if *a != 0 && round < uint64(*a)+2*freshRounds {
		return false
	}
	*a = aside(round)
	return true
}

// stepAside gives the leadership of a node whose clock is off to one whose clock
// is right. Where that fails it is not tried again at once: proposals wait
// meanwhile, those of the other members too.
func (n *Node) stepAside(ctx context.Context) {
	if !n.aside.due(n.watch.now()) {
		return
	}
	if err := n.transferAway(ctx, n.goodClock); err != nil && ctx.Err() == nil {
		n.logger.Warn("the clock is off, and nobody else took the leadership over", "error", err)
	}
}
