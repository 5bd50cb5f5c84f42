package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/raft/v3/raftpb"
)

// Node is one member of the cluster. All methods may be called concurrently.
type Node struct {
	cfg      Config
	identity *identity
	logger   *slog.Logger
	lock     *fileutil.LockedFile

	replica
	disk     *walDisk
	peers    *peers
	founding *foundry      // nil: the directory belonged to a cluster already
	settled  atomic.Bool   // it does now: identity, log and records do not change hands any more
	founded  chan struct{} // closed then

	messages  chan *raftpb.Message   // from members
	local     chan []*raftpb.Message // from the storage steps
	proposals chan *proposal
	readers   chan func(error)
	calls     chan func() // to run on the loop
	appendq   queue[appendTask]
	applyq    queue[applyTask]
	reports   queue[func()] // of the transport, which calls from inside Send too

	status      atomic.Pointer[Status]
	statusMoved chan struct{} // one slot: role, leader or membership changed
	compacting  atomic.Bool
	sending     atomic.Int32      // snapshots being sent; more log is kept meanwhile
	snapRetry   map[uint64]uint64 // by member, the tick before which no snapshot is tried again; the loop's
	confMu      sync.Mutex        // one membership change at a time

	comparing   comparing
	watch       watch
	judging     sync.Mutex
	storageLow  atomic.Bool   // here
	lowMember   atomic.Uint64 // whose disk is nearly full, 0 if nobody's
	clockOffset atomic.Int64  // ns that this clock is ahead of the voters' median
	clockOff    atomic.Bool   // by more than an election timeout
	aside       aside         // superviseLoop's

	stop     chan struct{}   // closed: every goroutine ends
	ctx      context.Context // ends with it
	cancel   context.CancelFunc
	ending   sync.Once
	failed   chan struct{} // closed: the node stopped by itself
	failing  sync.Once
	err      error // why it failed; set before failed is closed
	handing  sync.Once
	closing  sync.Once
	closeErr error
	wg       sync.WaitGroup
	grace    time.Duration // see Close
	spawning sync.Mutex
	closed   bool // nothing joins wg any more; guarded by spawning
}

// Status is what a node knows of itself and the leader at one moment.
type Status struct {
	ID      uint64
	Role    string // leader, follower, candidate or learner
	Leader  uint64 // 0 when unknown
	Term    uint64
	Commit  uint64
	Applied uint64
}

// appendTask is a message of raft's for the log, or a mark to set.
type appendTask struct {
	message *raftpb.Message
	mark    *raftpb.Snapshot
}

// applyTask is a message of raft's for the state machine, or a received
// snapshot to install.
type applyTask struct {
	message *raftpb.Message
	install *raftpb.Snapshot
	done    chan error
}

