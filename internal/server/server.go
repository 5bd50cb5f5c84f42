package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/grpcapi"
	"github.com/raft-chat/raft-chat/httpapi"
	"github.com/raft-chat/raft-chat/internal/budget"
	"github.com/raft-chat/raft-chat/internal/webguard"
	"github.com/raft-chat/raft-chat/raftnode"
)

// Server is one running node. All methods may be called concurrently.
type Server struct {
	config Config
	logger *slog.Logger

	node    *raftnode.Node
	store   *chat.Store
	service *chat.Service
	api     *httpapi.Server
	grpc    *grpcapi.Server // nil without a gRPC listener
	budget  *budget.Budget
	gate    *gate

	url       string
	grpcAddr  string
	listeners []*http.Server
	serving   sync.WaitGroup // of listeners
	watching  sync.WaitGroup // of the store's health

	closing  sync.Once
	closeErr error
}

// Open starts a node. It returns when the API is served; the node may not have
// a leader yet. A cluster of one is founded before, see raftnode.Open. With Join, a first start waits until a member of the cluster
// has answered, or ctx ends. The configuration is validated first.
func Open(ctx context.Context, c Config) (_ *Server, err error) {
	s := &Server{logger: c.Logger}
	defer func() {
		if err != nil {
			_ = s.Close(ctx) // the first error is the one to tell
		}
	}()
	if err := c.Validate(); err != nil {
		closeAll(c.APIListener, c.PeerListener)
		return nil, err
	}
	s.config, s.logger = c, c.Logger
	peer, api, health, grpc, err := listen(ctx, &c)
	if err != nil {
		return nil, err
	}
	// The API's sockets are ours until they are served, the peers' is the node's.
	defer func() {
		if err != nil {
			closeAll(api, health, grpc)
		}
	}()
	told := c.advertised(api.Addr(), addrOf(grpc))
	for _, warning := range append(told.warnings, c.warnings()...) {
		c.Logger.Warn(warning)
	}
	s.url, s.grpcAddr = told.client, told.servesGRPC
	s.budget = budget.New(c.MemoryBudget)
	s.gate = newGate(s.budget.Account(budget.Connections), openFiles(), c.Logger)
	guard, peerGuard := c.guards(s.url)
	if err := s.openNode(ctx, peer, told, peerGuard); err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	registerMetrics(registry, s)
	registry.MustRegister(s.budget)
	s.service = chat.NewService(s.node, s.store, chat.ServiceOptions{
		MaxMessage: c.MaxMessageBytes, RequestTimeout: c.RequestTimeout,
	})
	s.api = httpapi.New(httpapi.Options{
		Chat: s.service, Cluster: cluster{s.node}, Logger: c.Logger, NodeName: c.Name, Registry: registry, Budget: s.budget,
		MaxBody: c.MaxBodyBytes, Guard: guard, RequestTimeout: c.RequestTimeout,
		PingInterval: c.PingInterval, PongTimeout: c.PongTimeout, WriteTimeout: c.WriteTimeout,
		LeaderGrace: c.LeaderGrace, KeepaliveInterval: c.KeepaliveInterval,
	})
	s.serve(api, s.api, 0)
	if health != nil {
		// Probes must get in, or a node with many clients would be taken for dead.
		s.serve(health, s.api.HealthHandler(), 16)
	}
	if grpc != nil {
		s.serveGRPC(grpc)
	}
	return s, nil
}

