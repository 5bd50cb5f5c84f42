package raftnode

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// foundingWorld runs the foundings of all members of one list, step by step, in
// any order that a seed gives: rounds overlap, answers are old or get lost,
// directories crash before and after they are written, or are wiped.
type foundingWorld struct {
	t        *testing.T
	rng      *rand.Rand
	list     []Peer
	members  map[uint64]*foundingMember
	records  map[uint64]map[uint64]Incarnation // of each cluster: who is registered
	acting   map[uint64]bool                   // clusters that could acknowledge at some time
	now      time.Duration
	incs     byte
	lossless bool            // who is up answers
	cut      map[uint64]bool // who reaches nobody now
	history  []string
}

// foundingMember is one directory and the process on it.
type foundingMember struct {
	id      uint64
	inc     Incarnation
	vote    Vote // durable
	cluster uint64
	first   []Founder
	refused *FoundedState // it stopped with this
	claim   *FoundedState // it waits with this

	up      bool
	began   time.Duration
	f       *Founding
	answers map[uint64]FoundingAnswer
}

func newFoundingWorld(t *testing.T, seed uint64, n int) *foundingWorld {
	w := &foundingWorld{t: t, rng: rand.New(rand.NewPCG(seed, 1)), members: map[uint64]*foundingMember{}, records: map[uint64]map[uint64]Incarnation{}, acting: map[uint64]bool{}}
	for id := range uint64(n) {
		w.list = append(w.list, Peer{id + 1, fmt.Sprint("http://127.0.0.1:", id+1)})
		w.members[id+1] = &foundingMember{id: id + 1, inc: w.newInc()}
	}
	return w
}

func (w *foundingWorld) newInc() Incarnation { w.incs++; return Incarnation{w.incs} }

func (w *foundingWorld) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

func (w *foundingWorld) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.history, "\n"))
}

func (w *foundingWorld) start(m *foundingMember) {
	m.up, m.began, m.answers = true, w.now, map[uint64]FoundingAnswer{}
	m.f = NewFounding(FoundingConfig{Self: Founder{m.id, m.inc}, List: w.list, Vote: m.vote, Listen: time.Second})
}

func (w *foundingWorld) crash(m *foundingMember) { m.up, m.f = false, nil }

func (w *foundingWorld) wipe(m *foundingMember) {
	w.crash(m)
	m.inc, m.vote, m.cluster, m.first, m.refused = w.newInc(), Vote{}, 0, nil, nil
}

// ask copies what to would answer from now.
func (w *foundingWorld) ask(from, to *foundingMember) {
	if !to.up || to.refused != nil || w.cut[from.id] || w.cut[to.id] {
		delete(from.answers, to.id)
		return
	}
	if to.cluster == 0 {
		s := to.f.State()
		s.Founders, s.Proposed = slices.Clone(s.Founders), slices.Clone(s.Proposed)
		from.answers[to.id] = FoundingAnswer{Fresh: &s}
		return
	}
	records := w.records[to.cluster]
	if !w.lossless && w.rng.IntN(3) == 0 {
		records = map[uint64]Incarnation{} // it lags behind
		for _, x := range to.first {
			records[x.ID] = x.Incarnation
		}
	}
	standing := StandingAwaited
	if known := records[from.id]; known == from.inc {
		standing = StandingMember
	} else if !known.IsZero() {
		standing = StandingWiped
	}
	from.answers[to.id] = FoundingAnswer{Founded: &FoundedState{ID: to.id, ClusterID: to.cluster, List: clusterID(w.list, nil), Founders: to.first, Standing: standing}}
}

