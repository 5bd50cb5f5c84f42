package raftnode

import (
	"cmp"
	"encoding/json"
	"hash/fnv"
	"slices"
	"time"
)

// How a cluster begins. A directory that belongs to none yet asks the members of
// its list, and whoever greets it, what they know. If nobody knows a cluster that
// it belongs to, a majority of the list, all of them as new, agrees on who the
// founders are: single-decree Paxos, in which every directory is an acceptor, its
// Vote is durable before anybody hears of it, and everybody learns by asking,
// because on plaintext only what a known address answers counts. The value is the
// set of founders by their incarnations; it makes the cluster's id. The argument
// is in docs/formats.md under Founding.

// Founder is one of the directories that a cluster begins with.
type Founder struct {
	ID          uint64      `json:"id"`
	Incarnation Incarnation `json:"incarnation"`
}

// Ballot orders the attempts of all members to found a cluster; zero is none.
type Ballot struct {
	Round uint64 `json:"round,omitempty"`
	ID    uint64 `json:"id,omitempty"` // of the member whose attempt it is
}

func (b Ballot) compare(o Ballot) int {
	return cmp.Or(cmp.Compare(b.Round, o.Round), cmp.Compare(b.ID, o.ID))
}

// Vote is what a directory must not forget between its first promise and the
// founding.
type Vote struct {
	Promised Ballot    `json:"promised,omitzero"` // it accepts nothing of an earlier one
	Accepted Ballot    `json:"accepted,omitzero"`
	Founders []Founder `json:"founders,omitempty"` // what it accepted
}

// FreshState is what a directory that belongs to no cluster tells whoever asks.
type FreshState struct {
	Founder
	List  uint64 `json:"list"`  // fingerprint of the list it was given
	Ready bool   `json:"ready"` // it has listened long enough to take part
	Vote
	Attempt  Ballot    `json:"attempt,omitzero"`   // its own, under way
	Proposed []Founder `json:"proposed,omitempty"` // in it; none while it asks for promises
}

// Standing is what a cluster knows of a fresh directory.
type Standing string

// The standings. All but the first three are final.
const (
	StandingUnknown Standing = ""         // whoever was asked has no records yet
	StandingMember  Standing = "member"   // this very directory is a member
	StandingAwaited Standing = "awaited"  // the member has never had a directory
	StandingWiped   Standing = "wiped"    // the member has another directory
	StandingRemoved Standing = "removed"  // the id was removed
	StandingMoved   Standing = "moved"    // the member is at another address
	StandingStrange Standing = "stranger" // no member has the id
)

// FoundedState is what a member of a cluster answers a directory that asks.
type FoundedState struct {
	ID        uint64    `json:"id"` // of who answers
	ClusterID uint64    `json:"cluster_id"`
	PeerURL   string    `json:"peer_url"`
	ClientURL string    `json:"client_url,omitempty"`
	List      uint64    `json:"list,omitempty"` // fingerprint of the first list
	Founders  []Founder `json:"founders,omitempty"`
	Standing  Standing  `json:"standing"`          // of who asked
	At        string    `json:"at,omitempty"`      // where the member is that has moved
	FreeID    uint64    `json:"free_id,omitempty"` // an id that was never used
}

// FoundingAnswer is what an address has answered: one of the two, or neither.
type FoundingAnswer struct {
	Fresh   *FreshState   `json:"fresh,omitempty"`
	Founded *FoundedState `json:"founded,omitempty"`
}

// FoundingConfig says how to begin.
type FoundingConfig struct {
	Self     Founder
	List     []Peer
	Vote     Vote          // what the directory remembers
	Listen   time.Duration // how long nobody may claim this directory before it takes part
	Patience time.Duration // how long others get to finish an attempt; default 1 s
	Anyway   bool          // whatever clusters there are
}

