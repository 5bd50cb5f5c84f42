package raftnode

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

// Operations on the membership are carried out by the leader, which alone
// knows who is caught up and who answers; the other members pass them on.
const (
	opAdd      = "add"
	opPromote  = "promote"
	opRemove   = "remove"
	opTransfer = "transfer"
	opStatus   = "status"
	opMembers  = "members" // answered by any member
	opReport   = "report"  // answered by any member
)

type callRequest struct {
	caller
	Op      string `json:"op"`
	ID      uint64 `json:"id,omitempty"`
	PeerURL string `json:"peer_url,omitempty"`
	Learner bool   `json:"learner,omitempty"`
	// State, for opReport, is the caller's, which it compares with the others'.
	State *StateHash `json:"state,omitempty"`
}

type callReply struct {
	TimeNS   int64        `json:"time_ns"` // the clock of whoever answers
	Last     uint64       `json:"last"`    // the leader's last index
	Progress []progress   `json:"progress,omitempty"`
	Members  *membership  `json:"members,omitempty"` // for opMembers
	Disks    []diskReport `json:"disks,omitempty"`   // for opReport
	State    *StateHash   `json:"state,omitempty"`   // for opReport, if it is known
}

// StateHash is the hash of a state at a log index.
type StateHash struct {
	Index uint64 `json:"index"`
	Hash  uint64 `json:"hash"`
}

// progress is what the leader knows of one member.
type progress struct {
	ID     uint64 `json:"id"`
	Match  uint64 `json:"match"`
	Active bool   `json:"active"`
	silent uint64 // ticks since it was heard of, if it is active
}

// MemberStatus is a member's record with what the leader knows of it. Match,
// Lag and Active are zero when no leader could be asked.
type MemberStatus struct {
	Member
	Role   string // leader, follower or learner
	Match  uint64 // index up to which its log is known to agree with the leader's
	Lag    uint64 // entries it is behind the leader
	Active bool   // heard of within an election timeout, since the leader leads
}

// Members returns the member records as of this node, by id.
func (n *Node) Members() []Member { return slices.Clone(n.applier.members.Load().Members) }

// MemberStatus asks the leader how far each member is.
func (n *Node) MemberStatus(ctx context.Context) []MemberStatus {
	members := n.applier.members.Load()
	reply, _ := n.call(ctx, callRequest{Op: opStatus}) // without a leader the records alone are the answer
	leader := n.Status().Leader
	out := make([]MemberStatus, 0, len(members.Members))
	for _, m := range members.Members {
		s := MemberStatus{Member: m, Role: "follower"}
		switch {
		case members.isLearner(m.ID):
			s.Role = "learner"
		case m.ID == leader:
			s.Role = "leader"
		}
		for _, p := range reply.Progress {
			if p.ID == m.ID {
				s.Match, s.Active = p.Match, p.Active
				s.Lag = reply.Last - min(p.Match, reply.Last)
			}
		}
		out = append(out, s)
	}
	return out
}

// AddMember adds a member. A voter is added as a learner first and promoted
// as soon as it has caught up, so that the cluster can go on meanwhile. It
// returns nil when the member is in the configuration.
func (n *Node) AddMember(ctx context.Context, id uint64, peerURL string, learner bool) error {
	peerURL, err := ParsePeerURL(peerURL)
	if err != nil {
		return err
	}
	if !n.cfg.InsecurePeers && !peeraddr.Loopback(peerURL) {
		return errorf(CodeMemberURL, "%s %s", peerURL, peeraddr.NeedsInsecure)
	}
	return n.change(ctx, callRequest{Op: opAdd, ID: id, PeerURL: peerURL, Learner: learner})
}

// Promote makes a learner a voter, if it is caught up.
func (n *Node) Promote(ctx context.Context, id uint64) error {
	return n.change(ctx, callRequest{Op: opPromote, ID: id})
}

// RemoveMember removes a member for good, unless too few would answer then.
func (n *Node) RemoveMember(ctx context.Context, id uint64) error {
	return n.change(ctx, callRequest{Op: opRemove, ID: id})
}

// TransferLeadership makes another voter the leader, and returns when this
// node knows it as such.
func (n *Node) TransferLeadership(ctx context.Context, to uint64) error {
	if err := checkMemberID(to); err != nil {
		return err
	}
	if _, err := n.call(ctx, callRequest{Op: opTransfer, ID: to}); err != nil {
		return err
	}
	return n.awaitLeader(ctx, func(leader uint64) bool { return leader == to })
}

// awaitLeader returns when this node knows a leader that suits.
func (n *Node) awaitLeader(ctx context.Context, suits func(leader uint64) bool) error {
	tick, stop := n.cfg.Clock.Tick(n.cfg.TickInterval / 10)
	defer stop()
	for !suits(n.Status().Leader) {
		select {
		case <-tick:
		case <-ctx.Done():
			return errorf(CodeTransferFailed, "the leadership moved, but this node has not heard from the new leader yet")
		case <-n.stop:
			return errStopping
		}
	}
	return nil
}

