package raftnode

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

func TestCompareStates(t *testing.T) {
	three, five := []uint64{1, 2, 3}, []uint64{1, 2, 3, 4, 5}
	type hashes = map[uint64]uint64
	for _, tt := range []struct {
		name   string
		self   uint64
		voters []uint64
		at     hashes
		want   Outcome
		differ []uint64
	}{
		{"alone", 1, []uint64{1}, hashes{1: 7}, Undecided, nil},
		{"nobody answers", 1, three, hashes{1: 7}, Undecided, nil},
		{"a majority", 1, three, hashes{1: 7, 2: 7}, Agree, nil},
		{"all", 1, three, hashes{1: 7, 2: 7, 3: 7}, Agree, nil},
		{"two of five", 1, five, hashes{1: 7, 2: 7}, Undecided, nil},
		{"the outlier", 1, three, hashes{1: 8, 2: 7, 3: 7}, OutlierHere, []uint64{1}},
		{"another outlier", 2, three, hashes{1: 8, 2: 7, 3: 7}, OutliersElsewhere, []uint64{1}},
		{"two differ", 1, three, hashes{1: 8, 2: 7}, NoMajority, []uint64{2}},
		{"all differ", 1, three, hashes{1: 8, 2: 7, 3: 6}, NoMajority, []uint64{2, 3}},
		{"two of two", 1, []uint64{1, 2}, hashes{1: 8, 2: 7}, NoMajority, []uint64{2}},
		{"two against two", 3, []uint64{1, 2, 3, 4}, hashes{1: 8, 2: 8, 3: 7, 4: 7}, NoMajority, []uint64{1, 2}},
		{"two outliers of five", 4, five, hashes{1: 7, 2: 7, 3: 7, 4: 8, 5: 9}, OutlierHere, []uint64{4, 5}},
		{"a majority that is not all", 1, five, hashes{1: 7, 2: 7, 3: 7, 4: 8}, OutliersElsewhere, []uint64{4}},
		{"two against two of five", 1, five, hashes{1: 7, 2: 7, 3: 8, 4: 8}, NoMajority, []uint64{3, 4}},
		{"a learner agrees", 9, three, hashes{1: 7, 2: 7, 9: 7}, Agree, nil},
		{"a learner is the outlier", 9, three, hashes{1: 7, 2: 7, 9: 8}, OutlierHere, []uint64{9}},
		{"a learner knows of one voter", 9, three, hashes{1: 7, 9: 8}, NoMajority, []uint64{1}},
		{"learners make no majority", 1, three, hashes{1: 7, 8: 7, 9: 7}, Undecided, nil},
		{"learners outvote nobody", 1, []uint64{1}, hashes{1: 7, 8: 6, 9: 6}, OutliersElsewhere, []uint64{8, 9}},
		{"hashes of zero", 1, three, hashes{1: 0, 2: 0, 3: 5}, OutliersElsewhere, []uint64{3}},
	} {
		v := compareStates(tt.self, tt.voters, tt.at)
		if v.Outcome != tt.want || !slices.Equal(v.Differ, tt.differ) || v.Own != tt.at[tt.self] {
			t.Errorf("%s: %+v, want outcome %d and %v", tt.name, v, tt.want, tt.differ)
		}
	}
	v := Verdict{Index: 5, Own: 1, Majority: 2, Differ: []uint64{2, 3}}
	for _, part := range []string{"entry 5", "0000000000000001", "members replace 9"} {
		if s := v.outlier(9); !strings.Contains(s, part) {
			t.Errorf("%q lacks %q", s, part)
		}
	}
	if s := v.noMajority(); !strings.Contains(s, "entry 5") || !strings.Contains(s, "member 2, 3.") {
		t.Error(s)
	}
}

func asks(a *Agreement) uint64 {
	index, _ := a.Asks(1)
	return index
}