// finish ends a round of m. A crash may come before what it says is durable.
func (w *foundingWorld) finish(m *foundingMember, crash bool) {
	answers := m.answers
	m.answers = map[uint64]FoundingAnswer{}
	step := m.f.Round(w.now-m.began, answers, nil)
	m.claim = step.Waiting.Claim
	if crash {
		w.note("%d crashes before %+v is durable", m.id, m.f.State().Vote)
		w.crash(m)
		return
	}
	if step.Save {
		m.vote = m.f.State().Vote
		m.vote.Founders = slices.Clone(m.vote.Founders)
		w.note("%d votes %+v", m.id, m.vote)
	}
	switch {
	case step.Refused != nil:
		m.refused = step.Refused
		w.note("%d is refused: %v", m.id, step.Refused.Standing)
	case step.Join != nil:
		w.enter(m, step.Join.ClusterID, nil)
	case step.Found != nil:
		w.enter(m, clusterID(w.list, step.Found), step.Found)
	}
}

func (w *foundingWorld) enter(m *foundingMember, cluster uint64, founders []Founder) {
	w.note("%d enters %x, founded by %v", m.id, cluster, founders)
	m.cluster, m.first = cluster, founders
	if w.records[cluster] == nil {
		w.records[cluster] = map[uint64]Incarnation{}
		for _, x := range founders {
			w.records[cluster][x.ID] = x.Incarnation
		}
		if len(founders) <= len(w.list)/2 {
			w.fail("a cluster of %d founders", len(founders))
		}
	}
	if got := w.records[cluster][m.id]; got != m.inc {
		w.fail("%d enters a cluster that knows it by %v", m.id, got)
	}
	if w.quorum(cluster) {
		w.acting[cluster] = true
	}
}

// quorum reports whether a cluster could acknowledge now.
func (w *foundingWorld) quorum(cluster uint64) bool {
	in := 0
	for _, m := range w.members {
		if m.up && m.refused == nil && m.cluster == cluster && w.records[cluster][m.id] == m.inc {
			in++
		}
	}
	return in > len(w.list)/2
}

// adopt is what a leader does, which takes a majority.
func (w *foundingWorld) adopt(m *foundingMember) {
	for cluster, records := range w.records {
		if m.up && m.cluster == 0 && m.refused == nil && records[m.id].IsZero() && w.quorum(cluster) {
			w.note("%d is adopted by %x", m.id, cluster)
			records[m.id] = m.inc
		}
	}
}

func (w *foundingWorld) any() *foundingMember { return w.members[w.list[w.rng.IntN(len(w.list))].ID] }

// run takes steps at random.
func (w *foundingWorld) run(steps int, crashes bool, wipe func(*foundingMember) bool) {
	defer func() { w.cut = nil }()
	for range steps {
		w.now += time.Duration(w.rng.IntN(100)) * time.Millisecond
		if w.rng.IntN(15*len(w.list)) == 0 {
			w.cut = map[uint64]bool{}
			for range w.rng.IntN(len(w.list)) {
				w.cut[w.any().id] = true
			}
		}
		m := w.any()
		switch {
		case !m.up:
			if w.rng.IntN(3) == 0 {
				w.start(m)
			}
		case crashes && w.rng.IntN(30) == 0:
			w.note("%d crashes", m.id)
			w.crash(m)
			if w.rng.IntN(3) == 0 && wipe(m) {
				w.note("%d is wiped", m.id)
				w.wipe(m)
			}
		case m.cluster != 0 || m.refused != nil:
			w.adopt(w.any())
		case w.lossless:
			for _, to := range w.members {
				if to != m {
					w.ask(m, to)
				}
			}
			w.finish(m, crashes && w.rng.IntN(20) == 0)
		case w.rng.IntN(3) == 0:
			w.finish(m, crashes && w.rng.IntN(20) == 0)
		default:
			if to := w.any(); to != m {
				w.ask(m, to)
			}
		}
	}
}

// heal starts everybody and lets them go on until all belong to a cluster.
func (w *foundingWorld) heal() {
	w.lossless = true
	for round := 0; ; round++ {
		settled := true
		for _, p := range w.list {
			m := w.members[p.ID]
			w.now += 20 * time.Millisecond
			if !m.up {
				w.start(m)
			}
			if m.cluster != 0 || m.refused != nil {
				continue
			}
			settled = settled && w.lost(m)
			for _, to := range w.members {
				if to != m {
					w.ask(m, to)
				}
			}
			w.finish(m, false)
			w.adopt(m)
		}
		if settled {
			return
		}
		if round == 2000 {
			w.fail("no end")
		}
	}
}

