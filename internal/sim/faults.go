package sim

import (
	"slices"
	"time"

	"github.com/raft-chat/raft-chat/raftnode"
)

// Kind is a kind of fault.
type Kind string

// The kinds of fault. A and B choose nodes and numbers.
const (
	Crash         Kind = "crash"            // a node loses power and comes back after the duration
	CrashLeader   Kind = "crash leader"     // the same for the leader
	CrashMajority Kind = "crash majority"   // more than half of the voters at once
	CrashAll      Kind = "crash all"        // every node at once
	CrashAtWrite  Kind = "crash at a write" // the Bth write or sync from now is never done, B up to 120
	// CrashInCompaction: the Bth write or sync of the next flush of the store and
	// mark in the log is never done, B up to 40.
	CrashInCompaction Kind = "crash in compaction"
	Pause             Kind = "pause"        // a node stands still, as with SIGSTOP
	Cut               Kind = "cut"          // a node is cut off in both directions
	CutOneWay         Kind = "cut one way"  // nothing a node sends arrives, or nothing reaches it
	CutPair           Kind = "cut pair"     // two nodes do not reach each other; others bridge them
	Split             Kind = "split"        // two halves
	Flap              Kind = "flap"         // a node is cut off and back, many times
	Swizzle           Kind = "swizzle-clog" // nodes are cut off one after the other, and come back in another order
	Loss              Kind = "loss"         // up to 40 % of all messages between nodes are lost
	SlowDisk          Kind = "slow disk"    // each sync of a node takes up to a second more
	DiskError         Kind = "disk error"   // the next write or sync of a node fails
	DiskFull          Kind = "disk full"    // all writes of a node fail
	LowDisk           Kind = "low disk"     // the free space of a node is below its reserve
	Transfer          Kind = "transfer"     // the leadership is handed over
	PlannedStop       Kind = "planned stop" // the leader hands over and stops, and comes back after the duration
	AddNode           Kind = "add node"     // up to 5 members
	RemoveNode        Kind = "remove node"  // down to 3
	Rot               Kind = "rot"          // a record in the middle of a minority's log is damaged
	Truncate          Kind = "truncate"     // a minority's log loses its synced end
	OldStore          Kind = "old store"    // a minority's store is replaced by nothing
	Wipe              Kind = "wipe"         // a minority's directory is lost and made anew
	OldCopy           Kind = "old copy"     // a minority's directory is put back to how it was at a power cut
	Twin              Kind = "twin"         // a second process runs on such a copy beside the first
	Differ            Kind = "differ"       // a node applies an entry otherwise than the others
	ClockStep         Kind = "clock step"   // a wall clock jumps by up to ten seconds, until the end
)

// Kinds lists all of them.
func Kinds() []Kind {
	return []Kind{Crash, CrashLeader, CrashMajority, CrashAll, CrashAtWrite, CrashInCompaction, Pause, Cut, CutOneWay, CutPair, Split, Flap, Swizzle, Loss,
		SlowDisk, DiskError, DiskFull, LowDisk, Transfer, PlannedStop, AddNode, RemoveNode, Rot, Truncate, OldStore, Wipe, OldCopy, Twin, Differ, ClockStep}
}

