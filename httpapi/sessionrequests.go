package httpapi

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// frameTime is how long a frame may take to arrive from its header on, as the body of a request.
const frameTime = 15 * time.Second

// read takes requests until the connection ends, and returns why it did. A request that is wrong is answered and costs
// nothing else.
func (v *session) read() error {
	f := v.stream
	lease := f.server.options.Budget.Account(budget.Requests).Lease()
	defer lease.Close()
	for {
		kind, message, err := f.conn.Reader(context.Background())
		if err != nil {
			return errGone
		}
		// An error means that the connection has ended, which reading will tell.
		_ = f.frames.SetReadDeadline(time.Now().Add(frameTime))
		buffer := f.server.bodies.Get().(*[]byte)
		frame, err := readFrame(message, (*buffer)[:0], &lease)
		refused := errors.Is(err, errNoRoom)
		if refused {
			_, err = io.Copy(io.Discard, message)
		}
		_ = f.frames.SetReadDeadline(time.Time{})
		if err == nil {
			// In a goroutine of its own, for the length of the request: the stack that decoding needs would stay with this
			// one, which mostly waits.
			f.held.Store(true)
			handled := make(chan struct{})
			go func() {
				defer close(handled)
				if refused {
					v.answer(appendError(nil, idOf(frame), noRoom()))
				} else {
					v.handle(kind, frame)
				}
			}()
			<-handled
			f.held.Store(false)
		}
		if cap(frame) <= keptBody {
			*buffer = frame
		}
		f.server.bodies.Put(buffer)
		lease.Close()
		if err != nil {
			return errGone
		}
	}
}

// errNoRoom says that the memory budget has no room for a frame.
var errNoRoom = errors.New("no room for a frame")

func noRoom() *problem {
	p := newProblem(string(chat.CodeOverloaded), "this node has no memory for long frames at the moment")
	p.retryAfter = time.Second
	return p
}

// readFrame appends everything that r has to b. What it holds is in the lease; with errNoRoom it is the beginning of r.
func readFrame(r io.Reader, b []byte, lease *budget.Lease) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			if !lease.Resize(2 * int64(cap(b))) {
				return b, errNoRoom
			}
			b = slices.Grow(b, max(1<<10, cap(b)))
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// handle does what a frame asks for, or begins to.
func (v *session) handle(kind websocket.MessageType, frame []byte) {
	var r request
	p := newProblem(codeJSONInvalid, "a frame is JSON text, not binary")
	if kind == websocket.MessageText {
		r, p = decodeRequest(frame)
	}
	if p == nil {
		switch r.Type {
		case "subscribe":
			p = v.subscribe(r)
		case "unsubscribe":
			p = v.unsubscribe(r)
		case "send":
			p = v.send(r)
		case "history":
			p = v.history(r)
		case "ping":
			v.answer(appendAnswer(nil, "pong", r.ID, nil))
		default:
			p = newProblem(codeFrameTypeUnknown, "Type is subscribe, unsubscribe, send, history or ping")
		}
	}
	if p != nil {
		v.answer(appendError(nil, r.ID, p))
	}
}

// subscribe begins to deliver rooms. A room that is subscribed already goes on at the new place.
func (v *session) subscribe(r request) *problem {
	server := v.stream.server
	rooms, p := requestRooms(r)
	if p != nil {
		return p
	}
	at := place{cursor: chat.Cursor{Latest: true}}
	switch {
	case r.After != nil && r.Since != nil:
		return newProblem(codeCursorInvalid, "After and Since exclude each other")
	case r.After != nil && len(rooms) != 1:
		return newProblem(codeCursorInvalid, "After is a number in one room; several rooms take Since")
	case r.After != nil:
		at = place{after: r.After}
	case r.Since != nil:
		var ok bool
		if at, ok = parseSince(*r.Since, server.options.Now()); !ok {
			return newProblem(codeCursorInvalid, sinceDetail)
		}
	}
	from, err := server.cursorOf(v.ctx, rooms, at)
	if err != nil {
		return server.problemOf(err)
	}
	stream, err := server.options.Chat.Follow(v.ctx, chat.Actor{}, rooms, from)
	if err != nil {
		return server.problemOf(err)
	}
	added := &source{stream: stream, done: stream.Cursor()}
	cursors := make(map[string]uint64, len(rooms))
	for _, room := range rooms {
		cursors[room] = added.done
	}
	frame := appendAnswer(nil, "subscribed", r.ID, func(b []byte) []byte {
		return appendCursors(append(b, `,"Cursors":`...), cursors)
	})
	if !v.add(rooms, added, r.After, frame) {
		stream.Close()
		return newProblem(codeLimitInvalid, "a connection has at most 1000 rooms")
	}
	return nil
}

