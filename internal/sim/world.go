package sim

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/raftnode"
)

const (
	tickInterval  = 100 * time.Millisecond
	electionTicks = 10
	// electionTimeout is the shortest one; raft draws up to twice that.
	electionTimeout = electionTicks * tickInterval
)

// epoch is when the simulated wall clocks begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world is the state of one run.
type world struct {
	plan   Plan
	now    time.Duration
	events events
	order  uint64
	random *rand.Rand
	trace  trace
	story  *story

	machines []*machine // by id - 1
	links    links
	peers    []raftnode.Peer // the list that the cluster began with
	founded  uint64          // its id; 0: not yet

	history   *oracle.History
	inside    invariants
	writers   []*writer
	readers   []*reader
	followers []*follower
	counts    Counts

	removedAt time.Duration // when somebody asked for a removal last

	steppedAt time.Duration // when a clock was stepped last
	otherPost []byte        // what a machine that differs applies

	healed     bool // the faults are over
	finished   bool // clients begin nothing new
	progress   time.Duration
	progressed bool
}

// event is something that happens at a time. Events of the same time happen in
// the order in which they were made.
type event struct {
	at    time.Duration
	order uint64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return last
}

// after lets do happen when d has passed.
func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.events, event{w.now + max(d, 0), w.order, do})
}

// runUntil lets everything happen up to a time, or until stop says so.
func (w *world) runUntil(end time.Duration, stop func() bool) {
	for len(w.events) > 0 && w.events[0].at <= end && !stop() && !w.inside.broken() {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	if !stop() {
		w.now = max(w.now, end)
	}
}

func (w *world) chance(p float64) bool { return p > 0 && w.random.Float64() < p }

func (w *world) between(low, high time.Duration) time.Duration { return between(w.random, low, high) }

// trace hashes what happens, in order.
type trace struct {
	digest *xxhash.Digest
	buf    []byte
}

// note adds one thing: what it is, when, where, and its content.
func (t *trace) note(what byte, now time.Duration, where uint64, numbers []uint64, content []byte) {
	t.buf = append(t.buf[:0], what)
	t.buf = binary.LittleEndian.AppendUint64(t.buf, uint64(now))
	t.buf = binary.LittleEndian.AppendUint64(t.buf, where)
	for _, n := range numbers {
		t.buf = binary.LittleEndian.AppendUint64(t.buf, n)
	}
	t.buf = binary.LittleEndian.AppendUint64(t.buf, uint64(len(content)))
	_, _ = t.digest.Write(t.buf) // a hash never fails
	_, _ = t.digest.Write(content)
}

// What the trace consists of.
const (
	traceMessage = iota
	traceSave
	traceApply
	traceAck
	traceRead
	traceFault
	traceLife
)

// story is the run as people read it; nil tells nothing.
type story struct{ lines []string }

func (w *world) tell(format string, args ...any) {
	if w.story != nil {
		w.story.lines = append(w.story.lines, fmt.Sprintf("%9.4f  ", w.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

// machine finds a machine by its id.
func (w *world) machine(id uint64) *machine {
	if id == 0 || id > uint64(len(w.machines)) {
		return nil
	}
	return w.machines[id-1]
}

// leader is the process that leads in the highest term, nil if none does.
func (w *world) leader() *process {
	var best *process
	var term uint64
	for _, m := range w.machines {
		if p := m.process; p != nil {
			if s := p.replica.Status(); s.Role == "leader" && s.Term > term {
				best, term = p, s.Term
			}
		}
	}
	return best
}

// voters are those of the newest configuration that any node has applied.
func (w *world) voters() []uint64 {
	if w.inside.voters != nil {
		return w.inside.voters
	}
	var ids []uint64
	for _, p := range w.peers {
		ids = append(ids, p.ID)
	}
	return ids
}

// spare reports whether one more machine may be lost for good: a majority of the
// newest voters has to be left that know on disk who the voters are. Raft counts
// votes by what a node knows to be committed; until then it is the voters of
// before that count, and perhaps none of those may be lost. So an operator looks
// at what the members say before taking a machine away.
func (w *world) spare(victim *machine) bool {
	voters := w.voters()
	lost, know := 0, 0
	for _, id := range voters {
		switch m := w.machine(id); {
		case m.lost():
			lost++
		case m != victim && m.disk.state().GetCommit() >= max(1, w.inside.changeAt):
			know++
		}
	}
	if w.removedAt > 0 && w.now < w.removedAt+5*time.Second && (lost > 0 || len(voters) < 4) {
		return false // one of these may be gone in a moment
	}
	return know >= len(voters)/2+1
}

// pick chooses one by a random number; the zero value if there is none.
func pick[T any](from []T, n uint64) (t T) {
	if len(from) == 0 {
		return t
	}
	return from[n%uint64(len(from))]
}

// running are the machines whose process lives, by id.
func (w *world) running() []*machine {
	return slices.DeleteFunc(slices.Clone(w.machines), func(m *machine) bool { return m.process == nil })
}