func (s *Server) openNode(ctx context.Context, peer net.Listener, told addresses, guard *webguard.Guard) error {
	c := s.config
	list := make([]raftnode.Peer, len(c.Cluster))
	for i, p := range c.Cluster {
		list[i] = raftnode.Peer{ID: p.ID, URL: p.URL}
	}
	dir := filepath.Join(c.DataDir, "store")
	// A store that fails while nobody writes must stop the node as well.
	broken := make(chan error, 1)
	node, err := raftnode.Open(ctx, raftnode.Config{
		ID: c.ID, Cluster: list, Join: c.Join, Dir: c.DataDir, Listener: peer, Logger: c.Logger,
		Attributes:   raftnode.Attributes{Name: c.Name, ClientURL: told.client, GRPCAddr: told.grpc},
		TickInterval: c.TickInterval, ElectionTicks: c.ElectionTicks, MinFreeBytes: c.MinFreeBytes,
		CatchUpBytes: c.CatchUpBytes, Wrap: guard.Wrap, Budget: s.budget, InsecurePeers: c.InsecurePeers,
		Reachable: c.Reachable, ListenFirst: c.ListenFirst, FoundAnyway: c.FoundAnyway,
		StateMachine: func() (raftnode.StateMachine, error) {
			store, err := chat.OpenStore(dir, chat.StoreOptions{
				Logger: c.Logger, Fatal: func(err error) { broken <- err }, Budget: s.budget,
			})
			if err != nil {
				return nil, storeFault(err, dir, c.ID)
			}
			s.store = store
			return store, nil
		},
	})
	if err != nil {
		return err
	}
	s.node = node
	s.watching.Go(func() {
		select {
		case err := <-broken:
			node.Fail(storeFault(err, dir, c.ID))
		case <-node.Stopped():
		}
	})
	return nil
}

// storeFault adds what to do to an error of the store, which may be the disk's
// or may be damage.
func storeFault(err error, dir string, id uint64) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w. Nothing that was acknowledged is lost: free some space for %s and start this node again", err, dir)
	}
	return fmt.Errorf("%w. If %s is damaged, move the data directory away and replace the member: run `raft-chat members replace %d` against a node that is up (--endpoints) and start what it prints", err, dir, id)
}

// ListenError says which listener could not be opened.
type ListenError struct {
	// Setting names the setting that says where to listen, as in ConfigError.
	Setting string
	// Problem says what was to listen where, and what is wrong.
	Problem string
	// Err is the operating system's word.
	Err error
}

// Error returns "setting: problem".
func (e *ListenError) Error() string { return e.Setting + ": " + e.Problem }

// Unwrap returns Err.
func (e *ListenError) Unwrap() error { return e.Err }

// listen opens the sockets that the configuration names. ctx bounds the look-up
// of their names.
func listen(ctx context.Context, c *Config) (peer, api, health, grpc net.Listener, err error) {
	var lc net.ListenConfig
	open := func(given net.Listener, addr, setting, what string) net.Listener {
		if given != nil || addr == "" || err != nil {
			return given
		}
		l, lerr := lc.Listen(ctx, "tcp", addr)
		if lerr != nil {
			problem := fmt.Sprintf("cannot listen for %s on %s: %v", what, addr, lerr)
			if errors.Is(lerr, syscall.EADDRINUSE) {
				problem = fmt.Sprintf("cannot listen for %s on %s: address already in use, perhaps by another node", what, addr)
			}
			err = &ListenError{setting, problem, lerr}
			return nil
		}
		return l
	}
	peer = open(c.PeerListener, c.ListenPeer, "listen-peer", "peers")
	api = open(c.APIListener, c.Listen, "port", "clients")
	health = open(nil, c.ListenHealth, "listen-health", "health checks")
	grpc = open(nil, c.ListenGRPC, "listen-grpc", "gRPC")
	if err != nil {
		closeAll(peer, api, health, grpc)
	}
	return peer, api, health, grpc, err
}

// addrOf is where l is bound, or nil.
func addrOf(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

func closeAll(listeners ...net.Listener) {
	for _, l := range listeners {
		if l != nil {
			_ = l.Close() // nothing was accepted yet
		}
	}
}

// serve serves h on l, to spare connections whatever the budget says.
func (s *Server) serve(l net.Listener, h http.Handler, spare int) {
	hs := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug)}
	httpapi.ConfigureServer(hs)
	s.listeners = append(s.listeners, hs)
	guarded := s.gate.guard(l, budget.PerConnection, httpapi.ConnectionRefusal(), spare)
	guarded.relieve = func() {
		// The only way to close the idle connections of an http.Server that goes on.
		hs.SetKeepAlivesEnabled(false)
		hs.SetKeepAlivesEnabled(true)
	}
	s.serving.Go(func() {
		if err := hs.Serve(guarded); !errors.Is(err, http.ErrServerClosed) {
			s.logger.Error("listener ended", "address", l.Addr().String(), "error", err)
		}
	})
}

