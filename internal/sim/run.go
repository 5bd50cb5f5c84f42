package sim

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/raftnode"
)

const (
	// livenessLimit is in which time after the last fault a healthy majority
	// has to acknowledge something new.
	livenessLimit = 5 * electionTimeout
	// settleLimit bounds what comes after it: every node catches up, every
	// client finishes. It is no promise, only an end.
	settleLimit = 120 * time.Second
)

// Result is what became of a run.
type Result struct {
	Seed       uint64
	Violations []oracle.Violation
	Hash       uint64 // of the trace
	Counts     Counts
	// Progress is how long after the last fault the first new message was
	// acknowledged.
	Progress time.Duration
	Story    []string // if it was asked for
}

// Counts says how much happened.
type Counts struct {
	Faults                                                                map[Kind]int
	Posts, Acknowledged, Repeats, Reads, Delivered, Gaps, Trims, Messages int
	Crashes, Starts, Snapshots, Refusals, Replaced                        int
	// Low and Skewed are posts that were refused because of a disk or a clock,
	// Aside and HandedOver leaders that gave the leadership away for their clock
	// or before they stopped.
	Low, Skewed, Aside, HandedOver int
	Agreed, Outliers               int // comparisons of states
}

// Add sums up.
func (c *Counts) Add(o Counts) {
	if c.Faults == nil {
		c.Faults = map[Kind]int{}
	}
	for k, n := range o.Faults {
		c.Faults[k] += n
	}
	c.Posts += o.Posts
	c.Acknowledged += o.Acknowledged
	c.Repeats += o.Repeats
	c.Reads += o.Reads
	c.Delivered += o.Delivered
	c.Trims += o.Trims
	c.Gaps += o.Gaps
	c.Messages += o.Messages
	c.Crashes += o.Crashes
	c.Starts += o.Starts
	c.Snapshots += o.Snapshots
	c.Refusals += o.Refusals
	c.Replaced += o.Replaced
	c.Low += o.Low
	c.Skewed += o.Skewed
	c.Aside += o.Aside
	c.HandedOver += o.HandedOver
	c.Agreed += o.Agreed
	c.Outliers += o.Outliers
}

// seeded is crypto/rand.Reader of a run.
type seeded struct{ *rand.ChaCha8 }

// Run carries a plan out. tell asks for the story.
func Run(plan Plan, tell bool) (result Result) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], plan.Seed)
	before := crand.Reader
	crand.Reader = seeded{rand.NewChaCha8(key)}
	defer func() { crand.Reader = before }()

	w := &world{plan: plan, random: rand.New(rand.NewPCG(plan.Seed, 0x72756e)), trace: trace{digest: xxhash.New()}}
	w.counts.Faults = map[Kind]int{}
	if tell {
		w.story = &story{}
	}
	w.history = oracle.NewHistory(func() int64 { return int64(w.now) })
	w.inside = newInvariants(w)
	defer func() {
		for _, m := range w.machines {
			if m.process != nil {
				m.process.close()
			}
			if m.twin != nil && m.twin.process != nil {
				m.twin.process.close()
			}
		}
		result.Hash, result.Seed, result.Counts, result.Progress = w.trace.digest.Sum64(), plan.Seed, w.counts, w.progress
		if w.story != nil {
			result.Story = w.story.lines
		}
	}()
	if stack := w.play(); stack != "" {
		w.inside.violate("panic", "%s", stack)
	}
	if w.inside.broken() {
		result.Violations = w.inside.found
		return result
	}
	result.Violations = w.judge()
	return result
}

// play lets everything happen; it returns what panicked.
func (w *world) play() (panicked string) {
	defer func() {
		if r := recover(); r != nil {
			stack := strings.Split(string(debug.Stack()), "\n")
			panicked = fmt.Sprintf("%v\n%s", r, strings.Join(stack[:min(len(stack), 40)], "\n"))
		}
	}()
	var err error
	if w.otherPost, err = otherPost(); err != nil {
		w.inside.violate("harness", "encode: %v", err)
	}
	never := func() bool { return false }
	for i := range w.plan.Nodes {
		w.peers = append(w.peers, raftnode.Peer{ID: uint64(i + 1), URL: fmt.Sprintf("http://node-%d:1", i+1)})
	}
	for range w.peers {
		m := w.newMachine(false)
		w.after(w.between(0, 200*time.Millisecond), m.start)
	}
	w.beginClients()
	for _, f := range w.plan.Faults {
		w.after(f.At, func() { w.inject(f) })
	}
	w.after(time.Second, w.replace)
	w.runUntil(w.plan.Horizon, never)

	// Faults are undone by now; whoever is down comes back, but a minority that
	// is lost for good.
	w.heal()
	limit := livenessLimit + w.lowLost()
	w.runUntil(w.plan.Horizon+limit, func() bool { return w.progressed })
	if w.inside.broken() {
		return ""
	}
	w.inside.live(limit)
	w.finished = true
	w.runUntil(w.now+settleLimit, w.settled)
	if !w.inside.broken() && !w.settled() {
		w.inside.violate("liveness", "the cluster does not settle: %s", w.unsettled())
	}
	return ""
}