// inject lets a fault happen, if it can happen now.
func (w *world) inject(f Fault) {
	victim := pick(w.running(), f.A)
	if f.Kind == CrashLeader {
		if l := w.leader(); l != nil {
			victim = l.machine
		}
	}
	if f.Kind == OldCopy || f.Kind == Twin {
		victim = pick(w.copiedMachines(), f.A)
	}
	if victim == nil && f.Kind != CrashAll {
		return
	}
	w.trace.note(traceFault, w.now, f.A, []uint64{f.B}, []byte(f.Kind))
	happened := true
	undo := func() {}
	switch f.Kind {
	case Crash, CrashLeader:
		w.crashFor(f.Duration, victim)
	case CrashMajority:
		var some []*machine
		for _, id := range w.voters()[:len(w.voters())/2+1] {
			some = append(some, w.machine(id))
		}
		w.crashFor(f.Duration, some...)
	case CrashAll:
		w.crashFor(f.Duration, w.machines...)
	case CrashAtWrite:
		victim.armCrash(1+int(f.B%120), w.drawCrash())
	case CrashInCompaction:
		victim.crashInCompaction = 1 + int(f.B%40)
	case Pause:
		undo = w.pause(victim)
	case Cut:
		undo = w.cutOff(victim, true, true)
	case CutOneWay:
		undo = w.cutOff(victim, f.B%2 == 0, f.B%2 == 1)
	case CutPair:
		other := pick(w.machines, f.B)
		undo = w.cut([][2]uint64{{victim.id, other.id}, {other.id, victim.id}})
	case Split:
		undo = w.split(f.B)
	case Flap:
		w.flap(victim, w.now+f.Duration)
	case Swizzle:
		w.swizzle(f.Duration)
	case Loss:
		by := 0.4 * float64(f.B%1000) / 1000
		w.links.drop += by
		undo = func() { w.links.drop -= by }
	case SlowDisk:
		by := time.Duration(f.B % uint64(time.Second))
		victim.slow += by
		undo = func() { victim.slow -= by }
	case DiskError:
		victim.failWrites = true
	case DiskFull:
		victim.full = true
		undo = func() { victim.full = false }
	case LowDisk:
		victim.free = reserve / 2
		undo = func() { victim.free = plenty }
	case PlannedStop:
		happened = w.plannedStop(f.Duration)
	case Transfer:
		happened = w.transfer(f.B)
	case AddNode:
		happened = w.addNode()
	case RemoveNode:
		happened = w.removeNode(victim)
	case Rot, Truncate, OldStore, Wipe, OldCopy, Differ:
		happened = w.damage(f, victim)
	case Twin:
		happened = w.runTwin(victim, f.B)
	case ClockStep:
		w.steppedAt = w.now
		victim.stepped += time.Duration(f.B%uint64(20*time.Second)) - 10*time.Second
	}
	if !happened {
		return
	}
	w.counts.Faults[f.Kind]++
	w.tell("FAULT %s: node %d (%v)", f.Kind, victim.number(), f.Duration.Round(time.Millisecond))
	w.undo(f.Duration, undo)
}

func (m *machine) number() uint64 {
	if m == nil {
		return 0
	}
	return m.id
}

// undo ends a fault after a time, and at the end of all faults at the latest.
func (w *world) undo(after time.Duration, undo func()) {
	over := false
	once := func() {
		if !over {
			over = true
			undo()
		}
	}
	w.after(min(after, max(w.plan.Horizon-w.now, 0)), once)
}

func (w *world) crashFor(d time.Duration, machines ...*machine) {
	for _, m := range machines {
		switch {
		case m.newcomer != nil:
			m.newcomer.crash("while founding")
		case m.process != nil:
			m.crash("")
		default:
			continue
		}
		w.undo(d, m.start)
	}
}

func (w *world) pause(m *machine) (undo func()) {
	p := m.process
	p.paused = true
	return func() {
		if !p.dead && p.paused {
			p.resume()
		}
	}
}

// cut cuts links, from and to.
func (w *world) cut(pairs [][2]uint64) (undo func()) {
	for _, c := range pairs {
		w.links.change(c[0], c[1], 1)
	}
	return func() {
		for _, c := range pairs {
			w.links.change(c[0], c[1], -1)
		}
	}
}

func (w *world) cutOff(m *machine, out, in bool) (undo func()) {
	var pairs [][2]uint64
	for _, o := range w.machines {
		if o == m {
			continue
		}
		if out {
			pairs = append(pairs, [2]uint64{m.id, o.id})
		}
		if in {
			pairs = append(pairs, [2]uint64{o.id, m.id})
		}
	}
	return w.cut(pairs)
}

