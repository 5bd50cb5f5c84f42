package raftnode

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// maxApplyLag is how many committed entries may wait to be applied before
// new proposals are refused.
const maxApplyLag = 10_000

// maxWaitingReads is how many reads may wait for the next round.
const maxWaitingReads = 65_536

// core is the consensus state of one member: the RawNode, the proposals and
// reads that wait on it, and nothing that touches time, disk or network. One
// goroutine owns it; what it wants done leaves through ready.
type core struct {
	id      uint64
	self    Incarnation
	logger  *slog.Logger
	rn      *raft.RawNode
	waiters *waiters
	applied *atomic.Uint64 // moved by the apply step

	electionTicks int
	maxInFlight   int
	ticks         uint64
	sequence      uint64 // last one given out

	lead   uint64
	term   uint64
	role   raft.StateType
	commit uint64

	// committedTerm is the term of the newest committed entry handed out.
	committedTerm uint64

	// heard is the tick of the last message from each member, of a leader since
	// it leads.
	heard   map[uint64]uint64
	backlog backlog

	// Of raft's own state, for the judgement of what others send: where the log
	// ends as of the last Ready, at least where it ends after what was stepped
	// since, and how many reads the followers were asked about.
	last, lastAtLeast uint64
	asked             question
	dropped           *counts

	inFlight []flight // own proposals, oldest first, pruned lazily
	reads    reads
	transfer *transfer
}

type flight struct{ sequence, tick uint64 }

// proposal is one request to append an entry.
type proposal struct {
	kind    entryKind
	payload []byte
	conf    *raftpb.ConfChange // for kindConfChange
	done    func(result any, err error)
}

// transfer is a leadership transfer under way: it waits for this leader's own
// proposals to be answered, so that a planned change loses no outcome.
type transfer struct {
	to      uint64
	tick    uint64
	started bool
	done    func(error)
}

// output is the work that the core hands to its shell. append and apply must
// each be done in order; send may drop.
type output struct {
	send      []*raftpb.Message
	snapshots []*raftpb.Message // MsgSnap: the receiver needs the state machine's content
	append    *raftpb.Message
	apply     *raftpb.Message
	changed   bool // role, leader, term or commit
}

var (
	errNoLeader = errorf(CodeNoLeader, "the cluster has no leader now: nothing was changed")
	errNoRead   = errorf(CodeNoLeader, "the cluster has no leader now that could confirm that this node has the newest; a stale read needs none")
	errUnknown  = errorf(CodeOutcomeUnknown, "the leader changed before the outcome was known: the write may or may not take effect")
	errOverload = errorf(CodeOverloaded, "too much work is waiting to be committed or applied")
	errStopping = errorf(CodeStopping, "the node is stopping")
)

func (c *core) tick() {
	c.ticks++
	c.rn.Tick()
	for _, f := range c.inFlight {
		if c.ticks-f.tick > 4*uint64(c.electionTicks) {
			// It vanished on its way to a leader that is still there.
			c.waiters.resolve(f.sequence, nil, errUnknown)
		}
	}
	c.backlog.settle(c.applied.Load())
	c.retryReads()
	c.advanceTransfer()
}

// step takes a message from the storage steps, or one from a member that receive
// has let through. Errors are of messages that raft ignores.
func (c *core) step(m *raftpb.Message) {
	if from := m.GetFrom(); from != c.id && !raft.IsLocalMsgTarget(from) {
		if c.heard == nil {
			c.heard = map[uint64]uint64{}
		}
		c.heard[from] = c.ticks
		if c.lost(m) {
			return
		}
	}
	if err := c.rn.Step(m); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		c.logger.Debug("raft message ignored", "type", m.GetType().String(), "from", m.GetFrom(), "error", err)
	}
}

// lost reports whether a message of a member is to be dropped, as the network
// may drop one: whoever sent it tries again.
func (c *core) lost(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgProp:
		// Heartbeats and empty messages pass: by them the leader stays the
		// leader, and learns where to go on when the apply step has caught up.
		return len(m.GetEntries()) > 0 && !c.backlog.take(m.GetEntries(), c.applied.Load())
	case raftpb.MsgReadIndex:
		return !c.mayRead() && c.alone()
	}
	return false
}

// alone reports that this member is the only voter.
func (c *core) alone() bool {
	voters := 0
	c.rn.WithProgress(func(_ uint64, typ raft.ProgressType, _ tracker.Progress) {
		if typ == raft.ProgressTypePeer {
			voters++
		}
	})
	return voters == 1
}

// unreachable notes that messages to a member are being lost.
func (c *core) unreachable(id uint64) {
	delete(c.heard, id)
	c.rn.ReportUnreachable(id)
}

// silent returns how many ticks ago a member was heard of last, since this one
// leads; false if never.
func (c *core) silent(id uint64) (ticks uint64, ok bool) {
	at, ok := c.heard[id]
	return c.ticks - at, ok
}

