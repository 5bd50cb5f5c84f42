package grpcapi

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// Options configure a Server. Chat and Cluster are required; the zero value of
// every other field stands for its default.
type Options struct {
	// Chat does everything that is asked for.
	Chat *chat.Service
	// Cluster knows who leads.
	Cluster Cluster
	// Logger gets panics and errors without a known code. Default: discard.
	Logger *slog.Logger
	// Budget bounds what clients make this node hold; nil: nothing does.
	Budget *budget.Budget
	// Follower is what a node does that does not lead. Default: Redirect.
	Follower Mode

	// MaxReceive bounds a request in bytes, also after decompression. Less than
	// the longest message of Chat needs is raised to that. Default 1 MiB.
	MaxReceive int
	// MaxStreams bounds the calls of one connection at a time. Default 100.
	MaxStreams int
	// MaxConnections bounds the connections of the server. Default 1,000.
	MaxConnections int

	// MinPing is how often a client may ping; one that pings more often is
	// disconnected. Default 10 s.
	MinPing time.Duration
	// PingInterval is after how long without a sign of life a client is pinged.
	// gRPC takes no less than 1 s. Default 20 s.
	PingInterval time.Duration
	// PongTimeout is how long a client may take to answer before it is
	// disconnected. Default 10 s.
	PongTimeout time.Duration
	// WriteTimeout is how long one write to a subscriber may wait before the
	// subscription is ended. Default 10 s.
	WriteTimeout time.Duration
	// CloseGrace is how long after WriteTimeout a client may still take what was
	// written, before its connection is closed. Default 30 s.
	CloseGrace time.Duration
	// LeaderGrace is how long the node may know no leader before subscriptions
	// are ended. Default 10 s.
	LeaderGrace time.Duration
	// DrainTimeout is how long Shutdown lets calls finish, if its context allows,
	// before it cuts their connections. Default 5 s.
	DrainTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	set(&o.MaxReceive, 1<<20)
	o.MaxReceive = max(o.MaxReceive, o.Chat.MaxMessage()+16<<10) // and room for the names
	set(&o.MaxStreams, 100)
	set(&o.MaxConnections, 1000)
	set(&o.MinPing, 10*time.Second)
	set(&o.PingInterval, 20*time.Second)
	set(&o.PongTimeout, 10*time.Second)
	set(&o.WriteTimeout, 10*time.Second)
	set(&o.CloseGrace, 30*time.Second)
	set(&o.LeaderGrace, 10*time.Second)
	set(&o.DrainTimeout, 5*time.Second)
	return o
}

func set[T int | time.Duration](v *T, standard T) {
	if *v <= 0 {
		*v = standard
	}
}

// Mode is what a node does with calls while it does not lead.
type Mode int

const (
	// Redirect answers FailedPrecondition and names the leader.
	Redirect Mode = iota
	// Forward serves every call.
	Forward
)

// String gives the name of m as ParseMode takes it.
func (m Mode) String() string {
	switch m {
	case Redirect:
		return "redirect"
	case Forward:
		return "forward"
	}
	return fmt.Sprintf("mode %d", int(m))
}

// ParseMode gives the mode of a name: "redirect" or "forward".
func ParseMode(name string) (Mode, error) {
	for _, m := range []Mode{Redirect, Forward} {
		if name == m.String() {
			return m, nil
		}
	}
	return Redirect, fmt.Errorf("%q is neither redirect nor forward", name)
}

// Cluster is what the front needs of consensus.
type Cluster interface {
	// Status is this node's present view. It never blocks and may be called
	// concurrently.
	Status() Status
}

// Status says who leads, as this node sees it.
type Status struct {
	// IsLeader: this node does.
	IsLeader bool
	// LeaderName is the leader's name, "" while none is known.
	LeaderName string
	// LeaderGRPCAddr is the host:port where the leader serves gRPC; "" if it is
	// not known.
	LeaderGRPCAddr string
}

// leaderKnown reports whether there is somebody to turn to.
func (s Status) leaderKnown() bool { return s.IsLeader || s.LeaderName != "" }