// lost reports whether a directory waits for a cluster whose majority was wiped.
func (w *foundingWorld) lost(m *foundingMember) bool {
	return m.claim != nil && m.claim.Standing == StandingAwaited && !w.quorum(m.claim.ClusterID)
}

func (w *foundingWorld) clusters() (ids []uint64) {
	for id := range w.records {
		ids = append(ids, id)
	}
	return ids
}

const foundingSeeds = 3000

// Whatever crashes and gets lost, and whichever directories are wiped that have
// told nobody anything: one cluster, and all belong to it in the end.
func TestFoundingAgrees(t *testing.T) {
	for seed := range uint64(foundingSeeds) {
		n := []int{1, 2, 3, 3, 4, 5, 7}[seed%7]
		w := newFoundingWorld(t, seed, n)
		w.run(150*n, seed%3 != 0, func(m *foundingMember) bool {
			return m.cluster == 0 && m.vote.Promised == (Ballot{}) && !w.registered(m) && !w.proposed(m)
		})
		w.heal()
		if ids := w.clusters(); len(ids) != 1 {
			w.fail("seed %d: %d members, clusters %x", seed, n, ids)
		}
		for _, m := range w.members {
			if m.refused != nil {
				w.fail("seed %d: %d of %d is refused", seed, m.id, n)
			}
			if m.cluster == 0 {
				w.fail("seed %d: %d of %d waits for ever", seed, m.id, n)
			}
		}
	}
}

// registered reports whether a cluster knows the directory.
func (w *foundingWorld) registered(m *foundingMember) bool {
	for _, r := range w.records {
		if r[m.id] == m.inc {
			return true
		}
	}
	return false
}

// proposed reports whether somebody has named the directory as a founder.
func (w *foundingWorld) proposed(m *foundingMember) bool {
	self := Founder{m.id, m.inc}
	for _, o := range w.members {
		if slices.Contains(o.vote.Founders, self) || o.f != nil && slices.Contains(o.f.State().Proposed, self) {
			return true
		}
	}
	return false
}

// Whatever directories are wiped, all are answered in the end: they belong to a
// cluster, or are refused because it knows another directory.
func TestFoundingWithWipedDirectoriesEnds(t *testing.T) {
	for seed := range uint64(foundingSeeds) {
		n := []int{1, 3, 3, 5}[seed%4]
		w := newFoundingWorld(t, seed, n)
		w.run(60*n, true, func(*foundingMember) bool { return true })
		w.heal()
	}
}

// As long as no more directories are wiped or down at any time than a cluster of
// that size survives, what one has acknowledged is never left for another.
func TestFoundingNeverFoundsTwice(t *testing.T) {
	wiped := 0
	for seed := range uint64(foundingSeeds) {
		n := []int{3, 3, 5, 7}[seed%4]
		w := newFoundingWorld(t, seed, n)
		w.lossless = true
		gone := map[uint64]bool{}
		bad := w.any().id
		for range n / 2 {
			gone[bad] = true // the only ones that ever crash or are wiped
			bad = bad%uint64(n) + 1
		}
		for _, m := range w.members {
			if !gone[m.id] {
				w.start(m)
			}
		}
		for range 80 * n {
			w.now += time.Duration(w.rng.IntN(100)) * time.Millisecond
			m := w.any()
			switch {
			case !m.up:
				w.start(m)
			case gone[m.id] && w.rng.IntN(10) == 0:
				w.crash(m)
				if w.rng.IntN(2) == 0 {
					w.note("%d is wiped", m.id)
					w.wipe(m)
					wiped++
				}
			case m.cluster != 0 || m.refused != nil:
				w.adopt(w.any())
			default:
				for _, to := range w.members {
					if to != m {
						w.ask(m, to)
					}
				}
				w.finish(m, false)
			}
			if len(w.acting) > 1 {
				w.fail("seed %d: %d members, two clusters have acknowledged", seed, n)
			}
		}
	}
	if wiped < foundingSeeds/10 {
		t.Errorf("only %d directories were wiped", wiped)
	}
}