// split cuts all links between those whose bit is set and those whose is not.
func (w *world) split(bits uint64) (undo func()) {
	var pairs [][2]uint64
	for _, a := range w.machines {
		for _, b := range w.machines {
			if bits>>a.id&1 != bits>>b.id&1 {
				pairs = append(pairs, [2]uint64{a.id, b.id})
			}
		}
	}
	return w.cut(pairs)
}

func (w *world) flap(m *machine, end time.Duration) {
	if w.now >= min(end, w.plan.Horizon) {
		return
	}
	undo := w.cutOff(m, true, true)
	w.undo(w.between(20*time.Millisecond, 400*time.Millisecond), func() {
		undo()
		w.after(w.between(20*time.Millisecond, 400*time.Millisecond), func() { w.flap(m, end) })
	})
}

// swizzle cuts nodes off one by one, and lets them back one by one in another
// order.
func (w *world) swizzle(d time.Duration) {
	order := slices.Clone(w.machines)
	w.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, m := range order {
		w.after(w.between(0, d/2), func() {
			if w.now >= w.plan.Horizon {
				return
			}
			w.undo(w.between(d/4, d), w.cutOff(m, true, true))
		})
	}
}

func (w *world) transfer(to uint64) bool {
	l := w.leader()
	if l == nil || l.paused {
		return false
	}
	l.run(func() { l.replica.TransferLeadership(pick(l.replica.Voters(), to), func(error) {}) })
	return true
}

// addNode asks the leader to add a member, which starts at once.
func (w *world) addNode() bool {
	l := w.leader()
	if l == nil || l.paused || len(l.replica.Members()) >= 5 || w.oldRuns() {
		return false
	}
	m := w.newMachine(true)
	l.run(func() { l.replica.ChangeMembership(raftnode.AddMember, m.id, m.url, func(error) {}) })
	w.after(w.between(0, time.Second), m.start)
	return true
}

func (w *world) removeNode(m *machine) bool {
	l := w.leader()
	if l == nil || l.paused || len(l.replica.Voters()) <= 3 || l.machine == m {
		return false
	}
	for _, id := range l.replica.Voters() {
		if w.machine(id).lost() || w.machine(id).process == nil {
			return false // an operator looks first
		}
	}
	w.removedAt = w.now
	l.run(func() { l.replica.ChangeMembership(raftnode.RemoveMember, m.id, "", func(error) {}) })
	return true
}

// damage takes a node down, damages its directory and starts it again: it must
// be refused, at its start or by the others.
func (w *world) damage(f Fault, m *machine) bool {
	p := m.process
	l := w.leader()
	if l == nil || p.dead || len(w.voters()) < 3 || !slices.Contains(w.voters(), m.id) || !w.spare(m) {
		return false
	}
	if f.Kind == Wipe && !w.known(m) {
		return false
	}
	if f.Kind == Differ {
		if m == l.machine || m.lost() {
			return false
		}
		m.differs.wanted, m.differed = true, true
		return true
	}
	var from *copied
	if f.Kind == OldCopy {
		if from = w.noticeable(m, f.B); from == nil {
			return false
		}
	}
	m.crash("")
	switch f.Kind {
	case Rot:
		m.damaged = m.disk.rot(f.B)
	case Truncate:
		m.damaged = m.disk.truncate(f.B)
	case OldStore:
		m.damaged = m.loseStore()
	case Wipe:
		m.wiped = true
		m.format()
	case OldCopy:
		m.putBack(from)
		m.old = true
	}
	w.tell("node %d: %s %s", m.id, f.Kind, m.damaged)
	w.undo(min(f.Duration, time.Second), m.start)
	return m.damaged != "" || m.wiped || m.old
}

// known reports whether every other node that may meet the machine knows its
// directory.
func (w *world) known(m *machine) bool {
	for _, o := range w.machines {
		if o == m || o.fate != alive {
			continue
		}
		if o.process == nil {
			return false
		}
		i := slices.IndexFunc(o.process.replica.Members(), func(x raftnode.Member) bool { return x.ID == m.id })
		if i < 0 || o.process.replica.Members()[i].Incarnation != m.incarnation {
			return false
		}
	}
	return true
}
