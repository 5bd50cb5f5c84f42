package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/raft-chat/raft-chat/chat"
)

// streamForm is a form with what belongs to all of its streams.
type streamForm struct {
	encoding  encoding
	open      prometheus.Gauge
	mediaType string // of the HTTP forms
	begin     string // what the body of an HTTP form begins with: fields of its first event
	greets    bool   // the first event comes at once, see greet
	keepalive string // what an HTTP form sends to keep its connection
}

// streamForms are the forms of a server.
type streamForms struct{ firehose, session, frames, events, lines, raw streamForm }

// chunkOf returns text as a chunk.
func chunkOf(text string) []byte {
	b, start := openChunk(nil)
	return closeChunk(append(b, text...), start)
}

func newStreamForms(open *prometheus.GaugeVec) *streamForms {
	return &streamForms{
		firehose: streamForm{encoding: frameEncoding{appendFirehoseFrame}, open: open.WithLabelValues(formNameFirehose)},
		session:  streamForm{encoding: sessionEncoding{}, open: open.WithLabelValues(formNameSession)},
		frames:   streamForm{encoding: frameEncoding{appendMessageFrame}, open: open.WithLabelValues(formNameFrames)},
		events: streamForm{
			encoding: eventEncoding{bodyEncoding{appendEvent}}, open: open.WithLabelValues(formNameEvents),
			mediaType: "text/event-stream", begin: "retry: 1000\n", greets: true, keepalive: ": keepalive\n\n",
		},
		lines: streamForm{
			encoding: bodyEncoding{appendLine}, open: open.WithLabelValues(formNameLines),
			mediaType: "application/x-ndjson", keepalive: "\n",
		},
		raw: streamForm{
			encoding: bodyEncoding{appendRaw}, open: open.WithLabelValues(formNameRaw),
			mediaType: "text/plain; charset=utf-8", keepalive: "\n",
		},
	}
}

// getRoomFrames is GET /rooms/{room}/ws.
func (s *Server) getRoomFrames(w http.ResponseWriter, r *http.Request) *problem {
	if p := s.checkHandshake(w, r); p != nil {
		return p
	}
	f, p := s.followRooms(w, r, &s.forms.frames, "")
	if f == nil {
		return p
	}
	s.startSocket(w, r, f, nil)
	return nil
}

func (s *Server) getRoomEvents(w http.ResponseWriter, r *http.Request) *problem {
	return s.getRoomStream(w, r, &s.forms.events)
}
func (s *Server) getRoomLines(w http.ResponseWriter, r *http.Request) *problem {
	return s.getRoomStream(w, r, &s.forms.lines)
}
func (s *Server) getRoomRaw(w http.ResponseWriter, r *http.Request) *problem {
	return s.getRoomStream(w, r, &s.forms.raw)
}

// getRoomStream is GET /rooms/{room}/events, /json and /raw.
func (s *Server) getRoomStream(w http.ResponseWriter, r *http.Request, form *streamForm) *problem {
	h := w.Header()
	lastEventID := ""
	if form == &s.forms.events {
		lastEventID = r.Header.Get("Last-Event-ID")
	}
	f, p := s.followRooms(w, r, form, lastEventID)
	if f == nil {
		return p
	}
	s.setStreamHeaders(h, form)
	if r.Method == http.MethodHead {
		s.forget(f)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	f.chunked = r.ProtoAtLeast(1, 1)
	conn, buffers, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.forget(f)
		return s.problemOf(err)
	}
	if res, ok := w.(*response); ok {
		res.status = http.StatusOK
	}
	f.attach(conn, nil) // what the client has sent beyond its request is not wanted
	_ = buffers.Flush() // nothing is in it
	var head strings.Builder
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Connection", "close")
	if f.chunked {
		head.WriteString("HTTP/1.1 200 OK\r\n")
		h.Set("Transfer-Encoding", "chunked")
	} else {
		head.WriteString("HTTP/1.0 200 OK\r\n")
	}
	_ = h.Write(&head) // a strings.Builder takes everything
	head.WriteString("\r\n")
	if form.begin != "" && !f.poll {
		begin, start := f.openBody(nil)
		head.Write(f.closeBody(append(begin, form.begin...), start))
	}
	// Through the queue of control bytes: this goroutine must not wait for a client that does not read.
	if _, err := io.WriteString(f.frames, head.String()); err != nil {
		s.forget(f)
		_ = conn.Close()
		return nil
	}
	go f.run()
	return nil
}

// setStreamHeaders sets the headers of the body of an HTTP form.
func (s *Server) setStreamHeaders(h http.Header, form *streamForm) {
	h.Set("Content-Type", form.mediaType)
	h["Cache-Control"] = s.headers.noStore
	// A proxy that collects the body would deliver nothing for long.
	h.Set("X-Accel-Buffering", "no")
}

