package httpapi

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// keptBody is the largest body buffer that goes back to the pool, in bytes. It is what a connection may hold without a
// lease, so that a buffer from the pool needs none.
const keptBody = budget.Free

// postMessage is POST /rooms/{room}.
func (s *Server) postMessage(w http.ResponseWriter, r *http.Request) *problem {
	room, p := roomOf(r)
	if p != nil {
		return p
	}
	buffer := s.bodies.Get().(*[]byte)
	body, p := s.readBody(w, r, (*buffer)[:0], s.options.MaxBody, codeMessageTooLarge)
	var message post
	if p == nil {
		message, p = decodePost(r.Header, body)
	}
	if cap(body) <= keptBody {
		*buffer = body
	}
	s.bodies.Put(buffer)
	if p != nil && p.status == http.StatusRequestEntityTooLarge {
		refuseBody(w, r, p)
		return nil
	}
	if p != nil {
		return p
	}
	var long *page // what repeats a long message, for which there must be room before it is stored
	if n := len(message.payload); n > pagePiece {
		if long, p = s.newPage(w, http.StatusCreated, n+1<<10, 0); p != nil {
			return p
		}
		defer long.close()
	}
	m, deduplicated, err := s.options.Chat.Post(r.Context(), chat.Actor{}, chat.PostRequest{
		Room: room, User: message.user, Payload: message.payload, ClientMessageID: message.clientMessageID,
	})
	if err != nil {
		return s.problemOf(err)
	}

	h := w.Header()
	h["Content-Type"] = s.headers.json
	h["Cache-Control"] = s.headers.noStore
	status := http.StatusOK
	if !deduplicated {
		status = http.StatusCreated
	}
	if !m.Trimmed { // otherwise nothing is there
		h["Location"] = []string{messagePath(m.Room, m.Seq)}
	}
	if long != nil {
		long.status = status
		long.message(m)
		long.b = append(long.b, '\n')
		long.finish()
		return nil
	}
	w.WriteHeader(status)
	answer := messageJSON(m)
	// The shared encoding has no line end; the pooled buffer makes the copy that gets one.
	line := s.bodies.Get().(*[]byte)
	*line = append(append((*line)[:0], answer...), '\n')
	_, _ = w.Write(*line)
	if cap(*line) > keptBody {
		*line = nil
	}
	s.bodies.Put(line)
	return nil
}

// messagePath is the URL path of a message.
func messagePath(room string, seq uint64) string {
	b := make([]byte, 0, len("/rooms/")+len(room)+21)
	b = append(b, "/rooms/"...)
	b = append(b, url.PathEscape(room)...)
	b = append(b, '/')
	return string(strconv.AppendUint(b, seq, 10))
}

// readBody appends the request's body to b, at most limit bytes of it; more is a problem with code tooLarge. It returns
// the grown buffer in any case. The buffer grows with what arrives, within a lease of the memory budget for as long as
// the client can keep it waiting; its capacity is keptBody at most.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, b []byte, limit int64, tooLarge string) ([]byte, *problem) {
	if r.ContentLength > limit {
		// Not one byte of it is wanted, and net/http would read on to keep the connection.
		w.Header().Set("Connection", "close")
		return b, newProblem(tooLarge, bodyLimitDetail(limit))
	}
	lease := s.options.Budget.Account(budget.Requests).Lease()
	defer lease.Close()
	// The declared length is a hint from outside: it may not claim much memory before the bytes are there.
	if want := int(min(r.ContentLength, keptBody-1)) + 1; want > cap(b) {
		b = make([]byte, 0, want)
	} else if cap(b) == 0 {
		b = make([]byte, 0, 1024)
	}
	for {
		if len(b) == cap(b) {
			size := min(2*cap(b), int(limit)+1)
			if !lease.Resize(int64(size)) {
				w.Header().Set("Connection", "close")
				return b, overloaded("too many long requests are being sent slowly")
			}
			b = append(make([]byte, 0, size), b...)
		}
		n, err := r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			w.Header().Set("Connection", "close")
			return b, newProblem(tooLarge, bodyLimitDetail(limit))
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return b, nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.Header().Set("Connection", "close")
			return b, newProblem(codeBodyUnreadable, "the body did not arrive in time")
		default:
			w.Header().Set("Connection", "close")
			return b, newProblem(codeBodyUnreadable, "the body could not be read")
		}
	}
}

// What refuseBody takes in.
const (
	drainedBytes = 16 << 20
	drainTime    = 2 * time.Second
)

// refuseBody answers p to a body that is too long. What the client still sends is then taken in and dropped, within bounds:
// a connection that is closed while it sends is reset, and it would not read why.
func refuseBody(w http.ResponseWriter, r *http.Request, p *problem) {
	c := http.NewResponseController(w)
	if r.Header.Get("Expect") != "" || c.EnableFullDuplex() != nil {
		p.write(w) // it waits to be told to send, or there is no connection
		return
	}
	p.write(w)
	// Errors mean that the client has gone.
	_ = c.Flush()
	_ = c.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.CopyN(io.Discard, r.Body, drainedBytes)
}

// bodyLimitDetail names the limit that a body broke.
func bodyLimitDetail(limit int64) string {
	return "the body is larger than " + strconv.FormatInt(limit, 10) + " bytes"
}