func (w *world) beginClients() {
	c := w.plan.Clients
	for i := range c.Writers {
		x := &writer{world: w, name: fmt.Sprint("writer-", i), busy: true}
		w.writers = append(w.writers, x)
		w.after(w.between(0, time.Second), x.next)
	}
	for range c.Readers {
		x := &reader{world: w, busy: true}
		w.readers = append(w.readers, x)
		w.after(w.between(0, time.Second), x.next)
	}
	for i := range c.Followers {
		f := w.newFollower(i)
		w.followers = append(w.followers, f)
		w.after(w.between(0, time.Second), f.look)
	}
	w.after(trimEvery, w.trimmer)
}

func (w *world) heal() {
	w.tell("the faults are over")
	w.healed = true
	w.links = links{}
	w.plan.Network.Drop, w.plan.Network.Duplicate, w.plan.Network.Late = 0, 0, 0
	for _, m := range w.machines {
		m.slow, m.full, m.failWrites, m.free = 0, false, false, plenty
		// Of three clocks that are all apart only the middle one is right, and
		// whoever has it may be gone.
		m.stepped = 0
		m.crashAt, m.crashInCompaction = 0, 0
		if m.process != nil && m.process.paused {
			m.process.resume()
		}
		m.start()
	}
}

// settled reports whether every client is done and every node holds the same.
func (w *world) settled() bool { return w.unsettled() == "" }

func (w *world) unsettled() string {
	for _, x := range w.writers {
		if x.busy {
			return x.name + " waits for an answer"
		}
	}
	for _, x := range w.readers {
		if x.busy {
			return "a reader waits for an answer"
		}
	}
	var first *process
	for _, m := range w.machines {
		p := m.process
		if m.differs.wanted && m.fate == alive {
			return fmt.Sprintf("node %d goes on with another state", m.id)
		}
		if m.old && m.fate == alive || m.twin != nil {
			return fmt.Sprintf("node %d runs on an older copy of its directory", m.id)
		}
		switch {
		case m.fate == removed || m.fate == refused && !slices.Contains(w.voters(), m.id):
			continue
		case p == nil:
			if !slices.Contains(w.members(), m.id) {
				continue
			}
			return fmt.Sprintf("node %d is down: %s", m.id, m.fate)
		case len(p.replica.Members()) == 0 && !slices.Contains(w.members(), m.id):
			continue // the change that was to add it was lost
		case !slices.Contains(w.members(), m.id):
			return fmt.Sprintf("node %d is not in the cluster", m.id)
		case first == nil:
			first = p
		}
		a, _ := p.store.Applied()
		b, _ := first.store.Applied()
		if a != b || len(p.replica.ReadyToPromote()) > 0 {
			return fmt.Sprintf("node %d has applied %d, node %d %d", m.id, a, first.machine.id, b)
		}
	}
	head := uint64(0)
	if first != nil {
		head = first.service.Head()
	}
	for _, f := range w.followers {
		if f.rooms == nil && f.cursor != head {
			return fmt.Sprintf("%s is at ID %d of %d", f.name, f.cursor, head)
		}
		if f.stream == nil || f.process.dead {
			return f.name + " is not connected"
		}
		select {
		case <-f.stream.Wake():
			f.read()
		default:
		}
	}
	return ""
}

// members are the ids of the newest member records that a running node has.
func (w *world) members() (ids []uint64) {
	var newest uint64
	for _, m := range w.running() {
		if at, _ := m.process.store.Applied(); at > newest {
			newest, ids = at, nil
			for _, x := range m.process.replica.Members() {
				ids = append(ids, x.ID)
			}
		}
	}
	return ids
}

// judge compares what the nodes hold with what the clients saw.
func (w *world) judge() []oracle.Violation {
	for _, m := range w.running() {
		if len(m.process.replica.Members()) == 0 {
			continue
		}
		r, err := m.process.content()
		if err != nil {
			w.inside.violate("harness", "read node %d: %v", m.id, err)
			return w.inside.found
		}
		w.history.Replica(r)
	}
	w.inside.equalStores(w.running())
	if w.inside.broken() {
		return w.inside.found
	}
	w.counts.Reads = w.history.Counts().Reads
	return w.history.Check()
}