func TestFoundingRound(t *testing.T) {
	list := []Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}
	self := Founder{1, Incarnation{1}}
	fingerprint := clusterID(list, nil)
	two, three := Founder{2, Incarnation{2}}, Founder{3, Incarnation{3}}
	fresh := func(who Founder, edit func(*FreshState)) FoundingAnswer {
		s := &FreshState{Founder: who, List: fingerprint, Ready: true}
		if edit != nil {
			edit(s)
		}
		return FoundingAnswer{Fresh: s}
	}
	claim := func(standing Standing, edit func(*FoundedState)) FoundingAnswer {
		s := &FoundedState{ID: 2, ClusterID: 9, PeerURL: "http://b:1", Standing: standing}
		if edit != nil {
			edit(s)
		}
		return FoundingAnswer{Founded: s}
	}
	founders := []Founder{self, two}
	ours := claim(StandingMember, func(s *FoundedState) {
		s.List, s.Founders, s.ClusterID = fingerprint, founders, clusterID(list, founders)
	})
	type answers map[uint64]FoundingAnswer
	for _, tt := range []struct {
		name   string
		list   []Peer
		edit   func(*FoundingConfig)
		now    time.Duration
		rounds int
		listed answers
		heard  []FoundingAnswer
		want   string
	}{
		{name: "alone, too early", list: list[:1], now: 999 * time.Millisecond, want: "wait: listening whether a cluster knows this directory"},
		{name: "alone", list: list[:1], want: "found 1"},
		{name: "alone, greeted by who does not confirm it", list: list[:1], heard: []FoundingAnswer{{}, fresh(two, nil)}, want: "found 1"},
		{name: "alone, wiped", list: list[:1], now: time.Millisecond, heard: []FoundingAnswer{claim(StandingWiped, nil)}, want: "refused wiped"},
		{name: "alone, removed", list: list[:1], heard: []FoundingAnswer{claim(StandingRemoved, nil)}, want: "refused removed"},
		{name: "alone, wiped, anyway", list: list[:1], edit: func(c *FoundingConfig) { c.Anyway = true }, heard: []FoundingAnswer{claim(StandingWiped, nil)}, want: "found 1"},
		{name: "alone, awaited", list: list[:1], heard: []FoundingAnswer{claim(StandingAwaited, nil)}, want: "wait: a cluster waits for this member, and its leader has to let it in"},
		{name: "alone, a member", list: list[:1], heard: []FoundingAnswer{claim(StandingMember, nil)}, want: "join 9"},
		{name: "nobody there", want: "wait: a majority of the list has to be there [2 3]"},
		{name: "a majority", listed: answers{2: fresh(two, nil)}, want: "vote"},
		{name: "too early", now: 999 * time.Millisecond, listed: answers{2: fresh(two, nil)}, want: "wait: listening whether a cluster knows this directory"},
		{name: "one still listens", listed: answers{2: fresh(two, nil), 3: fresh(three, func(s *FreshState) { s.Ready = false })}, want: "wait: these members listen whether a cluster knows them [3]"},
		{name: "another list", listed: answers{2: fresh(two, func(s *FreshState) { s.List++ })}, want: "wait: these members were given another list [2]"},
		{name: "another list of one of three", listed: answers{2: fresh(two, func(s *FreshState) { s.List++ }), 3: fresh(three, nil)}, want: "vote"},
		{name: "another member at an address", listed: answers{2: fresh(three, nil)}, want: "wait: a majority of the list has to be there [2 3]"},
		{name: "a round out of reach", listed: answers{2: fresh(two, func(s *FreshState) { s.Promised = Ballot{1 << 63, 2} })}, want: "wait: a majority of the list has to be there [2 3]"},
		{name: "a majority, and one who knows otherwise", listed: answers{2: claim(StandingWiped, nil), 3: fresh(three, nil)}, want: "refused wiped"},
		{name: "moved", listed: answers{2: claim(StandingMoved, nil)}, want: "refused moved"},
		{name: "not known, once", listed: answers{2: claim(StandingStrange, nil), 3: fresh(three, nil)}, want: "wait: a cluster runs that does not know this member"},
		{name: "not known, for long", rounds: 6, listed: answers{2: claim(StandingStrange, nil)}, want: "refused stranger"},
		{name: "not known by one, awaited by another", rounds: 9, listed: answers{2: claim(StandingStrange, nil), 3: claim(StandingAwaited, nil)}, want: "wait: a cluster waits for this member, and its leader has to let it in"},
		{name: "awaited", listed: answers{2: claim(StandingAwaited, nil), 3: fresh(three, nil)}, want: "wait: a cluster waits for this member, and its leader has to let it in"},
		{name: "a founder", now: time.Millisecond, listed: answers{2: ours}, want: "found 1 2"},
		{name: "a founder, with a list of today", list: list[:2], listed: answers{2: ours}, want: fmt.Sprint("join ", clusterID(list, founders))},
		{name: "a founder of what is none", listed: answers{2: claim(StandingMember, func(s *FoundedState) { s.List, s.Founders = fingerprint, founders })}, want: "join 9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := FoundingConfig{Self: self, List: list, Listen: time.Second}
			if tt.list != nil {
				c.List = tt.list
			}
			if tt.edit != nil {
				tt.edit(&c)
			}
			if tt.now == 0 {
				tt.now = time.Second
			}
			f := NewFounding(c)
			step := f.Round(tt.now, tt.listed, tt.heard)
			for range max(tt.rounds, 1) - 1 {
				step = f.Round(tt.now, tt.listed, tt.heard)
			}
			if got := stepText(step); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func stepText(s FoundingStep) string {
	switch {
	case s.Found != nil:
		text := "found"
		for _, x := range s.Found {
			text += fmt.Sprint(" ", x.ID)
		}
		return text
	case s.Join != nil:
		return fmt.Sprint("join ", s.Join.ClusterID)
	case s.Refused != nil:
		return "refused " + string(s.Refused.Standing)
	case s.Save:
		return "vote"
	case len(s.Waiting.Members) > 0:
		return fmt.Sprint("wait: ", s.Waiting.Why, " ", s.Waiting.Members)
	}
	return "wait: " + s.Waiting.Why
}

// What was accepted binds later attempts, unless none of its founders can be in
// a cluster of them.
func TestFoundingOffersWhatWasAccepted(t *testing.T) {
	b := Ballot{5, 3}
	who := func(id uint64, inc byte) Founder { return Founder{id, Incarnation{inc}} }
	state := func(f Founder, promised, accepted Ballot, founders ...Founder) FreshState {
		return FreshState{Founder: f, Ready: true, Vote: Vote{promised, accepted, founders}}
	}
	one, two, three := who(1, 1), who(2, 2), who(3, 3)
	old := []Founder{one, two}
	for _, tt := range []struct {
		name  string
		fresh []FreshState
		want  string // the founders, "" while it waits
	}{
		{"too few promises", []FreshState{state(one, Ballot{4, 1}, Ballot{})}, ""},
		{"nothing accepted", []FreshState{state(one, b, Ballot{})}, "1 3"},
		{"all have promised", []FreshState{state(one, b, Ballot{}), state(two, b, Ballot{})}, "1 2 3"},
		{"one has not promised, late", []FreshState{state(one, b, Ballot{}), state(two, Ballot{}, Ballot{})}, "1 3"},
		{"accepted, and a founder is away", []FreshState{state(one, b, Ballot{4, 1}, old...)}, "1 2"},
		{"accepted, and a founder has not promised", []FreshState{state(one, b, Ballot{4, 1}, old...), state(two, Ballot{4, 1}, Ballot{})}, "1 2"},
		{"accepted, and all founders have promised", []FreshState{state(one, b, Ballot{4, 1}, old...), state(two, b, Ballot{})}, "1 2 3"},
		{"accepted, and the other founder is gone", []FreshState{state(one, b, Ballot{4, 1}, old...), state(who(2, 9), b, Ballot{})}, "1 2 3"},
		{"the newer of two", []FreshState{state(one, b, Ballot{4, 1}, old...), state(two, b, Ballot{4, 2}, two, who(3, 9), who(4, 4))}, "2 3 4"},
	} {
		f := NewFounding(FoundingConfig{Self: three, List: []Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}, Vote: Vote{Promised: b}})
		f.state.Attempt = b
		fresh := map[uint64]FreshState{}
		for _, s := range tt.fresh {
			fresh[s.ID] = s
		}
		got, ok := f.promised(fresh, true)
		text := ""
		for _, x := range got {
			text += fmt.Sprint(" ", x.ID)
		}
		if strings.TrimSpace(text) != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, %v", tt.name, text, ok)
		}
	}
}

