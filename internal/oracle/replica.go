package oracle

import (
	"cmp"
	"maps"
	"slices"
)

// Replica is what one node stores at the end.
type Replica struct {
	Name     string
	Applied  uint64
	Hash     uint64    // of the state at Applied
	Messages []Message // all, ascending by Seq within each room
}

// replica is a Replica with its messages by room, in the order they came.
type replica struct {
	Replica
	rooms map[string][]Message
	seqs  map[string]map[uint64]bool // of rooms whose Seq does not count 1, 2, 3 …
}

// Replica notes what one node stores at the end, when it has applied all that
// it will.
func (h *History) Replica(r Replica) {
	h.mu.Lock()
	defer h.mu.Unlock()
	noted := &replica{r, map[string][]Message{}, map[string]map[uint64]bool{}}
	for _, m := range r.Messages {
		noted.rooms[m.Room] = append(noted.rooms[m.Room], m)
		h.tell(storage, r.Name, m)
	}
	h.replicas = append(h.replicas, noted)
	h.stateAt(r.Name, r.Applied, r.Hash)
}

// holds reports whether the replica has a message of a room.
func (r *replica) holds(room string, seq uint64) bool {
	messages := r.rooms[room]
	if len(messages) == 0 {
		return false
	}
	// This decides it if Seq counts without a gap, as it should.
	first, n := messages[0].Seq, uint64(len(messages))
	if at := seq - first; at < n && messages[at].Seq == seq {
		return true
	}
	if r.seqs[room] == nil {
		r.seqs[room] = make(map[uint64]bool, n)
		for _, m := range messages {
			r.seqs[room][m.Seq] = true
		}
	}
	return r.seqs[room][seq]
}

// checkCounters judges Seq, ID and PostedUS of one replica.
func (h *History) checkCounters(found *findings, r *replica) {
	gone := uint64(0) // messages that retention can have dropped, at most
	for _, name := range h.roomNames() {
		room, messages := h.rooms[name], r.rooms[name]
		if len(messages) == 0 {
			gone += max(room.dropped, 1) - 1
			continue
		}
		first := messages[0].Seq
		gone += first - 1
		if first > max(room.dropped, 1) {
			found.add(o1, "%s begins %v with Seq %d, messages from %d on were not dropped", r.Name, room, first, max(room.dropped, 1))
		}
		for i, m := range messages {
			if want := first + uint64(i); m.Seq != want {
				found.add(o1, "%s has Seq %d in %v where %d should be", r.Name, m.Seq, room, want)
				break
			}
		}
	}

	byID := slices.Clone(r.Messages)
	slices.SortFunc(byID, func(a, b Message) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Room, b.Room), cmp.Compare(a.Seq, b.Seq))
	})
	before := Message{}
	for _, m := range byID {
		if m.ID == before.ID {
			found.add(o1, "%s has ID %d twice or not at all: %v and %v", r.Name, m.ID, before, m)
		}
		if m.PostedUS < before.PostedUS {
			found.add(o1, "%s has %v behind %v", r.Name, m, before)
		}
		before = m
	}
	if missing := before.ID - uint64(len(byID)); before.ID > uint64(len(byID)) && missing > gone {
		found.add(o1, "%s lacks %d of the IDs up to %d, at most %d messages were dropped", r.Name, missing, before.ID, gone)
	}
}

// checkEqual judges whether replicas that have applied the same hold the same.
func (h *History) checkEqual(found *findings) {
	first := map[uint64]*replica{}
	for _, r := range h.replicas {
		other := first[r.Applied]
		if other == nil {
			first[r.Applied] = r
			continue
		}
		for _, name := range h.roomNames() {
			if !slices.Equal(r.rooms[name], other.rooms[name]) {
				found.add(o5, "%s and %s have applied the same %d entries and differ in %v: %d and %d messages",
					other.Name, r.Name, r.Applied, h.rooms[name], len(other.rooms[name]), len(r.rooms[name]))
			}
		}
	}
}

func (h *History) roomNames() []string { return slices.Sorted(maps.Keys(h.rooms)) }
