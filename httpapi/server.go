package httpapi

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raft-chat/raft-chat/web"
)

// Server is the HTTP front of one node. It is an http.Handler and all its methods may be called concurrently.
type Server struct {
	options Options
	client  *web.Client
	openAPI web.Asset
	metrics *metrics
	router  http.Handler
	headers sharedHeaders

	idPrefix  string // random, so that request ids of two runs differ
	requests  atomic.Uint64
	bodies    sync.Pool // *[]byte: request bodies and small answers
	batches   sync.Pool // *[]byte: frames joined into one write
	responses sync.Pool // *response

	// stop is closed by Shutdown. running counts the leader watch and the goroutines of streams.
	stop    chan struct{}
	running sync.WaitGroup
	forms   *streamForms
	lost    atomic.Bool  // no leader is known
	waiting atomic.Int64 // streams that wait for memory

	endpointsMu    sync.Mutex // guards the next
	endpointsKnown endpointCache

	mu         sync.Mutex // guards the rest
	streams    map[*stream]struct{}
	stopping   bool
	leaderless bool // without a leader for longer than LeaderGrace
}

// sharedHeaders are header values that every answer shares. They are never appended to: net/http copies on Add because
// their capacity is one.
type sharedHeaders struct {
	node, nosniff, json, noStore []string
}

// New returns a running server; Shutdown ends it. It panics when Chat or Cluster is missing or when Registry already
// serves another Server: both are mistakes of the program, not of its user.
func New(o Options) *Server {
	if o.Chat == nil || o.Cluster == nil {
		panic("httpapi: Options needs Chat and Cluster")
	}
	o = o.withDefaults()
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails, see crypto/rand
	s := &Server{
		options:  o,
		client:   web.New(),
		openAPI:  openAPIAsset(),
		metrics:  newMetrics(o.Registry),
		idPrefix: hex.EncodeToString(random[:]) + "-",
		headers: sharedHeaders{
			node: []string{headerText(o.NodeName)}, nosniff: []string{"nosniff"},
			json: []string{"application/json"}, noStore: []string{"no-store"},
		},
		bodies:    sync.Pool{New: func() any { return new([]byte) }},
		batches:   sync.Pool{New: func() any { return new([]byte) }},
		responses: sync.Pool{New: func() any { return new(response) }},
		stop:      make(chan struct{}),
		streams:   make(map[*stream]struct{}),
	}
	s.forms = newStreamForms(s.metrics.open)
	o.Registry.MustRegister(newLagGauge(s))
	s.router = s.newRouter(s.routes())
	s.running.Go(s.watchLeader)
	return s
}

// ConfigureServer sets the limits that keep one client from holding a connection for nothing. The write timeout runs
// from the request's header on, so it covers a body that takes its full ReadTimeout, the work, and ten seconds of
// writing; streams are hijacked and have deadlines of their own.
func ConfigureServer(server *http.Server) {
	server.ReadHeaderTimeout = 5 * time.Second
	server.ReadTimeout = 15 * time.Second
	server.WriteTimeout = 30 * time.Second
	server.IdleTimeout = 60 * time.Second
	server.MaxHeaderBytes = 16 << 10
}

// Shutdown closes every stream with 1001 and a reason that tells how to resume, refuses new ones, and waits for all of
// them. Ordinary requests are the http.Server's to end. Calling it twice is fine.
func (s *Server) Shutdown() {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		close(s.stop)
		for stream := range s.streams {
			stream.cut(errShutdown)
		}
	}
	s.mu.Unlock()
	s.running.Wait()
}

// CutStreams closes the connections of all streams without a word, for a Shutdown that must not wait for them any more.
func (s *Server) CutStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.streams {
		stream.mu.Lock()
		frames := stream.frames
		stream.mu.Unlock()
		if frames != nil {
			_ = frames.Close()
		}
	}
}

// HealthHandler serves /health, /livez and /readyz and nothing else, for a listener of their own.
func (s *Server) HealthHandler() http.Handler {
	router := s.newRouter(s.healthRoutes())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(router, w, r) })
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.serve(s.router, w, r) }

// serve is the whole middleware: headers that every answer has, recovery from a panic, counting, and the judgement about
// web pages.
func (s *Server) serve(router http.Handler, w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["X-Raft-Chat-Node"] = s.headers.node
	h["X-Content-Type-Options"] = s.headers.nosniff
	h["X-Request-Id"] = []string{s.requestID(r)}

	res := s.responses.Get().(*response)
	*res = response{ResponseWriter: w, route: s.metrics.unrouted}
	defer s.finish(res, r)
	if v := s.options.Guard.Judge(h, r); v != nil {
		answerVerdict(res, v)
		return
	}
	router.ServeHTTP(res, r)
}

// finish counts a request and turns a panic of its handler into a problem document. It runs deferred.
func (s *Server) finish(res *response, r *http.Request) {
	cause := recover()
	if cause == nil {
		res.route.count(res.status)
		*res = response{}
		s.responses.Put(res)
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause)
	}
	s.metrics.panics.Inc()
	s.options.Logger.Error("handler panicked", slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Any("panic", cause), slog.String("stack", string(debug.Stack())))
	if res.status != 0 {
		// The answer has begun: only a broken connection tells the client that it is not whole.
		panic(http.ErrAbortHandler)
	}
	newProblem(codeInternal, "the server failed at this request; its log says why").write(res)
	res.route.count(res.status)
}

// requestID returns the client's X-Request-Id when it is 1 to 128 visible ASCII characters, and a new one otherwise.
func (s *Server) requestID(r *http.Request) string {
	if given := r.Header["X-Request-Id"]; len(given) == 1 && len(given[0]) > 0 && len(given[0]) <= 128 {
		if headerText(given[0]) == given[0] {
			return given[0]
		}
	}
	b := make([]byte, 0, len(s.idPrefix)+20)
	b = append(b, s.idPrefix...)
	return string(strconv.AppendUint(b, s.requests.Add(1), 10))
}

// headerText replaces everything but visible ASCII by an underscore.
func headerText(text string) string {
	for i := 0; i < len(text); i++ {
		if text[i] <= ' ' || text[i] >= 0x7f {
			b := []byte(text)
			for j := i; j < len(b); j++ {
				if b[j] <= ' ' || b[j] >= 0x7f {
					b[j] = '_'
				}
			}
			return string(b)
		}
	}
	return text
}

// response remembers the status of an answer and the route that gave it.
type response struct {
	http.ResponseWriter
	status int // 0 until the header is written
	route  *routeCounters
}

// WriteHeader implements http.ResponseWriter.
func (res *response) WriteHeader(status int) {
	if res.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		res.status = status
	}
	res.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (res *response) Write(b []byte) (int, error) {
	if res.status == 0 {
		res.status = http.StatusOK
	}
	return res.ResponseWriter.Write(b)
}

// Hijack implements http.Hijacker.
func (res *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(res.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over connection: %w", err)
	}
	return conn, buffers, nil
}

// Unwrap lets http.ResponseController reach the connection.
func (res *response) Unwrap() http.ResponseWriter { return res.ResponseWriter }
