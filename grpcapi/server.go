package grpcapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // registers the compression that clients expect
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
)

// Limits of a connection that nobody has a reason to change.
const (
	handshakeTimeout = 5 * time.Second
	idleTimeout      = 5 * time.Minute // without a call
	maxHeaderBytes   = 16 << 10
	streamWindow     = 64 << 10 // the least that the library takes
	connectionWindow = 1 << 20
	readBuffer       = 8 << 10
	maxTalks         = 16          // calls that clients stream to: of reflection, which is for people
	talkTime         = time.Minute // of one
	maxReading       = 4           // pages of history that are read and encoded at a time
)

// Server is the gRPC front of one node. All methods may be called concurrently.
type Server struct {
	options Options
	grpc    *grpc.Server
	health  *health.Server

	idPrefix string // random, so that ids of two runs differ
	ids      atomic.Uint64

	stop     chan struct{} // closed by Shutdown
	stopOnce sync.Once
	watching sync.WaitGroup
	// transfers counts what streams send and receive at present. It can outlive
	// the call for a moment.
	transfers sync.WaitGroup

	reading   chan struct{} // has room for pages that are read and encoded
	receivers receivers
	talks     chan struct{} // has room for the calls that a client streams to

	mu       sync.Mutex // guards the rest
	streams  map[*openStream]struct{}
	stopping bool
}

// New returns a Server that watches the leader but does not listen yet; Shutdown
// ends it. It panics when Chat or Cluster is missing, which is a mistake of the
// program and not of its user.
func New(o Options) *Server {
	if o.Chat == nil || o.Cluster == nil {
		panic("grpcapi: Options needs Chat and Cluster")
	}
	o = o.withDefaults()
	s := &Server{
		options:  o,
		health:   health.NewServer(),
		idPrefix: rand.Text()[:12] + "-",
		stop:     make(chan struct{}),
		streams:  make(map[*openStream]struct{}),
		talks:    make(chan struct{}, maxTalks),
		reading:  make(chan struct{}, maxReading),
	}
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(o.MaxReceive),
		grpc.MaxConcurrentStreams(uint32(o.MaxStreams)),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: o.MinPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleTimeout, Time: o.PingInterval, Timeout: o.PongTimeout,
		}),
		// What a client may send before anybody asks for it. Both being set keeps the
		// library from making them larger for a fast one.
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connectionWindow),
		grpc.ReadBufferSize(readBuffer),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.WaitForHandlers(true),
	)
	services := registrar{s.grpc, s}
	pb.RegisterMessengerServer(services, &messenger{server: s, chat: o.Chat})
	healthpb.RegisterHealthServer(services, s.health)
	reflection.Register(services)
	s.showHealth(o.Cluster.Status().leaderKnown())
	s.watching.Go(s.watchLeader)
	return s
}

// Serve serves connections of l, which it closes in the end, until Shutdown. It
// returns nil then, and otherwise why it could not go on.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(newLimitedListener(l, s.options.MaxConnections, s.options.WriteTimeout))
	select {
	case <-s.stop:
		return nil // also if Shutdown came before Serve
	default:
	}
	if err != nil {
		return fmt.Errorf("serve grpc: %w", err)
	}
	return nil
}

// Shutdown reports NOT_SERVING, ends the streams with Unavailable, takes no new
// calls, lets those under way finish until DrainTimeout is over or ctx ends, cuts
// what is left and waits for it. Calling it twice is fine.
func (s *Server) Shutdown(ctx context.Context) {
	s.stopOnce.Do(func() { close(s.stop) })
	s.watching.Wait()
	s.health.Shutdown()
	s.mu.Lock()
	s.stopping = true
	for st := range s.streams {
		st.cancel(errStopping)
	}
	s.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, s.options.DrainTimeout)
	defer cancel()
	var drain sync.WaitGroup
	drained := make(chan struct{})
	drain.Go(func() {
		s.grpc.GracefulStop()
		close(drained)
	})
	select {
	case <-drained:
	case <-ctx.Done():
		s.grpc.Stop()
	}
	drain.Wait()
	s.transfers.Wait()
}

// leaderPolls is how many looks at the leader a LeaderGrace has.
const leaderPolls = 20

// watchLeader shows in the health service whether a leader is known, and ends the
// subscriptions of a node that has known none for LeaderGrace: they can go on at
// another node.
func (s *Server) watchLeader() {
	tick := time.NewTicker(min(time.Second/4, s.options.LeaderGrace/leaderPolls+1))
	defer tick.Stop()
	seen := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		known := s.options.Cluster.Status().leaderKnown()
		s.showHealth(known)
		if known {
			seen = time.Now()
		}
		if time.Since(seen) >= s.options.LeaderGrace {
			s.endSubscriptions(errLeaderLost)
		}
	}
}

// showHealth sets the status of the whole server and of the one service.
func (s *Server) showHealth(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(pb.Messenger_ServiceDesc.ServiceName, status)
}
