package raftnode

import (
	"fmt"
	"io"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// replica is a member without goroutines, clock, files or network: the core
// and the two storage steps, with what they share. Node runs one on three
// goroutines, Replica on the one of its driver.
type replica struct {
	id       uint64
	sm       StateMachine
	storage  *raft.MemoryStorage
	core     *core     // the loop's
	appender *appender // the append step's
	applier  *applier  // the apply step's
	waiters  *waiters
	applied  *atomic.Uint64
	// staged calls a function with the content of a snapshot that was received
	// and verified; the receiver keeps it until it is installed.
	staged func(index uint64, f func(content io.Reader) error) error
	// logged are the incarnations that members have stated in entries that were
	// in the log at the start, applied or not. Until the records have caught up
	// they alone tell a member from one with a wiped directory.
	logged map[uint64]Incarnation
	// sequence is the last request id of this directory in the log.
	sequence uint64
	// dropped counts the messages that were impossible, by reason.
	dropped counts
}

func newReplica(id uint64) replica {
	return replica{id: id, storage: raft.NewMemoryStorage(), waiters: newWaiters(), applied: new(atomic.Uint64)}
}

// bootstrapSnapshot is index 1, term 1 of every new cluster: start, restart
// and join then share one path.
func bootstrapSnapshot(peers []Peer) *raftpb.Snapshot {
	m := bootstrapMembership(peers)
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: m.confState()}}
}

// bootstrapLog is what the log of a member of a new cluster begins with.
func bootstrapLog(peers []Peer) recovered {
	return recovered{snapshot: bootstrapSnapshot(peers), state: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}}
}

// joinedLog is that of a member that joins: nothing.
func joinedLog() recovered { return recovered{state: &raftpb.HardState{}} }

// recoverState brings the state machine to the log's mark, and the log's
// commit index to the state machine. first are the records that the cluster began
// with. The applier is set but for its state.
func (r *replica) recoverState(sm StateMachine, staged func(uint64, func(io.Reader) error) error, rec recovered, first *membership) error {
	r.sm, r.staged = sm, staged
	applied, _ := sm.Applied()
	mark := rec.snapshot.GetMetadata().GetIndex()
	switch {
	case applied < mark && mark == 1:
		if _, err := sm.Apply(func(func(uint64, []byte) bool) {}, 1, first.encode()); err != nil {
			return fmt.Errorf("prepare the store: %w", err)
		}
	case applied < mark:
		// A crash came between the mark in the log and the swap of the store.
		if err := r.restore(mark); err != nil {
			return fmt.Errorf("the store ends at entry %d, the log begins behind entry %d: %w. Remedy: %s", applied, mark, err, remedy(r.id))
		}
	}
	applied, meta := sm.Applied()
	if last := max(mark, lastIndex(rec.entries)); applied > last {
		return &IdentityError{fmt.Sprintf("the store has applied entry %d, but the log ends at %d: the log has lost entries. Remedy: %s", applied, last, remedy(r.id))}
	}
	members, err := decodeMembership(meta)
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	if err := checkLog(rec.entries, applied); err != nil {
		return err
	}
	r.applied.Store(applied)
	r.applier.members.Store(members)
	r.applier.confs = []confAt{{applied, members.confState()}}
	rec.state.Commit = new(max(rec.state.GetCommit(), applied, provenCommit(rec.entries)))
	r.logged = statedIncarnations(rec.entries)
	r.sequence = lastSequence(rec.entries, r.applier.self)
	return nil
}

// incarnationOf returns the directory that the log or the records know a member
// by; zero if they do not.
func (r *replica) incarnationOf(id uint64) Incarnation {
	if m := r.applier.members.Load(); m != nil {
		if x, ok := m.member(id); ok && !x.Incarnation.IsZero() {
			return x.Incarnation
		}
	}
	return r.logged[id]
}

func lastIndex(entries []*raftpb.Entry) uint64 {
	if len(entries) == 0 {
		return 0
	}
	return entries[len(entries)-1].GetIndex()
}

// mayServe returns why this directory may not act as the member, as far as its
// own records tell.
func (r *replica) mayServe() error {
	members := r.applier.members.Load()
	if members.isRemoved(r.id) {
		return ErrRemoved
	}
	if self, ok := members.member(r.id); ok && !self.Incarnation.IsZero() && self.Incarnation != r.applier.self {
		return &IdentityError{wrongIncarnation(r.id)}
	}
	return nil
}

