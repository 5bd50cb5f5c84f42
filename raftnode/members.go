package raftnode

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

// Attributes is what a member says of itself.
type Attributes struct {
	Name      string `json:"name,omitempty"`
	ClientURL string `json:"client_url,omitempty"` // where clients reach its API
	GRPCAddr  string `json:"grpc_addr,omitempty"`  // host:port of its gRPC API
}

// Member is the replicated record of one member.
type Member struct {
	ID          uint64      `json:"id"`
	PeerURL     string      `json:"peer_url"`
	Incarnation Incarnation `json:"incarnation"` // zero until the member has registered itself
	Attributes
	// AutoPromote marks a learner that becomes a voter as soon as it has
	// caught up.
	AutoPromote bool `json:"auto_promote,omitempty"`
}

// membership is the replicated record of who belongs to the cluster. It
// travels with the state machine as an opaque blob: it is written in the same
// batch as the applied index and is part of every snapshot. It changes only
// in the apply step, by replacing the whole value, so that a pointer to one
// may be handed to any goroutine.
type membership struct {
	Version  int      `json:"version"`
	Voters   []uint64 `json:"voters"`
	Learners []uint64 `json:"learners,omitempty"`
	Members  []Member `json:"members"`           // by id
	Removed  []uint64 `json:"removed,omitempty"` // ids that are never used again
	// Former are where the members were that were removed last and whose address
	// no member has: a directory that is made anew there is told.
	Former []Peer `json:"former,omitempty"`
}

const membershipVersion = 1

// bootstrapMembership is what every member of a new cluster begins with.
func bootstrapMembership(peers []Peer, founders ...Founder) *membership {
	m := &membership{Version: membershipVersion}
	for _, p := range peers {
		member := Member{ID: p.ID, PeerURL: p.URL}
		for _, f := range founders {
			if f.ID == p.ID {
				member.Incarnation = f.Incarnation
			}
		}
		m.Members = append(m.Members, member)
		m.Voters = append(m.Voters, p.ID)
	}
	m.sort()
	return m
}

func decodeMembership(b []byte) (*membership, error) {
	m := &membership{}
	if len(b) == 0 {
		m.Version = membershipVersion
		return m, nil
	}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("member record: %w", err)
	}
	if m.Version != membershipVersion {
		return nil, fmt.Errorf("member record: version %d is not known to this build", m.Version)
	}
	return m, m.check()
}

// check returns why no cluster can have these records, or nil: raft would panic
// on them, or, for an id that it keeps for itself, lose what it sends.
func (m *membership) check() error {
	known := map[uint64]bool{}
	for _, x := range m.Members {
		if err := peeraddr.CheckID(x.ID); err != nil {
			return reservedID(err, x.ID)
		}
		if known[x.ID] {
			return fmt.Errorf("member record: member %d is there twice", x.ID)
		}
		known[x.ID] = true
	}
	placed := map[uint64]bool{}
	for _, id := range slices.Concat(m.Voters, m.Learners) {
		if placed[id] || !known[id] {
			return fmt.Errorf("member record: member %d is no member, or is listed twice", id)
		}
		placed[id] = true
	}
	if len(placed) != len(known) || len(known) > 0 && len(m.Voters) == 0 {
		return fmt.Errorf("member record: %d members, of whom %d vote and %d learn", len(known), len(m.Voters), len(m.Learners))
	}
	return nil
}

// reservedID is what a member is told whose records or log name a member that
// cannot be, because a build before let it in.
func reservedID(err error, id uint64) error {
	return &IdentityError{fmt.Sprintf("the records of this cluster name a member that an earlier build should have refused: %v. Replicas may differ since it was added. "+
		"Remedy: start all nodes with that build, run `raft-chat members remove %d`, stop them in good order and compare what they hold before they are started with this one", err, id)}
}

// encode is deterministic: every slice is sorted, no map is involved.
func (m *membership) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		// Only strings, numbers and slices of them: it cannot happen, and
		// the record is wrong beyond repair if it does.
		panic("raftnode: encode member record: " + err.Error())
	}
	return b
}

