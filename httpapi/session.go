package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

const (
	// maxAnswers is how many bytes of answers wait to be written before requests have to wait.
	maxAnswers = 64 << 10
	// maxOutstanding bounds the sends and history requests of a connection that have no answer yet.
	maxOutstanding = 64
	// historyBytes bounds a page of history, in bytes as stored; a longer message goes alone.
	historyBytes = 128 << 10
)

// session is what a raft-chat.v1 connection has besides its stream: rooms that come and go, and requests. Its source is
// one chat.Stream, to which rooms are added and from which they are removed.
//
// The goroutines of requests hand over what mu guards to the delivering goroutine: answers, and changes of its rooms.
// A change takes effect together with its answer, so what comes before the answer is of before, and what comes behind it
// of after.
type session struct {
	stream *stream

	ctx    context.Context // of requests
	cancel context.CancelFunc
	lane   *chat.Lane // of sends
	sends  sync.WaitGroup
	// page holds a token from the moment that a page of history is read until it was written: there is one at a time.
	page   chan struct{}
	ending chan struct{} // closed when no request is answered any more that has not begun

	// late has the places of rooms that were subscribed when the stream had ended. The delivering goroutine's.
	late map[string]uint64

	mu          sync.Mutex        // guards the rest
	names       map[string]string // by room: the name that it was asked for by
	changes     []change
	answers     []byte
	paged       bool // a page of history is among answers
	held        int  // bytes of answers and changes
	lease       budget.Lease
	space       chan struct{} // not nil while somebody waits; closed when answers was taken
	outstanding int
	over        bool // no more answers are awaited, so nobody waits to give one
}

// change adds rooms at a place, or removes them.
type change struct {
	rooms  []string
	from   chat.Cursor
	remove bool
}

// size is about the memory that c holds, in bytes.
func (c *change) size() int {
	n := 64
	for _, room := range c.rooms {
		n += 16 + len(room)
	}
	return n
}

// openSession is GET /ws with the subprotocol raft-chat.v1.
func (s *Server) openSession(w http.ResponseWriter, r *http.Request, q query) *problem {
	if q.values.Has("since") || q.values.Has("after") {
		return newProblem(codeCursorInvalid, "with raft-chat.v1, each subscribe frame says where it begins")
	}
	f := &stream{server: s, form: &s.forms.session, encoding: s.forms.session.encoding, wait: newWaiter()}
	v := &session{
		stream: f, names: make(map[string]string), page: make(chan struct{}, 1), ending: make(chan struct{}),
		lane: s.options.Chat.NewLane(), lease: s.options.Budget.Account(budget.Streams).Lease(),
	}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	f.session = v
	if p := s.register(f); p != nil {
		v.cancel()
		return p
	}
	p := f.admit(0)
	if p == nil {
		var err error
		if f.source, err = s.options.Chat.FollowLater(r.Context(), chat.Actor{}); err != nil {
			p = s.problemOf(err)
		}
	}
	if p != nil {
		v.cancel()
		s.forget(f)
		return p
	}
	s.startSocket(w, r, f, []string{sessionProtocol})
	return nil
}

// cursors returns where to go on in each room, by the names that were asked for, and the least of that: from there
// nothing is missed in any. The delivering goroutine calls it.
func (v *session) cursors() (since uint64, cursors map[string]uint64) {
	f := v.stream
	places := make(map[string]uint64)
	f.source.Cursors(func(room string, cursor uint64) { places[room] = cursor })
	for i := len(f.rest) - 1; i >= 0; i-- {
		places[f.rest[i].Room] = f.rest[i].ID - 1
	}
	for room, cursor := range v.late {
		places[room] = cursor
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	cursors = make(map[string]uint64, len(places))
	for room, cursor := range places {
		if name, asked := v.names[room]; asked {
			cursors[name] = cursor
			if len(cursors) == 1 || cursor < since {
				since = cursor
			}
		}
	}
	if len(cursors) == 0 {
		since = f.server.options.Chat.Head()
	}
	return since, cursors
}

// takeAnswers gives what is to be answered, behind words, and makes the changes of rooms that are among it. paged says
// that a page of history is, too. The delivering goroutine calls it.
func (v *session) takeAnswers(words []byte) (all []byte, paged bool) {
	v.mu.Lock()
	all, paged, changes := v.answers, v.paged, v.changes
	v.answers, v.paged, v.changes, v.held = nil, false, nil, 0
	v.chargeLocked(0)
	if v.space != nil {
		close(v.space)
		v.space = nil
	}
	v.mu.Unlock()
	if len(words) > 0 {
		all = append(words, all...)
	}
	for _, c := range changes {
		v.change(c)
	}
	return all, paged
}

func (v *session) change(c change) {
	source := v.stream.source
	if c.remove {
		_ = source.Remove(c.rooms) // the names are normal
		for _, room := range c.rooms {
			delete(v.late, room)
		}
		return
	}
	if source.Add(c.rooms, c.from) == nil {
		return
	}
	// The stream has ended, and all that counts is where to go on.
	if v.late == nil {
		v.late = make(map[string]uint64)
	}
	for _, room := range c.rooms {
		v.late[room] = c.from.ID
	}
}

// said takes back what takeAnswers gave when it was written.
func (v *session) said(words []byte, paged bool) {
	if paged {
		<-v.page
	}
	if cap(words) == 0 || cap(words) > joinedBytes {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.answers == nil {
		v.answers = words[:0]
	}
}

// handed is what a request leaves to the delivering goroutine: the frame that answers it, and the changes of rooms that
// go with it.
type handed struct {
	frame   []byte
	changes []change
	paged   bool // the frame is a page of history
	counted bool // begin has counted the request
}

// answer hands over a frame.
func (v *session) answer(frame []byte) { v.hand(handed{frame: frame}) }

// hand waits while too much is handed over already, so that a client that does not take its answers cannot make this
// node collect them.
func (v *session) hand(h handed) {
	v.mu.Lock()
	for v.held > maxAnswers && !v.over {
		if v.space == nil {
			v.space = make(chan struct{})
		}
		space := v.space
		v.mu.Unlock()
		<-space
		v.mu.Lock()
	}
	if h.counted {
		// Before the answer can be read, or the client could ask again and be refused.
		v.outstanding--
	}
	if v.held > maxAnswers {
		v.mu.Unlock() // it is over, and the client did not even take what was answered before
		return
	}
	more := len(h.frame)
	for i := range h.changes {
		more += h.changes[i].size()
	}
	if !v.chargeLocked(more) {
		v.mu.Unlock()
		relieved := v.stream.server.relieve(v.stream)
		v.mu.Lock()
		if !relieved || !v.chargeLocked(more) {
			v.mu.Unlock()
			v.stream.cut(errOverload)
			return
		}
	}
	v.held += more
	v.answers = append(v.answers, h.frame...)
	v.changes = append(v.changes, h.changes...)
	v.paged = v.paged || h.paged
	v.mu.Unlock()
	v.stream.wait.ring()
}

// chargeLocked charges for what is held, more bytes, and the rooms; false if the budget refuses that.
func (v *session) chargeLocked(more int) bool {
	return v.lease.Resize(int64(v.held + more + len(v.names)*roomBytes))
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
	close(v.ending)
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
	answers, _ := v.takeAnswers(nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lease.Close()
	return answers
}
