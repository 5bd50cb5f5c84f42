package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// peers is the node's side of the network: the listener, etcd's rafthttp
// transport, and who may use it. No raft message goes to or comes from a
// member before that member has accepted this node's hello in this process's
// lifetime: it knows by then that the data directory behind this member id is
// the one that the cluster registered.
type peers struct {
	n         *Node
	client    *http.Client
	transport *rafthttp.Transport
	handler   http.Handler // of rafthttp
	server    *http.Server
	errors    chan error // fatal errors of rafthttp: this member was removed

	// changing is held while a peer enters or leaves the transport, which can
	// wait for the network; mu never is. Taken before mu.
	changing sync.Mutex

	mu       sync.Mutex
	known    map[uint64]*peer
	seen     map[uint64]Incarnation              // as they said in a hello
	requests map[*http.ResponseController]uint64 // of rafthttp, under way, by member
	closed   bool
	handling sync.WaitGroup // of requests; counted up under mu while not closed
}

// peer is one other member.
type peer struct {
	id     uint64
	url    string
	cancel context.CancelFunc
	kick   chan struct{} // one slot: try the hello again now
	ready  bool          // it accepted our hello; guarded by peers.mu
	guest  bool          // vouched for, and not in our records yet; guarded by peers.mu
}

func newPeers(n *Node) *peers {
	return &peers{
		n: n, known: map[uint64]*peer{}, seen: map[uint64]Incarnation{}, requests: map[*http.ResponseController]uint64{}, errors: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 10 * time.Second}},
	}
}

// start begins to listen. The members to greet come with reconcile.
func (p *peers) start() error {
	n := p.n
	lg := zapLogger(n.logger)
	id := types.ID(n.cfg.ID)
	p.transport = &rafthttp.Transport{
		Logger: lg, DialTimeout: time.Second, DialRetryFrequency: rate.Every(100 * time.Millisecond),
		ID: id, ClusterID: types.ID(n.identity.ClusterID), Raft: n,
		Snapshotter: n.disk.snap,
		ServerStats: stats.NewServerStats(n.cfg.Name, id.String()), LeaderStats: stats.NewLeaderStats(lg, id.String()),
		ErrorC: p.errors,
	}
	if err := p.transport.Start(); err != nil {
		return fmt.Errorf("start peer transport: %w", err)
	}
	p.handler = p.transport.Handler()
	p.server = &http.Server{Handler: p.routes(), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(n.logger.Handler(), slog.LevelDebug)}
	n.wg.Go(func() {
		if err := p.server.Serve(deadlineListener{n.cfg.Listener}); !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("peer listener: %w", err))
		}
	})
	n.wg.Go(func() {
		select {
		case <-p.errors:
			// rafthttp reports only one: a member answered that this one is gone.
			n.fail(ErrRemoved)
		case <-n.stop:
		}
		p.mu.Lock()
		for _, x := range p.known {
			x.cancel()
		}
		p.mu.Unlock()
		_ = p.server.Close() // ends Serve; its connections die with it
	})
	return nil
}

// close stops the transport after every goroutine that sends has ended.
func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	for _, x := range p.known {
		x.cancel()
	}
	p.mu.Unlock()
	if p.transport != nil {
		p.transport.Stop()
	}
	p.handling.Wait()
	p.client.CloseIdleConnections()
}

// counted lets close wait for the requests under way, which may write files, and
// refuses what comes later.
func (p *peers) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			http.Error(w, errStopping.Error(), http.StatusServiceUnavailable)
			return
		}
		p.handling.Add(1)
		p.mu.Unlock()
		defer p.handling.Done()
		next.ServeHTTP(w, r)
	})
}

// reconcile makes the peers those of the member records.
func (p *peers) reconcile(m *membership) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	want := m.Members
	if len(want) == 0 {
		// A joining member knows nobody yet but the list it was given.
		for _, x := range p.n.identity.Cluster {
			want = append(want, Member{ID: x.ID, PeerURL: x.URL})
		}
	}
	keep := map[uint64]bool{}
	for _, x := range want {
		if x.ID == p.n.cfg.ID {
			continue
		}
		keep[x.ID] = true
		if old, ok := p.known[x.ID]; ok && old.url == x.PeerURL {
			continue
		} else if ok {
			p.forget(old)
		}
		p.meet(x.ID, x.PeerURL)
	}
	for id, x := range p.known {
		x.guest = x.guest && !keep[id]
		if !keep[id] && (!x.guest || m.isRemoved(id)) {
			p.forget(x)
		}
	}
}

