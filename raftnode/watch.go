package raftnode

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Members ask each other every half election timeout for what raft does not
// tell: their clocks, and whose disk is nearly full.
const (
	// freshRounds is how many rounds an answer counts: five election timeouts.
	freshRounds = 10
	// awayFailures is how many questions in a row go without an answer before a
	// member counts as away.
	awayFailures = 2
)

// diskReport is what a member knows of the disk of one, itself or another. It
// is passed on, because those two may not reach each other.
type diskReport struct {
	ID    uint64 `json:"id"`
	Low   bool   `json:"low"`
	AgeMS int64  `json:"age_ms"`
}

// watch is what this node has learned by asking. Its time is rounds, so that no
// step of a clock makes an answer fresh or stale.
type watch struct {
	mu    sync.Mutex
	round uint64
	seen  map[uint64]*sighting
}

// sighting is what is known of one other member.
type sighting struct {
	compared uint64        // round of offset
	offset   time.Duration // of its clock to this node's, without the round trip's time
	told     uint64        // round of low
	low      bool          // its free disk space is below its reserve

	asking   bool
	failures int       // since its last answer
	last     time.Time // of that
	away     bool
}

func newWatch() watch {
	// What was never learned, in round 0, is not fresh.
	return watch{round: freshRounds + 1, seen: map[uint64]*sighting{}}
}

// of is called with mu held.
func (w *watch) of(id uint64) *sighting {
	s := w.seen[id]
	if s == nil {
		s = &sighting{}
		w.seen[id] = s
	}
	return s
}

func (w *watch) now() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.round
}

func (w *watch) fresh(round uint64) bool { return round+freshRounds >= w.round }

// compare notes a member's clock, which was read between two readings of ours.
// What lies within them is not counted.
func (w *watch) compare(id uint64, before, theirs, after int64) {
	if theirs == 0 {
		return // a build that does not tell
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.of(id)
	s.compared, s.offset = w.round, 0
	switch {
	case theirs < before:
		s.offset = time.Duration(theirs - before)
	case theirs > after:
		s.offset = time.Duration(theirs - after)
	}
}

// median is the middle one, of an even number the lower: a clock that is behind
// does no harm, but what is dated ahead stays ahead.
func median(offsets []time.Duration) time.Duration {
	slices.Sort(offsets)
	return offsets[(len(offsets)-1)/2]
}

// clockOffset is how far this node's clock is ahead of the voters' median; false
// if no clock of another voter is known.
func (w *watch) clockOffset(self uint64, voters []uint64) (ahead time.Duration, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var offsets []time.Duration
	others := 0
	for _, v := range voters {
		if v == self {
			offsets = append(offsets, 0)
		} else if s := w.seen[v]; s == nil {
			others++
		} else if others++; w.fresh(s.compared) {
			offsets = append(offsets, s.offset)
			known = true
		}
	}
	if others == 0 {
		return 0, true
	}
	if !known {
		return 0, false
	}
	return -median(offsets), true
}

// lowVoter is a voter whose disk is nearly full, 0 if there is none.
func (w *watch) lowVoter(voters []uint64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range voters {
		if s := w.seen[v]; s != nil && s.low && w.fresh(s.told) {
			return v
		}
	}
	return 0
}

// interval is the time of a round.
func (n *Node) interval() time.Duration { return n.cfg.electionTimeout() / 2 }

// watchLoop looks at the disk and asks the other members.
func (n *Node) watchLoop() {
	tick, stopTick := n.cfg.Clock.Tick(n.interval())
	defer stopTick()
	for told := false; ; {
		n.checkDisk()
		n.askAll()
		n.judge()
		select {
		case <-tick:
			told = n.tellClock(told)
		case <-n.stop:
			return
		}
	}
}

// checkDisk compares the free space with the reserve.
func (n *Node) checkDisk() {
	n.storageLow.Store(belowReserve(n.cfg.FreeBytes(), n.cfg.MinFreeBytes, n.storageLow.Load()))
}

// askAll begins a round.
func (n *Node) askAll() {
	members := n.applier.members.Load()
	w := &n.watch
	n.compareNow(w.begin(members))
	for _, m := range members.Members {
		// Whom this node has never reached is greeted, see peers.greet.
		if m.ID == n.cfg.ID || !n.peers.accepted(m.ID) {
			continue
		}
		w.mu.Lock()
		s := w.of(m.ID)
		ask := !s.asking
		s.asking = true
		w.mu.Unlock()
		if ask {
			n.spawn(func() { n.ask(m) })
		}
	}
}

func (n *Node) ask(m Member) {
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.electionTimeout())
	defer cancel()
	var reply callReply
	err, state := errLinkCut, n.stateCompared()
	before := n.cfg.Clock.Now().UnixNano()
	if n.cfg.reachable(n.cfg.ID, m.ID) && n.cfg.reachable(m.ID, n.cfg.ID) {
		err = n.peers.post(ctx, m.PeerURL+callPath, callRequest{caller: n.peers.self(m.ID), Op: opReport, State: state}, &reply)
	}
	after := n.cfg.Clock.Now().UnixNano()
	if err == nil {
		n.watch.compare(m.ID, before, reply.TimeNS, after)
		n.hear(m.ID, reply.Disks)
		n.hearState(m.ID, reply.State, n.watch.now())
	}
	// One that refuses is there, unless its directory was made anew.
	var refusal *Error
	var identity *IdentityError
	n.answered(m, err == nil || errors.As(err, &refusal) && !fresh(err) || errors.As(err, &identity) || errors.Is(err, ErrRemoved))
	if err != nil {
		n.peers.missed(m.ID)
	}
	n.judge()
}

