package raftnode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Replica is a member that its caller drives step by step, from one goroutine:
// Node's core, storage steps and rules, without its clock, files, transport and
// goroutines. It is what a simulator runs. Nothing happens in it unless a method
// is called, and equal calls give equal results; the one exception is the
// random election timeout, which raft draws from crypto/rand.Reader.
//
// After each call that can give it work the driver takes all of Ready, and does
// what Node does: Send goes out at once; Append and Apply are done in order each,
// at any later time; the responses of a step go to Step here or to the members
// they name.
type Replica struct {
	replica
	cfg ReplicaConfig
}

// ReplicaConfig says how to open a Replica. Everything is required, except where
// a default is stated.
type ReplicaConfig struct {
	ID          uint64
	ClusterID   uint64
	Incarnation Incarnation
	Boots       uint64    // grows with each start of one incarnation
	Bootstrap   []Peer    // the list that the cluster began with
	Founders    []Founder // of it; default: it is not known who they are

	Disk         Disk
	StateMachine StateMachine
	// Staged calls f with a verified snapshot file that was received: what was
	// given to CheckSnapshot. It lasts until its index is released.
	Staged func(index uint64, f func(file io.Reader) error) error
	Logger *slog.Logger // default: nothing is logged

	ElectionTicks, MaxInFlight int   // as for Config
	CatchUpBytes               int64 // as for Config
}

// Recovered is what a log held when it was opened.
type Recovered struct {
	Snapshot *raftpb.Snapshot // the mark the log begins at; nil for a member that joins
	State    *raftpb.HardState
	Entries  []*raftpb.Entry
}

// NewLog is what the log of a fresh member begins with: that of a member of a
// new cluster, or one that joins if peers is nil. A disk stores it first.
func NewLog(peers []Peer) Recovered {
	if peers == nil {
		return shown(joinedLog())
	}
	return shown(bootstrapLog(peers))
}

func shown(r recovered) Recovered { return Recovered{r.snapshot, r.state, r.entries} }

func (r Recovered) hidden() recovered { return recovered{r.Snapshot, r.State, r.Entries} }

// Water is the content of a high-water record.
type Water = water

// Tide keeps a high-water record in step with a log.
type Tide struct{ tide }

// OpenTide returns an error if a recovered log has not what its high-water
// record says it had: it must not be used then. note stores a new record, at
// once if it is Urgent against the one before.
func OpenTide(rec Recovered, high Water, note func(Water) error) (*Tide, error) {
	t, err := openTide(rec.hidden(), high, note)
	return &Tide{t}, err
}

// Save wraps the write of a Disk's Save.
func (t *Tide) Save(state *raftpb.HardState, entries []*raftpb.Entry, write func() error) error {
	return t.save(state, entries, write)
}

// SaveSnapshot wraps the write of a Disk's SaveSnapshot.
func (t *Tide) SaveSnapshot(state *raftpb.HardState, snapshot *raftpb.Snapshot, write func() error) error {
	return t.mark(state, snapshot, write)
}

// OpenReplica starts a member from what its disk held.
func OpenReplica(c ReplicaConfig, rec Recovered) (*Replica, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Replica{replica: newReplica(c.ID), cfg: c}
	r.appender = &appender{disk: c.Disk, storage: r.storage, state: rec.State, install: func(s *raftpb.Snapshot) error {
		_, err := r.installSnapshot(s)
		return err
	}}
	r.applier = &applier{
		self: c.Incarnation, sm: c.StateMachine, waiters: r.waiters, applied: r.applied,
		confChange: func(cc *raftpb.ConfChange) error {
			r.core.applyConfChange(cc)
			return nil
		},
		changed: func(*membership) {},
	}
	staged := func(index uint64, f func(io.Reader) error) error {
		return c.Staged(index, func(file io.Reader) error {
			return readSnapshotFile(file, func(_ snapHeader, content io.Reader) error { return f(content) })
		})
	}
	if err := r.recoverState(c.StateMachine, staged, rec.hidden(), bootstrapMembership(c.Bootstrap, c.Founders...)); err != nil {
		return nil, err
	}
	if err := r.mayServe(); err != nil {
		return nil, err
	}
	raftConfig := &Config{ElectionTicks: c.ElectionTicks, MaxInFlight: c.MaxInFlight, Logger: c.Logger}
	if err := r.startRaft(raftConfig, c.Boots, rec.hidden()); err != nil {
		return nil, err
	}
	return r, nil
}

// Work is what the driver has to do.
type Work struct {
	Send      []*raftpb.Message
	Snapshots []*raftpb.Message // as Send, but the receiver needs what WriteSnapshot writes, too
	Append    *raftpb.Message   // for Append; nil: nothing
	Apply     *raftpb.Message   // for Apply; nil: nothing
}

// Ready returns the next work, or false if there is none.
func (r *Replica) Ready() (Work, bool) {
	r.core.advanceReads()
	r.core.advanceTransfer()
	out, any := r.core.ready()
	return Work{Send: out.send, Snapshots: out.snapshots, Append: out.append, Apply: out.apply}, any
}

