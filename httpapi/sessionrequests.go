package httpapi

import (
	"context"
	"errors"
	"io"
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
		frame, err := readFrame(message, (*buffer)[:0], int(f.server.options.MaxBody), &lease)
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

// readFrame appends everything that r has, limit bytes at most, to b. What it holds is in the lease; with errNoRoom it is
// the beginning of r.
func readFrame(r io.Reader, b []byte, limit int, lease *budget.Lease) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			size := max(1<<10, min(2*cap(b), limit+1))
			if !lease.Resize(int64(size)) {
				return b, errNoRoom
			}
			b = append(make([]byte, 0, size), b...)
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
			v.done(handed{frame: appendError(nil, r.ID, v.stream.server.problemOf(err))})
			return
		}
		v.done(handed{frame: appendAck(nil, r.ID, m, deduplicated)})
	}()
	return nil
}

// history reads a page of a room.
func (v *session) history(r request) *problem {
	page := chat.Page{After: r.After, Before: r.Before, MaxBytes: historyBytes}
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
		// One page at a time, and only when the one before was written: a client that does not read costs one.
		select {
		case v.page <- struct{}{}:
		case <-v.ending:
			v.done(handed{})
			return
		}
		ctx, cancel := context.WithTimeout(v.ctx, server.options.RequestTimeout)
		defer cancel()
		found, err := server.options.Chat.Messages(ctx, chat.Actor{}, r.Room, page)
		if err != nil {
			<-v.page
			v.done(handed{frame: appendError(nil, r.ID, server.problemOf(err))})
			return
		}
		v.done(handed{frame: appendHistory(nil, r.ID, found), paged: true})
	}()
	return nil
}

// done answers a request that begin has counted.
func (v *session) done(h handed) {
	defer v.sends.Done()
	h.counted = true
	v.hand(h)
}

// tooMany refuses a request while maxOutstanding have no answer.
func (v *session) tooMany() *problem {
	p := newProblem(string(chat.CodeOverloaded), "64 requests of this connection have no answer yet")
	p.retryAfter = time.Second
	return p
}
