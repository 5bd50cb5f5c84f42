package httpapi

import (
	"io"
	"net/http"
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
	begin     string // what the body of an HTTP form begins with
	keepalive []byte // what an HTTP form sends to keep its connection, a whole chunk
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
			encoding: eventEncoding{chunkEncoding{appendEvent}}, open: open.WithLabelValues(formNameEvents),
			mediaType: "text/event-stream", begin: "retry: 1000\n\n", keepalive: chunkOf(": keepalive\n\n"),
		},
		lines: streamForm{
			encoding: chunkEncoding{appendLine}, open: open.WithLabelValues(formNameLines),
			mediaType: "application/x-ndjson", keepalive: chunkOf("\n"),
		},
		raw: streamForm{
			encoding: chunkEncoding{appendRaw}, open: open.WithLabelValues(formNameRaw),
			mediaType: "text/plain; charset=utf-8", keepalive: chunkOf("\n"),
		},
	}
}

// getRoomFrames is GET /rooms/{room}/ws.
func (s *Server) getRoomFrames(w http.ResponseWriter, r *http.Request) *problem {
	if p := s.checkHandshake(w, r); p != nil {
		return p
	}
	f, p := s.followRooms(r, &s.forms.frames, "")
	if p != nil {
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
	if !r.ProtoAtLeast(1, 1) {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "HTTP/1.1")
		return newProblem(codeUpgradeRequired, "streams need HTTP/1.1")
	}
	lastEventID := ""
	if form == &s.forms.events {
		lastEventID = r.Header.Get("Last-Event-ID")
	}
	f, p := s.followRooms(r, form, lastEventID)
	if p != nil {
		return p
	}
	h.Set("Content-Type", form.mediaType)
	h["Cache-Control"] = s.headers.noStore
	// A proxy that collects the body would deliver nothing for long.
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		f.source.Close()
		s.forget(f)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	conn, buffers, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.source.Close()
		s.forget(f)
		return s.problemOf(err)
	}
	if res, ok := w.(*response); ok {
		res.status = http.StatusOK
	}
	f.attach(conn, nil) // what the client has sent beyond its request is not wanted
	_ = buffers.Flush() // nothing is in it
	var head strings.Builder
	head.WriteString("HTTP/1.1 200 OK\r\n")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	h.Set("Transfer-Encoding", "chunked")
	h.Set("Connection", "close")
	_ = h.Write(&head) // a strings.Builder takes everything
	head.WriteString("\r\n")
	if form.begin != "" {
		head.Write(chunkOf(form.begin))
	}
	// Through the queue of control bytes: this goroutine must not wait for a client that does not read.
	if _, err := io.WriteString(f.frames, head.String()); err != nil {
		f.source.Close()
		s.forget(f)
		_ = conn.Close()
		return nil
	}
	go f.run()
	return nil
}

// followRooms checks what the URL asks for and registers a stream of its rooms. Whoever calls it starts or forgets the
// stream.
func (s *Server) followRooms(r *http.Request, form *streamForm, lastEventID string) (*stream, *problem) {
	rooms, p := roomsOf(r)
	if p != nil {
		return nil, p
	}
	q, p := queryOf(r)
	if p != nil {
		return nil, p
	}
	at, p := placeOf(q, len(rooms), lastEventID, s.options.Now())
	if p != nil {
		return nil, p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	from, err := s.cursorOf(ctx, rooms, at)
	if err != nil {
		return nil, s.problemOf(err)
	}
	return s.follow(r, form, rooms, from, q.flag("poll"))
}

// follow registers a stream of rooms, or of every room if rooms is nil.
func (s *Server) follow(r *http.Request, form *streamForm, rooms []string, from chat.Cursor, poll bool) (*stream, *problem) {
	f := &stream{server: s, form: form, encoding: form.encoding, poll: poll, wait: newWaiter()}
	if p := s.register(f); p != nil {
		return nil, p
	}
	source, err := s.options.Chat.Follow(r.Context(), chat.Actor{}, rooms, from)
	if err != nil {
		s.forget(f)
		return nil, s.problemOf(err)
	}
	f.source, f.cursor = source, source.Cursor()
	return f, nil
}

// startSocket answers the handshake of a registered stream and starts it.
func (s *Server) startSocket(w http.ResponseWriter, r *http.Request, f *stream, subprotocols []string) {
	conn, err := websocket.Accept(&upgrade{ResponseWriter: w, stream: f}, r, &websocket.AcceptOptions{
		Subprotocols:       subprotocols,
		InsecureSkipVerify: true, // checkHandshake has checked the origin
		OnPongReceived:     f.pong,
	})
	if err != nil {
		f.closeSources()
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
