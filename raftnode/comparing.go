package raftnode

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// comparing is how Node drives Agreement: with the rounds and the questions of
// watch.
type comparing struct {
	mu        sync.Mutex
	agreement Agreement
	verdict   Verdict // the last one that was decided

	agreed    atomic.Uint64 // newest index at which a majority and this member had one state
	differing atomic.Int64  // members that had another one, as of the last verdict
	alarm     atomic.Pointer[Verdict]
}

// hasher is the state machine, if its states can be compared.
func (n *Node) hasher() StateHasher {
	h, _ := n.applier.sm.(StateHasher)
	return h
}

// compareNow begins a comparison if one is due, and judges the one under way.
func (n *Node) compareNow(round uint64) {
	h := n.hasher()
	if h == nil {
		return
	}
	c := &n.comparing
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agreement.Look(round, n.cfg.ID, h)
	n.conclude(round)
}

// stateLike is what this node answers to a member that compares its state.
func (n *Node) stateLike(theirs *StateHash) *StateHash {
	h := n.hasher()
	if h == nil {
		return nil
	}
	c := &n.comparing
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.agreement.Answer(theirs, h)
}

// stateCompared is what this node asks others about, nil if it compares nothing.
func (n *Node) stateCompared() *StateHash {
	c := &n.comparing
	c.mu.Lock()
	defer c.mu.Unlock()
	index, own := c.agreement.Asks(n.cfg.ID)
	if index == 0 {
		return nil
	}
	return &StateHash{index, own}
}

// hearState takes in a member's answer.
func (n *Node) hearState(id uint64, s *StateHash, round uint64) {
	if s == nil {
		return
	}
	c := &n.comparing
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agreement.Hear(id, s.Index, s.Hash)
	n.conclude(round)
}

// conclude acts on the verdict, if there is one; comparing.mu is held.
func (n *Node) conclude(round uint64) {
	c := &n.comparing
	m := n.applier.members.Load()
	v, done := c.agreement.Judge(round, n.cfg.ID, m.Voters, m.Learners)
	if !done || v.Outcome == Undecided {
		return
	}
	before := c.verdict
	c.verdict = v
	news := v.Outcome != before.Outcome || !slices.Equal(v.Differ, before.Differ)
	c.differing.Store(int64(len(v.Differ)))
	c.alarm.Store(nil)
	if v.Outcome != NoMajority {
		c.agreed.Store(v.Index)
	}
	switch v.Outcome {
	case Agree:
		if before.Outcome != Undecided && news {
			n.logger.Info("members hold the same state again", "index", v.Index)
		}
	case OutlierHere:
		n.retire(&v)
	case OutliersElsewhere:
		if news {
			n.logger.Error("members hold another state than a majority and this one: they stop", "members", v.Differ, "index", v.Index)
		}
	case NoMajority:
		c.alarm.Store(&v)
		if news {
			n.logger.Error(v.noMajority())
		}
	}
}

// retire stops a node whose state is not the majority's. The directory keeps the
// reason, and all it holds, so that no start brings it back.
func (n *Node) retire(v *Verdict) {
	id := *n.identity
	id.Outlier = fmt.Sprintf("data directory %s: %s", n.cfg.Dir, v.outlier(n.cfg.ID))
	if err := id.save(n.cfg.Dir); err != nil {
		n.logger.Error("the directory does not know that it must not be used any more", "error", err)
	}
	n.fail(&IdentityError{id.Outlier})
}

// StateAgreement tells how the states of the members compare: the newest log index
// at which this one had the state of a majority of the voters, 0 if there is none
// since the start; and what is wrong, if states differ and no majority agrees.
func (n *Node) StateAgreement() (index uint64, differing int, alarm string) {
	c := &n.comparing
	if v := c.alarm.Load(); v != nil {
		alarm = v.noMajority()
	}
	return c.agreed.Load(), int(c.differing.Load()), alarm
}
