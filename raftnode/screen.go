package raftnode

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

// Raft takes every message for the word of a member that runs the same code on
// a log that agrees: it panics on a number that no such member can send, or
// believes it. So what cannot be is dropped here, like a lost packet, and
// counted; nothing from outside ends a node.
//
// Not dropped are votes asked for by a learner: who lags behind takes a voter
// for a learner still, and may be the one whose vote is needed.

// Why a message is dropped; the names are those in the metrics.
const (
	badSender   = "sender"   // no member that may say this
	badReceiver = "receiver" // it is for another member
	badType     = "type"     // of no kind that members send each other
	badTerm     = "term"     // out of reach, or not of a term that such a message has
	badIndex    = "index"    // out of reach, or beyond the log that it speaks of
	badEntries  = "entries"  // do not follow each other, or hold what is no entry
	badSnapshot = "snapshot" // of a configuration that cannot be
	badContext  = "context"  // answers a question that was not asked
	badMessage  = "form"     // fields that such a message does not have
)

const (
	// maxTermAhead is how far a message's term may be above the node's own. A
	// term takes an election timeout, 3 ms at the least that can be configured:
	// this many take 149 days without a leader then, and 136 years with the
	// default. Without a bound one message would end all elections, because
	// nothing comes after the highest term.
	maxTermAhead = 1 << 32
	// maxIndex is what no log reaches: a million entries a second for 146,000
	// years. Nothing that is added to an index below it overflows.
	maxIndex = 1 << 62
	// maxReadContext bounds what comes back with the answer to a read; ours are
	// of 16 bytes.
	maxReadContext = 64
	// heartbeatContext is the length of the contexts that raft sends along with
	// heartbeats, to be returned: a position in its list of reads.
	heartbeatContext = 8
)

// receive takes a message from another member, one that is plausible by itself.
func (c *core) receive(m *raftpb.Message) {
	if reason := c.contradicts(m); reason != "" {
		c.drop(reason, m)
		return
	}
	c.noteTruncation(m)
	c.step(m)
}

func (c *core) drop(reason string, m *raftpb.Message) {
	c.dropped.add(reason)
	c.logger.Debug("impossible raft message dropped", "reason", reason, "type", int32(m.GetType()), "from", m.GetFrom(), "term", m.GetTerm(), "index", m.GetIndex(), "commit", m.GetCommit())
}

// contradicts returns why no member can have sent m to this one, given what this
// one has sent and stored, or "".
func (c *core) contradicts(m *raftpb.Message) string {
	if m.GetTerm() > c.term+maxTermAhead {
		return badTerm
	}
	current := m.GetTerm() == c.term
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgSnap, raftpb.MsgHeartbeat, raftpb.MsgTimeoutNow, raftpb.MsgReadIndexResp:
		// A term has one leader.
		if current && c.lead != raft.None && c.lead != m.GetFrom() {
			return badSender
		}
	}
	switch m.GetType() {
	case raftpb.MsgHeartbeat:
		// It commits at most what this node has acknowledged. Raft panics, and
		// rightly: what it has acknowledged is lost otherwise.
		if m.GetTerm() >= c.term && m.GetCommit() > c.lastAtLeast {
			return badIndex
		}
	case raftpb.MsgAppResp:
		if current && c.role == raft.StateLeader && !m.GetReject() && m.GetIndex() > c.last {
			return badIndex
		}
	case raftpb.MsgHeartbeatResp:
		// One that led in this term, and was started again, follows in it now and
		// can still get an answer to what it asked; raft overlooks that.
		if context := m.GetContext(); current && len(context) > 0 && (c.asked.term != m.GetTerm() || binary.LittleEndian.Uint64(context) > c.asked.position) &&
			c.rn.BasicStatus().RaftState == raft.StateLeader {
			return badContext
		}
	}
	return ""
}

// implausible returns why m cannot be a message from one member to another,
// member self, whatever their logs are, or "".
func implausible(m *raftpb.Message, self uint64) string {
	switch from := m.GetFrom(); {
	case peeraddr.CheckID(from) != nil || from == self:
		return badSender
	case m.GetTo() != self:
		return badReceiver
	case m.GetIndex() > maxIndex || m.GetCommit() > maxIndex || m.GetRejectHint() > maxIndex:
		return badIndex
	case len(m.GetResponses()) > 0:
		return badMessage
	}
	entries, snapshot := 0, false
	switch m.GetType() {
	case raftpb.MsgProp, raftpb.MsgReadIndex:
		// Passed on to the leader, whatever its term is.
		if m.GetTerm() != 0 {
			return badTerm
		}
	default:
		if m.GetTerm() == 0 || m.GetLogTerm() > m.GetTerm() {
			return badTerm
		}
	}
	switch m.GetType() {
	case raftpb.MsgProp:
		entries = len(m.GetEntries())
		if !proposed(m.GetEntries()) {
			return badEntries
		}
	case raftpb.MsgApp:
		entries = len(m.GetEntries())
		if !follow(m) {
			return badEntries
		}
	case raftpb.MsgSnap:
		snapshot = true
		meta := m.GetSnapshot().GetMetadata()
		switch {
		case meta.GetIndex() == 0 || meta.GetIndex() > maxIndex:
			return badIndex
		case meta.GetTerm() == 0 || meta.GetTerm() > m.GetTerm():
			return badTerm
		case !configuration(meta.GetConfState(), self):
			return badSnapshot
		}
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		if n := len(m.GetContext()); n != 0 && n != heartbeatContext {
			return badContext
		}
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		entries = 1
		if len(m.GetEntries()) != 1 || len(m.GetEntries()[0].GetData()) > maxReadContext {
			return badEntries
		}
	case raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
	default:
		return badType
	}
	if len(m.GetEntries()) != entries || (m.GetSnapshot() != nil) != snapshot {
		return badMessage
	}
	return ""
}