// Founding is a directory that belongs to no cluster yet. It has no clock, files
// or network: its driver asks the members of the list over and over, gives the
// answers to Round, and does what that says. It is not for concurrent use.
type Founding struct {
	cfg      FoundingConfig
	state    FreshState
	moved    time.Duration // when a ballot was seen last that is new, or taking part began
	highest  Ballot
	strange  int // rounds in which only members spoke that do not know this directory
	started  bool
	majority int
}

// maxRound is what no founding reaches; a round above is no member's.
const maxRound = 1 << 32

// NewFounding begins with what a directory remembers.
func NewFounding(c FoundingConfig) *Founding {
	c.Patience = cmp.Or(c.Patience, time.Second)
	return &Founding{
		cfg: c, majority: len(c.List)/2 + 1, highest: c.Vote.Promised,
		state: FreshState{Founder: c.Self, List: clusterID(c.List, nil), Vote: c.Vote},
	}
}

// State is what to tell others. It may be told once the Vote of the last Round is
// durable.
func (f *Founding) State() FreshState { return f.state }

// FoundingStep is what follows from a round.
type FoundingStep struct {
	Save    bool          // the Vote of State has to be durable before anything else
	Changed bool          // others have to hear of State soon
	Found   []Founder     // these found the cluster: begin with bootstrap records
	Join    *FoundedState // the cluster has this directory as a member: begin with nothing
	Refused *FoundedState // the cluster it must not enter, by the word of a member
	Waiting FoundingWait  // for what, if none of these
}

// FoundingWait says why a directory is not founded yet.
type FoundingWait struct {
	Why     string
	Members []uint64      // of the list, whom it waits for
	Claim   *FoundedState // the member who said it, if one did
}

// Round takes what was answered in a round that began at now, a duration since
// the directory began to listen. listed are the answers of the addresses of the
// list, by id, heard those of others that have greeted this directory.
func (f *Founding) Round(now time.Duration, listed map[uint64]FoundingAnswer, heard []FoundingAnswer) FoundingStep {
	if step, done := f.claimed(listed, heard); done {
		return step
	}
	if now < f.cfg.Listen {
		return FoundingStep{Waiting: FoundingWait{Why: "listening whether a cluster knows this directory"}}
	}
	before, vote := f.state.Ready, f.state.Vote
	attempt, proposed := f.state.Attempt, len(f.state.Proposed)
	f.state.Ready = true
	if f.majority == 1 {
		return FoundingStep{Found: []Founder{f.cfg.Self}}
	}
	fresh, step := f.others(listed)
	f.accept(fresh)
	if f.chosen(fresh) {
		step.Found = f.state.Founders
	} else if step.Waiting.Why == "" {
		f.propose(now, fresh)
		f.accept(map[uint64]FreshState{f.cfg.Self.ID: f.state})
		step.Waiting = f.waitsFor(fresh)
	}
	step.Save = f.state.Promised != vote.Promised || f.state.Accepted != vote.Accepted
	step.Changed = step.Save || !before || f.state.Attempt != attempt || len(f.state.Proposed) != proposed
	return step
}

// claimed judges what members of clusters have said.
func (f *Founding) claimed(listed map[uint64]FoundingAnswer, heard []FoundingAnswer) (step FoundingStep, done bool) {
	var claims []*FoundedState
	for _, id := range sortedIDs(listed) {
		claims = append(claims, listed[id].Founded)
	}
	for _, a := range heard {
		claims = append(claims, a.Founded)
	}
	var awaited, strange, refused *FoundedState
	for _, c := range claims {
		switch {
		case c == nil:
		case c.Standing == StandingMember:
			if c.List == f.state.List && f.sound(c.Founders) && clusterID(f.cfg.List, c.Founders) == c.ClusterID {
				return FoundingStep{Found: c.Founders}, true
			}
			return FoundingStep{Join: c}, true
		case f.cfg.Anyway:
		case c.Standing == StandingAwaited, c.Standing == StandingUnknown:
			awaited = c
		case c.Standing == StandingStrange:
			strange = c
		default:
			refused = c
		}
	}
	if awaited == nil && strange != nil {
		// Whoever lags behind may not have heard of this member yet.
		if f.strange++; f.strange > 5 && refused == nil {
			refused = strange
		}
	} else {
		f.strange = 0
	}
	switch {
	case refused != nil:
		return FoundingStep{Refused: refused}, true
	case awaited != nil:
		return FoundingStep{Waiting: FoundingWait{Why: "a cluster waits for this member, and its leader has to let it in", Claim: awaited}}, true
	case strange != nil:
		return FoundingStep{Waiting: FoundingWait{Why: "a cluster runs that does not know this member", Claim: strange}}, true
	}
	return step, false
}

