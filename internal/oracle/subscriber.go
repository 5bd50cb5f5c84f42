package oracle

import "slices"

// Subscriber is a reader that follows rooms from the beginning, across
// reconnects and resumes.
type Subscriber struct {
	h     *History
	name  string
	rooms []string // none: every room

	next   map[string]uint64 // Seq that should come; a room that is not here: 1
	lastID uint64
	gaps   []dropping
	closed bool
}

// dropping is a range of messages that somebody said are gone.
type dropping struct {
	room        string
	first, last uint64
}

// Subscriber notes a reader that follows rooms, or every room if none is named.
func (h *History) Subscriber(name string, rooms ...string) *Subscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Subscriber{h: h, name: name, rooms: slices.Sorted(slices.Values(rooms)), next: map[string]uint64{}}
	for _, name := range rooms {
		h.room(name) // it counts also if nobody ever posts to it
	}
	h.subscribers = append(h.subscribers, s)
	return s
}

// Received notes the message that has come next.
func (s *Subscriber) Received(m Message) {
	h := s.h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts.Received++
	if !s.follows(m.Room) {
		h.found.add(o2, "%s got a message of a room that it does not follow: %v", s.name, m)
		return
	}
	if want := s.expects(m.Room); m.Seq != want {
		h.found.add(o2, "%s got %v when Seq %d was next", s.name, m, want)
	}
	s.next[m.Room] = max(s.expects(m.Room), m.Seq+1)
	if m.ID != 0 {
		if m.ID <= s.lastID {
			h.found.add(o2, "%s got %v behind ID %d", s.name, m, s.lastID)
		}
		s.lastID = max(s.lastID, m.ID)
	}
	h.tell(delivery, s.name, m)
}

// Gap notes that the subscriber was told that messages first to last of a room
// were dropped by retention. It may have got the beginning of them.
func (s *Subscriber) Gap(room string, first, last uint64) {
	h := s.h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counts.Gaps++
	h.room(room)
	want := s.expects(room)
	if !s.follows(room) || first > want || last < want {
		h.found.add(o2, "%s was told of a gap from %d to %d of room %q when Seq %d was next", s.name, first, last, room, want)
	}
	if last >= want {
		s.gaps = append(s.gaps, dropping{room, want, last})
		s.next[room] = last + 1
	}
}

// Closed notes that the subscriber has stopped reading on purpose: it need not
// have seen what came later.
func (s *Subscriber) Closed() {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.closed = true
}

func (s *Subscriber) follows(room string) bool {
	return len(s.rooms) == 0 || slices.Contains(s.rooms, room)
}

func (s *Subscriber) expects(room string) uint64 {
	if next, seen := s.next[room]; seen {
		return next
	}
	return 1
}
