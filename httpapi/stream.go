package httpapi

import (
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
)

// Why a stream ends; (*stream).part has what the client is told of each.
var (
	errShutdown = errors.New("the server is stopping")
	errNoLeader = errors.New("this node knows no leader, use another one")
	errTalks    = errors.New("this socket only sends")
	errNoPong   = errors.New("no pong")
	errGone     = errors.New("the peer has gone")
	errDrained  = errors.New("everything was delivered")
	errOverload = errors.New("this node is short of memory")
)

const (
	// joinedBytes is how many bytes of waiting messages are joined into one write; a longer message goes alone.
	joinedBytes = 32 << 10
	// maxStreamRooms bounds the rooms of one stream, and of one raft-chat.v1 connection.
	maxStreamRooms = 1000
	// partingTime is what the last writes of a stream may take, and then its closing handshake.
	partingTime = 2 * time.Second
)

// stream is one connection that messages are delivered to, in any form.
type stream struct {
	server   *Server
	form     *streamForm
	encoding encoding
	poll     bool            // ends when everything that is there was delivered
	chunked  bool            // the body of an HTTP form is, for HTTP/1.1
	session  *session        // raft-chat.v1 only
	source   *chat.Stream    // used by the delivering goroutine
	wait     *waiter         // ends with the reason for the end of the stream
	frames   *frameConn      // set once, before run and before the stream is known to others
	conn     *websocket.Conn // nil for the HTTP forms

	// cursor is behind the last message that was written whole, rest is what was delivered to this stream and not
	// written yet, and torn says that a write has stopped within a unit, after which nothing more can be said. lostTold
	// is the last status told. All are the delivering goroutine's.
	cursor   uint64
	rest     []*chat.Message
	torn     bool
	lostTold bool

	// holding is what the stream holds, rooms included.
	holding holding
	// writing is the ID of the first message of the write that is under way, 0 when there is none. For metrics.
	writing atomic.Uint64
	// held is set while the reading goroutine of a session waits for room for its answers and takes no pongs.
	held atomic.Bool

	mu       sync.Mutex // guards the rest
	parted   bool       // no ping or keepalive is sent any more
	timer    *time.Timer
	awaiting bool // a ping has no pong yet
	pings    sync.WaitGroup
}

// register counts f among the streams that Shutdown ends. It refuses while a stream would be closed at once.
func (s *Server) register(f *stream) *problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return newProblem(codeStopping, "the server is stopping")
	}
	if s.leaderless && s.leaderLost() {
		return newProblem(codeNoLeader, errNoLeader.Error())
	}
	s.streams[f] = struct{}{}
	s.running.Add(1)
	s.metrics.streams.Inc()
	f.form.open.Inc()
	return nil
}

// forget undoes register.
func (s *Server) forget(f *stream) {
	s.mu.Lock()
	delete(s.streams, f)
	s.mu.Unlock()
	f.wait.end(errGone)
	if f.source != nil {
		f.source.Close()
	}
	f.holding.release()
	s.metrics.streams.Dec()
	f.form.open.Dec()
	s.running.Done()
}

// attach makes a hijacked connection f's. What it has already sent is in ahead.
func (f *stream) attach(conn net.Conn, ahead []byte) *frameConn {
	o := &f.server.options
	frames := newFrameConn(conn, ahead, o.WriteTimeout, f.server.closeGrace, f.stalled)
	f.mu.Lock()
	f.frames = frames
	f.mu.Unlock()
	return frames
}

// run owns the stream from its first byte to its end.
func (f *stream) run() {
	defer f.server.forget(f)
	var reading sync.WaitGroup
	reading.Go(f.read)
	f.startTimer()
	err := f.deliver()
	limit := f.part(err)
	reading.Wait()
	if limit != nil {
		limit.Stop()
	}
	if f.conn == nil {
		_ = f.frames.Close()
	}
}

// read takes what the client sends, to its end.
func (f *stream) read() {
	switch {
	case f.session != nil:
		f.wait.end(f.session.read())
	case f.conn != nil:
		f.wait.end(f.readIdle())
	default:
		// A client of an HTTP form has nothing more to say; all that counts is that it goes.
		var nothing [64]byte
		for {
			if _, err := f.frames.Read(nothing[:]); err != nil {
				f.wait.end(errGone)
				return
			}
		}
	}
}