// others are the members of the list that answered as fresh. While one of them
// is not ready, nobody is asked for a promise: it would only come too late.
func (f *Founding) others(listed map[uint64]FoundingAnswer) (fresh map[uint64]FreshState, step FoundingStep) {
	fresh = map[uint64]FreshState{}
	var listening, misled []uint64
	for _, id := range sortedIDs(listed) {
		s := listed[id].Fresh
		switch {
		case s == nil || s.ID != id || id == f.cfg.Self.ID || s.Incarnation.IsZero() || max(s.Promised.Round, s.Attempt.Round) > maxRound:
		case s.List != f.state.List:
			misled = append(misled, id)
		case !s.Ready:
			listening = append(listening, id)
		default:
			fresh[id] = *s
		}
	}
	switch {
	case len(listening) > 0 && f.state.Attempt == (Ballot{}):
		step.Waiting = FoundingWait{Why: "these members listen whether a cluster knows them", Members: listening}
	case len(misled) > 0 && len(fresh)+1 < f.majority:
		step.Waiting = FoundingWait{Why: "these members were given another list", Members: misled}
	}
	return fresh, step
}

// accept takes part in the attempts of others, or in its own.
func (f *Founding) accept(fresh map[uint64]FreshState) {
	for _, id := range sortedIDs(fresh) {
		b, founders := fresh[id].Attempt, fresh[id].Proposed
		if b == (Ballot{}) || b.ID != id || b.compare(f.state.Promised) < 0 || b.compare(f.state.Accepted) == 0 {
			continue
		}
		f.state.Promised = b
		if f.sound(founders) {
			f.state.Accepted, f.state.Founders = b, founders
		}
	}
	if f.state.Attempt.compare(f.state.Promised) < 0 {
		f.state.Attempt, f.state.Proposed = Ballot{}, nil
	}
}

// sound reports whether this directory can found a cluster with others: a
// majority of the list, each once, this one among them.
func (f *Founding) sound(founders []Founder) bool {
	for i, x := range founders {
		if i > 0 && founders[i-1].ID >= x.ID || x.Incarnation.IsZero() || !slices.ContainsFunc(f.cfg.List, func(p Peer) bool { return p.ID == x.ID }) {
			return false
		}
	}
	return len(founders) >= f.majority && slices.Contains(founders, f.cfg.Self)
}

// chosen reports whether a majority of the list, this directory included, has
// accepted the same. Whoever has promised a later ballot leaves it to that one,
// whose founders may be others.
func (f *Founding) chosen(fresh map[uint64]FreshState) bool {
	b := f.state.Accepted
	if b == (Ballot{}) || f.state.Promised != b {
		return false
	}
	votes := 1
	for _, s := range fresh {
		if s.Accepted == b && slices.Contains(f.state.Founders, s.Founder) {
			votes++
		}
	}
	return votes >= f.majority
}

