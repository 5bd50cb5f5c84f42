package raftnode

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// stateTagField is the number of the field, unknown to raft, that marks a
// hard state record as written by this directory. Clients do not know the
// incarnation, so no message text can pass for a record of ours.
const stateTagField = 15

// tagged returns a copy of state that carries the incarnation.
func tagged(state *raftpb.HardState, inc Incarnation) *raftpb.HardState {
	s := proto.CloneOf(state)
	s.ProtoReflect().SetUnknown(stateTag(inc))
	return s
}

func stateTag(inc Incarnation) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, stateTagField, protowire.BytesType), inc[:])
}

// untag removes what tagged has added.
func untag(state *raftpb.HardState) *raftpb.HardState {
	state.ProtoReflect().SetUnknown(nil)
	return state
}

// recordCheck follows the records of a log in order. The checksum of etcd's
// log covers a record's data but not its type, so what a record claims to be
// is checked against its data and its place.
type recordCheck struct {
	metadata []byte // of every segment
	inc      Incarnation
	started  bool   // an entry or mark was seen, or the segment's name said where it begins
	last     uint64 // index of the last entry or mark
	term     uint64 // of the last hard state
}

func (c *recordCheck) check(rec *walpb.Record) error {
	switch rec.GetType() {
	case wal.MetadataType:
		if !bytes.Equal(rec.GetData(), c.metadata) {
			return &IdentityError{"the log belongs to another data directory: bring this member's own one back"}
		}
	case wal.EntryType:
		return c.entry(rec.GetData())
	case wal.StateType:
		return c.state(rec.GetData())
	case wal.SnapshotType:
		return c.mark(rec.GetData())
	}
	return nil
}

func (c *recordCheck) entry(data []byte) error {
	e := &raftpb.Entry{}
	if err := proto.Unmarshal(data, e); err != nil {
		return fmt.Errorf("entry: %w", err)
	}
	confChange := e.GetType() == raftpb.EntryConfChange && len(e.GetData()) > 0
	switch {
	case len(e.ProtoReflect().GetUnknown()) > 0 || e.GetIndex() == 0 || e.GetTerm() == 0 || e.GetType() != raftpb.EntryNormal && !confChange:
		return errors.New("record that is no entry in the place of one")
	case c.started && e.GetIndex() > c.last+1:
		return fmt.Errorf("entry %d follows entry %d", e.GetIndex(), c.last)
	}
	c.started, c.last = true, e.GetIndex()
	return nil
}

func (c *recordCheck) state(data []byte) error {
	s := &raftpb.HardState{}
	if err := proto.Unmarshal(data, s); err != nil {
		return fmt.Errorf("hard state: %w", err)
	}
	switch {
	case !bytes.Equal(s.ProtoReflect().GetUnknown(), stateTag(c.inc)):
		return errors.New("hard state of another data directory, or a record that is none in the place of one")
	case s.GetTerm() < c.term:
		return fmt.Errorf("hard state of term %d follows one of term %d", s.GetTerm(), c.term)
	case c.started && s.GetCommit() > c.last:
		return fmt.Errorf("hard state commits entry %d, but the log ends at %d", s.GetCommit(), c.last)
	}
	c.term = s.GetTerm()
	return nil
}

func (c *recordCheck) mark(data []byte) error {
	m := &walpb.Snapshot{}
	if err := proto.Unmarshal(data, m); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 || m.Index == nil || m.Term == nil || (m.GetIndex() > 0) != (m.ConfState != nil) {
		return errors.New("record that is no mark in the place of one")
	}
	if m.GetIndex() > 0 {
		c.started, c.last = true, max(c.last, m.GetIndex())
	}
	return nil
}

// isState reports whether rec is a hard state of this directory.
func (c *recordCheck) isState(rec *walpb.Record) bool {
	if rec.GetType() != wal.StateType {
		return false
	}
	s := &raftpb.HardState{}
	return proto.Unmarshal(rec.GetData(), s) == nil && bytes.Equal(s.ProtoReflect().GetUnknown(), stateTag(c.inc))
}
