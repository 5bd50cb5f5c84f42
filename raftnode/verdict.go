package raftnode

import (
	"strconv"
	"time"
)

// verdict is what a member makes of the clocks and disks it knows of: whether it
// may propose.
type verdict struct {
	low   uint64        // a member whose disk is nearly full, 0 if nobody's
	ahead time.Duration // of the voters' median clock
	off   bool          // by more than the limit
}

// verdict judges anew; of clocks the last verdict stands while none is known.
func (w *watch) verdict(last verdict, self uint64, ownLow bool, voters []uint64, limit time.Duration) verdict {
	v := last
	v.low = w.lowVoter(voters)
	if ownLow {
		v.low = self
	}
	if ahead, known := w.clockOffset(self, voters); known {
		v.ahead, v.off = ahead, ahead.Abs() > limit
	}
	return v
}

// refusal is why nothing may be proposed, or nil.
func (v verdict) refusal(m *membership) error {
	switch {
	case v.low != 0:
		member := strconv.FormatUint(v.low, 10)
		if x, ok := m.member(v.low); ok && x.Name != "" && x.Name != member {
			member += " (" + x.Name + ")"
		}
		return errorf(CodeStorageLow, "member %s has less free disk space than its reserve (--min-free-bytes): no messages are taken until there is room; reading and administration go on", member)
	case v.off:
		return errorf(CodeClockSkew, "this node's clock is off by %.1f s against the voters' median: use another node until it is right", v.ahead.Seconds())
	}
	return nil
}

// belowReserve reports whether free space counts as low. It does until a little
// more is free again, so that it does not change with every file.
func belowReserve(free, reserve int64, was bool) bool {
	if was {
		reserve += reserve / 16
	}
	return free < reserve
}

// begin begins a round, and forgets whoever is no member any more.
func (w *watch) begin(m *membership) (round uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.round++
	for id := range w.seen {
		if _, ok := m.member(id); !ok {
			delete(w.seen, id)
		}
	}
	return w.round
}

// hear takes in what a member knows of disks; interval is a round's time.
func (w *watch) hear(self, from uint64, disks []diskReport, interval time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range disks {
		if d.ID == self || d.AgeMS < 0 {
			continue
		}
		told := w.round
		if d.ID != from {
			// It grows older on its way, so that no two keep each other's word alive.
			rounds := d.AgeMS/interval.Milliseconds() + 1
			if rounds > freshRounds {
				continue
			}
			told -= uint64(rounds)
		}
		if s := w.of(d.ID); d.ID == from || told > s.told {
			s.told, s.low = told, d.Low
		}
	}
}

// disks is what a member tells others; low is of its own disk.
func (w *watch) disks(self uint64, low bool, voters []uint64, interval time.Duration) []diskReport {
	out := []diskReport{{ID: self, Low: low}}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range voters {
		if s := w.seen[v]; s != nil && w.fresh(s.told) {
			out = append(out, diskReport{ID: v, Low: s.low, AgeMS: int64(w.round-s.told) * interval.Milliseconds()})
		}
	}
	return out
}

// agrees reports that another member's clock is known to agree with the voters'.
func (w *watch) agrees(self, id uint64, voters []uint64, limit time.Duration) bool {
	ahead, known := w.clockOffset(self, voters)
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.seen[id]
	return known && s != nil && w.fresh(s.compared) && (s.offset+ahead).Abs() <= limit
}