// Who has promised a later attempt, whose founders may be others, founds by no
// earlier one, whoever accepted that.
func TestFoundingIsLeftToALaterPromise(t *testing.T) {
	list := []Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}
	founders := []Founder{{1, Incarnation{1}}, {2, Incarnation{2}}}
	early, late := Ballot{1, 1}, Ballot{2, 3}
	for promised, want := range map[Ballot]bool{early: true, late: false} {
		f := NewFounding(FoundingConfig{Self: founders[0], List: list, Vote: Vote{promised, early, founders}})
		other := FreshState{Founder: founders[1], List: clusterID(list, nil), Ready: true, Vote: Vote{early, early, founders}}
		if step := f.Round(0, map[uint64]FoundingAnswer{2: {Fresh: &other}}, nil); (step.Found != nil) != want {
			t.Errorf("after the promise %v it founds %v", promised, step.Found)
		}
	}
}

func TestStanding(t *testing.T) {
	inc := Incarnation{7}
	m := bootstrapMembership([]Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}, Founder{2, inc}, Founder{3, Incarnation{3}})
	m.set(Member{ID: 3, PeerURL: "http://c:1", Incarnation: Incarnation{3}, Attributes: Attributes{Name: "c"}})
	m.Removed = []uint64{9}
	for _, tt := range []struct {
		name string
		m    *membership
		id   uint64
		inc  Incarnation
		url  string
		want Standing
	}{
		{"a founder", m, 2, inc, "http://b:1", StandingMember},
		{"another directory", m, 2, Incarnation{8}, "http://b:1", StandingWiped},
		{"another directory elsewhere", m, 2, Incarnation{8}, "http://z:1", StandingWiped},
		{"a founder elsewhere", m, 2, inc, "http://z:1", StandingMoved},
		{"one that never had a directory", m, 1, inc, "http://a:1", StandingAwaited},
		{"the same elsewhere", m, 1, inc, "http://z:1", StandingMoved},
		{"a copy from before it had a log", m, 3, Incarnation{3}, "http://c:1", StandingWiped},
		{"a removed id", m, 9, inc, "http://a:1", StandingRemoved},
		{"a stranger", m, 4, inc, "http://d:1", StandingStrange},
		{"a stranger at a member's address", m, 4, inc, "http://a:1", StandingStrange},
		{"without records", &membership{}, 1, inc, "http://a:1", StandingUnknown},
	} {
		x, _ := tt.m.member(tt.id)
		if got := tt.m.standing(tt.id, tt.inc, x.Incarnation, tt.url); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := m.freeID(); got != 10 {
		t.Errorf("the free id is %d", got)
	}
}

