package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
)

// Why a stream ends; (*firehose).part has the close code of each.
var (
	errShutdown = errors.New("the server is stopping")
	errNoLeader = errors.New("this node knows no leader, use another one")
	errTalks    = errors.New("this socket only sends")
	errNoPong   = errors.New("no pong")
	errGone     = errors.New("the peer has gone")
)

const (
	// joinedBytes is how many bytes of waiting frames are joined into one write; a longer frame goes alone.
	joinedBytes = 32 << 10
	// ignoredBytes is the largest data frame from a client that is overlooked: some send a word now and then to keep
	// proxies from closing the connection.
	ignoredBytes = 16
	// readLimit bounds a message from a client, in bytes. It is more than ignoredBytes so that a client that talks gets
	// the close code for that and not "message too big".
	readLimit = 512
	// partingTime is what the last write of a stream may take, and then its closing handshake.
	partingTime = 2 * time.Second
)

// firehose is one connection to /ws.
type firehose struct {
	server *Server
	stream *chat.Stream
	conn   *websocket.Conn

	// ctx ends with the reason for the end of the stream as its cause; the first reason counts.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// torn is set by the delivering goroutine when a write has stopped within a frame, after which no close frame is
	// possible.
	torn bool

	mu       sync.Mutex // guards the rest
	frames   *frameConn
	parted   bool        // no ping is sent any more
	timer    *time.Timer // the next ping, or the end of the wait for a pong
	awaiting bool        // a ping has no pong yet
	pings    sync.WaitGroup
}

// getFirehose is GET /ws. It checks everything that can be refused, registers the cursor, and only then upgrades.
func (s *Server) getFirehose(w http.ResponseWriter, r *http.Request) *problem {
	if p := s.checkHandshake(w, r); p != nil {
		return p
	}
	q, p := queryOf(r)
	if p != nil {
		return p
	}
	since, p := q.cursor("since")
	if p != nil {
		return p
	}
	from := chat.Cursor{Latest: since == nil}
	if since != nil {
		from.ID = *since
	}

	f := &firehose{server: s}
	// Not the request's context: that one ends when this handler returns, and the stream goes on without the handler so
	// that what the HTTP server keeps for a request can be freed.
	f.ctx, f.cancel = context.WithCancelCause(context.Background())
	if p := s.register(f); p != nil {
		return p
	}
	stream, err := s.options.Chat.Follow(f.ctx, chat.Actor{}, nil, from)
	if err != nil {
		s.forget(f)
		return s.problemOf(err)
	}
	f.stream = stream
	f.conn, err = websocket.Accept(&upgrade{ResponseWriter: w, stream: f}, r, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // checkHandshake has checked the origin
		OnPongReceived:     func(context.Context, []byte) { f.pong() },
	})
	if err != nil {
		stream.Close()
		s.forget(f)
		s.options.Logger.Debug("websocket handshake", slog.Any("error", err))
		return nil // Accept has answered
	}
	f.conn.SetReadLimit(readLimit)
	go f.run()
	return nil
}

// register counts f among the streams that Shutdown ends. It refuses while a stream would be closed at once.
func (s *Server) register(f *firehose) *problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return newProblem(codeStopping, "the server is stopping")
	}
	if s.leaderless {
		return newProblem(codeNoLeader, errNoLeader.Error())
	}
	s.streams[f] = struct{}{}
	s.running.Add(1)
	s.metrics.streams.Inc()
	return nil
}

// forget undoes register.
func (s *Server) forget(f *firehose) {
	s.mu.Lock()
	delete(s.streams, f)
	s.mu.Unlock()
	f.cancel(errGone)
	s.metrics.streams.Dec()
	s.running.Done()
}

// attach makes the hijacked connection f's.
func (f *firehose) attach(conn net.Conn, ahead []byte) *frameConn {
	o := &f.server.options
	frames := newFrameConn(conn, ahead, o.WriteTimeout, o.CloseGrace, f.stalled)
	f.mu.Lock()
	f.frames = frames
	f.mu.Unlock()
	return frames
}

// run owns the stream from the handshake to its end.
func (f *firehose) run() {
	defer f.server.forget(f)
	var reading sync.WaitGroup
	reading.Go(f.read)
	f.startPings()
	last, err := f.deliver()
	f.stream.Close()
	f.part(last, err)
	reading.Wait()
}

// deliver writes messages until the stream ends, and says why it did. last is the cursor behind the last message that
// was written whole.
func (f *firehose) deliver() (last uint64, err error) {
	last = f.stream.Cursor()
	for {
		page, err := f.stream.Next(f.ctx)
		if f.ctx.Err() != nil {
			return last, context.Cause(f.ctx)
		}
		if err != nil {
			return last, err
		}
		for len(page) > 0 {
			n, err := f.writeSome(page)
			if err != nil && !errors.Is(err, errSlow) {
				f.torn = true
				return last, err
			}
			last = page[n-1].ID
			f.server.metrics.messages.Add(float64(n))
			if err != nil {
				return last, err
			}
			if f.ctx.Err() != nil {
				return last, context.Cause(f.ctx)
			}
			page = page[n:]
		}
	}
}