// accepting reports whether the next proposal may enter. It says no while
// enough of this node's own are under way: the pause is what joins commands
// into one entry. One that has been under way for two ticks counts no longer,
// because a forwarded entry can vanish and must not stall the node.
func (c *core) accepting() bool {
	if c.transfer != nil {
		return false
	}
	keep := c.inFlight[:0]
	young := 0
	for _, f := range c.inFlight {
		if c.waiters.has(f.sequence) {
			keep = append(keep, f)
			if c.ticks-f.tick < 2 {
				young++
			}
		}
	}
	c.inFlight = keep
	return young < c.maxInFlight
}

func (c *core) propose(p *proposal) {
	switch {
	case c.lead == raft.None:
		p.done(nil, errNoLeader)
		return
	case c.commit > c.applied.Load()+maxApplyLag || c.backlog.full(c.applied.Load()):
		p.done(nil, errOverload)
		return
	}
	c.sequence++
	seq := c.sequence
	// Registered first: in a cluster of one the entry can be applied before
	// Propose returns to whoever called us.
	c.waiters.add(seq, p.done)
	data := appendEntry(make([]byte, 0, entryHeaderSize+len(p.payload)), p.kind, requestID{c.self, seq}, p.payload)
	var err error
	if p.conf != nil {
		p.conf.Context = data
		err = c.rn.ProposeConfChange(p.conf)
	} else {
		err = c.rn.Propose(data)
	}
	switch {
	case err == nil:
		c.inFlight = append(c.inFlight, flight{seq, c.ticks})
	case errors.Is(err, raft.ErrProposalDropped) && c.role == raft.StateLeader && c.rn.BasicStatus().LeadTransferee == 0:
		c.waiters.resolve(seq, nil, errOverload)
	default:
		c.waiters.resolve(seq, nil, errNoLeader)
	}
}

// ready returns the next work, and whether there was any.
func (c *core) ready() (out output, any bool) {
	c.backlog.coming = 0 // is in what follows, or raft did not take it
	if !c.rn.HasReady() {
		return out, false
	}
	rd := c.rn.Ready()
	c.noteReady(&rd)
	for _, m := range rd.Messages {
		switch {
		case m.GetTo() == raft.LocalAppendThread:
			out.append = m
			c.backlog.grow(m.GetSnapshot().GetMetadata().GetIndex(), m.GetEntries(), c.applied.Load())
		case m.GetTo() == raft.LocalApplyThread:
			out.apply = m
		case m.GetType() == raftpb.MsgSnap:
			out.snapshots = append(out.snapshots, m)
		default:
			out.send = append(out.send, m)
		}
	}
	if hs := rd.HardState; hs != nil {
		if hs.GetTerm() != c.term {
			c.leaderLost()
		}
		out.changed = true
		c.term, c.commit = hs.GetTerm(), hs.GetCommit()
	}
	if ss := rd.SoftState; ss != nil {
		out.changed = true
		if ss.Lead != c.lead {
			c.leaderLost()
		}
		if ss.RaftState == raft.StateLeader && c.role != raft.StateLeader {
			clear(c.heard)
		}
		c.lead, c.role = ss.Lead, ss.RaftState
		c.finishTransfer()
	}
	if n := len(rd.CommittedEntries); n > 0 {
		c.committedTerm = rd.CommittedEntries[n-1].GetTerm()
	}
	for _, rs := range rd.ReadStates {
		c.reads.confirm(rs.RequestCtx, rs.Index)
	}
	c.advanceReads()
	c.advanceTransfer()
	return out, true
}

// status is all of Status that the core knows.
func (c *core) status() Status {
	role := "follower"
	switch c.role {
	case raft.StateLeader:
		role = "leader"
	case raft.StateCandidate, raft.StatePreCandidate:
		role = "candidate"
	}
	return Status{ID: c.id, Role: role, Leader: c.lead, Term: c.term, Commit: c.commit}
}

// leaderLost answers everyone who waits: what was proposed under the old
// leader may or may not survive, and nobody has to wait for a deadline to
// learn it.
func (c *core) leaderLost() {
	c.waiters.failAll(errUnknown)
	c.inFlight = c.inFlight[:0]
}

// transferTo begins to hand the leadership over. done is called with nil once
// another member leads.
func (c *core) transferTo(to uint64, done func(error)) {
	switch {
	case c.role != raft.StateLeader:
		done(errNoLeader)
	case c.transfer != nil:
		done(errorf(CodeTransferFailed, "a transfer of the leadership is under way already"))
	case to == c.id:
		done(nil)
	default:
		c.transfer = &transfer{to: to, tick: c.ticks, done: done}
		c.advanceTransfer()
	}
}

