package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Node is one member of the cluster. All methods may be called concurrently.
type Node struct {
	cfg      Config
	identity *identity
	logger   *slog.Logger
	lock     *fileutil.LockedFile

	sm       StateMachine
	storage  *raft.MemoryStorage
	core     *core // owned by the loop
	appender *appender
	applier  *applier
	waiters  *waiters
	applied  atomic.Uint64
	peers    *peers

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
	storageLow  atomic.Bool
	clockSkew   atomic.Int64 // ns against the leader, when beyond bounds; else 0
	confMu      sync.Mutex   // one membership change at a time

	stop     chan struct{} // closed: every goroutine ends
	ending   sync.Once
	failed   chan struct{} // closed: the node stopped by itself
	failing  sync.Once
	err      error // why it failed; set before failed is closed
	handing  sync.Once
	closing  sync.Once
	closeErr error
	wg       sync.WaitGroup
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
// Join it first asks the running cluster who it is and may wait for it until
// ctx ends.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	if err := cfg.validate(); err != nil {
		return nil, errors.Join(err, closeListener(&cfg))
	}
	n := &Node{
		cfg: cfg, logger: cfg.Logger, waiters: newWaiters(),
		storage:   raft.NewMemoryStorage(),
		messages:  make(chan *raftpb.Message, 1024),
		local:     make(chan []*raftpb.Message, 64),
		proposals: make(chan *proposal), readers: make(chan func(error), 1024), calls: make(chan func()),
		appendq: queue[appendTask]{ready: make(chan struct{}, 1)}, applyq: queue[applyTask]{ready: make(chan struct{}, 1)}, reports: queue[func()]{ready: make(chan struct{}, 1)},
		statusMoved: make(chan struct{}, 1), snapRetry: map[uint64]uint64{},
		stop: make(chan struct{}), failed: make(chan struct{}),
	}
	n.peers = newPeers(n)
	defer func() {
		if err != nil {
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
	rec, err := n.openLog()
	if err != nil {
		return nil, err
	}
	if err := n.recoverState(rec); err != nil {
		return nil, err
	}
	if err := n.startRaft(rec); err != nil {
		return nil, err
	}
	if err := n.peers.start(); err != nil {
		return nil, err
	}
	n.applier.changed(n.applier.members.Load())
	n.wg.Go(n.appendLoop)
	n.wg.Go(n.applyLoop)
	n.wg.Go(n.loop)
	n.wg.Go(n.superviseLoop)
	return n, nil
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
	id.Boots++
	var disk *walDisk
	if id.Prepared {
		if err := id.save(dir); err != nil {
			return rec, err
		}
		disk, rec, err = openDisk(dir, id, lg)
		if err != nil {
			return rec, err
		}
	} else {
		if err := id.save(dir); err != nil {
			return rec, err
		}
		if !id.Joined {
			rec.snapshot = bootstrapSnapshot(id.Cluster)
		}
		rec.state = &raftpb.HardState{}
		if rec.snapshot != nil {
			rec.state = &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}
		}
		if disk, err = createDisk(dir, id, rec.snapshot, lg); err != nil {
			return rec, err
		}
		id.Prepared = true
		if err := id.save(dir); err != nil {
			return rec, errors.Join(err, disk.Close())
		}
	}
	n.appender = &appender{disk: disk, storage: n.storage, state: rec.state, install: n.install}
	return rec, nil
}

// bootstrapSnapshot is index 1, term 1 of every new cluster: start, restart
// and join then share one path.
func bootstrapSnapshot(peers []Peer) *raftpb.Snapshot {
	m := bootstrapMembership(peers)
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: m.confState()}}
}

