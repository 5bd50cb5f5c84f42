package chat

import (
	"slices"
	"sync"
	"sync/atomic"
)

// hub tells streams that there is something to read. It carries no messages:
// a subscriber that does not look costs a flag, however much it misses.
//
// Apply only marks topics dirty, which is O(1) a room whatever the number of
// subscribers; the hub's goroutine passes the word on.
type hub struct {
	mu     sync.Mutex
	topics map[string]*topic // rooms somebody follows
	dirty  []*topic

	all topic // subscribers of every room
	// inline passes the word on in the goroutine of Apply.
	inline bool
	kick   chan struct{} // one slot: dirty is not empty
	stop   chan struct{}
	done   chan struct{}
}

// topic is the subscribers of one room.
type topic struct {
	name string
	refs int  // streams that hold the topic; guarded by hub.mu
	set  bool // in hub.dirty; guarded by hub.mu

	// newest is the room's newest message. nil: not known, ask the store.
	newest atomic.Pointer[position]

	mu   sync.Mutex
	subs map[*subscriber]struct{}
}

// position is where a message is in its room and in the cluster. Topics keep
// it instead of the message, which would keep its whole log entry in memory.
type position struct{ seq, id uint64 }

// subscriber is one stream's ear: a slot that is filled when one of its rooms
// has something new.
type subscriber struct {
	wake chan struct{}
	// topics are those of its rooms; nil: every room. Whoever owns the subscriber
	// calls join, leave and unsubscribe one at a time.
	topics []*topic
}

func newHub(inline bool) *hub {
	h := &hub{
		inline: inline,
		topics: make(map[string]*topic),
		kick:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	h.all.subs = make(map[*subscriber]struct{})
	if inline {
		close(h.done)
	} else {
		go h.run()
	}
	return h
}

// close stops the goroutine and waits for it.
func (h *hub) close() {
	close(h.stop)
	<-h.done
}

// subscribe registers for rooms, or for every room if rooms is nil.
func (h *hub) subscribe(rooms []string) *subscriber {
	s := &subscriber{wake: make(chan struct{}, 1)}
	if rooms == nil {
		h.all.add(s)
		return s
	}
	s.topics = []*topic{}
	h.join(s, rooms)
	return s
}

// join registers for rooms that s is not registered for, and gives their topics.
func (h *hub) join(s *subscriber, rooms []string) []*topic {
	joined := make([]*topic, len(rooms))
	h.mu.Lock()
	for i, name := range rooms {
		t := h.topics[name]
		if t == nil {
			t = &topic{name: name, subs: make(map[*subscriber]struct{})}
			h.topics[name] = t
		}
		t.refs++
		joined[i] = t
	}
	h.mu.Unlock()
	for _, t := range joined {
		t.add(s)
	}
	s.topics = append(s.topics, joined...)
	return joined
}

// leave undoes join for some topics.
func (h *hub) leave(s *subscriber, topics []*topic) {
	left := make(map[*topic]struct{}, len(topics))
	for _, t := range topics {
		left[t] = struct{}{}
	}
	s.topics = slices.DeleteFunc(s.topics, func(t *topic) bool {
		_, gone := left[t]
		return gone
	})
	h.drop(s, topics)
}

func (h *hub) unsubscribe(s *subscriber) {
	if s.topics == nil {
		h.all.remove(s)
		return
	}
	h.drop(s, s.topics)
	s.topics = []*topic{}
}

func (h *hub) drop(s *subscriber, topics []*topic) {
	for _, t := range topics {
		t.remove(s)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range topics {
		if t.refs--; t.refs == 0 {
			delete(h.topics, t.name)
		}
	}
}

// posted marks rooms that have a new newest message and calls publish, which
// lets readers see the new head. Called by Apply.
//
// The order matters to a stream of several rooms, which takes it that a room has
// nothing more up to the head than its topic says: the topics move first. And it
// matters to one that is about to wait: nobody is woken for what cannot be seen
// yet, since the hub's goroutine needs mu to learn of it.
func (h *hub) posted(rooms []*room, publish func()) {
	h.mu.Lock()
	if len(h.topics) > 0 {
		for _, rm := range rooms {
			if t := h.topics[rm.name]; t != nil {
				t.newest.Store(&position{rm.last, rm.lastID})
				h.markLocked(t)
			}
		}
	}
	if len(rooms) > 0 {
		h.markLocked(&h.all)
	}
	publish()
	h.mu.Unlock()
	h.signal()
}

// reset forgets what is known of every room, calls publish and makes every
// subscriber look again. Called by Restore.
func (h *hub) reset(publish func()) {
	h.mu.Lock()
	for _, t := range h.topics {
		t.newest.Store(nil)
		h.markLocked(t)
	}
	h.markLocked(&h.all)
	publish()
	h.mu.Unlock()
	h.signal()
}

func (h *hub) markLocked(t *topic) {
	if !t.set {
		t.set = true
		h.dirty = append(h.dirty, t)
	}
}

func (h *hub) signal() {
	if h.inline {
		h.passOn(nil)
		return
	}
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

// run is the hub's goroutine.
func (h *hub) run() {
	defer close(h.done)
	var batch []*topic
	for {
		select {
		case <-h.stop:
			return
		case <-h.kick:
			batch = h.passOn(batch)
		}
	}
}

// passOn wakes the subscribers of what is dirty. It takes and returns an empty
// list, so that two are enough for ever.
func (h *hub) passOn(spare []*topic) []*topic {
	h.mu.Lock()
	batch := h.dirty
	h.dirty = spare
	for _, t := range batch {
		t.set = false
	}
	h.mu.Unlock()
	for _, t := range batch {
		t.wakeAll()
	}
	clear(batch)
	return batch[:0]
}

func (t *topic) add(s *subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs[s] = struct{}{}
}

func (t *topic) remove(s *subscriber) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.subs, s)
}

func (t *topic) wakeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for s := range t.subs {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}