func (s *Server) serveGRPC(l net.Listener) {
	mode := grpcapi.Redirect
	if s.config.GRPCForward {
		mode = grpcapi.Forward
	}
	s.grpc = grpcapi.New(grpcapi.Options{
		Chat: s.service, Cluster: grpcCluster{s.node}, Logger: s.logger, Follower: mode, Budget: s.budget,
		LeaderGrace: s.config.LeaderGrace, WriteTimeout: s.config.WriteTimeout,
	})
	s.serving.Go(func() {
		if err := s.grpc.Serve(s.gate.guard(l, grpcapi.ConnectionBytes, nil, 0)); err != nil {
			s.logger.Error("listener ended", "address", l.Addr().String(), "error", err)
		}
	})
}

// GRPCAddr is where clients reach the gRPC API, or "".
func (s *Server) GRPCAddr() string { return s.grpcAddr }

// URL is where clients reach the API.
func (s *Server) URL() string { return s.url }

// Done is closed when the node stopped by itself: it was removed from the
// cluster or could not go on. Close has still to be called.
func (s *Server) Done() <-chan struct{} { return s.node.Failed() }

// Err says why the node stopped by itself: nil while it lives and when it was
// removed from the cluster.
func (s *Server) Err() error {
	if err := s.node.Err(); !errors.Is(err, raftnode.ErrRemoved) {
		return err
	}
	return nil
}

// Failed reports whether the node stopped by itself because it cannot go on.
func (s *Server) Failed() bool { return s.node != nil && s.Err() != nil }

// Members is how many members the cluster has, as this node knows it.
func (s *Server) Members() int { return len(s.node.Members()) }

// Node, Service and Store give tests what lies below the API.
func (s *Server) Node() *raftnode.Node { return s.node }

// Service is what the APIs call.
func (s *Server) Service() *chat.Service { return s.service }

// Store is the replicated state of this node.
func (s *Server) Store() *chat.Store { return s.store }

// cluster shows the node to the HTTP front.
type cluster struct{ node *raftnode.Node }

func (c cluster) Status() httpapi.Status {
	s := c.node.Status()
	out := httpapi.Status{NodeID: s.ID, Role: s.Role, LeaderID: s.Leader, Term: s.Term, Commit: s.Commit, Applied: s.Applied}
	out.Name = c.node.Name()
	if rival, met := c.node.Rival(); met {
		out.Alarm = rival.String()
	}
	for _, m := range c.node.Members() {
		if m.ID == s.Leader {
			out.LeaderName = cmp.Or(m.Name, fmt.Sprint(m.ID))
			out.LeaderPeerAddr = strings.TrimPrefix(strings.TrimPrefix(m.PeerURL, "http://"), "https://")
			out.LeaderGRPCAddr, out.LeaderClientURL = m.GRPCAddr, m.ClientURL
		}
	}
	return out
}

func (c cluster) Members(ctx context.Context) ([]httpapi.Member, error) {
	list := c.node.MemberStatus(ctx)
	out := make([]httpapi.Member, len(list))
	for i, m := range list {
		out[i] = httpapi.Member{ID: m.ID, Name: m.Name, PeerURL: m.PeerURL, ClientURL: m.ClientURL, GRPCAddr: m.GRPCAddr,
			Role: m.Role, Match: m.Match, Lag: m.Lag, Active: m.Active}
	}
	return out, nil
}