// recoverState opens the state machine and brings it to the log's mark, and
// the log's commit index to the state machine.
func (n *Node) recoverState(rec recovered) error {
	var err error
	if n.sm, err = n.cfg.StateMachine(); err != nil {
		return err
	}
	n.applier = &applier{
		self: n.identity.Incarnation, sm: n.sm, waiters: n.waiters, applied: &n.applied,
		confChange: n.onLoopConfChange, changed: n.membershipChanged,
	}
	applied, _ := n.sm.Applied()
	mark := rec.snapshot.GetMetadata().GetIndex()
	switch {
	case applied < mark && mark == 1:
		if _, err := n.sm.Apply(func(func(uint64, []byte) bool) {}, 1, bootstrapMembership(n.identity.Cluster).encode()); err != nil {
			return fmt.Errorf("prepare the store: %w", err)
		}
	case applied < mark:
		// A crash came between the mark in the log and the swap of the store.
		if err := n.restore(mark); err != nil {
			return fmt.Errorf("finish installing snapshot %d: %w", mark, err)
		}
	}
	applied, meta := n.sm.Applied()
	last := max(mark, lastIndex(rec.entries))
	if applied > last {
		return &IdentityError{fmt.Sprintf("the store in %s has applied entry %d, but its log ends at %d: the log has lost entries. Remove this member and add it again under a new id, with an empty directory", n.cfg.Dir, applied, last)}
	}
	members, err := decodeMembership(meta)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if members.isRemoved(n.cfg.ID) {
		return ErrRemoved
	}
	if err := n.identity.checkList(&n.cfg, membershipAfter(members, applied, rec.entries)); err != nil {
		return err
	}
	if self, ok := members.member(n.cfg.ID); ok && !self.Incarnation.IsZero() && self.Incarnation != n.identity.Incarnation {
		return &IdentityError{wrongIncarnation(n.cfg.ID)}
	}
	n.applied.Store(applied)
	n.applier.members.Store(members)
	n.applier.confs = []confAt{{applied, members.confState()}}
	rec.state.Commit = new(max(rec.state.GetCommit(), applied))
	return nil
}

func lastIndex(entries []*raftpb.Entry) uint64 {
	if len(entries) == 0 {
		return 0
	}
	return entries[len(entries)-1].GetIndex()
}

func (n *Node) startRaft(rec recovered) (err error) {
	defer func() {
		if r := recover(); r != nil { // the library panics on a log that cannot be
			err = fmt.Errorf("start raft: %v", r)
		}
	}()
	members := n.applier.members.Load()
	mark := rec.snapshot.GetMetadata()
	if rec.snapshot != nil {
		// Raft begins with the configuration as of the applied index, not as
		// of the mark: changes in between are not replayed.
		at := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: mark.Index, Term: mark.Term, ConfState: members.confState()}}
		if err := n.storage.ApplySnapshot(at); err != nil {
			return fmt.Errorf("load the log: %w", err)
		}
	}
	if err := n.storage.SetHardState(rec.state); err != nil {
		return fmt.Errorf("load the log: %w", err)
	}
	n.appender.sizes.reset(mark.GetIndex())
	if len(rec.entries) > 0 {
		if err := n.appender.remember(rec.entries); err != nil {
			return err
		}
	}
	rn, err := raft.NewRawNode(&raft.Config{
		ID: n.cfg.ID, ElectionTick: n.cfg.ElectionTicks, HeartbeatTick: 1,
		Storage: n.storage, Applied: n.applied.Load(),
		AsyncStorageWrites: true, PreVote: true, CheckQuorum: true, StepDownOnRemoval: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 16 << 20,
		MaxInflightMsgs: 256, MaxInflightBytes: 64 << 20, MaxUncommittedEntriesSize: 64 << 20,
		ReadOnlyOption: raft.ReadOnlySafe,
		Logger:         raftLogger{n.logger},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.core = &core{
		id: n.cfg.ID, self: n.identity.Incarnation, logger: n.logger, rn: rn, waiters: n.waiters, applied: &n.applied,
		electionTicks: n.cfg.ElectionTicks, maxInFlight: n.cfg.MaxInFlight,
		sequence: n.identity.Boots << 40, term: rec.state.GetTerm(), commit: rec.state.GetCommit(),
	}
	if len(members.Voters) == 1 && members.isVoter(n.cfg.ID) {
		// Alone: nobody else can lead, so there is nothing to wait for.
		if err := rn.Campaign(); err != nil {
			return fmt.Errorf("start raft: %w", err)
		}
	}
	n.publish()
	return nil
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

func (n *Node) end() { n.ending.Do(func() { close(n.stop) }) }

// Close hands the leadership over if this node has it, stops every goroutine
// and waits for them. ctx bounds the handing over. Calling it twice is fine.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() {
		if n.Err() == nil {
			n.HandOver(ctx)
		}
		n.end()
		n.wg.Wait()
		n.peers.close()
		n.core.stop()
		n.closeErr = n.releaseResources()
	})
	return n.closeErr
}

// releaseResources lets go of the log and the directory.
func (n *Node) releaseResources() error {
	var err error
	if n.appender != nil {
		err = n.appender.disk.Close()
	}
	if n.lock != nil {
		err = errors.Join(err, n.lock.Close())
	}
	return err
}