// change carries the operation out and waits until this node knows of it.
func (n *Node) change(ctx context.Context, q callRequest) error {
	if err := checkMemberID(q.ID); err != nil {
		return err
	}
	if _, err := n.call(ctx, q); err != nil {
		return err
	}
	if q.ID == n.cfg.ID {
		return nil // it concerns this node, which may be gone in a moment
	}
	// The change is made; this node learns of it before the caller asks.
	_ = n.ReadIndex(ctx)
	return nil
}

// call carries q out here if this node leads, or else at the leader's. A
// leader that gave the leadership away for it asks to go on with the next one.
func (n *Node) call(ctx context.Context, q callRequest) (callReply, error) {
	for {
		asked := n.Status().Leader
		reply, err := n.callLeader(ctx, asked, q)
		var e *Error
		if !errors.As(err, &e) || e.Code != codeMoved {
			return reply, err
		}
		if err := n.awaitLeader(ctx, func(leader uint64) bool { return leader != asked && leader != raft.None }); err != nil {
			return reply, err
		}
	}
}

func (n *Node) callLeader(ctx context.Context, leader uint64, q callRequest) (callReply, error) {
	switch leader {
	case raft.None:
		return callReply{}, errNoLeader
	case n.cfg.ID:
		return n.lead(ctx, q)
	}
	url, ok := n.peers.url(leader)
	if !ok || !n.cfg.reachable(n.cfg.ID, leader) {
		return callReply{}, errNoLeader
	}
	q.caller = n.peers.self(leader)
	var reply callReply
	err := n.peers.post(ctx, url+callPath, q, &reply)
	var e *Error
	if err != nil && !errors.As(err, &e) {
		err = errorf(CodeOutcomeUnknown, "the leader did not answer: %v", err)
	}
	return reply, err
}

func (p *peers) serveCall(w http.ResponseWriter, r *http.Request) {
	n := p.n
	var q callRequest
	if !p.read(w, r, &q) {
		return
	}
	if q.To != n.cfg.ID || q.ClusterID != n.identity.ClusterID || n.IsIDRemoved(q.From) || !n.cfg.reachable(q.From, n.cfg.ID) ||
		q.Incarnation.IsZero() || p.incarnationOf(q.From) != q.Incarnation || p.verified(r.Context(), q.From, q.Secret) == nil {
		p.refused.add("call_" + codeNotMember)
		answerError(w, http.StatusForbidden, errorf(codeNotMember, "only members may call"))
		return
	}
	markVerified(r)
	reply, err := n.lead(r.Context(), q)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = errorf(CodeOutcomeUnknown, "%v", err)
		}
		answerError(w, http.StatusConflict, e)
		return
	}
	answer(w, reply)
}

// lead carries out an operation that only the leader can.
func (n *Node) lead(ctx context.Context, q callRequest) (reply callReply, err error) {
	if q.Op == opMembers {
		reply.Members = n.applier.members.Load()
		return reply, nil
	}
	if q.Op == opReport {
		return callReply{TimeNS: n.cfg.Clock.Now().UnixNano(), Disks: n.disks(), State: n.stateLike(q.State)}, nil
	}
	if s := n.Status(); s.Leader != n.cfg.ID {
		return reply, errNoLeader
	}
	switch q.Op {
	case opStatus:
		reply, err = n.leaderProgress(ctx)
	case opAdd:
		if e := n.applier.members.Load().addable(q.ID, q.PeerURL, n.cfg.InsecurePeers); e != nil {
			return reply, e
		}
		err = n.proposeChange(ctx, raftpb.ConfChangeAddLearnerNode, q.ID, confContext{PeerURL: q.PeerURL, AutoPromote: !q.Learner})
	case opPromote:
		err = n.promote(ctx, q.ID)
	case opRemove:
		err = n.remove(ctx, q.ID)
	case opTransfer:
		err = n.transferTo(ctx, q.ID)
	default:
		err = errorf("bad_request", "operation %q is not known", q.Op)
	}
	return reply, err
}

func (n *Node) leaderProgress(ctx context.Context) (callReply, error) {
	// Filled on the loop, and read only once that is done with it: a node that
	// stops meanwhile returns before.
	reply := &callReply{TimeNS: n.cfg.Clock.Now().UnixNano()}
	if err := n.onLoop(ctx, func() { n.core.progress(reply) }); err != nil {
		return callReply{}, err
	}
	return *reply, nil
}

