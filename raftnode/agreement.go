package raftnode

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// StateHasher is a StateMachine whose states can be compared between members. All
// methods may be called concurrently.
type StateHasher interface {
	// HashAt returns a hash of the state at a log index, which is equal on every
	// member; false if the index is not applied yet or too long ago.
	HashAt(index uint64) (hash uint64, known bool)
	// HashIndex returns an applied index whose hash the other members are likely to
	// know as well, above after if there is one.
	HashIndex(after uint64) uint64
}

const (
	// compareEvery is how many rounds lie between two comparisons: ten election
	// timeouts.
	compareEvery = 2 * freshRounds
	// compareFor is how many rounds the others have to answer.
	compareFor = freshRounds
)

// Agreement compares the state of this member with those of the others, at one log
// index at a time. It only decides: its time is rounds, and whoever drives it asks
// the others. The first comparison begins with the first round, and so after each
// start.
type Agreement struct {
	next  uint64            // round in which the next comparison begins
	index uint64            // that is being compared; 0: none
	until uint64            // round in which that ends, whoever has answered
	at    map[uint64]uint64 // hashes at index, by member
	last  uint64            // index that was compared last
}

// Verdict is what a comparison has shown.
type Verdict struct {
	Outcome Outcome
	Index   uint64
	Own     uint64 // this member's hash
	// Majority is the hash that more than half of the voters have; for Agree,
	// OutlierHere and OutliersElsewhere.
	Majority uint64
	// Differ are the members that have another hash than the majority or, without
	// one, than this member; ascending.
	Differ []uint64
}

// Outcome says what a Verdict means for this member.
type Outcome int

const (
	// Undecided: too few have answered, and nobody has another state.
	Undecided Outcome = iota
	// Agree: a majority of the voters and this member have one state.
	Agree
	// OutlierHere: a majority has one state and this member another. It must not
	// go on.
	OutlierHere
	// OutliersElsewhere: this member has the state of a majority, and others have
	// not; each of them finds that out by itself.
	OutliersElsewhere
	// NoMajority: states differ, and nobody can tell which is right. All go on.
	NoMajority
)

// Look is to be called in each round: it begins a comparison if one is due, and
// abandons one under way if this member's state was replaced.
func (a *Agreement) Look(round, self uint64, h StateHasher) {
	if index, own := a.Asks(self); index != 0 {
		if hash, known := h.HashAt(index); !known || hash != own {
			a.Abandon()
		}
	}
	if !a.Due(round) {
		return
	}
	index := h.HashIndex(a.After())
	if hash, known := h.HashAt(index); known && index != 0 {
		a.Begin(round, self, index, hash)
	}
}

// Answer is what a member that compares its state is told, nil if this one does not
// know its hash there.
func (a *Agreement) Answer(theirs *StateHash, h StateHasher) *StateHash {
	if theirs == nil {
		return nil
	}
	hash, known := h.HashAt(theirs.Index)
	if !known {
		return nil
	}
	if hash != theirs.Hash {
		a.Hurry()
	}
	return &StateHash{theirs.Index, hash}
}

// Refusal is an *IdentityError if member id, whose verdict this is, must not go on.
func (v *Verdict) Refusal(id uint64) error {
	if v.Outcome != OutlierHere {
		return nil
	}
	return &IdentityError{v.outlier(id)}
}

// Due reports whether a comparison is to Begin in this round.
func (a *Agreement) Due(round uint64) bool { return a.index == 0 && round >= a.next }

// After is the index above which the next comparison should be.
func (a *Agreement) After() uint64 { return a.last }

// Begin starts a comparison at an index that this member has a hash for.
func (a *Agreement) Begin(round, self, index, hash uint64) {
	a.index, a.until, a.at = index, round+compareFor, map[uint64]uint64{self: hash}
}

// Asks returns the index at which the others are to be asked for their hash, and
// this member's own; 0 if nothing is compared.
func (a *Agreement) Asks(self uint64) (index, own uint64) { return a.index, a.at[self] }

// Hurry lets the next comparison begin at once: a member that compares has another
// state.
func (a *Agreement) Hurry() { a.next = 0 }

// Hear takes in a member's hash at an index.
func (a *Agreement) Hear(id, index, hash uint64) {
	if index == a.index && index != 0 {
		a.at[id] = hash
	}
}

// Abandon ends a comparison without a verdict: this member's state was replaced.
func (a *Agreement) Abandon() { a.index, a.at = 0, nil }

// Judge ends the comparison once it is decided: when a majority contradicts this
// member, when all have answered, or when there was time enough. false: not yet.
func (a *Agreement) Judge(round, self uint64, voters, learners []uint64) (v Verdict, done bool) {
	if a.index == 0 {
		return v, false
	}
	members := slices.Concat(voters, learners)
	maps.DeleteFunc(a.at, func(id, _ uint64) bool { return id != self && !slices.Contains(members, id) })
	v = compareStates(self, voters, a.at)
	v.Index = a.index
	if v.Outcome != OutlierHere && len(a.at) < len(members) && round < a.until {
		return v, false
	}
	a.index, a.at, a.next = 0, nil, round+compareEvery
	if v.Outcome == Undecided {
		a.next = round + 1 // whoever was missing may be there next time
	} else {
		a.last = v.Index
	}
	return v, true
}

// compareStates judges hashes at one index, by member, this one's included.
func compareStates(self uint64, voters []uint64, at map[uint64]uint64) (v Verdict) {
	v.Own = at[self]
	votes, decided := map[uint64]int{}, false
	for _, id := range voters {
		if hash, ok := at[id]; ok {
			if votes[hash]++; votes[hash] > len(voters)/2 {
				v.Majority, decided = hash, true
			}
		}
	}
	right := v.Own
	if decided {
		right = v.Majority
	}
	for _, id := range slices.Sorted(maps.Keys(at)) {
		if at[id] != right {
			v.Differ = append(v.Differ, id)
		}
	}
	switch {
	case decided && v.Own != v.Majority:
		v.Outcome = OutlierHere
	case decided && len(v.Differ) > 0:
		v.Outcome = OutliersElsewhere
	case len(v.Differ) > 0:
		v.Outcome = NoMajority
	case decided && len(at) > 1:
		v.Outcome = Agree
	}
	return v
}

func (v *Verdict) outlier(id uint64) string {
	return fmt.Sprintf("the state of this member at log entry %d (hash %016x) is not the one that a majority of the voters has (%016x): its directory was put back, damaged or changed, or it has applied an entry otherwise. "+
		"It must not go on; what it holds is kept as it is and may be what the others have lost. Remedy: %s", v.Index, v.Own, v.Majority, remedy(id))
}

func (v *Verdict) noMajority() string {
	return fmt.Sprintf("members hold different states at log entry %d, and no majority of the voters agrees on one: this one's differs from that of member %s. "+
		"Nobody can tell which is right, and all go on: compare what they hold, and replace those that are wrong", v.Index, memberList(v.Differ))
}

func memberList(ids []uint64) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ", "), "[]")
}