func (m *membership) sort() {
	slices.Sort(m.Voters)
	slices.Sort(m.Learners)
	slices.Sort(m.Removed)
	slices.SortFunc(m.Members, func(a, b Member) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
}

func (m *membership) clone() *membership {
	c := *m
	c.Voters = slices.Clone(m.Voters)
	c.Learners = slices.Clone(m.Learners)
	c.Members = slices.Clone(m.Members)
	c.Removed = slices.Clone(m.Removed)
	c.Former = slices.Clone(m.Former)
	return &c
}

func (m *membership) confState() *raftpb.ConfState {
	return &raftpb.ConfState{Voters: slices.Clone(m.Voters), Learners: slices.Clone(m.Learners), AutoLeave: proto.Bool(false)}
}

func (m *membership) member(id uint64) (Member, bool) {
	for _, x := range m.Members {
		if x.ID == id {
			return x, true
		}
	}
	return Member{}, false
}

func (m *membership) isVoter(id uint64) bool   { return slices.Contains(m.Voters, id) }
func (m *membership) isLearner(id uint64) bool { return slices.Contains(m.Learners, id) }
func (m *membership) isRemoved(id uint64) bool { return slices.Contains(m.Removed, id) }

// confContext travels in the context of a raft configuration change: what
// the change means, so that every replica judges it alike when it applies.
type confContext struct {
	PeerURL     string `json:"peer_url,omitempty"`
	AutoPromote bool   `json:"auto_promote,omitempty"`
}

// change returns the membership after a configuration change, or the reason
// why this change is rejected. It depends on its arguments alone.
func (m *membership) change(typ raftpb.ConfChangeType, id uint64, cc confContext) (*membership, *Error) {
	next := m.clone()
	old, exists := m.member(id)
	switch typ {
	case raftpb.ConfChangeAddLearnerNode:
		if err := m.joins(id, cc.PeerURL); err != nil {
			return nil, err
		}
		next.Members = append(next.Members, Member{ID: id, PeerURL: cc.PeerURL, AutoPromote: cc.AutoPromote})
		next.Learners = append(next.Learners, id)
		next.Former = slices.DeleteFunc(next.Former, func(x Peer) bool { return x.URL == cc.PeerURL })
	case raftpb.ConfChangeAddNode: // always the promotion of a learner
		if !exists {
			return nil, errorf(CodeMemberNotFound, "no member has the id %d", id)
		}
		if !m.isLearner(id) {
			return nil, errorf(CodeMemberExists, "member %d is a voter already", id)
		}
		old.AutoPromote = false
		next.set(old)
		next.Learners = slices.DeleteFunc(next.Learners, func(x uint64) bool { return x == id })
		next.Voters = append(next.Voters, id)
	case raftpb.ConfChangeRemoveNode:
		if !exists {
			return nil, errorf(CodeMemberNotFound, "no member has the id %d", id)
		}
		if len(m.Voters) == 1 && m.isVoter(id) {
			return nil, errorf(CodeQuorumAtRisk, "member %d is the last voter", id)
		}
		is := func(x uint64) bool { return x == id }
		next.Members = slices.DeleteFunc(next.Members, func(x Member) bool { return x.ID == id })
		next.Voters = slices.DeleteFunc(next.Voters, is)
		next.Learners = slices.DeleteFunc(next.Learners, is)
		next.Removed = append(next.Removed, id)
		next.Former = append(next.Former, Peer{ID: id, URL: old.PeerURL})
		next.Former = next.Former[max(0, len(next.Former)-MaxMembers):]
	default:
		return nil, errorf(CodeMemberID, "configuration change %v is not supported", typ)
	}
	next.sort()
	return next, nil
}

// MaxMembers bounds a cluster, voters and learners together: the leader sends
// to each, and each is another whose word is taken.
const MaxMembers = 64

// addable reports why a member cannot be added, or nil. It is asked before the
// change is proposed; what it makes of a URL may depend on the build.
func (m *membership) addable(id uint64, peerURL string, insecure bool) *Error {
	normal, err := ParsePeerURL(peerURL)
	switch {
	case err != nil:
		return errorf(CodeMemberURL, "%v", err)
	case normal != peerURL:
		return errorf(CodeMemberURL, "peer URL %q is written %s", peerURL, normal)
	case !insecure && !peeraddr.Loopback(normal):
		return errorf(CodeMemberURL, "%s %s", normal, peeraddr.NeedsInsecure)
	}
	if refusal := m.joins(id, peerURL); refusal != nil {
		return refusal
	}
	if len(m.Members) >= MaxMembers {
		return errorf(CodeMemberLimit, "the cluster has %d members, voters and learners together; more than %d are not supported: remove one first", len(m.Members), MaxMembers)
	}
	return nil
}

// joins reports why a member cannot join, or nil. It is asked when the change is
// applied: it compares numbers and bytes, which every build does alike.
func (m *membership) joins(id uint64, peerURL string) *Error {
	if err := checkMemberID(id); err != nil {
		return err
	}
	if len(peerURL) == 0 || len(peerURL) > 2*peeraddr.MaxURL || strings.IndexFunc(peerURL, func(r rune) bool { return r <= ' ' }) >= 0 {
		return errorf(CodeMemberURL, "the peer URL is empty, too long or holds white space")
	}
	if m.isRemoved(id) {
		return errorf(CodeMemberIDUsed, "id %d belonged to a removed member and is never used again; take a new one", id)
	}
	for _, x := range m.Members {
		if x.ID == id {
			return errorf(CodeMemberExists, "member %d is in the cluster already, at %s", id, x.PeerURL)
		}
		if x.PeerURL == peerURL {
			return errorf(CodeMemberExists, "%s belongs to member %d already", peerURL, x.ID)
		}
	}
	return nil
}

// register returns the membership after a member has stated its incarnation
// and attributes. A known member with another incarnation is refused: its
// directory was wiped, copied or swapped.
func (m *membership) register(id uint64, inc Incarnation, a Attributes) (*membership, *Error) {
	old, ok := m.member(id)
	if !ok {
		return nil, errorf(CodeMemberNotFound, "member %d is not in the cluster", id)
	}
	if !old.Incarnation.IsZero() && old.Incarnation != inc {
		return nil, errorf(CodeMemberIDUsed, "%s", wrongIncarnation(id))
	}
	old.Incarnation, old.Attributes = inc, a
	next := m.clone()
	next.set(old)
	return next, nil
}

// adopt returns the membership after the leader has met the first directory of a
// member. It registers once; whoever comes later is another.
func (m *membership) adopt(id uint64, inc Incarnation) (*membership, *Error) {
	old, ok := m.member(id)
	if !ok {
		return nil, errorf(CodeMemberNotFound, "member %d is not in the cluster", id)
	}
	return m.register(id, inc, old.Attributes)
}

// freeID is one above every id that was ever used.
func (m *membership) freeID() (id uint64) {
	for _, x := range m.Members {
		id = max(id, x.ID)
	}
	return max(id, slices.Max(append([]uint64{0}, m.Removed...))) + 1
}

// standing is what the records say of a fresh directory that would be member id
// at a peer URL; known is the member's incarnation, zero if it has never had one.
func (m *membership) standing(id uint64, inc, known Incarnation, url string) Standing {
	x, ok := m.member(id)
	switch {
	case m.isRemoved(id):
		return StandingRemoved
	case len(m.Members) == 0:
		return StandingUnknown
	case !ok:
		return StandingStrange
	case !known.IsZero() && known != inc, !known.IsZero() && x.Attributes != (Attributes{}):
		// A member that has stated its attributes had a log: its directory is not fresh.
		return StandingWiped
	case x.PeerURL != url:
		return StandingMoved
	case known.IsZero():
		return StandingAwaited
	}
	return StandingMember
}

func (m *membership) set(member Member) {
	for i := range m.Members {
		if m.Members[i].ID == member.ID {
			m.Members[i] = member
		}
	}
}

func wrongIncarnation(id uint64) string {
	return fmt.Sprintf("the cluster knows member %d by another data directory: this one was wiped, copied or swapped, and may have forgotten what it acknowledged. "+
		"Bring the right directory back or, if it is lost, %s", id, remedy(id))
}

// ParsePeerURL returns the one text of a peer URL, see peeraddr.ParseURL; its errors
// are of CodeMemberURL.
func ParsePeerURL(s string) (string, error) {
	normal, err := peeraddr.ParseURL(s)
	if err != nil {
		return "", errorf(CodeMemberURL, "%v", err)
	}
	return normal, nil
}

// checkMemberID returns why no member can have an id, or nil.
func checkMemberID(id uint64) *Error {
	if err := peeraddr.CheckID(id); err != nil {
		return errorf(CodeMemberID, "%v", err)
	}
	return nil
}
