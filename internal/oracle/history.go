package oracle

import (
	"fmt"
	"sync"
)

// History is everything that was told of one cluster. Make one with
// [NewHistory].
type History struct {
	now func() int64

	mu          sync.Mutex // guards all below, and the fields of what a History hands out
	moment      int64      // counts what happened, so that no two things happen at once
	rooms       map[string]*room
	subscribers []*Subscriber
	replicas    []*replica
	states      map[uint64]state // by applied index
	counts      Counts
	found       findings
}

// room is what was told of one room.
type room struct {
	name    string
	sent    []*Post                // in the order of their Sends
	posts   map[string]*Post       // the same by client message id
	said    map[statement]struct{} // for tellers that know no client message ids
	facts   map[uint64]*fact       // by Seq
	last    uint64                 // highest Seq of facts
	dropped uint64                 // messages below may be gone
	reads   []*Read                // that were returned
}

type statement struct{ user, body string }

// fact is what is known of the message that has a certain Seq.
type fact struct {
	Message
	from source // the one most to be believed
}

// source is who tells of a stored message, the one most to be believed first.
type source int

const (
	acknowledgement source = iota
	storage
	reading
	delivery
)

// rule is the one that is broken if what the source tells is not so.
func (s source) rule() rule {
	switch s {
	case reading:
		return o6
	case delivery:
		return o2
	}
	return o1
}

// state is a hash of what a replica had applied, the first that was told.
type state struct {
	hash    uint64
	replica string
}

// Counts says how much a history was told.
type Counts struct {
	Sends        int // messages
	Acknowledged int // of these
	Refused      int // of these, in every attempt
	Unknown      int // of these, neither
	Reads        int // that were returned
	Subscribers  int
	Received     int // deliveries to all subscribers
	Gaps         int // that subscribers were told of
	Replicas     int
	States       int // hashes, those of replicas at the end included
}

// NewHistory makes an empty log. now gives the time, in any unit, never
// decreasing; all that the history is told is dated by it.
func NewHistory(now func() int64) *History {
	return &History{now: now, rooms: map[string]*room{}, states: map[uint64]state{}}
}

// date is when something happened: its place in the order of everything that
// was told, and the time for people.
type date struct{ moment, at int64 }

func (h *History) date() date {
	h.moment++
	return date{h.moment, h.now()}
}

func (h *History) room(name string) *room {
	r := h.rooms[name]
	if r == nil {
		r = &room{name: name, posts: map[string]*Post{}, said: map[statement]struct{}{}, facts: map[uint64]*fact{}}
		h.rooms[name] = r
	}
	return r
}

// Dropped notes that messages below first of a room may legitimately be gone.
// It may come before or after they are missed.
func (h *History) Dropped(room string, first uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.room(room)
	r.dropped = max(r.dropped, first)
}

// Violations are those that could be told while things happened, at most a
// bounded number.
func (h *History) Violations() []Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.found.report()
}

// Counts says how much the history was told so far.
func (h *History) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.counts
	c.Unknown = c.Sends - c.Acknowledged - c.Refused
	c.Subscribers, c.Replicas = len(h.subscribers), len(h.replicas)
	return c
}

// tell notes that somebody, named by who, says that m is stored, and compares
// it with what was sent and with what others said.
func (h *History) tell(from source, who string, m Message) {
	r := h.room(m.Room)
	if m.Seq == 0 {
		h.found.add(from.rule(), "%s tells of a message without Seq: %v", who, m)
		return
	}
	if !h.wasSent(r, from, who, m) {
		return
	}
	known := r.facts[m.Seq]
	switch {
	case known == nil:
		r.facts[m.Seq] = &fact{m, from}
		r.last = max(r.last, m.Seq)
	case known.agrees(m):
		known.learn(m)
		known.from = min(known.from, from)
	default:
		h.found.add(max(from, known.from).rule(), "%s tells of %v, others of %v", who, m, known.Message)
		if from < known.from {
			*known = fact{m, from}
		}
	}
}

// wasSent judges m by the post that it comes from, and notes its Seq there.
func (h *History) wasSent(r *room, from source, who string, m Message) bool {
	if m.ClientID == "" {
		if from == storage {
			h.found.add(o3, "%s has a message without its client id: %v", who, m)
			return false
		}
		if _, said := r.said[statement{m.User, m.Body}]; !said {
			h.found.add(o3, "%s tells of a message that was never sent: %v", who, m)
			return false
		}
		return true
	}
	p := r.posts[m.ClientID]
	if p == nil {
		h.found.add(o3, "%s tells of a message that was never sent: %v", who, m)
		return false
	}
	if m.User != p.message.User || m.Body != p.message.Body {
		h.found.add(o3, "%s tells of %v, what was sent is %v", who, m, p.message)
		return false
	}
	if p.seq != 0 && p.seq != m.Seq {
		h.found.add(o4, "%s tells of %v, others say that it has Seq %d", who, m, p.seq)
	}
	if p.seq == 0 || from <= storage && from < p.from {
		p.seq, p.from = m.Seq, from
	}
	return true
}

// StateAt notes a hash of the state that a replica had when it had applied the
// entries up to an index, at any time.
func (h *History) StateAt(replica string, applied, hash uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stateAt(replica, applied, hash)
}

func (h *History) stateAt(replica string, applied, hash uint64) {
	h.counts.States++
	before, told := h.states[applied]
	if !told {
		h.states[applied] = state{hash, replica}
	} else if before.hash != hash {
		h.found.add(o5, "at applied index %d the state of %s is %016x and that of %s is %016x", applied, before.replica, before.hash, replica, hash)
	}
}

// name of a room in reports.
func (r *room) String() string { return fmt.Sprintf("room %q", r.name) }