// Open starts a member: it takes the data directory, reads the log, brings
// the state machine up to it and begins to talk to the other members. With
// Join it first asks the running cluster who it is and may wait for it. A fresh
// directory of a list of one founds its cluster first; that of a longer list does
// so once a majority of it is there, and has no leader until then. Open
// gives up with the cause of ctx when that ends; what a crash at that moment
// would have left undone, the next Open does.
func Open(ctx context.Context, cfg Config) (*Node, error) {
	n, err := open(ctx, cfg)
	if err != nil || n.founding == nil || len(cfg.Cluster) > 1 {
		return n, err
	}
	select {
	case <-n.founded:
		return n, nil
	case <-n.stop:
		err = n.Err()
	case <-ctx.Done():
		err = fmt.Errorf("open node: %w", context.Cause(ctx))
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel() // there is nothing to hand over
	return nil, errors.Join(err, n.Close(ended))
}

func open(ctx context.Context, cfg Config) (_ *Node, err error) {
	if err := cfg.validate(); err != nil {
		return nil, errors.Join(err, closeListener(&cfg))
	}
	n := newNode(cfg)
	release := context.AfterFunc(ctx, n.end)
	defer release()
	defer func() {
		if errors.Is(err, errStopping) && ctx.Err() != nil {
			err = fmt.Errorf("open node: %w", context.Cause(ctx))
		}
		if err != nil {
			n.cancel()
			err = errors.Join(err, closeListener(&cfg), n.releaseResources())
		}
	}()
	if n.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if n.identity, err = claimIdentity(&n.cfg); err != nil {
		return nil, err
	}
	if n.identity.Joined && !n.identity.Prepared {
		if err := n.peers.askCluster(ctx); err != nil {
			return nil, err
		}
	}
	if n.identity.ClusterID == 0 {
		err = n.openFresh()
	} else {
		err = n.openMember(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !release() {
		return nil, errStopping // from here on Close ends the node
	}
	n.publish()
	if err := n.peers.start(); err != nil {
		return nil, err
	}
	if n.founding == nil {
		n.applier.changed(n.applier.members.Load())
	} else {
		n.wg.Go(n.founding.run)
	}
	n.wg.Go(n.appendLoop)
	n.wg.Go(n.applyLoop)
	n.wg.Go(n.loop)
	n.wg.Go(n.superviseLoop)
	n.wg.Go(n.watchLoop)
	return n, nil
}

// openFresh opens a directory that belongs to no cluster yet: with an empty state
// machine and a raft that knows nobody. Its identity is durable before others
// hear of it.
func (n *Node) openFresh() error {
	if err := n.identity.begin(n.cfg.Dir); err != nil {
		return err
	}
	if err := n.openStateMachine(); err != nil {
		return err
	}
	n.appender = &appender{storage: n.storage}
	if err := n.recoverState(joinedLog()); err != nil {
		return err
	}
	n.founding = newFoundry(n)
	return n.startRaft(&n.cfg, n.identity.Boots, joinedLog())
}

func (n *Node) openMember(ctx context.Context) error {
	rec, err := n.openLog()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errStopping
	}
	if err := n.openStateMachine(); err != nil {
		return err
	}
	if err := n.recoverState(rec); err != nil {
		return err
	}
	if err := n.identity.begin(n.cfg.Dir); err != nil {
		return err
	}
	n.settled.Store(true)
	return n.startRaft(&n.cfg, n.identity.Boots, rec)
}

// settle makes the directory part of a cluster, for good: that it is one is
// durable before anybody hears of it. Without founders it begins with nothing. It
// runs on the loop, while the storage steps have nothing to do.
func (n *Node) settle(clusterID uint64, founders []Founder) error {
	id := n.identity
	id.ClusterID, id.Founders, id.Joined, id.Vote = clusterID, founders, founders == nil, Vote{}
	rec, err := n.openLog()
	if err != nil {
		return err
	}
	if err := n.recoverState(rec); err != nil {
		return err
	}
	n.core.stop()
	if err := n.startRaft(&n.cfg, id.Boots, rec); err != nil {
		return err
	}
	n.settled.Store(true)
	n.publish()
	n.applier.changed(n.applier.members.Load())
	close(n.founded)
	return nil
}

// newNode makes a node of a validated configuration, which owns nothing yet.
func newNode(cfg Config) *Node {
	n := &Node{
		cfg: cfg, logger: cfg.Logger, replica: newReplica(cfg.ID),
		messages:  make(chan *raftpb.Message, 1024),
		local:     make(chan []*raftpb.Message, 64),
		proposals: make(chan *proposal), readers: make(chan func(error), 1024), calls: make(chan func()),
		appendq: queue[appendTask]{ready: make(chan struct{}, 1)}, applyq: queue[applyTask]{ready: make(chan struct{}, 1)}, reports: queue[func()]{ready: make(chan struct{}, 1)},
		statusMoved: make(chan struct{}, 1), snapRetry: map[uint64]uint64{},
		watch: newWatch(), grace: closeGrace, founded: make(chan struct{}), stop: make(chan struct{}), failed: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.peers = newPeers(n)
	return n
}

func closeListener(c *Config) error {
	if c.Listener == nil {
		return nil
	}
	return c.Listener.Close()
}

// openLog makes the log of a fresh directory, or opens the one that is there.
func (n *Node) openLog() (rec recovered, err error) {
	id, dir, lg := n.identity, n.cfg.Dir, zapLogger(n.logger)
	if id.Prepared {
		n.disk, rec, err = openDisk(dir, id, lg)
		if err != nil {
			return rec, err
		}
	} else {
		if err := id.save(dir); err != nil {
			return rec, err
		}
		if rec = joinedLog(); !id.Joined {
			rec = bootstrapLog(id.Cluster)
		}
		if n.disk, err = createDisk(dir, id, rec.snapshot, lg); err != nil {
			return rec, err
		}
		id.Prepared = true
		if err := id.save(dir); err != nil {
			return rec, errors.Join(err, n.disk.Close())
		}
	}
	n.appender = &appender{disk: n.disk, storage: n.storage, state: rec.state, install: n.install}
	return rec, nil
}

func (n *Node) openStateMachine() error {
	sm, err := n.cfg.StateMachine()
	if err != nil {
		return err
	}
	n.applier = &applier{
		self: n.identity.Incarnation, sm: sm, waiters: n.waiters, applied: n.applied,
		confChange: n.onLoopConfChange, changed: n.membershipChanged,
	}
	return nil
}

// recoverState brings the state machine to the log's mark, and checks that this
// node may go on with it.
func (n *Node) recoverState(rec recovered) error {
	first := bootstrapMembership(n.identity.Cluster, n.identity.Founders...)
	if err := n.replica.recoverState(n.applier.sm, n.stagedContent, rec, first); err != nil {
		return fmt.Errorf("data directory %s: %w", n.cfg.Dir, err)
	}
	if err := n.mayServe(); err != nil {
		return err
	}
	return n.identity.checkList(&n.cfg, membershipAfter(n.applier.members.Load(), n.applied.Load(), rec.entries))
}

// stagedContent calls f with the content of a received snapshot, which ends when
// the node stops.
func (n *Node) stagedContent(index uint64, f func(io.Reader) error) error {
	return withSnapshot(stagedPath(n.cfg.Dir, index), func(_ snapHeader, content io.Reader) error {
		return f(untilStop{content, n.stop})
	})
}

// membershipChanged is called with the member records after each change.
func (n *Node) membershipChanged(m *membership) {
	if m.isRemoved(n.cfg.ID) {
		n.fail(ErrRemoved)
		return
	}
	n.peers.reconcile(m)
	n.moved()
}

// fail stops the node for good: nothing is written, acknowledged or voted
// after a failed write.
func (n *Node) fail(err error) {
	if errors.Is(err, errStopping) {
		return // it ended because the node stops
	}
	n.failing.Do(func() {
		n.err = err
		if errors.Is(err, ErrRemoved) {
			n.logger.Info("removed from the cluster, stopping")
		} else {
			n.logger.Error("node stopped", "error", err)
		}
		close(n.failed)
		n.end()
	})
}

// Fail stops the node because what it replicates cannot go on.
func (n *Node) Fail(err error) { n.fail(err) }

func (n *Node) end() {
	n.ending.Do(func() {
		close(n.stop)
		n.cancel()
	})
}

// spawn runs f on a goroutine that Close waits for, or not at all when Close
// waits already: whoever calls it may be a request that came late.
func (n *Node) spawn(f func()) {
	n.spawning.Lock()
	defer n.spawning.Unlock()
	if !n.closed {
		n.wg.Go(f)
	}
}

// closeGrace is what Close takes beyond ctx at most.
const closeGrace = 4 * time.Second

// ErrStuck is why Close gave up: a disk or the state machine does not return. What
// the node holds stays open, the state machine included, until the process ends.
var ErrStuck = errors.New("a disk or the store does not answer: the node could not be closed")

// Close hands the leadership over if this node has it, for at most half of the
// time that ctx leaves, stops every goroutine and waits for them. Some seconds after
// ctx has ended it gives up and returns ErrStuck. Calling it twice is fine.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() {
		if n.Err() == nil {
			n.HandOver(ctx)
		}
		n.end()
		done := make(chan error, 1)
		go func() { done <- n.finish() }()
		select {
		case n.closeErr = <-done:
			return
		case <-ctx.Done():
		}
		// It may be others that took the time: the rest takes some milliseconds.
		grace := time.NewTimer(n.grace)
		defer grace.Stop()
		select {
		case n.closeErr = <-done:
		case <-grace.C:
			n.closeErr = ErrStuck
		}
	})
	return n.closeErr
}

// finish ends when nothing of this node runs any more.
func (n *Node) finish() error {
	n.spawning.Lock()
	n.closed = true
	n.spawning.Unlock()
	n.wg.Wait()
	n.peers.close()
	n.core.stop()
	return n.releaseResources()
}

// releaseResources lets go of the log and the directory.
func (n *Node) releaseResources() error {
	var err error
	if n.appender != nil && n.appender.disk != nil {
		err = n.appender.disk.Close()
	}
	if n.lock != nil {
		err = errors.Join(err, n.lock.Close())
	}
	return err
}