// followRooms checks what the URL asks for and registers a stream of its rooms. Whoever calls it starts or forgets the
// stream. Without a stream and a problem, the request is answered.
func (s *Server) followRooms(w http.ResponseWriter, r *http.Request, form *streamForm, lastEventID string) (*stream, *problem) {
	rooms, p := roomsOf(r)
	if p != nil {
		return nil, p
	}
	return s.followFrom(w, r, form, rooms, lastEventID)
}

// followFrom registers a stream of rooms, or of every room if rooms is nil, that begins where the query or a
// Last-Event-ID says.
func (s *Server) followFrom(w http.ResponseWriter, r *http.Request, form *streamForm, rooms []string, lastEventID string) (*stream, *problem) {
	q, p := queryOf(r)
	if p != nil {
		return nil, p
	}
	at, p := placeOf(q, len(rooms), lastEventID, s.options.Now())
	if p != nil {
		return nil, p
	}
	stale, p := q.stale()
	if p != nil {
		return nil, p
	}
	begin := beginning{place: at, poll: q.flag("poll"), stale: stale, tells: form.greets}
	f, p := s.follow(r, form, rooms, begin)
	if p != nil && form.greets && !begin.poll && p.passes() {
		s.sendAway(w, at, p)
		return nil, nil
	}
	if p != nil {
		return nil, p
	}
	w.Header().Set("X-Raft-Chat-Cursor", strconv.FormatUint(f.cursor, 10))
	return f, nil
}

// follow registers a stream of rooms, or of every room if rooms is nil.
func (s *Server) follow(r *http.Request, form *streamForm, rooms []string, b beginning) (*stream, *problem) {
	f := &stream{server: s, form: form, encoding: form.encoding, poll: b.poll, wait: newWaiter()}
	if p := s.register(f); p != nil {
		return nil, p
	}
	p := f.begin(r, rooms, b)
	if p != nil {
		s.forget(f)
		return nil, p
	}
	return f, nil
}

// begin gives a registered stream its source.
func (f *stream) begin(r *http.Request, rooms []string, b beginning) *problem {
	s := f.server
	if p := f.admit(len(rooms)); p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	from, err := s.cursorOf(ctx, rooms, b)
	if err != nil {
		return s.problemOf(err)
	}
	source, err := s.options.Chat.Follow(r.Context(), chat.Actor{}, rooms, from)
	if err != nil {
		return s.problemOf(err)
	}
	f.source, f.cursor = source, source.Cursor()
	return nil
}

// passes reports whether a problem is one of the moment.
func (p *problem) passes() bool {
	return p.status == http.StatusServiceUnavailable || p.status == http.StatusTooManyRequests
}

// sendAway answers an EventSource with a stream that ends at once with a problem: from any other status but 200 it would
// never come back.
func (s *Server) sendAway(w http.ResponseWriter, at place, p *problem) {
	since := at.cursor.ID
	if at.cursor.Latest {
		since = s.options.Chat.Head()
	}
	s.setStreamHeaders(w.Header(), &s.forms.events)
	wait := max(1, int64((p.retryAfter+time.Second-1)/time.Second))
	w.Header().Set("Retry-After", strconv.FormatInt(wait, 10))
	b := fmt.Appendf(nil, "retry: %d\n", 1000*wait)
	events := s.forms.events.encoding
	lost := p.code == codeNoLeader
	if at.exact() {
		b = events.status(b, !lost, "", since)
	} else if lost {
		b = append(b, "event: status\ndata: {\"Leader\":false}\n\n"...)
	}
	b = events.end(b, &ending{code: p.code, detail: p.detail, since: since, unplaced: !at.exact(), endpoints: s.endpoints()})
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b) // the only error is a client that has gone
}

// startSocket answers the handshake of a registered stream and starts it.
func (s *Server) startSocket(w http.ResponseWriter, r *http.Request, f *stream, subprotocols []string) {
	conn, err := websocket.Accept(&upgrade{ResponseWriter: w, stream: f}, r, &websocket.AcceptOptions{
		Subprotocols:       subprotocols,
		InsecureSkipVerify: true, // checkHandshake has checked the origin
		OnPongReceived:     f.pong,
	})
	if err != nil {
		s.forget(f)
		s.options.Logger.Debug("websocket handshake", "error", err)
		return // Accept has answered
	}
	f.conn = conn
	limit := int64(readLimit)
	if f.session != nil {
		limit = s.options.MaxBody
	}
	conn.SetReadLimit(limit)
	go f.run()
}
