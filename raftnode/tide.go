package raftnode

import "go.etcd.io/raft/v3/raftpb"

// tide keeps the high-water record in step with a log, whatever stores the
// two: it goes up after the log has grown, so that a crash in between is no
// damage, and down before the log becomes shorter, for the same reason.
type tide struct {
	last water             // of the log, as of the last write
	note func(water) error // what the record does; see highWater.advance
}

// openTide returns why a recovered log is below its high-water record.
func openTide(rec recovered, high water, note func(water) error) (tide, error) {
	t := tide{last: waterOf(rec), note: note}
	return t, t.last.holds(high)
}

// waterOf is what a recovered log reaches.
func waterOf(rec recovered) water {
	w := water{term: rec.state.GetTerm(), vote: rec.state.GetVote()}
	m := rec.snapshot.GetMetadata()
	w.reach(m.GetTerm(), m.GetIndex())
	if n := len(rec.entries); n > 0 {
		w.reach(rec.entries[n-1].GetTerm(), rec.entries[n-1].GetIndex())
	}
	return w
}

// save wraps the write of entries and a hard state.
func (t *tide) save(state *raftpb.HardState, entries []*raftpb.Entry, write func() error) error {
	next := t.last
	if n := len(entries); n > 0 {
		// A leader can replace the tail by entries of an earlier term, which
		// it has from before.
		next.lastTerm, next.lastIndex = entries[n-1].GetTerm(), entries[n-1].GetIndex()
	}
	return t.around(next, state, write)
}

// mark wraps the write of a snapshot's mark.
func (t *tide) mark(state *raftpb.HardState, snapshot *raftpb.Snapshot, write func() error) error {
	m, next := snapshot.GetMetadata(), t.last
	if m.GetIndex() > next.lastIndex {
		// Received: it replaces the log, perhaps by one of an earlier term.
		next.lastTerm, next.lastIndex = m.GetTerm(), m.GetIndex()
	} else {
		next.reach(m.GetTerm(), m.GetIndex())
	}
	return t.around(next, state, write)
}

func (t *tide) around(next water, state *raftpb.HardState, write func() error) error {
	if next.shorter(t.last) {
		if err := t.note(next); err != nil {
			return err
		}
	}
	if err := write(); err != nil {
		return err
	}
	next.term, next.vote = state.GetTerm(), state.GetVote()
	t.last = next
	return t.note(next)
}