// Tick lets one unit of time pass.
func (r *Replica) Tick() { r.core.tick() }

// Step takes a message of a member or a response of a storage step. A message
// of a member that was removed is dropped.
func (r *Replica) Step(m *raftpb.Message) {
	if m.GetTo() == r.id && (m.GetFrom() == r.id || raft.IsLocalMsgTarget(m.GetFrom())) {
		r.core.step(m)
		return
	}
	r.receive(m)
}

// receive takes a message of a member.
func (r *Replica) receive(m *raftpb.Message) {
	if r.applier.members.Load().isRemoved(m.GetFrom()) {
		return
	}
	if reason := implausible(m, r.id); reason != "" {
		r.core.drop(reason, m)
		return
	}
	r.core.receive(m)
}

// Dropped counts the messages of members that could not be, by reason.
func (r *Replica) Dropped() map[string]uint64 { return r.dropped.all() }

// Append does the writes of messages from Work.Append with one sync, and returns
// the responses that may go out after it. A snapshot among them is installed:
// what waits for Apply must have been done. An error is final.
func (r *Replica) Append(messages ...*raftpb.Message) ([]*raftpb.Message, error) {
	if err := r.appender.process(messages); err != nil {
		return nil, err
	}
	return responses(messages), nil
}

// Apply applies what messages from Work.Apply carry. An error is final:
// ErrRemoved says that this member was removed.
func (r *Replica) Apply(messages ...*raftpb.Message) ([]*raftpb.Message, error) {
	if err := r.applier.process(messages); err != nil {
		return nil, err
	}
	if err := r.mayServe(); err != nil {
		return nil, err
	}
	return responses(messages), nil
}

func responses(messages []*raftpb.Message) (out []*raftpb.Message) {
	for _, m := range messages {
		out = append(out, m.GetResponses()...)
	}
	return out
}

// CompactionDue reports whether so much was appended since the last mark that
// Compact should be called.
func (r *Replica) CompactionDue() bool { return r.appender.sinceMark > r.cfg.CatchUpBytes }

// Compact flushes the state machine and lets go of the log before it; sending
// says that a snapshot is on its way to a member, which will need the log after it.
func (r *Replica) Compact(sending bool) error {
	mark, err := r.checkpoint()
	if err != nil || mark == nil {
		return err
	}
	keep := r.cfg.CatchUpBytes
	if sending {
		keep *= 4
	}
	return r.appender.mark(mark, keep)
}

// WriteSnapshot writes the state machine as a snapshot file for a message of
// Work.Snapshots, and makes the message tell of it.
func (r *Replica) WriteSnapshot(m *raftpb.Message, w io.Writer) error {
	meta, err := r.dump(w, r.cfg.ClusterID)
	m.Snapshot = &raftpb.Snapshot{Metadata: meta}
	return err
}

// CheckSnapshot verifies a file that came with a message before the message may
// be given to Step.
func (r *Replica) CheckSnapshot(m *raftpb.Message, file []byte) error {
	return readSnapshotFile(bytes.NewReader(file), func(h snapHeader, content io.Reader) error {
		if err := drain(content); err != nil {
			return err
		}
		return h.announced(r.cfg.ClusterID, m.GetSnapshot().GetMetadata())
	})
}

// ReportSnapshot tells raft what became of a snapshot that was sent to a member.
func (r *Replica) ReportSnapshot(to uint64, arrived bool) {
	status := raft.SnapshotFinish
	if !arrived {
		status = raft.SnapshotFailure
	}
	r.core.rn.ReportSnapshot(to, status)
}

// ReportUnreachable tells raft that messages to a member are being lost.
func (r *Replica) ReportUnreachable(id uint64) { r.core.unreachable(id) }

// Accepting reports whether Propose may be called now.
func (r *Replica) Accepting() bool { return r.core.accepting() }

// Propose appends data to the log as one entry. done is called once, with the
// state machine's result or an *Error.
func (r *Replica) Propose(data []byte, done func(result any, err error)) {
	r.core.propose(&proposal{kind: kindApplication, payload: data, done: done})
}

// Read calls done once: with nil when everything that was committed before the
// call is applied here, or with an *Error.
func (r *Replica) Read(done func(error)) { r.core.read(done) }

// TransferLeadership begins to make another voter the leader.
func (r *Replica) TransferLeadership(to uint64, done func(error)) {
	if !r.applier.members.Load().isVoter(to) {
		done(errorf(CodeLearnerBehind, "member %d is no voter and cannot lead", to))
		return
	}
	r.core.transferTo(to, done)
}

// Register states this directory's incarnation and its attributes through the
// log; it reports false if the records have them already or nothing can be
// proposed now.
func (r *Replica) Register(done func(error)) bool {
	self, ok := r.applier.members.Load().member(r.id)
	if !ok || r.core.lead == raft.None || !r.core.accepting() || self.Incarnation == r.cfg.Incarnation {
		return false
	}
	payload, err := json.Marshal(attributeEntry{ID: r.id})
	if err != nil {
		done(err)
		return true
	}
	r.core.propose(&proposal{kind: kindAttributes, payload: payload, done: func(_ any, err error) { done(err) }})
	return true
}