// forget is called with mu held.
func (p *peers) forget(x *peer) {
	x.cancel()
	delete(p.known, x.id)
	if !x.ready {
		return
	}
	for request, from := range p.requests {
		if from == x.id {
			_ = request.SetWriteDeadline(time.Unix(1, 0)) // the listener's own deadline is the fallback
		}
	}
	// An id is never used again, so nothing depends on when this is done.
	p.n.spawn(func() {
		p.changing.Lock()
		defer p.changing.Unlock()
		p.transport.RemovePeer(types.ID(x.id))
	})
}

// greet says hello until the member accepts it.
func (p *peers) greet(ctx context.Context, x *peer) {
	retry, stop := p.n.cfg.Clock.Tick(p.n.cfg.TickInterval)
	defer stop()
	var waiting lasting
	for {
		err := p.hello(ctx, x)
		if err == nil {
			if since := waiting.since; !since.IsZero() {
				p.n.logger.Info("member answers", "member", x.id, "url", x.url, "waited_since", since.UTC().Format(time.RFC3339))
			}
			p.changing.Lock()
			defer p.changing.Unlock()
			p.mu.Lock()
			x.ready = ctx.Err() == nil && !p.closed
			ready := x.ready
			p.mu.Unlock()
			if ready {
				p.transport.AddPeer(types.ID(x.id), []string{x.url})
			}
			return
		}
		var refused *IdentityError
		switch {
		case errors.As(err, &refused) || errors.Is(err, ErrRemoved):
			p.n.fail(err)
			return
		case ctx.Err() != nil:
			return
		}
		if times, due := waiting.due(p.n.cfg.Clock.Now(), err); due {
			p.n.logger.Info("waiting for member", "member", x.id, "url", x.url, "reason", err, "attempts", times)
		}
		select {
		case <-retry:
		case <-x.kick:
		case <-ctx.Done():
			return
		case <-p.n.stop:
			return
		}
	}
}

// welcome notes that a member has said hello, and answers its greeting at
// once. A joining member that knows nobody yet learns of the caller by it, and
// any member of one that others have vouched for.
func (p *peers) welcome(q *helloRequest, vouched bool) {
	joining := len(p.n.applier.members.Load().Members) == 0
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[q.From] = q.Incarnation
	x, ok := p.known[q.From]
	switch {
	case ok:
		select {
		case x.kick <- struct{}{}:
		default:
		}
	case (joining || vouched) && !p.closed && len(p.known) < maxMetStrangers:
		if url, err := ParsePeerURL(q.PeerURL); err == nil {
			p.meet(q.From, url).guest = vouched
		}
	}
}

// maxMetStrangers bounds how many members a member gets to know by their hellos,
// before it has the cluster's records of them.
const maxMetStrangers = 64

// meet begins to greet a member; mu is held.
func (p *peers) meet(id uint64, url string) *peer {
	ctx, cancel := context.WithCancel(context.Background())
	fresh := &peer{id: id, url: url, cancel: cancel, kick: make(chan struct{}, 1)}
	p.known[id] = fresh
	p.n.spawn(func() { p.greet(ctx, fresh) })
	return fresh
}

// incarnationOf returns what is known of a member's directory: from the
// replicated records, or else from its first hello to this process.
func (p *peers) incarnationOf(id uint64) Incarnation {
	if known := p.n.replica.incarnationOf(id); !known.IsZero() {
		return known
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[id]
}

func (p *peers) accepted(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.known[id]
	return ok && x.ready
}

func (p *peers) url(id uint64) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.known[id]
	if !ok {
		return "", false
	}
	return x.url, true
}

// Send implements Network over rafthttp.
func (p *peers) Send(messages []*raftpb.Message) {
	if len(messages) == 0 {
		return
	}
	if p.n.cfg.Reachable != nil {
		var out []*raftpb.Message
		for _, m := range messages {
			if p.n.cfg.reachable(p.n.cfg.ID, m.GetTo()) {
				out = append(out, m)
			}
		}
		messages = out
	}
	p.transport.Send(messages)
}

// routes are those of the peer listener.
func (p *peers) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(rafthttp.RaftPrefix, p.guarded(p.handler))
	mux.Handle(rafthttp.RaftPrefix+"/", p.guarded(p.handler))
	mux.HandleFunc("POST "+helloPath, p.serveHello)
	mux.HandleFunc("POST "+callPath, p.serveCall)
	if p.n.cfg.Wrap != nil {
		return p.counted(p.n.cfg.Wrap(mux))
	}
	return p.counted(mux)
}

