package oracle

import (
	"maps"
	"slices"
)

// Check judges everything once the replicas have been noted. It includes
// Violations, and may be called again after more was told.
func (h *History) Check() []Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := h.found.clone()
	if len(h.replicas) == 0 {
		found.add(o1, "what the replicas store was not noted")
	}
	for _, r := range h.replicas {
		h.checkCounters(&found, r)
	}
	h.checkEqual(&found)
	h.checkStored(&found)
	h.checkRefused(&found)
	h.checkSubscribers(&found)
	for _, name := range h.roomNames() {
		h.rooms[name].checkOrder(&found)
	}
	return found.report()
}

// checkStored judges whether every message that anybody told of is on every
// replica. That it is there as it was told was judged when it was told.
func (h *History) checkStored(found *findings) {
	applied := uint64(0)
	for _, r := range h.replicas {
		applied = max(applied, r.Applied)
	}
	for _, name := range h.roomNames() {
		room := h.rooms[name]
		for _, seq := range slices.Sorted(maps.Keys(room.facts)) {
			f := room.facts[seq]
			if seq < room.dropped {
				continue
			}
			for _, r := range h.replicas {
				// One that only another replica has may be in entries to come.
				if r.holds(name, seq) || f.from == storage && r.Applied < applied {
					continue
				}
				found.add(f.from.rule(), "%s does not have a message of which %s told: %v", r.Name, f.from, f.Message)
			}
		}
	}
}

// String names the source in reports.
func (s source) String() string {
	return [...]string{"an acknowledgement", "a replica", "a read", "a delivery"}[s]
}

func (h *History) checkRefused(found *findings) {
	for _, name := range h.roomNames() {
		for _, p := range h.rooms[name].sent {
			if p.refused && !p.acknowledged() && p.seq != 0 {
				found.add(o3, "every attempt was refused, and %s tells of Seq %d: %v", p.from, p.seq, p.message)
			}
		}
	}
}

func (h *History) checkSubscribers(found *findings) {
	for _, s := range h.subscribers {
		for _, g := range s.gaps {
			if g.last >= h.rooms[g.room].dropped {
				found.add(o2, "%s missed messages %d to %d of room %q, which were not dropped", s.name, g.first, g.last, g.room)
			}
		}
		if s.closed {
			continue
		}
		rooms := s.rooms
		if len(rooms) == 0 {
			rooms = h.roomNames()
		}
		for _, name := range rooms {
			if last := h.rooms[name].last; s.expects(name) <= last {
				found.add(o2, "%s has seen room %q up to %d, which goes on to %d", s.name, name, s.expects(name)-1, last)
			}
		}
	}
}