// ChangeMembership carries out the part of a membership operation that the
// leader does, with the same checks as Node.
func (r *Replica) ChangeMembership(op MembershipOp, id uint64, peerURL string, done func(error)) {
	if r.core.role != raft.StateLeader {
		done(errNoLeader)
		return
	}
	m, status := r.applier.members.Load(), &callReply{}
	r.core.progress(status)
	var refusal *Error
	var typ raftpb.ConfChangeType
	var cc confContext
	switch op {
	case AddMember:
		typ, cc = raftpb.ConfChangeAddLearnerNode, confContext{PeerURL: peerURL, AutoPromote: true}
		refusal = m.addable(id, peerURL, true)
	case PromoteMember:
		typ, refusal = raftpb.ConfChangeAddNode, m.promotable(id, status)
	case RemoveMember:
		typ, refusal = raftpb.ConfChangeRemoveNode, m.quorumWithout(id, status)
		if id == r.id {
			refusal = errorf(codeMoved, "the leader has to give the leadership away first")
		}
	default:
		panic(fmt.Sprintf("raftnode: membership operation %d", op))
	}
	if refusal != nil {
		done(refusal)
		return
	}
	payload, err := json.Marshal(cc)
	if err != nil {
		done(err)
		return
	}
	r.core.propose(&proposal{kind: kindConfChange, payload: payload, conf: &raftpb.ConfChange{Type: typ.Enum(), NodeId: new(id)},
		done: func(_ any, err error) { done(err) }})
}

// MembershipOp is an operation of ChangeMembership.
type MembershipOp int

// The operations: a member is added as a learner that is to be promoted.
const (
	AddMember MembershipOp = iota
	PromoteMember
	RemoveMember
)

// ReadyToPromote lists the learners that are to become voters.
func (r *Replica) ReadyToPromote() (ids []uint64) {
	for _, m := range r.applier.members.Load().Members {
		if m.AutoPromote {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// Members lists the members, and Voters the ids of those that vote.
func (r *Replica) Members() []Member { return r.applier.members.Load().Members }

// Voters are the ids of the members that vote, ascending.
func (r *Replica) Voters() []uint64 { return r.applier.members.Load().Voters }

// Removed reports whether an id belonged to a member that was removed.
func (r *Replica) Removed(id uint64) bool { return r.applier.members.Load().isRemoved(id) }

// Status is the state of this moment.
func (r *Replica) Status() Status {
	return r.statusNow(r.core.status())
}

// Admits returns nil if a directory may speak as member id from a peer URL, as
// far as this member knows; met is the incarnation that it has met the member
// with since it was started, zero if none. ErrRemoved and an *IdentityError stop
// the one that is refused.
func (r *Replica) Admits(id uint64, inc, met Incarnation, url string) error {
	if known := r.incarnationOf(id); !known.IsZero() {
		met = known
	}
	refusal := r.applier.members.Load().admits(id, inc, met, url)
	if refusal == nil {
		return nil
	}
	return refusalOf(refusal)
}

// Vouches reports whether this member's records know a member by a directory
// and a URL. Who does not know a stranger asks others.
func (r *Replica) Vouches(id uint64, inc Incarnation, url string) bool {
	return r.applier.members.Load().vouches(id, inc, url)
}

// Campaign tries to become the leader if there is none, as the first founder of a
// cluster does.
func (r *Replica) Campaign() { r.core.campaign() }

// ClusterID is that of the cluster that founders of a list make; without founders
// it is a fingerprint of the list.
func ClusterID(list []Peer, founders []Founder) uint64 { return clusterID(list, founders) }

// Standing is what this member knows of a fresh directory that would be member id
// at a peer URL. Who asks it is what a Founding asks.
func (r *Replica) Standing(id uint64, inc Incarnation, url string) Standing {
	return r.applier.members.Load().standing(id, inc, r.incarnationOf(id), url)
}

// Adopt registers, through the log, the first directory of a member that never had
// one; it reports false if this member does not lead or the member has one.
func (r *Replica) Adopt(id uint64, inc Incarnation, done func(error)) bool {
	if r.core.role != raft.StateLeader || !r.incarnationOf(id).IsZero() || !r.core.accepting() {
		return false
	}
	payload, err := json.Marshal(attributeEntry{ID: id, Adopted: inc})
	if err != nil {
		done(err)
		return true
	}
	r.core.propose(&proposal{kind: kindAttributes, payload: payload, done: func(_ any, err error) { done(err) }})
	return true
}

// Expects is the directory that this member knows another by; zero if it knows
// none. A hello carries it.
func (r *Replica) Expects(id uint64) Incarnation { return r.incarnationOf(id) }

// Mistaken returns an *IdentityError if what a member expects of this one shows
// that this directory is not the one that the cluster knows.
func (r *Replica) Mistaken(expected Incarnation) error { return r.mistaken(expected) }
