package raftnode

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// applier is the storage step of the state machine: committed entries in, one
// atomic batch out, and the proposers of this node answered. One goroutine
// owns it; membership and confAt may be read by any.
type applier struct {
	self    Incarnation
	sm      StateMachine
	waiters *waiters
	applied *atomic.Uint64
	// confChange tells the owner of the RawNode; nil is a rejected change.
	confChange func(*raftpb.ConfChange) error
	changed    func(*membership)

	members atomic.Pointer[membership]

	mu    sync.Mutex
	confs []confAt // every configuration since the node was opened, by index
}

type confAt struct {
	index uint64
	conf  *raftpb.ConfState
}

// item is one application entry of a batch.
type item struct {
	index   uint64
	payload []byte
	id      requestID
}

// process applies what messages carry. A returned error stops the node.
func (a *applier) process(messages []*raftpb.Message) error {
	var batch []item
	var last uint64
	for _, m := range messages {
		for _, e := range m.GetEntries() {
			if e.GetIndex() <= a.applied.Load() {
				continue // before a restored snapshot
			}
			it, special, err := a.classify(e)
			if err != nil {
				return err
			}
			last = e.GetIndex()
			if special == nil {
				if it.payload != nil {
					batch = append(batch, it)
				}
				continue
			}
			// The member records change at this index: the batch ends here,
			// so that they are saved with exactly what precedes them.
			if err := a.commitSpecial(batch, last, special); err != nil {
				return err
			}
			batch, last = batch[:0], 0
		}
	}
	if last == 0 {
		return nil
	}
	return a.commit(batch, last, nil)
}

// special is an entry that concerns the membership.
type special struct {
	id   requestID
	next *membership // nil: rejected
	err  *Error
	conf *raftpb.ConfChange // set for a configuration change
}

func (a *applier) classify(e *raftpb.Entry) (item, *special, error) {
	if e.GetType() == raftpb.EntryNormal && len(e.GetData()) == 0 {
		return item{index: e.GetIndex()}, nil, nil // a leader's first entry
	}
	switch e.GetType() {
	case raftpb.EntryNormal:
		kind, id, payload, err := decodeEntry(e.GetData())
		if err != nil || kind == kindConfChange {
			return item{}, nil, fmt.Errorf("apply entry %d: %w; a newer build may have written it", e.GetIndex(), errEntry)
		}
		if kind == kindApplication {
			return item{index: e.GetIndex(), payload: payload, id: id}, nil, nil
		}
		return item{}, a.attributes(id, payload), nil
	case raftpb.EntryConfChange:
		s, err := a.conf(e.GetData())
		if err != nil {
			return item{}, nil, fmt.Errorf("apply configuration change %d: %w", e.GetIndex(), err)
		}
		return item{}, s, nil
	}
	return item{}, nil, fmt.Errorf("apply entry %d: type %v is not supported", e.GetIndex(), e.GetType())
}

// judged makes a panic of a decision about the member records a rejection. The
// decision depends on the entry and the records alone: it would panic on every
// replica and again at each start.
func judged(decide func() (*membership, *Error)) (next *membership, err *Error) {
	defer func() {
		if r := recover(); r != nil {
			next, err = nil, errorf(CodeCommandFailed, "the change made this program panic and was rejected: %v", r)
		}
	}()
	return decide()
}

// attributeEntry is the payload of kindAttributes: a member speaks for itself,
// or the leader says which directory is the first of a member that never had one.
type attributeEntry struct {
	ID uint64 `json:"id"`
	Attributes
	Adopted Incarnation `json:"adopted,omitzero"`
}

func (a *applier) attributes(id requestID, payload []byte) *special {
	var x attributeEntry
	if err := json.Unmarshal(payload, &x); err != nil {
		return &special{id: id, err: errorf(CodeMemberID, "attributes: %v", err)}
	}
	next, err := judged(func() (*membership, *Error) {
		if !x.Adopted.IsZero() {
			return a.members.Load().adopt(x.ID, x.Adopted)
		}
		return a.members.Load().register(x.ID, id.proposer, x.Attributes)
	})
	return &special{id: id, next: next, err: err}
}

