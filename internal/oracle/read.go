package oracle

// Read is a linearizable read of the newest page of a room.
type Read struct {
	h     *History
	room  *room
	begun date

	ended date
	last  uint64
	empty bool // no message came with it
}

// Read notes that a linearizable read of the newest page of a room begins.
func (h *History) Read(room string) *Read {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &Read{h: h, room: h.room(room), begun: h.date()}
}

// Returned notes what was read: the newest Seq of the room, 0 if it is empty or
// absent, and the newest messages, ascending by Seq. A Read that is never
// Returned counts for nothing; one that returns twice panics.
func (r *Read) Returned(last uint64, page []Message) {
	h := r.h
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.ended.moment != 0 {
		panic("oracle: a read has returned twice")
	}
	r.ended, r.last, r.empty = h.date(), last, len(page) == 0
	h.counts.Reads++
	r.room.reads = append(r.room.reads, r)
	for i, m := range page {
		if m.Room != r.room.name {
			h.found.add(o6, "a read of %v has a message of another: %v", r.room, m)
			continue
		}
		if want := last - uint64(len(page)-1-i); m.Seq != want {
			h.found.add(o6, "a page of %v that ends at %d has Seq %d where %d should be", r.room, last, m.Seq, want)
		}
		h.tell(reading, "a read", m)
	}
}