// startRaft gives the log to raft. Of c it takes what concerns raft.
func (r *replica) startRaft(c *Config, boots uint64, rec recovered) (err error) {
	defer func() {
		if p := recover(); p != nil { // the library panics on a log that cannot be
			err = fmt.Errorf("start raft: %v", p)
		}
	}()
	members := r.applier.members.Load()
	mark := rec.snapshot.GetMetadata()
	if rec.snapshot != nil {
		// Raft begins with the configuration as of the applied index, not as
		// of the mark: changes in between are not replayed.
		at := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: mark.Index, Term: mark.Term, ConfState: members.confState()}}
		if err := r.storage.ApplySnapshot(at); err != nil {
			return fmt.Errorf("load the log: %w", err)
		}
	}
	if err := r.storage.SetHardState(rec.state); err != nil {
		return fmt.Errorf("load the log: %w", err)
	}
	r.appender.sizes.reset(mark.GetIndex())
	if len(rec.entries) > 0 {
		if err := r.appender.remember(rec.entries); err != nil {
			return err
		}
	}
	rn, err := raft.NewRawNode(&raft.Config{
		ID: r.id, ElectionTick: c.ElectionTicks, HeartbeatTick: 1,
		Storage: r.storage, Applied: r.applied.Load(),
		AsyncStorageWrites: true, PreVote: true, CheckQuorum: true, StepDownOnRemoval: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 16 << 20,
		MaxInflightMsgs: 256, MaxInflightBytes: 64 << 20, MaxUncommittedEntriesSize: 64 << 20,
		ReadOnlyOption: raft.ReadOnlySafe,
		Logger:         raftLogger{c.Logger},
	})
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	last, err := r.storage.LastIndex()
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	r.core = &core{
		id: r.id, self: r.applier.self, logger: c.Logger, rn: rn, waiters: r.waiters, applied: r.applied,
		electionTicks: c.ElectionTicks, maxInFlight: c.MaxInFlight, last: last, lastAtLeast: last, dropped: &r.dropped,
		// The boots alone would do, but an older copy of their file repeats them,
		// and what is in the log can still come to an answer.
		sequence: max(boots<<40, r.sequence), term: rec.state.GetTerm(), commit: rec.state.GetCommit(),
		backlog: backlog{account: c.Budget.Account(budget.Log)},
	}
	r.core.backlog.grow(mark.GetIndex(), rec.entries, r.applied.Load())
	if len(members.Voters) == 1 && members.isVoter(r.id) {
		// Alone: nobody else can lead, so there is nothing to wait for.
		if err := rn.Campaign(); err != nil {
			return fmt.Errorf("start raft: %w", err)
		}
	}
	return nil
}

// statusNow adds what the storage steps know to a status of the core.
func (r *replica) statusNow(s Status) Status {
	s.Applied = r.applied.Load()
	s.Commit = max(s.Commit, s.Applied)
	if r.applier.members.Load().isLearner(r.id) {
		s.Role = "learner"
	}
	return s
}

// checkpoint makes the state machine durable, so that the log before it is
// not needed for a start any more, and returns the mark to set in the log; nil
// if a received snapshot went past it meanwhile.
func (r *replica) checkpoint() (*raftpb.Snapshot, error) {
	index, err := r.sm.Flush()
	if err != nil {
		return nil, fmt.Errorf("flush the store: %w", err)
	}
	term, err := r.storage.Term(index)
	if err != nil {
		return nil, nil
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(index), Term: new(term), ConfState: r.applier.confStateAt(index)}}, nil
}

// dump writes the state machine as a snapshot file.
func (r *replica) dump(w io.Writer, clusterID uint64) (meta *raftpb.SnapshotMetadata, err error) {
	err = r.sm.Snapshot(func(index uint64, record []byte, content io.WriterTo) error {
		term, err := r.storage.Term(index)
		if err != nil {
			return fmt.Errorf("term of entry %d: %w", index, err)
		}
		members, err := decodeMembership(record)
		if err != nil {
			return err
		}
		meta = &raftpb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: members.confState()}
		return writeSnapshot(w, snapHeader{ClusterID: clusterID, Index: index, Term: term, FeatureLevel: featureLevel, Membership: record}, content)
	})
	return meta, err
}

// installSnapshot swaps the state machine's content for a received snapshot.
func (r *replica) installSnapshot(s *raftpb.Snapshot) (installed bool, err error) {
	index := s.GetMetadata().GetIndex()
	if index <= r.applied.Load() {
		return false, nil
	}
	if err := r.restore(index); err != nil {
		return false, err
	}
	_, record := r.sm.Applied()
	members, err := decodeMembership(record)
	if err != nil {
		return false, err
	}
	r.applied.Store(index)
	r.applier.setMembership(index, members)
	return true, nil
}

func (r *replica) restore(index uint64) error {
	if err := r.staged(index, r.sm.Restore); err != nil {
		return fmt.Errorf("restore snapshot %d: %w", index, err)
	}
	if applied, _ := r.sm.Applied(); applied != index {
		return fmt.Errorf("restore snapshot %d: its content is of entry %d", index, applied)
	}
	return nil
}
