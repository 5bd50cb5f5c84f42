package httpapi

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
	"github.com/raft-chat/raft-chat/internal/webguard"
)

// Options configure a Server. Chat and Cluster are required; the zero value of every other field stands for its default.
type Options struct {
	// Chat answers everything about rooms and messages.
	Chat *chat.Service
	// Cluster answers everything about the members and this node's place among them.
	Cluster Cluster
	// Logger gets panics, errors without a known code, and membership changes. Default: discard.
	Logger *slog.Logger
	// NodeName is sent as X-Raft-Chat-Node. Default: Cluster.Status().Name.
	NodeName string
	// Registry is served at /metrics; the server registers its own counters on it, so one registry serves one Server.
	// Default: a new one.
	Registry *prometheus.Registry

	// Budget bounds the memory that clients can make this node hold. Default: nothing is bounded.
	Budget *budget.Budget

	// MaxBody bounds a request body, and a frame of raft-chat.v1, in bytes. Less than what BodyFor the longest message of
	// Chat says is raised to that. Default 1 MiB.
	MaxBody int64
	// Guard judges which web pages may do what. Default: one that knows this node by addresses and as localhost, and
	// allows no page of another origin.
	Guard *webguard.Guard
	// RequestTimeout bounds reads, membership changes and /readyz?sync. Sends have the service's own deadline. Default 5 s.
	RequestTimeout time.Duration

	// PingInterval is the time between two pings on a stream. Default 20 s.
	PingInterval time.Duration
	// PongTimeout is how long a peer may take to answer a ping before it is dropped. Default 10 s.
	PongTimeout time.Duration
	// KeepaliveInterval is the time between two keepalives on an HTTP stream. Default 15 s.
	KeepaliveInterval time.Duration
	// WriteTimeout is how long one write to a stream, or one step of a long answer, may take before it is given up.
	// Default 10 s.
	WriteTimeout time.Duration
	// CloseGrace is how long a stream given up after WriteTimeout may still take the rest of that write and the close
	// frame that tells how to resume; less when memory is short. Default 30 s.
	CloseGrace time.Duration
	// LeaderGrace is how long the node may be without a leader before its streams are closed, so that clients move to
	// another node. Default 10 s.
	LeaderGrace time.Duration

	// Now is the clock that since=10m counts back from. Default: time.Now.
	Now func() time.Time
}

// withDefaults returns o with every unset field filled in.
func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.NodeName == "" {
		o.NodeName = o.Cluster.Status().Name
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 1 << 20
	}
	if o.Guard == nil {
		o.Guard = webguard.New(webguard.Options{Logger: o.Logger})
	}
	o.MaxBody = max(o.MaxBody, BodyFor(o.Chat.MaxMessage()))
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&o.RequestTimeout, 5 * time.Second},
		{&o.PingInterval, 20 * time.Second},
		{&o.PongTimeout, 10 * time.Second},
		{&o.WriteTimeout, 10 * time.Second},
		{&o.CloseGrace, 30 * time.Second},
		{&o.KeepaliveInterval, 15 * time.Second},
		{&o.LeaderGrace, 10 * time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.standard
		}
	}
	return o
}

// BodyFor returns how many bytes a request can have that posts a message of maxMessage bytes: JSON may write each of them
// as six, and all names together as less than 16 KiB.
func BodyFor(maxMessage int) int64 { return 6*int64(maxMessage) + 16<<10 }

// Cluster is what the front needs of consensus. All methods may be called concurrently. Errors carry a stable code
// through a method ErrorCode() string; problem.go lists the codes and their HTTP statuses.
type Cluster interface {
	// Status is this node's present view. It never blocks.
	Status() Status
	// Members lists the members in ascending order of ID.
	Members(ctx context.Context) ([]Member, error)
	// AddMember returns once the member is in the committed configuration.
	AddMember(ctx context.Context, id uint64, peerURL string, learner bool) error
	// PromoteMember makes a caught-up learner a voter.
	PromoteMember(ctx context.Context, id uint64) error
	// RemoveMember returns once the removal is committed.
	RemoveMember(ctx context.Context, id uint64) error
	// TransferLeadership returns once member to is the leader.
	TransferLeadership(ctx context.Context, to uint64) error
	// Ready returns nil, or an error whose text names the failing check.
	Ready(ctx context.Context) error
	// Sync waits until this node has applied everything that was committed at the call.
	Sync(ctx context.Context) error
}

// Status is a node's view of itself and of its leader. LeaderID 0 means that no leader is known.
type Status struct {
	NodeID          uint64
	Name            string
	Role            string // leader, follower, candidate or learner
	LeaderID        uint64
	LeaderName      string
	LeaderPeerAddr  string // host:port of the leader's peer listener
	LeaderGRPCAddr  string // host:port of the leader's gRPC listener
	LeaderClientURL string
	Term            uint64
	Commit          uint64
	Applied         uint64
	Alarm           string // what needs people at once, "" if nothing does
}

// Member is one line of GET /raft; the field names are the JSON names.
type Member struct {
	ID        uint64
	Name      string
	PeerURL   string
	ClientURL string
	GRPCAddr  string
	Role      string // leader, follower, candidate or learner
	Match     uint64 // highest log index known to be on the member
	Lag       uint64 // entries the member is behind the commit index
	Active    bool   // heard from within the last election timeout
}