// Once a member has a directory, no other is adopted for it.
func TestAdoptedOnce(t *testing.T) {
	m := bootstrapMembership([]Peer{{1, "http://a:1"}, {2, "http://b:1"}}, Founder{1, Incarnation{1}})
	m, refused := m.adopt(2, Incarnation{2})
	if refused != nil {
		t.Fatal(refused)
	}
	if _, refused := m.adopt(2, Incarnation{2}); refused != nil {
		t.Error("the same again:", refused)
	}
	for name, x := range map[string]Founder{"another": {2, Incarnation{3}}, "a founder's": {1, Incarnation{3}}, "a stranger": {3, Incarnation{3}}} {
		if _, refused := m.adopt(x.ID, x.Incarnation); refused == nil {
			t.Errorf("%s directory is adopted", name)
		}
	}
}

// Who was removed is reminded at the address that the member had, until another
// has it.
func TestFormerAddresses(t *testing.T) {
	m := bootstrapMembership([]Peer{{1, "http://127.0.0.1:1"}, {2, "http://127.0.0.1:2"}, {3, "http://127.0.0.1:3"}})
	change := func(typ raftpb.ConfChangeType, id uint64, url string) {
		t.Helper()
		next, refused := m.change(typ, id, confContext{PeerURL: url})
		if refused != nil {
			t.Fatal(refused)
		}
		m = next
	}
	change(raftpb.ConfChangeRemoveNode, 1, "")
	change(raftpb.ConfChangeRemoveNode, 2, "")
	if want := []Peer{{1, "http://127.0.0.1:1"}, {2, "http://127.0.0.1:2"}}; !slices.Equal(m.Former, want) {
		t.Errorf("%v", m.Former)
	}
	change(raftpb.ConfChangeAddLearnerNode, 4, "http://127.0.0.1:1")
	if want := []Peer{{2, "http://127.0.0.1:2"}}; !slices.Equal(m.Former, want) {
		t.Errorf("%v", m.Former)
	}
	for id := range uint64(2 * MaxMembers) {
		change(raftpb.ConfChangeAddLearnerNode, 100+id, fmt.Sprint("http://127.0.0.1:", 100+id))
		change(raftpb.ConfChangeRemoveNode, 100+id, "")
	}
	if len(m.Former) != MaxMembers || m.Former[MaxMembers-1].ID != 99+2*MaxMembers {
		t.Errorf("%d former addresses, %v last", len(m.Former), m.Former[len(m.Former)-1])
	}
}