// guarded refuses strangers before rafthttp sees them: a cluster id is no
// proof, and rafthttp would start goroutines for any id and address that a
// header names.
func (p *peers) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == rafthttp.ProbingPrefix {
			next.ServeHTTP(w, r)
			return
		}
		// rafthttp overlooks the status of an answer without a version.
		w.Header().Set("X-Server-Version", version.Version)
		from, err := types.IDFromString(r.Header.Get("X-Server-From"))
		if err != nil {
			http.Error(w, "no member id", http.StatusBadRequest)
			return
		}
		if p.n.IsIDRemoved(uint64(from)) && r.Header.Get("X-Etcd-Cluster-ID") == types.ID(p.n.identity.ClusterID).String() {
			http.Error(w, "removed member", http.StatusGone)
			return
		}
		if !p.accepted(uint64(from)) || !p.n.cfg.reachable(uint64(from), p.n.cfg.ID) {
			// Not 403: rafthttp takes that for "you were removed".
			http.Error(w, "member "+strconv.FormatUint(uint64(from), 10)+" has to say hello first", http.StatusServiceUnavailable)
			return
		}
		r.Header.Del("X-PeerURLs")
		if r.URL.Path == rafthttp.RaftSnapshotPrefix {
			// A snapshot is stored twice until the swap, and must leave room
			// for what the node itself writes.
			free := p.n.cfg.FreeBytes()
			r.Body = http.MaxBytesReader(w, r.Body, max((free-p.n.cfg.MinFreeBytes)/2, 1<<20))
		}
		defer p.track(uint64(from), http.NewResponseController(w))()
		next.ServeHTTP(w, r)
	})
}

// track notes a request under way, so that forget can end it: rafthttp waits
// for a write to a member that reads no more, and everybody waits for rafthttp.
func (p *peers) track(from uint64, request *http.ResponseController) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[request] = from
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.requests, request)
	}
}

// freeBytes returns the space that is free for us on dir's file system, and
// more than any disk has if that cannot be told.
func freeBytes(dir string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 1 << 60
	}
	return int64(s.Bavail) * s.Bsize
}

// Process implements rafthttp.Raft: a message from another member.
func (n *Node) Process(ctx context.Context, m *raftpb.Message) error {
	if m.GetTo() != n.cfg.ID || n.IsIDRemoved(m.GetFrom()) || !n.peers.accepted(m.GetFrom()) || raft.IsLocalMsg(m.GetType()) || !n.cfg.reachable(m.GetFrom(), n.cfg.ID) {
		return nil // not for us, or not from a member: dropped like a lost packet
	}
	if m.GetType() == raftpb.MsgSnap {
		if err := n.acceptSnapshot(m); err != nil {
			if !errors.Is(err, errStopping) {
				n.logger.Error("snapshot refused", "from", m.GetFrom(), "error", err)
			}
			return err
		}
	}
	select {
	case n.messages <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.stop:
		return errStopping
	}
}

// IsIDRemoved implements rafthttp.Raft.
func (n *Node) IsIDRemoved(id uint64) bool { return n.applier.members.Load().isRemoved(id) }

// ReportUnreachable implements rafthttp.Raft.
func (n *Node) ReportUnreachable(id uint64) {
	n.post(func() { n.core.unreachable(id) })
}

// ReportSnapshot implements rafthttp.Raft.
func (n *Node) ReportSnapshot(id uint64, status raft.SnapshotStatus) {
	n.post(func() { n.core.rn.ReportSnapshot(id, status) })
}

// post runs f on the loop, without waiting for it to be done.
func (n *Node) post(f func()) { n.reports.push(f) }

// deadlineListener gives every write a deadline, as rafthttp expects of its
// listener: a stream to a member that does not read must end.
type deadlineListener struct{ net.Listener }

type deadlineConn struct{ net.Conn }

func (l deadlineListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return deadlineConn{c}, nil
}

// writeStep is how much has to get through within one deadline: a large entry
// comes as one write.
const writeStep = 256 << 10

func (c deadlineConn) Write(b []byte) (written int, err error) {
	for err == nil && (written == 0 || written < len(b)) {
		if err := c.SetWriteDeadline(time.Now().Add(rafthttp.DefaultConnWriteTimeout)); err != nil {
			return written, err
		}
		var n int
		n, err = c.Conn.Write(b[written:min(len(b), written+writeStep)])
		if written += n; len(b) == 0 {
			break
		}
	}
	return written, err
}

var _ Network = (*peers)(nil)
var _ rafthttp.Raft = (*Node)(nil)
