package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/chat"
)

const (
	// maxAnswers is how many bytes of answers wait to be written before requests have to wait.
	maxAnswers = 256 << 10
	// maxSpread is how many IDs sources may be apart to be joined: about a page of what is read again.
	maxSpread = 256
	// maxOutstanding bounds the sends and history requests of a connection that have no answer yet.
	maxOutstanding = 64
)

// session is what a raft-chat.v1 connection has besides its stream: rooms that come and go, and requests.
//
// Rooms are read from sources. A subscription begins as a source of its own, so that the others need not go back to
// where it starts. As soon as the sources stand near each other they are joined into one, which begins where the last
// of them stands, and each room skips what it was sent beyond that. An idle connection thus has one source, however it
// came to its rooms, and what comes then is in ID order over all of them.
//
// The delivering goroutine owns active; the reading goroutine and those of requests hand over through what mu guards.
type session struct {
	stream *stream

	active []*source // read in turn; changed under mu, so that others can read it there
	turn   int       // index of the source that gave something last

	ctx    context.Context // of requests
	cancel context.CancelFunc
	lane   *chat.Lane // of sends
	sends  sync.WaitGroup
	pages  chan struct{} // holds a token while a page of history is read: one at a time bounds memory

	mu          sync.Mutex // guards the rest
	rooms       map[string]*subscription
	added       []*source // not yet active; their answers are before them in answers
	stale       bool      // an active source has rooms that are not wanted any more
	answers     []byte
	space       chan struct{} // not nil while somebody waits; closed when answers was taken
	outstanding int
	over        bool // no more answers are awaited, so nobody waits to give one
}

// source is a stream of rooms.
type source struct {
	stream *chat.Stream
	done   uint64 // everything up to this ID was written; guarded by session.mu
	active bool   // guarded by session.mu
}

// subscription is a room's place. Messages that are not beyond lastID and lastSeq were sent or are not wanted.
type subscription struct {
	from            *source
	lastID, lastSeq uint64
}

// openSession is GET /ws with the subprotocol raft-chat.v1.
func (s *Server) openSession(w http.ResponseWriter, r *http.Request, q query) *problem {
	if q.values.Has("since") || q.values.Has("after") {
		return newProblem(codeCursorInvalid, "with raft-chat.v1, each subscribe frame says where it begins")
	}
	f := &stream{server: s, form: &s.forms.session, encoding: s.forms.session.encoding, wait: newWaiter()}
	v := &session{stream: f, rooms: make(map[string]*subscription), pages: make(chan struct{}, 1), lane: s.options.Chat.NewLane()}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	f.session = v
	if p := s.register(f); p != nil {
		v.cancel()
		return p
	}
	s.startSocket(w, r, f, []string{sessionProtocol})
	return nil
}

// next gives the messages of one source that are to be sent. errRung means that attend has something to do.
func (v *session) next(wait *waiter) (chat.Delivery, *source, error) {
	for wait.Err() == nil {
		if v.settled() {
			if len(v.active) == 0 {
				<-wait.Done()
				break
			}
			from := v.active[0]
			d, err := from.stream.NextDelivery(wait)
			if err != nil && wait.Err() != nil {
				break
			}
			if err != nil {
				return d, from, err
			}
			if d = v.wanted(d, from); len(d.Messages)+len(d.Gaps) > 0 {
				return d, from, nil
			}
			continue
		}
		d, from, err := v.round()
		if err != nil || from != nil {
			return d, from, err
		}
	}
	return chat.Delivery{}, nil, errRung
}

// settled reports whether there is at most one source, and that with the right rooms.
func (v *session) settled() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.active) <= 1 && !v.stale
}

// round joins the sources if they are near each other. Otherwise it looks into every one, beginning behind that which
// gave something last; if nothing waits in any, they are near.
func (v *session) round() (chat.Delivery, *source, error) {
	server := v.stream.server
	if joined, err := v.join(); joined || err != nil {
		return chat.Delivery{}, nil, err
	}
	head := server.options.Chat.Head()
	for range v.active {
		v.turn = (v.turn + 1) % len(v.active)
		from := v.active[v.turn]
		for {
			d, empty, err := server.waiting(from.stream)
			if err != nil {
				return d, from, err
			}
			if empty {
				v.passed(from, head)
				break
			}
			if d = v.wanted(d, from); len(d.Messages)+len(d.Gaps) > 0 {
				return d, from, nil
			}
		}
	}
	return chat.Delivery{}, nil, nil
}

// passed notes that a source has delivered everything up to id.
func (v *session) passed(from *source, id uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	from.done = max(from.done, id)
}

// join makes one source of the active ones if that has to read little again: it begins where the last of them stands,
// and what the others have delivered beyond is left out.
func (v *session) join() (joined bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	last, first := uint64(0), uint64(0)
	for i, from := range v.active {
		if first = max(first, from.done); i == 0 || from.done < last {
			last = from.done
		}
	}
	if first-last > maxSpread {
		return false, nil
	}
	var names []string
	for name, sub := range v.rooms {
		if sub.from.active {
			names = append(names, name)
		}
	}
	var joint []*source
	if len(names) > 0 {
		stream, err := v.stream.server.options.Chat.Follow(v.ctx, chat.Actor{}, names, chat.Cursor{ID: last})
		if err != nil {
			return false, err
		}
		joint = []*source{{stream: stream, done: last, active: true}}
		for _, name := range names {
			sub := v.rooms[name]
			sub.lastID = max(sub.lastID, sub.from.done)
			sub.from = joint[0]
		}
	}
	for _, old := range v.active {
		old.active = false
		old.stream.Close()
	}
	v.active, v.turn, v.stale = joint, 0, false
	return true, nil
}

