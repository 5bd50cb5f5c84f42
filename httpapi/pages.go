package httpapi

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// Long answers are written in steps, so that a client that does not read holds one step of this node's memory and not
// the answer. What a step holds is leased from the budget first.
const (
	pagePart  = 32 << 10 // bytes of messages that are read at a time, or one message
	roomsPart = 64       // rooms that are
	pageStep  = 32 << 10 // encoded bytes that are written at a time, about
	pagePiece = 4 << 10  // a long text is encoded in pieces of this many bytes
)

// longestStep is what a step can grow to: just short of one, then the piece of a text in which every byte becomes six.
const longestStep = pageStep + 6*pagePiece + 4<<10

// page is an answer that is written in steps. Append to b and call step; finish writes what is left.
type page struct {
	server *Server
	w      http.ResponseWriter
	status int
	lease  budget.Lease
	source int // bytes held besides b, which is made from them
	b      []byte
	begun  bool // the client has a part
}

// newPage begins an answer of a known kind, with room for size bytes, made from what takes source bytes. The problem is
// that the budget has no room for it. Close it in the end.
func (s *Server) newPage(w http.ResponseWriter, status, size, source int) (*page, *problem) {
	size = min(size, longestStep)
	p := &page{server: s, w: w, status: status, lease: s.options.Budget.Account(budget.Pages).Lease(), source: source}
	if !p.lease.Resize(int64(source + size)) {
		return nil, overloaded("too many long answers are being read slowly")
	}
	p.b = make([]byte, 0, size)
	h := w.Header()
	h["Content-Type"] = s.headers.json
	h["Cache-Control"] = s.headers.noStore
	return p, nil
}

// overloaded is the problem of what the memory budget has no room for.
func overloaded(detail string) *problem {
	p := newProblem(string(chat.CodeOverloaded), detail+": this node's memory for it (--memory-budget) is used up; try again")
	p.retryAfter = time.Second
	return p
}

// close gives back what the answer held.
func (p *page) close() { p.lease.Close() }

// hold says that b is now made from what takes source bytes.
func (p *page) hold(source int) {
	p.source = source
	if !p.lease.Resize(int64(source + cap(p.b))) {
		p.cut()
	}
}

// cut ends an answer that cannot be completed: only a broken connection tells the client that it is not whole.
func (p *page) cut() { panic(http.ErrAbortHandler) }

// step writes b if there is enough of it.
func (p *page) step() {
	if len(p.b) >= pageStep {
		p.flush()
	}
}

func (p *page) flush() {
	// What escapes made of b, which is not much more than a step, is counted if there is room, and no reason to cut.
	p.lease.Resize(int64(p.source + cap(p.b)))
	if !p.begun {
		p.begun = true
		p.w.WriteHeader(p.status)
	}
	if err := p.server.writeStep(p.w, p.b); err != nil {
		p.cut()
	}
	p.b = p.b[:0]
}

// finish writes what is left. A short answer, which is all there, has its length in the header.
func (p *page) finish() {
	if !p.begun {
		p.w.Header()["Content-Length"] = []string{strconv.Itoa(len(p.b))}
		if len(p.b) <= budget.Free {
			// The connection's own limits do.
			p.w.WriteHeader(p.status)
			_, _ = p.w.Write(p.b)
			return
		}
	}
	p.flush()
}

// message appends m as a JSON object.
func (p *page) message(m *chat.Message) {
	p.b = appendMessageHead(p.b, m)
	switch text := m.Payload; {
	case len(text) <= pagePiece:
		p.b = appendContent(p.b, m)
	case utf8.Valid(text):
		p.b = append(p.b, `"Message":"`...)
		for len(text) > 0 {
			n := min(len(text), pagePiece)
			for n < len(text) && !utf8.RuneStart(text[n]) {
				n--
			}
			p.b = appendEscaped(p.b, text[:n])
			text = text[n:]
			p.step()
		}
		p.b = append(p.b, '"')
	default:
		p.b = append(p.b, `"Payload":"`...)
		for len(text) > 0 {
			n := min(len(text), pagePiece/3*3) // three bytes are four characters
			p.b = base64.StdEncoding.AppendEncode(p.b, text[:n])
			text = text[n:]
			p.step()
		}
		p.b = append(p.b, '"')
	}
	p.b = appendMessageTail(p.b, m)
	p.step()
}

// writeStep writes b within WriteTimeout, however long the answer has taken already.
func (s *Server) writeStep(w http.ResponseWriter, b []byte) error {
	// A writer without deadlines has no client that could keep it waiting.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.options.WriteTimeout))
	_, err := w.Write(b)
	return err
}

// writeSteps writes what this node holds anyway, without a lease.
func (s *Server) writeSteps(w http.ResponseWriter, b []byte) {
	for len(b) > 0 {
		n := min(len(b), pageStep)
		if s.writeStep(w, b[:n]) != nil {
			return // the client has gone, or net/http sees that the answer is too short
		}
		b = b[n:]
	}
}