// stalled is called by the writing goroutine when a write has taken too long. The cursor goes at once; what is left is
// the tail of one write and the words of parting. Pings stop, because a reader that does not read cannot answer one.
func (f *stream) stalled() {
	f.wait.end(errSlow)
	f.stopTimer()
	f.source.Close()
}

// cut ends the stream from outside, with little time for a write that is under way.
func (f *stream) cut(reason error) {
	f.wait.end(reason)
	f.mu.Lock()
	frames := f.frames
	f.mu.Unlock()
	if frames != nil {
		frames.hurry(partingTime)
	}
}

// parting is what belongs to the reason of an end: the label in metrics, the WebSocket close code, and the code and
// words that clients are told.
type parting struct {
	label, code, text string
	status            websocket.StatusCode
	silent            bool // the connection is closed without a word
	patient           bool // requests that are under way get their answer first
}

func (f *stream) partingOf(err error) parting {
	switch {
	case errors.Is(err, errDrained):
		return parting{label: "drained", status: websocket.StatusNormalClosure, text: errDrained.Error()}
	case errors.Is(err, errShutdown), string(chat.CodeOf(err)) == codeStopping:
		return parting{label: "shutdown", code: codeStopping, text: errShutdown.Error(), status: websocket.StatusGoingAway, patient: true}
	case errors.Is(err, errOverload), errors.Is(f.wait.ended(), errOverload):
		return parting{label: "overloaded", code: codeOverloaded, text: errOverload.Error(), status: websocket.StatusTryAgainLater}
	case errors.Is(err, errSlow), f.torn && errors.Is(f.wait.ended(), errSlow):
		return parting{label: "slow", code: "slow", text: errSlow.Error(), status: websocket.StatusTryAgainLater}
	case errors.Is(err, errNoLeader):
		return parting{label: "no_leader", code: codeNoLeader, text: errNoLeader.Error(), status: websocket.StatusTryAgainLater}
	case errors.Is(err, errTalks):
		return parting{label: "policy", status: websocket.StatusPolicyViolation, text: errTalks.Error()}
	case errors.Is(err, errNoPong):
		return parting{label: "no_pong", silent: true}
	case errors.Is(err, errGone), f.torn:
		return parting{label: "gone", silent: true}
	}
	return parting{label: "failed", code: codeInternal, text: "the stream failed", status: websocket.StatusInternalError}
}

// part tells the client why the stream ends and how to resume, and closes the connection, an HTTP one only for writing:
// closing both sides could destroy what is still on its way. limit, if any, closes it when the client does not.
func (f *stream) part(err error) (limit *time.Timer) {
	f.wait.end(err)
	f.stopTimer()
	bye := f.partingOf(err)
	var answers []byte
	if f.session != nil {
		answers = f.session.finish(bye.patient)
	}
	f.source.Close()
	f.cut(err)
	f.pings.Wait()

	f.server.metrics.ended.WithLabelValues(bye.label).Inc()
	if bye.label == "failed" {
		f.server.options.Logger.Error("stream failed", slog.Any("error", err), slog.Uint64("since", f.cursor))
	}
	if f.torn || bye.silent {
		f.closeNow()
		return nil
	}
	last, start := f.openBody(answers)
	e := &ending{code: bye.code, detail: bye.text, since: f.cursor}
	if f.session != nil {
		e.since, e.cursors = f.session.cursors()
	}
	if bye.code != "" {
		e.endpoints = f.server.endpoints()
		last = f.encoding.end(last, e)
	}
	// The library would wait five seconds for the peer's close frame.
	limit = time.AfterFunc(partingTime, func() { _ = f.frames.Close() })
	if last = f.closeBody(last, start); f.chunked {
		last = append(last, finalChunk...)
	}
	if len(last) > 0 {
		if err := f.frames.WriteFrames(last); err != nil {
			f.closeNow()
			return limit
		}
	}
	if f.conn == nil {
		f.frames.closeWrite()
		return limit
	}
	// The peer may have gone meanwhile, and then nobody is left to tell.
	_ = f.conn.Close(bye.status, bye.text+"; resume with since="+strconv.FormatUint(e.since, 10))
	return limit
}

// closeNow closes the connection without a word.
func (f *stream) closeNow() {
	if f.conn != nil {
		_ = f.conn.CloseNow()
		return
	}
	_ = f.frames.Close()
}
