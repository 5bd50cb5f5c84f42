package chat

import (
	"slices"
	"sync"
)

const (
	// recentHashes is how many entries of the past the rolling hash is known at, at
	// least; twice as many at most.
	recentHashes = 1024
	// hashStep is how far apart the indexes are at which it is known for longer,
	// and spacedHashes how many of these there are.
	hashStep     = 1024
	spacedHashes = 64
)

// hashes is the rolling hash at log indexes of the past, so that replicas that are
// not at the same one can be compared. It is filled by whoever commits, a few
// words an entry, and read by anybody.
type hashes struct {
	mu     sync.Mutex
	known  uint64     // index up to which the state is known
	recent []hashMark // of the newest entries, ascending: the hash from there on
	spaced []hashMark // at multiples of hashStep, ascending
}

type hashMark struct{ index, hash uint64 }

// reset begins anew with the state at an index.
func (h *hashes) reset(index, hash uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known, h.spaced = index, h.spaced[:0]
	h.recent = append(h.recent[:0], hashMark{index, hash})
}

// add notes the hash after each of some entries, and that the state at last is
// known, too.
func (h *hashes) add(marks []hashMark, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range marks {
		h.reach(m.index - 1)
		h.recent = keepNewest(h.recent, m, recentHashes)
		h.reach(m.index)
	}
	h.reach(last)
}

// reach goes on to an index without a change of the state, and notes the multiples
// of hashStep on the way.
func (h *hashes) reach(index uint64) {
	first := h.known/hashStep + 1
	if newest := index / hashStep; newest >= spacedHashes {
		first = max(first, newest-spacedHashes+1)
	}
	for i := first; i <= index/hashStep; i++ {
		h.spaced = keepNewest(h.spaced, hashMark{i * hashStep, h.recent[len(h.recent)-1].hash}, spacedHashes)
	}
	h.known = index
}

// keepNewest appends to marks, which keep n at least.
func keepNewest(marks []hashMark, m hashMark, n int) []hashMark {
	if len(marks) >= 2*n {
		marks = append(marks[:0], marks[len(marks)-n+1:]...)
	}
	return append(marks, m)
}

// at returns the hash at an index, if it is still known.
func (h *hashes) at(index uint64) (hash uint64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if index > h.known {
		return 0, false
	}
	order := func(m hashMark, index uint64) int {
		switch {
		case m.index < index:
			return -1
		case m.index > index:
			return 1
		}
		return 0
	}
	i, found := slices.BinarySearchFunc(h.recent, index, order)
	switch {
	case found:
		return h.recent[i].hash, true
	case i > 0:
		return h.recent[i-1].hash, true // nothing was applied in between
	}
	if i, found = slices.BinarySearchFunc(h.spaced, index, order); found {
		return h.spaced[i].hash, true
	}
	return 0, false
}

// HashAt returns what [Store.StateHash] was at a log index; false if that is not
// applied yet, or too long ago: it is known for the last 1,024 entries, and for the
// last 64 multiples of 1,024 since the store was opened or replaced.
func (s *Store) HashAt(index uint64) (hash uint64, known bool) { return s.hashes.at(index) }

// HashIndex is an index at which replicas may be compared, above after if there is
// one: others that are not at the same entry know the hash there, too.
func (s *Store) HashIndex(after uint64) uint64 {
	applied, _ := s.StateHash()
	if spaced := applied / hashStep * hashStep; spaced > after {
		return spaced
	}
	return applied
}