// propose begins an attempt, or goes on with it.
func (f *Founding) propose(now time.Duration, fresh map[uint64]FreshState) {
	highest, rank := f.state.Promised, 0
	for id, s := range fresh {
		if s.Promised.compare(highest) > 0 {
			highest = s.Promised
		}
		if id < f.cfg.Self.ID {
			rank++
		}
	}
	if !f.started || highest != f.highest {
		f.started, f.highest, f.moved = true, highest, now
	}
	if len(fresh)+1 < f.majority {
		f.moved = now
		return
	}
	if f.state.Attempt != (Ballot{}) && f.state.Proposed == nil {
		if founders, ok := f.promised(fresh, now-f.moved >= f.cfg.Patience/2); ok {
			f.state.Proposed, f.moved = founders, now
			return
		}
	}
	// The first of those that are there begins, the others step in one after
	// another. An attempt that is under way gets its time first.
	pause := time.Duration(rank) * f.cfg.Patience
	if highest != (Ballot{}) && (highest.ID != f.cfg.Self.ID || f.state.Attempt != (Ballot{})) {
		if _, there := fresh[highest.ID]; there || highest.ID == f.cfg.Self.ID {
			pause += f.cfg.Patience
		}
	}
	if now-f.moved >= pause {
		f.state.Attempt, f.state.Proposed = Ballot{highest.Round + 1, f.cfg.Self.ID}, nil
		f.highest, f.moved = f.state.Attempt, now
	}
}

// promised returns the founders to propose, once a majority has promised this
// member's attempt: what a majority may have accepted already, or else those who
// have promised, whose directories are durable. Unless it is late, it waits for
// all who are there: who is no founder is let in afterwards.
func (f *Founding) promised(fresh map[uint64]FreshState, late bool) ([]Founder, bool) {
	b := f.state.Attempt
	if f.state.Promised != b {
		return nil, false
	}
	present := []FreshState{f.state}
	last := f.state.Vote
	founders := []Founder{f.cfg.Self}
	for _, id := range sortedIDs(fresh) {
		s := fresh[id]
		present = append(present, s)
		if s.Promised != b {
			continue
		}
		founders = append(founders, s.Founder)
		if s.Accepted.compare(last.Accepted) > 0 {
			last = s.Vote
		}
	}
	if len(founders) < f.majority {
		return nil, false
	}
	if last.Accepted != (Ballot{}) && !void(last.Founders, present, b) {
		return last.Founders, true
	}
	slices.SortFunc(founders, func(a, b Founder) int { return cmp.Compare(a.ID, b.ID) })
	return founders, late || len(founders) == len(present)
}

// void reports that no cluster of these founders is there or will be: each of
// them has promised b, and so has not founded and will not by an earlier ballot,
// or its directory is gone.
func void(founders []Founder, present []FreshState, b Ballot) bool {
	for _, x := range founders {
		i := slices.IndexFunc(present, func(s FreshState) bool { return s.ID == x.ID })
		if i < 0 || present[i].Incarnation == x.Incarnation && present[i].Promised != b {
			return false
		}
	}
	return true
}

// waitsFor says whom the founding waits for.
func (f *Founding) waitsFor(fresh map[uint64]FreshState) FoundingWait {
	w := FoundingWait{Why: "a majority of the list has to be there"}
	if f.state.Accepted != (Ballot{}) && len(fresh)+1 >= f.majority {
		w.Why = "these members may have founded the cluster already"
		for _, x := range f.state.Founders {
			if s, ok := fresh[x.ID]; x.ID != f.cfg.Self.ID && !(ok && s.Founder == x) {
				w.Members = append(w.Members, x.ID)
			}
		}
		return w
	}
	for _, p := range f.cfg.List {
		if _, there := fresh[p.ID]; !there && p.ID != f.cfg.Self.ID {
			w.Members = append(w.Members, p.ID)
		}
	}
	return w
}

func sortedIDs[V any](m map[uint64]V) []uint64 {
	ids := make([]uint64, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// clusterID is made of the list and of who founded the cluster; without founders
// it is a fingerprint of the list.
func clusterID(list []Peer, founders []Founder) uint64 {
	h := fnv.New64a()
	_ = json.NewEncoder(h).Encode(struct {
		List     []Peer
		Founders []Founder
	}{sortedPeers(list), founders}) // numbers and texts into a hash: neither fails
	return max(h.Sum64(), 1)
}