// When a comparison ends, and when the next one begins.
func TestAgreementRounds(t *testing.T) {
	voters := []uint64{1, 2, 3}
	var a Agreement
	judge := func(round uint64, done bool, want Outcome) {
		t.Helper()
		v, got := a.Judge(round, 1, voters, []uint64{4})
		if got != done || done && (v.Outcome != want || v.Index == 0) {
			t.Fatalf("round %d: %+v, %v", round, v, got)
		}
	}
	if !a.Due(1) || asks(&a) != 0 {
		t.Error("the first one is not due at once")
	}
	judge(1, false, Undecided)
	a.Begin(1, 1, 100, 7)
	if a.Due(1) || asks(&a) != 100 {
		t.Error("it is not under way")
	}
	a.Hear(2, 100, 7)
	a.Hear(3, 99, 8)   // of another comparison
	a.Hear(77, 100, 8) // of nobody
	judge(2, false, Agree)
	judge(1+compareFor, true, Agree)
	if a.Due(compareFor+compareEvery) || !a.Due(1+compareFor+compareEvery) || a.After() != 100 {
		t.Error("the next one is due too early or too late")
	}

	a.Begin(40, 1, 200, 7)
	a.Hear(2, 200, 8)
	judge(41, false, NoMajority)
	a.Hear(3, 200, 8)
	judge(41, true, OutlierHere) // at once

	a.Begin(70, 1, 300, 7)
	judge(70+compareFor, true, Undecided)
	if !a.Due(71+compareFor) || a.After() != 200 {
		t.Error("what was not decided is not tried again")
	}

	a.Begin(90, 1, 400, 7)
	a.Hear(2, 400, 7)
	a.Hear(3, 400, 7)
	a.Hear(4, 400, 7)
	judge(90, true, Agree) // nobody is missing

	if a.Due(91) {
		t.Error("due at once")
	}
	if a.Hurry(); !a.Due(91) {
		t.Error("not due, although a member has another state")
	}

	a.Begin(120, 1, 500, 7)
	a.Hear(2, 500, 8)
	a.Abandon()
	judge(120+compareFor, false, Undecided)
	if !a.Due(120) {
		t.Error("nothing is compared any more")
	}
}

func (c *testCluster) agreed(id, index uint64) bool {
	at, differing, alarm := c.nodes[id].StateAgreement()
	return at >= index && differing == 0 && alarm == ""
}

// awaitOutlier waits until a member has stopped because its state is not the
// majority's, and checks that it does not come back and keeps its data.
func (c *testCluster) awaitOutlier(id uint64) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("member %d to stop", id), func() bool { return c.nodes[id].Err() != nil })
	err := c.nodes[id].Err()
	lines := c.sms[id].lines()
	c.stop(id)
	for range 2 {
		var refused *IdentityError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "majority of the voters") || !strings.Contains(err.Error(), fmt.Sprint("members replace ", id)) {
			c.t.Errorf("member %d: %v", id, err)
		}
		_, err = c.open(id)
	}
	if got := c.sms[id].lines(); !slices.Equal(got, lines) {
		c.t.Errorf("it held %q and holds %q", lines, got)
	}
}

// A replica that has applied an entry otherwise is found by the comparison at an
// interval, or the one after its start, and stops; the others go on.
func TestOutlierStops(t *testing.T) {
	slow.Test(t)
	for _, members := range []int{3, 5} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			smallSegments(t, 1<<20)
			c := newTestCluster(t, members)
			c.startAll()
			leader := c.leader()
			c.mustPropose(leader, "one")
			for id := range c.nodes {
				eventually(t, "the members to agree", func() bool { return c.agreed(id, 2) })
			}
			if members == 5 { // a leader, as well
				c.sms[leader].err()
				c.mustPropose(leader, "two")
				c.awaitOutlier(leader)
			}
			outlier := c.leader()%uint64(members) + 1
			for c.nodes[outlier] == nil {
				outlier = outlier%uint64(members) + 1
			}
			c.sms[outlier].err()
			c.mustPropose(c.leader(), "three")
			c.awaitOutlier(outlier)
			c.mustPropose(c.leader(), "four")
			last := c.nodes[c.leader()].Status().Applied
			for id := range c.nodes {
				eventually(t, "the others to agree", func() bool { return c.agreed(id, last) })
			}
		})
	}
}

// A start is followed by a comparison: a state that changed while the node was
// down, and its members did not hear of, is found.
func TestOutlierIsFoundAfterAStart(t *testing.T) {
	smallSegments(t, 1<<20)
	c := newTestCluster(t, 3)
	c.startAll()
	c.mustPropose(c.leader(), "one")
	c.agree(1)
	l := c.sms[3]
	c.stop(3)
	l.state.Lines[0], l.state.Hash = "forged", 99
	if _, err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	c.start(3)
	c.awaitOutlier(3)
	if c.nodes[1].Err() != nil || c.nodes[2].Err() != nil {
		t.Error(c.nodes[1].Err(), c.nodes[2].Err())
	}
}