// statedIncarnations returns who said to be which member in entries. A member
// speaks for itself alone, so that it does not matter whether an entry is
// committed; the leader that adopts one does not count, because it does.
func statedIncarnations(entries []*raftpb.Entry) map[uint64]Incarnation {
	stated := map[uint64]Incarnation{}
	for _, e := range entries {
		kind, id, payload, err := decodeEntry(e.GetData())
		var x attributeEntry
		if e.GetType() == raftpb.EntryNormal && err == nil && kind == kindAttributes && json.Unmarshal(payload, &x) == nil && x.Adopted.IsZero() && stated[x.ID].IsZero() {
			stated[x.ID] = id.proposer
		}
	}
	return stated
}

// lastSequence returns the highest request id that a directory has used in
// entries, 0 if none.
func lastSequence(entries []*raftpb.Entry, self Incarnation) (last uint64) {
	for _, e := range entries {
		data := e.GetData()
		if e.GetType() == raftpb.EntryConfChange {
			cc := &raftpb.ConfChange{}
			if proto.Unmarshal(data, cc) != nil {
				continue
			}
			data = cc.GetContext()
		}
		if _, id, _, err := decodeEntry(data); err == nil && id.proposer == self {
			last = max(last, id.sequence)
		}
	}
	return last
}

func (a *applier) conf(data []byte) (*special, error) {
	cc, id, ctx, err := decodeConfChange(data)
	if err != nil {
		return nil, err
	}
	next, rejected := judged(func() (*membership, *Error) { return a.members.Load().change(cc.GetType(), cc.GetNodeId(), ctx) })
	return &special{id: id, next: next, err: rejected, conf: cc}, nil
}

func decodeConfChange(data []byte) (cc *raftpb.ConfChange, id requestID, ctx confContext, err error) {
	cc = &raftpb.ConfChange{}
	if err := proto.Unmarshal(data, cc); err != nil {
		return nil, id, ctx, err
	}
	kind, id, payload, err := decodeEntry(cc.GetContext())
	if err != nil || kind != kindConfChange {
		return nil, id, ctx, errEntry
	}
	return cc, id, ctx, json.Unmarshal(payload, &ctx)
}

// membershipAfter returns what m becomes if all entries that follow its index
// are committed: the newest list of members that the log knows of.
func membershipAfter(m *membership, applied uint64, entries []*raftpb.Entry) *membership {
	for _, e := range entries {
		if e.GetIndex() <= applied || e.GetType() != raftpb.EntryConfChange {
			continue
		}
		if cc, _, ctx, err := decodeConfChange(e.GetData()); err == nil {
			if next, rejected := judged(func() (*membership, *Error) { return m.change(cc.GetType(), cc.GetNodeId(), ctx) }); rejected == nil {
				m = next
			}
		}
	}
	return m
}

func (a *applier) commitSpecial(batch []item, last uint64, s *special) error {
	if s.conf != nil {
		cc := s.conf
		if s.err != nil {
			cc = nil
		}
		// Before the proposer hears of it and before the entry counts as
		// applied, as raft asks for.
		if err := a.confChange(cc); err != nil {
			return err
		}
	}
	if err := a.commit(batch, last, s.next); err != nil {
		return err
	}
	if s.id.proposer == a.self {
		if s.err != nil {
			a.waiters.resolve(s.id.sequence, nil, s.err)
		} else {
			a.waiters.resolve(s.id.sequence, nil, nil)
		}
	}
	return nil
}

func (a *applier) commit(batch []item, last uint64, next *membership) error {
	var meta []byte
	if next != nil {
		meta = next.encode()
	}
	results, err := a.sm.Apply(func(yield func(uint64, []byte) bool) {
		for _, it := range batch {
			if !yield(it.index, it.payload) {
				return
			}
		}
	}, last, meta)
	if err != nil {
		return fmt.Errorf("apply up to entry %d: %w", last, err)
	}
	if next != nil {
		a.setMembership(last, next)
	}
	a.applied.Store(last)
	for i, it := range batch {
		if it.id.proposer == a.self {
			a.waiters.resolve(it.id.sequence, results[i], nil)
		}
	}
	return nil
}

// setMembership makes next current from index on.
func (a *applier) setMembership(index uint64, next *membership) {
	a.members.Store(next)
	a.mu.Lock()
	a.confs = append(a.confs, confAt{index, next.confState()})
	a.mu.Unlock()
	a.changed(next)
}

// confStateAt returns the configuration in force at an index that is not
// before the one the node was opened with, and forgets older ones.
func (a *applier) confStateAt(index uint64) *raftpb.ConfState {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for n+1 < len(a.confs) && a.confs[n+1].index <= index {
		n++
	}
	a.confs = a.confs[n:]
	return a.confs[0].conf
}