// Whatever the addresses of a list answer, it is judged without a panic, and what
// is founded is sound.
func FuzzFoundingAnswers(f *testing.F) {
	f.Add([]byte(`[{"fresh":{"id":2,"incarnation":"02000000000000000000000000000000","list":1,"ready":true}},{"founded":{"id":3,"cluster_id":1,"standing":"member"}}]`))
	list := []Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}
	fingerprint := clusterID(list, nil)
	f.Add(fmt.Appendf(nil, `[{"fresh":{"id":2,"incarnation":"02000000000000000000000000000000","list":%d,"ready":true,"attempt":{"round":1,"id":2},"proposed":[{"id":1,"incarnation":"01000000000000000000000000000000"},{"id":2,"incarnation":"02000000000000000000000000000000"}],"accepted":{"round":1,"id":2}}}]`, fingerprint))
	f.Fuzz(func(t *testing.T, b []byte) {
		var answers []FoundingAnswer
		if json.Unmarshal(b, &answers) != nil {
			return
		}
		founding := NewFounding(FoundingConfig{Self: Founder{1, Incarnation{1}}, List: list, Listen: time.Second})
		for i := range 4 {
			listed := map[uint64]FoundingAnswer{}
			for n, a := range answers {
				if n%2 == i%2 {
					listed[uint64(n/2%3+1)] = a
				}
			}
			step := founding.Round(time.Duration(i+1)*time.Second, listed, answers[:len(answers)/2])
			if step.Found != nil && !founding.sound(step.Found) {
				t.Fatalf("founded by %v", step.Found)
			}
			if step.Found != nil || step.Join != nil || step.Refused != nil {
				return
			}
		}
	})
}