func (c cluster) AddMember(ctx context.Context, id uint64, peerURL string, learner bool) error {
	return c.node.AddMember(ctx, id, peerURL, learner)
}
func (c cluster) PromoteMember(ctx context.Context, id uint64) error { return c.node.Promote(ctx, id) }
func (c cluster) RemoveMember(ctx context.Context, id uint64) error {
	return c.node.RemoveMember(ctx, id)
}
func (c cluster) TransferLeadership(ctx context.Context, to uint64) error {
	return c.node.TransferLeadership(ctx, to)
}
func (c cluster) Sync(ctx context.Context) error { return c.node.ReadIndex(ctx) }

// grpcCluster shows the node to the gRPC front.
type grpcCluster struct{ node *raftnode.Node }

func (c grpcCluster) Status() grpcapi.Status {
	s := cluster(c).Status()
	return grpcapi.Status{IsLeader: s.LeaderID == s.NodeID, LeaderName: s.LeaderName, LeaderGRPCAddr: s.LeaderGRPCAddr}
}

// readyLag is how far behind the log a node may be and still count as ready.
const readyLag = 1000

func (c cluster) Ready(context.Context) error {
	switch s := c.node.Status(); {
	case c.node.Err() != nil:
		return fmt.Errorf("node: %w", c.node.Err())
	case c.node.Founding() != "":
		return errors.New("founding: " + c.node.Founding())
	case s.Leader == 0:
		return errors.New("leader: none is known")
	case s.Commit > s.Applied+readyLag:
		return fmt.Errorf("apply: %d entries behind", s.Commit-s.Applied)
	case c.node.StorageLow():
		return errors.New("storage: the disk is nearly full")
	}
	if rival, met := c.node.Rival(); met {
		return errors.New("cluster: " + rival.String())
	}
	if ahead, off := c.node.ClockOffset(); off {
		return fmt.Errorf("clock: off by %.1f s against the voters' median", ahead.Seconds())
	}
	return nil
}

// registerMetrics shows the node's state to Prometheus.
func registerMetrics(r *prometheus.Registry, s *Server) {
	gauge := func(name, help string, f func() float64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "raft_chat", Name: name, Help: help}, f))
	}
	status := func(f func(raftnode.Status) float64) func() float64 {
		return func() float64 { return f(s.node.Status()) }
	}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newPeerMetrics(s.node))
	started := time.Now()
	gauge("uptime_seconds", "Seconds since this process opened the node.", func() float64 { return time.Since(started).Seconds() })
	gauge("raft_term", "Current raft term.", status(func(s raftnode.Status) float64 { return float64(s.Term) }))
	gauge("raft_commit_index", "Highest log index known to be committed.", status(func(s raftnode.Status) float64 { return float64(s.Commit) }))
	gauge("raft_applied_index", "Highest log index applied to the store.", status(func(s raftnode.Status) float64 { return float64(s.Applied) }))
	gauge("raft_has_leader", "1 if a leader is known.", status(func(s raftnode.Status) float64 { return oneIf(s.Leader != 0) }))
	gauge("raft_is_leader", "1 if this node leads.", status(func(s raftnode.Status) float64 { return oneIf(s.Role == "leader") }))
	gauge("members", "Members of the cluster.", func() float64 { return float64(s.Members()) })
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "raft_chat", Name: "poison_commands_total",
		Help: "Commands rejected because they made apply panic; the log says more."}, func() float64 { return float64(s.store.Poisoned()) }))
	gauge("store_memory_bytes", "Memory of the storage engine's memtables and cache.", func() float64 { return float64(s.store.MemoryBytes()) })
	gauge("storage_low", "1 if free disk space is below the reserve.", func() float64 { return oneIf(s.node.StorageLow()) })
	gauge("storage_low_member", "Id of a member whose disk makes this node refuse messages, 0 if there is none.", func() float64 { return float64(s.node.LowMember()) })
	gauge("rival_cluster", "1 if another cluster claims this member or the address of one: two clusters acknowledge under one list.", func() float64 {
		_, met := s.node.Rival()
		return oneIf(met)
	})
	gauge("clock_offset_seconds", "Seconds that this node's clock is ahead of the voters' median.", func() float64 {
		ahead, _ := s.node.ClockOffset()
		return ahead.Seconds()
	})
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