// Two against two: all raise the alarm and go on. When one of them is gone for
// good, there is a majority, which the fourth leaves.
func TestNoMajorityRaisesTheAlarm(t *testing.T) {
	slow.Test(t)
	smallSegments(t, 1<<20)
	c := newTestCluster(t, 4)
	c.startAll()
	c.mustPropose(c.leader(), "one")
	c.agree(1)
	for _, id := range []uint64{2, 4} {
		c.sms[id].err()
	}
	c.mustPropose(c.leader(), "two")
	for id, n := range c.nodes {
		eventually(t, fmt.Sprintf("member %d to raise the alarm", id), func() bool {
			_, differing, alarm := n.StateAgreement()
			return differing == 2 && strings.Contains(alarm, "no majority")
		})
	}
	c.mustPropose(c.leader(), "three")
	for id, n := range c.nodes {
		if n.Err() != nil {
			t.Errorf("member %d: %v", id, n.Err())
		}
		eventually(t, "the line", func() bool { return len(c.sms[id].lines()) == 3 })
	}
	leader := c.leader()
	gone := uint64(2)
	if leader == 2 {
		gone = 4
	}
	c.stop(gone)
	eventually(t, "the removal", func() bool { return c.nodes[c.leader()].RemoveMember(t.Context(), gone) == nil })
	c.awaitOutlier(6 - gone)
	for _, id := range []uint64{1, 3} {
		eventually(t, "the alarm to end", func() bool { return c.agreed(id, 1) })
	}
}

// A learner has no vote and no say, and stops like everybody.
func TestLearnerThatDiffersStops(t *testing.T) {
	smallSegments(t, 1<<20)
	c := newTestCluster(t, 1)
	c.startAll()
	c.mustPropose(1, "one")
	c.peers = append(c.peers, Peer{ID: 2, URL: "http://" + testaddr.Addr(t)})
	if err := c.nodes[1].AddMember(t.Context(), 2, c.peers[1].URL, true); err != nil {
		t.Fatal(err)
	}
	c.tune = func(cfg *Config) { cfg.Join = cfg.ID == 2 }
	c.start(2)
	c.agree(1)
	c.sms[2].err()
	c.mustPropose(1, "two")
	c.awaitOutlier(2)
	c.mustPropose(1, "three")
	if c.nodes[1].Err() != nil {
		t.Error(c.nodes[1].Err())
	}
}

// hashed is a state machine whose hashes a test sets, by index.
type hashed map[uint64]uint64

func (h hashed) HashAt(index uint64) (uint64, bool) {
	hash, known := h[index]
	return hash, known
}

func (h hashed) HashIndex(uint64) (newest uint64) {
	for index := range h {
		newest = max(newest, index)
	}
	return newest
}

func TestAgreementLooksAndAnswers(t *testing.T) {
	var a Agreement
	h := hashed{}
	asks := func(when string, index, own uint64) {
		t.Helper()
		a.Look(1, 1, h)
		if i, o := a.Asks(1); i != index || o != own {
			t.Errorf("%s: asks for %d with %d, want %d with %d", when, i, o, index, own)
		}
	}
	asks("nothing applied", 0, 0)
	h[5] = 50
	asks("one entry", 5, 50)
	h[6] = 60
	asks("under way", 5, 50)
	h[5] = 51
	asks("replaced by a snapshot", 6, 60)

	for _, tt := range []struct {
		name         string
		theirs, want *StateHash
	}{
		{"no question", nil, nil},
		{"not known", &StateHash{9, 1}, nil},
		{"the same", &StateHash{6, 60}, &StateHash{6, 60}},
		{"another", &StateHash{6, 61}, &StateHash{6, 60}},
	} {
		a := Agreement{next: 100}
		got := a.Answer(tt.theirs, h)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if hurries := a.Due(1); hurries != (tt.name == "another") {
			t.Errorf("%s: the next comparison begins at once: %v", tt.name, hurries)
		}
	}
}