// hear takes in what a member knows of disks.
func (n *Node) hear(from uint64, disks []diskReport) {
	n.watch.hear(n.cfg.ID, from, disks, n.interval())
}

// disks is what this node answers to others.
func (n *Node) disks() []diskReport {
	return n.watch.disks(n.cfg.ID, n.storageLow.Load(), n.applier.members.Load().Voters, n.interval())
}

// answered logs that a member went away or came back, a line each.
func (n *Node) answered(m Member, yes bool) {
	now := n.cfg.Clock.Now()
	w := &n.watch
	w.mu.Lock()
	s := w.of(m.ID)
	s.asking = false
	since, changed := s.last, false
	if yes {
		changed, s.away = s.away, false
		s.failures, s.last = 0, now
	} else if s.failures++; s.failures >= awayFailures && !s.away && n.ctx.Err() == nil {
		changed, s.away = true, true
		if since.IsZero() {
			since, s.last = now, now
		}
	}
	w.mu.Unlock()
	switch {
	case changed && yes:
		n.logger.Info("member is back", "member", m.ID, "name", m.Name, "away_since", since.UTC().Format(time.RFC3339))
	case changed:
		n.logger.Warn("member is away: it does not answer", "member", m.ID, "name", m.Name, "url", m.PeerURL, "since", since.UTC().Format(time.RFC3339))
	}
}

// judge decides whether this node may propose.
func (n *Node) judge() {
	n.judging.Lock()
	defer n.judging.Unlock()
	v := n.watch.verdict(n.standing(), n.cfg.ID, n.storageLow.Load(), n.applier.members.Load().Voters, n.cfg.electionTimeout())
	if old := n.lowMember.Swap(v.low); v.low != old && v.low != 0 {
		n.logger.Warn("free disk space is below the reserve: no messages are taken until there is room", "member", v.low)
	} else if v.low != old {
		n.logger.Info("free disk space is above the reserve again: messages are taken", "member", old)
	}
	n.clockOffset.Store(int64(v.ahead))
	if n.clockOff.Swap(v.off) != v.off {
		n.moved()
	}
}

// standing is the last verdict.
func (n *Node) standing() verdict {
	return verdict{n.lowMember.Load(), time.Duration(n.clockOffset.Load()), n.clockOff.Load()}
}

// tellClock logs a verdict once it has lasted to the end of a round: the first
// clock that a node meets after its start may be the wrong one.
func (n *Node) tellClock(told bool) bool {
	off := n.clockOff.Load()
	ahead := time.Duration(n.clockOffset.Load()).Seconds()
	switch {
	case off == told:
	case off:
		n.logger.Error("this node's clock is off against the voters': it proposes nothing, and does not stay the leader", "ahead_seconds", ahead)
	default:
		n.logger.Info("this node's clock agrees with the voters' again", "ahead_seconds", ahead)
	}
	return off
}

// goodClock reports that a member's clock is known to agree with the voters'.
func (n *Node) goodClock(id uint64) bool {
	return n.watch.agrees(n.cfg.ID, id, n.applier.members.Load().Voters, n.cfg.electionTimeout())
}
