package raftnode

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/budget"
	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

// StateMachine is what a Node replicates. It is durable by itself: it knows
// the index of the last entry it has applied. Apply, Restore and Close are
// called by one goroutine at a time, the others concurrently with them.
type StateMachine interface {
	// Applied returns the index of the last applied entry and the member
	// records saved with it; (0, nil) when nothing was ever applied.
	Applied() (index uint64, meta []byte)
	// Apply applies entries, by log index and payload, as one atomic batch
	// together with the applied index last and, if meta is not nil, meta.
	// results[i] is handed to the proposer of the i-th entry. An error is
	// fatal for the node.
	Apply(entries iter.Seq2[uint64, []byte], last uint64, meta []byte) (results []any, err error)
	// Flush makes what was applied before the call survive a crash and
	// returns an applied index that does.
	Flush() (index uint64, err error)
	// Snapshot calls f with a consistent view that stays valid until f returns.
	Snapshot(f func(index uint64, meta []byte, content io.WriterTo) error) error
	// Restore replaces everything by what the content of a Snapshot wrote,
	// durably and atomically, also across a crash.
	Restore(content io.Reader) error
}

// Clock is the node's source of time. Raft itself only counts ticks.
type Clock interface {
	Now() time.Time
	// Tick returns a channel that delivers every d until stop is called.
	Tick(d time.Duration) (c <-chan time.Time, stop func())
}

// Network carries raft messages to other members. Send never blocks and may
// drop; the messages must not be modified afterwards.
type Network interface {
	Send(messages []*raftpb.Message)
}

// Disk is the log's stable storage. Every error is fatal: after a failed
// write or fsync nobody knows what is on the disk, and trying again may
// report a success that did not happen.
type Disk interface {
	// Save appends entries and the hard state and syncs them once.
	Save(state *raftpb.HardState, entries []*raftpb.Entry) error
	// SaveSnapshot records durably that the log may be read from the
	// snapshot's index on: the snapshot file first, then the mark in the log.
	// state, written before the mark, must commit its index.
	SaveSnapshot(state *raftpb.HardState, snapshot *raftpb.Snapshot) error
	// Release deletes what lies wholly below index.
	Release(index uint64) error
	Close() error
}

// Peer is one entry of the static list a cluster begins with.
type Peer struct {
	ID  uint64
	URL string // as ParsePeerURL returns it
}

// Config says how to open a Node. Zero values take the stated defaults.
type Config struct {
	ID      uint64
	Cluster []Peer // all members, this one included
	Join    bool   // enter a cluster that runs, instead of making one
	Dir     string // data directory; made if absent
	Attributes
	Listener net.Listener // for peers; owned by the node from Open on
	// InsecurePeers allows members at other than loopback addresses, although
	// peers neither encrypt nor authenticate.
	InsecurePeers bool

	// ListenFirst is how long a directory that belongs to no cluster listens whether one
	// knows it, before it takes part in founding one. Default 1 s: members greet an
	// absent one four times as often.
	ListenFirst time.Duration
	// FoundAnyway founds a cluster also if another one knows this member.
	FoundAnyway bool

	// StateMachine opens what is replicated. It is called once, when the
	// directory is locked and known to be this member's. Whoever gave it
	// closes the state machine, after the node is closed.
	StateMachine func() (StateMachine, error)
	Logger       *slog.Logger
	Clock        Clock // default: the system's

	TickInterval  time.Duration // default 100 ms, also the heartbeat interval
	ElectionTicks int           // default 10: an election timeout is 1–2 s, drawn at random

	// CatchUpBytes is how much of the log is kept for members that fall
	// behind; a member further behind gets a snapshot. Default 64 MiB.
	CatchUpBytes int64
	// MaxInFlight is how many of this node's own proposals may be on their
	// way before the next one waits; waiting is what lets a batcher join
	// commands, and too long a pause leaves the disk idle. Default 8.
	MaxInFlight int
	// MinFreeBytes is the free disk space below which proposals are refused, here
	// and, if this member votes, at every other one. Default 512 MiB; a negative
	// value keeps no reserve.
	MinFreeBytes int64
	// FreeBytes tells the free disk space; default: that of Dir's file system.
	FreeBytes func() int64
	// Budget bounds what entries hold that are not applied yet, and the
	// connections of the peer listener. Default: none; the bound of the first is
	// 128 MiB then, the second has only that of strangers.
	Budget *budget.Budget

	// Wrap, if set, goes around everything that is served on Listener, to judge
	// requests before the node looks at them.
	Wrap func(http.Handler) http.Handler

	// Reachable, if set, is asked before every exchange between two members;
	// false cuts the link in that direction. Tests cut and mend links with it.
	Reachable func(from, to uint64) bool
}

func (c *Config) validate() error {
	if c.TickInterval == 0 {
		c.TickInterval = 100 * time.Millisecond
	}
	if c.ListenFirst == 0 {
		c.ListenFirst = time.Second
	}
	if c.ElectionTicks == 0 {
		c.ElectionTicks = 10
	}
	if c.CatchUpBytes == 0 {
		c.CatchUpBytes = 64 << 20
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 8
	}
	if c.MinFreeBytes == 0 {
		c.MinFreeBytes = 512 << 20
	}
	if c.FreeBytes == nil {
		dir := c.Dir
		c.FreeBytes = func() int64 { return freeBytes(dir) }
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.Dir == "":
		return errors.New("no data directory given")
	case c.StateMachine == nil || c.Listener == nil:
		return errors.New("state machine and peer listener are required")
	case c.ElectionTicks < 3:
		return errors.New("an election timeout needs at least 3 ticks")
	}
	seen := map[uint64]bool{}
	for _, p := range c.Cluster {
		if err := peeraddr.CheckID(p.ID); err != nil {
			return err
		}
		if seen[p.ID] {
			return fmt.Errorf("the cluster list names member %d twice", p.ID)
		}
		seen[p.ID] = true
	}
	if !seen[c.ID] {
		return errors.New("the cluster list does not name this member")
	}
	return nil
}

func (c *Config) reachable(from, to uint64) bool { return c.Reachable == nil || c.Reachable(from, to) }

// ownURL is this member's peer URL.
func (c *Config) ownURL() string {
	for _, p := range c.Cluster {
		if p.ID == c.ID {
			return p.URL
		}
	}
	return ""
}

// electionTimeout is the shortest one.
func (c *Config) electionTimeout() time.Duration {
	return c.TickInterval * time.Duration(c.ElectionTicks)
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }
func (systemClock) Tick(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTicker(d)
	return t.C, t.Stop
}
