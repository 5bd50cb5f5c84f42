package raftnode

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// appender is the storage step of the log: what raft wants written goes to
// the disk with one sync, then to the in-memory log that raft reads from.
// One goroutine owns it.
type appender struct {
	disk    Disk
	storage *raft.MemoryStorage
	state   *raftpb.HardState // as last handed to the disk
	// install brings a received snapshot into the state machine. It is
	// called after the snapshot is recorded in the log, and a start after a
	// crash in between finishes the work.
	install func(*raftpb.Snapshot) error

	sizes     logSizes
	changes   changes
	sinceMark int64 // bytes appended since the last snapshot mark
}

// process does the writes of messages, in order. The responses they carry may
// be delivered when it has returned nil.
func (a *appender) process(messages []*raftpb.Message) error {
	var entries []*raftpb.Entry
	state, dirty := proto.CloneOf(a.state), false
	flush := func() error {
		// A commit index alone is not worth a record: raft finds it again. The
		// next record has it, and it gets one of its own when it commits a
		// change of the configuration (changes.go).
		if !dirty && len(entries) == 0 {
			a.state = state
			return nil
		}
		if err := a.disk.Save(state, entries); err != nil {
			return fmt.Errorf("write the log: %w", err)
		}
		a.saved(state)
		if len(entries) > 0 {
			if err := a.remember(entries); err != nil {
				return err
			}
		}
		entries, dirty = nil, false
		return nil
	}
	for _, m := range messages {
		snapshot, es := m.GetSnapshot(), m.GetEntries()
		rewrite := len(entries) > 0 && len(es) > 0 && es[0].GetIndex() != entries[len(entries)-1].GetIndex()+1
		if rewrite || !raft.IsEmptySnap(snapshot) {
			// What precedes m goes to the disk under the hard state it came
			// with: m's commit index speaks of what only m brings.
			if err := flush(); err != nil {
				return err
			}
		}
		if m.Term != nil || m.Vote != nil || m.Commit != nil {
			// Raft made m before it was queued: a mark set meanwhile may have
			// told of a newer commit index, and counts only as long as that stands.
			commit := max(m.GetCommit(), state.GetCommit())
			dirty = dirty || m.GetTerm() != state.GetTerm() || m.GetVote() != state.GetVote() || a.changes.committedBy(commit)
			state = &raftpb.HardState{Term: proto.Uint64(m.GetTerm()), Vote: proto.Uint64(m.GetVote()), Commit: proto.Uint64(commit)}
		}
		if !raft.IsEmptySnap(snapshot) {
			at := proto.CloneOf(state)
			at.Commit = proto.Uint64(snapshot.GetMetadata().GetIndex())
			if err := a.receive(at, snapshot); err != nil {
				return err
			}
			dirty = false
		}
		entries = append(entries, es...)
	}
	return flush()
}

// saved notes what the disk has now.
func (a *appender) saved(state *raftpb.HardState) {
	a.state = proto.CloneOf(state)
	a.changes.saved(state.GetCommit())
}

func (a *appender) remember(entries []*raftpb.Entry) error {
	if err := a.storage.Append(entries); err != nil {
		return fmt.Errorf("append to the log: %w", err)
	}
	a.sinceMark += a.sizes.append(entries)
	a.changes.append(entries, a.state.GetCommit())
	return nil
}

func (a *appender) receive(state *raftpb.HardState, snapshot *raftpb.Snapshot) error {
	if err := a.disk.SaveSnapshot(state, snapshot); err != nil {
		return fmt.Errorf("record a received snapshot: %w", err)
	}
	a.saved(state)
	if err := a.install(snapshot); err != nil {
		return err
	}
	if err := a.storage.ApplySnapshot(snapshot); err != nil {
		return fmt.Errorf("take a received snapshot: %w", err)
	}
	index := snapshot.GetMetadata().GetIndex()
	a.sizes.reset(index)
	a.changes, a.sinceMark = nil, 0
	return a.release(index)
}

// mark records that the state machine holds everything up to the snapshot's
// index durably: a start reads the log from there on. In memory the log is
// kept for up to keep bytes before its end, for members that fall behind.
func (a *appender) mark(snapshot *raftpb.Snapshot, keep int64) error {
	index := snapshot.GetMetadata().GetIndex()
	if last, err := a.storage.Snapshot(); err == nil && last.GetMetadata().GetIndex() >= index {
		return nil
	}
	state := proto.CloneOf(a.state)
	state.Commit = proto.Uint64(max(state.GetCommit(), index))
	if err := a.disk.SaveSnapshot(state, snapshot); err != nil {
		return fmt.Errorf("mark a snapshot: %w", err)
	}
	a.saved(state)
	a.sinceMark = 0
	if _, err := a.storage.CreateSnapshot(index, snapshot.GetMetadata().GetConfState(), nil); err != nil {
		return fmt.Errorf("mark a snapshot: %w", err)
	}
	a.compact(min(index, a.sizes.keepFrom(keep)))
	return a.release(index)
}

func (a *appender) compact(index uint64) {
	// ErrCompacted says that it is done already.
	if err := a.storage.Compact(index); err == nil {
		a.sizes.compact(index)
	}
}

func (a *appender) release(index uint64) error {
	if err := a.disk.Release(index); err != nil {
		return fmt.Errorf("release the log: %w", err)
	}
	return nil
}

// logSizes knows the bytes of each entry of the in-memory log, which is
// bounded by bytes: packed entries differ in size a thousandfold.
type logSizes struct {
	first uint64 // index of sizes[0]
	sizes []uint32
	total int64
}

func (l *logSizes) reset(index uint64) { *l = logSizes{first: index + 1} }

func (l *logSizes) append(entries []*raftpb.Entry) (added int64) {
	from := entries[0].GetIndex()
	if from < l.first {
		l.first, l.sizes, l.total = from, l.sizes[:0], 0
	}
	if n := from - l.first; n < uint64(len(l.sizes)) {
		for _, s := range l.sizes[n:] {
			l.total -= int64(s)
		}
		l.sizes = l.sizes[:n]
	}
	for _, e := range entries {
		size := entrySize(e)
		l.sizes = append(l.sizes, uint32(size))
		l.total += size
		added += size
	}
	return added
}

// keepFrom returns the index up to which the log can go so that at most keep
// bytes stay.
func (l *logSizes) keepFrom(keep int64) uint64 {
	index, total := l.first-1, l.total
	for _, s := range l.sizes {
		if total <= keep {
			break
		}
		total -= int64(s)
		index++
	}
	return index
}

func (l *logSizes) compact(index uint64) {
	if index < l.first {
		return
	}
	n := min(index-l.first+1, uint64(len(l.sizes)))
	for _, s := range l.sizes[:n] {
		l.total -= int64(s)
	}
	if l.sizes = l.sizes[n:]; len(l.sizes) == 0 {
		l.sizes = nil // what is left moves to a smaller array when it grows
	}
	l.first = index + 1
}