func (c *core) advanceTransfer() {
	t := c.transfer
	if t == nil {
		return
	}
	waited := c.ticks - t.tick
	if !t.started {
		pending := false
		for _, f := range c.inFlight {
			pending = pending || c.waiters.has(f.sequence)
		}
		if !pending || waited >= 2 {
			t.started = true
			c.rn.TransferLeader(t.to)
		}
	}
	if waited > uint64(c.electionTicks) {
		c.transfer = nil
		t.done(errorf(CodeTransferFailed, "member %d did not take over within an election timeout", t.to))
	}
}

func (c *core) finishTransfer() {
	if t := c.transfer; t != nil && c.role != raft.StateLeader && c.lead != raft.None {
		c.transfer = nil
		t.done(nil)
	}
}

// reads are the linearizable reads under way. One ReadIndex round serves
// everyone who asked before it began; who asks later waits for the next.
type reads struct {
	waiting   []func(error)
	round     []func(error)
	firstID   uint64 // of the round's first request
	roundID   uint64 // of its latest
	roundTick uint64
	confirmed []confirmedRead
}

type confirmedRead struct {
	index uint64
	done  []func(error)
}

func (c *core) read(done func(error)) {
	if c.lead == raft.None {
		done(errNoRead)
		return
	}
	if len(c.reads.waiting) >= maxWaitingReads {
		done(errOverload)
		return
	}
	c.reads.waiting = append(c.reads.waiting, done)
}

// startReads begins the next round if none is under way. The shell calls it
// after it has taken in all waiting requests, so that they share the round.
func (c *core) startReads() {
	r := &c.reads
	if len(r.round) > 0 || len(r.waiting) == 0 || !c.mayRead() {
		return
	}
	r.round, r.waiting = r.waiting, nil
	c.requestRead()
	r.firstID = r.roundID
}

// mayRead: a new leader's commit index may be behind what the leader before it
// acknowledged until an entry of its own term is committed. Raft sees to it
// itself, except in a cluster of one voter, also for reads of a learner. Raft is
// asked because it may have become the leader since the last Ready.
func (c *core) mayRead() bool {
	s := c.rn.BasicStatus()
	return s.RaftState != raft.StateLeader || c.committedTerm == s.HardState.GetTerm()
}

func (c *core) requestRead() {
	c.sequence++
	c.reads.roundID, c.reads.roundTick = c.sequence, c.ticks
	// The member id keeps the contexts of two members apart, the sequence
	// those of one, also across a restart.
	ctx := binary.BigEndian.AppendUint64(make([]byte, 0, 16), c.id)
	c.rn.ReadIndex(binary.BigEndian.AppendUint64(ctx, c.sequence))
}

func (r *reads) confirm(ctx []byte, index uint64) {
	if len(ctx) != 16 || len(r.round) == 0 {
		return
	}
	// The answer to any request of the round will do: whoever waits was there
	// before the first. Over a slow network the answer to the latest one would
	// never come before the next request.
	if id := binary.BigEndian.Uint64(ctx[8:]); id < r.firstID || id > r.roundID {
		return
	}
	r.confirmed = append(r.confirmed, confirmedRead{index, r.round})
	r.round = nil
}

// advanceReads answers the reads whose index is applied, and fails those
// that no leader can confirm.
func (c *core) advanceReads() {
	r := &c.reads
	if len(r.confirmed) > 0 {
		applied := c.applied.Load()
		n := 0
		for n < len(r.confirmed) && r.confirmed[n].index <= applied {
			for _, done := range r.confirmed[n].done {
				done(nil)
			}
			n++
		}
		r.confirmed = r.confirmed[n:]
		if len(r.confirmed) == 0 {
			r.confirmed = nil
		}
	}
	if c.lead == raft.None {
		c.failReads(errNoRead)
	}
	c.startReads()
}

func (c *core) failReads(err error) {
	for _, done := range c.reads.round {
		done(err)
	}
	for _, done := range c.reads.waiting {
		done(err)
	}
	c.reads.round, c.reads.waiting = nil, nil
}

// retryReads asks again: a round can vanish on the network.
func (c *core) retryReads() {
	if len(c.reads.round) > 0 && c.ticks-c.reads.roundTick >= 3 {
		c.requestRead()
	}
}

// stop answers everyone who waits. What was proposed keeps its unknown outcome.
func (c *core) stop() {
	c.waiters.failAll(errUnknown)
	c.failReads(errStopping)
	for _, r := range c.reads.confirmed {
		for _, done := range r.done {
			done(errStopping)
		}
	}
	c.reads.confirmed = nil
	c.backlog.release()
	if t := c.transfer; t != nil {
		c.transfer = nil
		t.done(errStopping)
	}
}

// applyConfChange tells raft the outcome of a configuration change; nil means
// that it was rejected, which raft must hear as well.
func (c *core) applyConfChange(cc *raftpb.ConfChange) *raftpb.ConfState {
	if cc.GetType() == raftpb.ConfChangeRemoveNode {
		delete(c.heard, cc.GetNodeId())
	}
	if cc == nil {
		cc = &raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(raft.None)}
	}
	return c.rn.ApplyConfChange(cc)
}