// writeSome writes as many messages of a page as one write takes, at least one, and returns their number.
func (f *firehose) writeSome(page []*chat.Message) (n int, err error) {
	frame := firehoseFrame(page[0])
	if len(page) == 1 || len(frame) >= joinedBytes {
		return 1, f.frames.WriteFrames(frame)
	}
	buffer := f.server.batches.Get().(*[]byte)
	batch := append((*buffer)[:0], frame...)
	for n = 1; n < len(page); n++ {
		frame = firehoseFrame(page[n])
		if len(batch)+len(frame) > joinedBytes {
			break
		}
		batch = append(batch, frame...)
	}
	err = f.frames.WriteFrames(batch)
	*buffer = batch
	f.server.batches.Put(buffer)
	return n, err
}

// read takes what the client sends: control frames, which the library answers, and data, of which there should be none.
func (f *firehose) read() {
	for {
		_, message, err := f.conn.Reader(context.Background())
		if err != nil {
			f.cancel(errGone)
			return
		}
		var data [ignoredBytes + 1]byte
		size := 0
		for err == nil && size < len(data) {
			var n int
			n, err = message.Read(data[size:])
			size += n
		}
		if size > ignoredBytes {
			f.cancel(errTalks)
			return
		}
	}
}

// stalled is called by the writing goroutine when a write has taken too long. The cursor goes at once; what is left is
// the tail of one write and the close frame. Pings stop, because a reader that does not read cannot answer one.
func (f *firehose) stalled() {
	f.cancel(errSlow)
	f.stopPings()
	f.stream.Close()
}

// cut ends the stream from outside, with little time for a write that is under way.
func (f *firehose) cut(reason error) {
	f.cancel(reason)
	f.mu.Lock()
	frames := f.frames
	f.mu.Unlock()
	if frames != nil {
		frames.hurry(partingTime)
	}
}

// part closes the connection with the code and reason that belong to err; last is the cursor to resume from.
func (f *firehose) part(last uint64, err error) {
	f.cut(err)
	f.stopPings()
	f.pings.Wait()

	code, text, label := websocket.StatusInternalError, "the stream failed", "failed"
	switch {
	case errors.Is(err, errShutdown), string(chat.CodeOf(err)) == codeStopping:
		code, text, label = websocket.StatusGoingAway, errShutdown.Error(), "shutdown"
	case errors.Is(err, errSlow), f.torn && errors.Is(context.Cause(f.ctx), errSlow):
		code, text, label = websocket.StatusTryAgainLater, errSlow.Error(), "slow"
	case errors.Is(err, errNoLeader):
		code, text, label = websocket.StatusTryAgainLater, errNoLeader.Error(), "no_leader"
	case errors.Is(err, errTalks):
		code, text, label = websocket.StatusPolicyViolation, errTalks.Error(), "policy"
	case errors.Is(err, errNoPong):
		label = "no_pong"
	case errors.Is(err, errGone), f.torn:
		label = "gone"
	default:
		f.server.options.Logger.Error("stream failed", slog.Any("error", err), slog.Uint64("since", last))
	}
	f.server.metrics.ended.WithLabelValues(label).Inc()
	if f.torn || label == "gone" || label == "no_pong" {
		_ = f.conn.CloseNow()
		return
	}
	// The library would wait five seconds for the peer's close frame.
	limit := time.AfterFunc(partingTime, func() { _ = f.frames.Close() })
	defer limit.Stop()
	// The peer may have gone meanwhile, and then nobody is left to tell.
	_ = f.conn.Close(code, text+"; resume with since="+strconv.FormatUint(last, 10))
}

// startPings sends the first ping after PingInterval.
func (f *firehose) startPings() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timer = time.AfterFunc(f.server.options.PingInterval, f.keepAlive)
}

// keepAlive runs when the timer does: it sends a ping, or ends a stream whose last ping had no answer.
func (f *firehose) keepAlive() {
	f.mu.Lock()
	if f.parted {
		f.mu.Unlock()
		return
	}
	if f.awaiting {
		f.mu.Unlock()
		f.cancel(errNoPong)
		return
	}
	f.awaiting = true
	f.pings.Add(1)
	f.mu.Unlock()
	defer f.pings.Done()
	emptyPing := [...]byte{0x89, 0}
	if _, err := f.frames.Write(emptyPing[:]); err != nil {
		f.cancel(errGone)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awaiting && !f.parted {
		f.timer.Reset(f.server.options.PongTimeout)
	}
}

// pong notes the answer to a ping.
func (f *firehose) pong() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awaiting && !f.parted {
		f.awaiting = false
		f.timer.Reset(f.server.options.PingInterval)
	}
}

// stopPings keeps further pings from being sent. One that is being written goes on; f.pings counts it.
func (f *firehose) stopPings() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parted = true
	if f.timer != nil {
		f.timer.Stop()
	}
}

// watchLeader closes the streams of a node that has had no leader for LeaderGrace: what it sends is not the cluster's
// present any more, and its clients can follow another node.
func (s *Server) watchLeader() {
	tick := time.NewTicker(min(time.Second, s.options.LeaderGrace/2+1))
	defer tick.Stop()
	seen := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		if s.options.Cluster.Status().LeaderID != 0 {
			seen = time.Now()
		}
		s.mu.Lock()
		s.leaderless = time.Since(seen) >= s.options.LeaderGrace
		if s.leaderless {
			for stream := range s.streams {
				stream.cut(errNoLeader)
			}
		}
		s.mu.Unlock()
	}
}