// progress adds what the leader knows of the members to reply.
func (c *core) progress(reply *callReply) {
	c.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		p := progress{ID: id, Match: pr.Match, Active: id == c.id}
		if silent, ok := c.silent(id); ok {
			// The longest election timeout: raft draws one or two of the shortest.
			p.Active, p.silent = silent <= 2*uint64(c.electionTicks), silent
		}
		reply.Progress = append(reply.Progress, p)
		if id == c.id {
			reply.Last = pr.Match
		}
	})
	slices.SortFunc(reply.Progress, func(a, b progress) int { return cmp.Compare(a.ID, b.ID) })
}

func (r *callReply) of(id uint64) progress {
	for _, p := range r.Progress {
		if p.ID == id {
			return p
		}
	}
	return progress{ID: id}
}

// caughtUp as etcd judges it, with a bound on the entries as well.
func (r *callReply) caughtUp(id uint64) bool {
	p := r.of(id)
	return p.Active && p.Match*10 >= r.Last*9 && r.Last-min(p.Match, r.Last) < 1000
}

func (n *Node) promote(ctx context.Context, id uint64) error {
	status, err := n.leaderProgress(ctx)
	if err != nil {
		return err
	}
	if err := n.applier.members.Load().promotable(id, &status); err != nil {
		return err
	}
	return n.proposeChange(ctx, raftpb.ConfChangeAddNode, id, confContext{})
}

// promotable reports why a member cannot become a voter yet, or nil.
func (m *membership) promotable(id uint64, status *callReply) *Error {
	member, ok := m.member(id)
	switch {
	case !ok:
		return errorf(CodeMemberNotFound, "no member has the id %d", id)
	case !m.isLearner(id):
		return errorf(CodeMemberExists, "member %d is a voter already", id)
	case member.Incarnation.IsZero():
		// Whoever comes under this id could not be told from another.
		return errorf(CodeLearnerBehind, "learner %d has not registered itself yet", id)
	case !status.caughtUp(id):
		p := status.of(id)
		return errorf(CodeLearnerBehind, "learner %d is not caught up: it has %d of %d entries", id, p.Match, status.Last)
	}
	return nil
}

func (n *Node) remove(ctx context.Context, id uint64) error {
	m := n.applier.members.Load()
	if _, ok := m.member(id); !ok {
		return errorf(CodeMemberNotFound, "no member has the id %d", id)
	}
	if err := n.awaitQuorumWithout(ctx, m, id); err != nil {
		return err
	}
	if id == n.cfg.ID {
		// A leader that removes itself would leave an election behind, and
		// would be gone before it could answer.
		if err := n.transferAway(ctx, anybody); err != nil {
			return err
		}
		return errorf(codeMoved, "member %d gave the leadership away to be removed", id)
	}
	return n.proposeChange(ctx, raftpb.ConfChangeRemoveNode, id, confContext{})
}

// quorumWithout reports why the cluster cannot do without a member, or nil: of
// the other voters enough must answer.
func (m *membership) quorumWithout(id uint64, status *callReply) *Error {
	if !m.isVoter(id) {
		return nil
	}
	voters, active := 0, 0
	for _, v := range m.Voters {
		if v != id {
			voters++
			if status.of(v).Active {
				active++
			}
		}
	}
	if voters > 0 && active >= voters/2+1 {
		return nil
	}
	return errorf(CodeQuorumAtRisk, "without member %d only %d of %d voters would answer: bring the others back first", id, active, voters)
}

// awaitQuorumWithout asks quorumWithout. A leader that was just elected has
// not heard of anybody yet, so one that finds too few looks again for up to an
// election timeout.
func (n *Node) awaitQuorumWithout(ctx context.Context, m *membership, id uint64) error {
	tick, stop := n.cfg.Clock.Tick(n.cfg.TickInterval)
	defer stop()
	for attempt := 0; ; attempt++ {
		status, err := n.leaderProgress(ctx)
		if err != nil {
			return err
		}
		risk := m.quorumWithout(id, &status)
		switch {
		case risk == nil:
			return nil
		case len(m.Voters) == 1 || attempt == n.cfg.ElectionTicks:
			return risk
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return errNoLeader
		case <-n.stop:
			return errStopping
		}
	}
}

// proposeChange returns when the change is applied here or rejected. One is
// under way at a time, because raft turns a second one into nothing.
func (n *Node) proposeChange(ctx context.Context, typ raftpb.ConfChangeType, id uint64, cc confContext) error {
	payload, err := json.Marshal(cc)
	if err != nil {
		return err
	}
	n.confMu.Lock()
	defer n.confMu.Unlock()
	return n.proposeAndWait(ctx, &proposal{kind: kindConfChange, payload: payload, conf: &raftpb.ConfChange{Type: typ.Enum(), NodeId: new(id)}})
}

func (n *Node) proposeAndWait(ctx context.Context, p *proposal) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done := make(chan error, 1)
	p.done = func(_ any, err error) { done <- err }
	n.enqueue(ctx, p)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errorf(CodeOutcomeUnknown, "the change was proposed, but not applied in time: it may still take effect")
	case <-n.stop:
		return errUnknown
	}
}