// add makes rooms read from a new source and answers with frame; false if there would be too many.
func (v *session) add(rooms []string, added *source, after *uint64, frame []byte) bool {
	v.mu.Lock()
	total := len(v.rooms)
	for _, room := range rooms {
		if v.rooms[room] == nil {
			total++
		}
	}
	if total > maxStreamRooms || v.over {
		v.mu.Unlock()
		return false
	}
	for _, room := range rooms {
		if v.rooms[room] != nil {
			v.stale = true
		}
		sub := &subscription{from: added, lastID: added.done}
		if after != nil {
			sub.lastID, sub.lastSeq = 0, *after
		}
		v.rooms[room] = sub
	}
	// The answer goes before the messages: it is handed over together with the source.
	v.added = append(v.added, added)
	v.answers = append(v.answers, frame...)
	v.mu.Unlock()
	v.answer(nil) // rings, and waits if there is much to write
	return true
}

// unsubscribe ends the delivery of rooms. Rooms that are not subscribed are overlooked.
func (v *session) unsubscribe(r request) *problem {
	rooms, p := requestRooms(r)
	if p != nil {
		return p
	}
	v.mu.Lock()
	for _, room := range rooms {
		if v.rooms[room] != nil {
			delete(v.rooms, room)
			v.stale = true
		}
	}
	v.mu.Unlock()
	v.answer(appendAnswer(nil, "unsubscribed", r.ID, nil))
	return nil
}

// requestRooms returns the normalised rooms of a request, at least one.
func requestRooms(r request) ([]string, *problem) {
	if len(r.Rooms) == 0 {
		return nil, newProblem(codeRoomNameInvalid, "Rooms is a list of at least one room")
	}
	return normalRooms(r.Rooms)
}

// send posts a message. Sends go to the log in the order in which they come, but do not wait for each other's answer, nor
// does delivery for them.
func (v *session) send(r request) *problem {
	if !v.begin() {
		return v.tooMany()
	}
	outcome := v.lane.Post(v.ctx, chat.Actor{}, chat.PostRequest{
		Room: r.Room, User: r.User, Payload: []byte(r.Message), ClientMessageID: r.ClientMessageID,
	})
	go func() {
		m, deduplicated, err := outcome()
		if err != nil {
			v.done(appendError(nil, r.ID, v.stream.server.problemOf(err)))
			return
		}
		v.done(appendAck(nil, r.ID, m, deduplicated))
	}()
	return nil
}

// history reads a page of a room.
func (v *session) history(r request) *problem {
	page := chat.Page{After: r.After, Before: r.Before}
	if r.Limit != nil {
		if *r.Limit < 1 || *r.Limit > maxLimit {
			return newProblem(codeLimitInvalid, "Limit is a number from 1 to 1000")
		}
		page.Limit = int(*r.Limit)
	}
	if !v.begin() {
		return v.tooMany()
	}
	go func() {
		server := v.stream.server
		select {
		case v.pages <- struct{}{}:
			defer func() { <-v.pages }()
		case <-v.ctx.Done():
			v.done(nil)
			return
		}
		ctx, cancel := context.WithTimeout(v.ctx, server.options.RequestTimeout)
		defer cancel()
		found, err := server.options.Chat.Messages(ctx, chat.Actor{}, r.Room, page)
		if err != nil {
			v.done(appendError(nil, r.ID, server.problemOf(err)))
			return
		}
		v.done(appendHistory(nil, r.ID, found))
	}()
	return nil
}

// done answers a request that begin has counted.
func (v *session) done(frame []byte) {
	defer v.sends.Done()
	v.hand(frame, 1)
}

// tooMany refuses a request while maxOutstanding have no answer.
func (v *session) tooMany() *problem {
	p := newProblem(string(chat.CodeOverloaded), "64 requests of this connection have no answer yet")
	p.retryAfter = time.Second
	return p
}