// follow reports whether the entries of a MsgApp follow its index and each
// other, and can be written to a log.
func follow(m *raftpb.Message) bool {
	index, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		index++
		if e.GetIndex() != index || e.GetTerm() < term || e.GetTerm() == 0 || e.GetTerm() > m.GetTerm() || !writable(e) {
			return false
		}
		term = e.GetTerm()
	}
	return true
}

// writable reports whether an entry is one that the log is opened with again,
// see recordCheck.
func writable(e *raftpb.Entry) bool {
	confChange := e.GetType() == raftpb.EntryConfChange && len(e.GetData()) > 0
	return (confChange || e.GetType() == raftpb.EntryNormal) && len(e.ProtoReflect().GetUnknown()) == 0
}

// proposed reports whether a member can have proposed entries. What a leader
// takes into the log has to be understood by all when it is applied.
func proposed(entries []*raftpb.Entry) bool {
	for _, e := range entries {
		if !writable(e) {
			return false
		}
		if e.GetType() == raftpb.EntryConfChange {
			cc, _, _, err := decodeConfChange(e.GetData())
			if err != nil || peeraddr.CheckID(cc.GetNodeId()) != nil {
				return false
			}
			continue
		}
		if kind, _, _, err := decodeEntry(e.GetData()); err != nil || kind == kindConfChange {
			return false
		}
	}
	return len(entries) > 0
}

// configuration reports whether cs can be that of a cluster of ours with member
// self in it.
func configuration(cs *raftpb.ConfState, self uint64) bool {
	if len(cs.GetVoters()) == 0 || len(cs.GetVotersOutgoing()) > 0 || len(cs.GetLearnersNext()) > 0 || cs.GetAutoLeave() {
		return false
	}
	seen := map[uint64]bool{}
	for _, ids := range [][]uint64{cs.GetVoters(), cs.GetLearners()} {
		for _, id := range ids {
			if seen[id] || peeraddr.CheckID(id) != nil {
				return false
			}
			seen[id] = true
		}
	}
	return seen[self]
}

// noteTruncation keeps lastAtLeast true until raft says how its log ends: what m
// brings can replace its end by less.
func (c *core) noteTruncation(m *raftpb.Message) {
	if m.GetTerm() < c.term {
		return // raft does nothing with it, and there may be no Ready
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		if n := len(m.GetEntries()); n > 0 {
			c.lastAtLeast = min(c.lastAtLeast, m.GetIndex()+uint64(n))
		}
	case raftpb.MsgSnap:
		c.lastAtLeast = min(c.lastAtLeast, m.GetSnapshot().GetMetadata().GetIndex())
	}
}

// noteReady takes from what raft wants done how its log ends and what it asked.
func (c *core) noteReady(rd *raft.Ready) {
	if !raft.IsEmptySnap(rd.Snapshot) {
		c.last = rd.Snapshot.GetMetadata().GetIndex()
	}
	if n := len(rd.Entries); n > 0 {
		c.last = rd.Entries[n-1].GetIndex()
	}
	c.lastAtLeast = c.last
	for _, m := range rd.Messages {
		if context := m.GetContext(); m.GetType() == raftpb.MsgHeartbeat && len(context) == heartbeatContext {
			if m.GetTerm() > c.asked.term {
				c.asked = question{term: m.GetTerm()}
			}
			c.asked.position = max(c.asked.position, binary.LittleEndian.Uint64(context))
		}
	}
}

// question is how many reads a leader has asked its followers about.
type question struct{ term, position uint64 }

// checkLog returns an error if entries that are not applied yet add a member
// that cannot be: an earlier build let it in, and others may have followed it.
func checkLog(entries []*raftpb.Entry, applied uint64) error {
	for _, e := range entries {
		if e.GetIndex() <= applied || e.GetType() != raftpb.EntryConfChange {
			continue
		}
		cc := &raftpb.ConfChange{}
		if proto.Unmarshal(e.GetData(), cc) != nil || cc.GetType() == raftpb.ConfChangeRemoveNode {
			continue
		}
		if err := peeraddr.CheckID(cc.GetNodeId()); err != nil {
			return reservedID(err, cc.GetNodeId())
		}
	}
	return nil
}