// wanted leaves out what was sent already, by another source or before the place that was asked for, and what belongs
// to rooms that are not this source's any more.
func (v *session) wanted(d chat.Delivery, from *source) chat.Delivery {
	v.mu.Lock()
	defer v.mu.Unlock()
	messages := d.Messages[:0]
	for _, m := range d.Messages {
		if sub := v.rooms[m.Room]; sub != nil && sub.from == from && m.ID > sub.lastID && m.Seq > sub.lastSeq {
			messages = append(messages, m)
		}
	}
	clear(d.Messages[len(messages):])
	gaps := d.Gaps[:0]
	for _, g := range d.Gaps {
		sub := v.rooms[g.Room]
		if sub == nil || sub.from != from || g.LastSeq <= sub.lastSeq || !g.Beyond(sub.lastID) {
			continue
		}
		g.FirstSeq = max(g.FirstSeq, sub.lastSeq+1)
		gaps = append(gaps, g)
	}
	d.Messages, d.Gaps = messages, gaps
	if len(messages)+len(gaps) == 0 {
		from.done = max(from.done, from.stream.Cursor())
	}
	return d
}

// wrote notes what was written of a delivery.
func (v *session) wrote(from *source, gaps []chat.Gap, messages []*chat.Message) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, g := range gaps {
		if sub := v.rooms[g.Room]; sub != nil && sub.from == from {
			sub.lastSeq = max(sub.lastSeq, g.LastSeq)
		}
	}
	for _, m := range messages {
		if sub := v.rooms[m.Room]; sub != nil && sub.from == from {
			sub.lastID, sub.lastSeq = m.ID, m.Seq
		}
	}
}

// finished notes that everything of a delivery was written.
func (v *session) finished(from *source) {
	v.mu.Lock()
	defer v.mu.Unlock()
	from.done = max(from.done, from.stream.Cursor())
}

// cursors returns where to go on in each room, and the least of that: from there nothing is missed in any.
func (v *session) cursors() (since uint64, rooms map[string]uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rooms = make(map[string]uint64, len(v.rooms))
	for name, sub := range v.rooms {
		rooms[name] = max(sub.lastID, sub.from.done)
		if len(rooms) == 1 || rooms[name] < since {
			since = rooms[name]
		}
	}
	if len(rooms) == 0 {
		since = v.stream.server.options.Chat.Head()
	}
	return since, rooms
}

// takeAnswers appends what is to be answered to b, and makes the sources active whose subscriptions are among it.
func (v *session) takeAnswers(b []byte) []byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	b = append(b, v.answers...)
	v.answers = v.answers[:0]
	if cap(v.answers) > joinedBytes {
		v.answers = nil
	}
	if v.space != nil {
		close(v.space)
		v.space = nil
	}
	for _, added := range v.added {
		added.active = true
	}
	v.active = append(v.active, v.added...)
	v.added = nil
	return b
}

// answer hands a frame to the delivering goroutine. It waits while too much is handed over already, so that a client
// that does not take its answers cannot make this node collect them.
func (v *session) answer(frame []byte) { v.hand(frame, 0) }

// hand is answer, also for requests that begin has counted: they are answered as soon as the client can know it.
func (v *session) hand(frame []byte, answered int) {
	v.mu.Lock()
	for len(v.answers) > maxAnswers && !v.over {
		if v.space == nil {
			v.space = make(chan struct{})
		}
		space := v.space
		v.mu.Unlock()
		<-space
		v.mu.Lock()
	}
	if len(v.answers) <= maxAnswers {
		v.answers = append(v.answers, frame...)
	} // else it is over, and the client did not even take what was answered before
	v.outstanding -= answered
	v.mu.Unlock()
	v.stream.wait.ring()
}

// begin counts a request that is answered later; false if there are too many.
func (v *session) begin() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.outstanding == maxOutstanding || v.over {
		return false
	}
	v.outstanding++
	v.sends.Add(1)
	return true
}

// finish takes no more requests, waits for those that are under way and returns the answers that were not written. If
// patient, requests have a short time for their outcome. The delivering goroutine calls it at its end.
func (v *session) finish(patient bool) []byte {
	v.mu.Lock()
	v.over = true
	if v.space != nil {
		close(v.space)
		v.space = nil
	}
	v.mu.Unlock()
	if !patient {
		v.cancel()
	}
	limit := time.AfterFunc(partingTime, v.cancel)
	v.sends.Wait()
	limit.Stop()
	v.cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.answers
}

// closeSources ends the wake-ups of all sources; the sources stay, for their places.
func (v *session) closeSources() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, from := range v.active {
		from.stream.Close()
	}
	for _, from := range v.added {
		from.stream.Close()
	}
}
