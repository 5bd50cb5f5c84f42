package sim

import (
	"bytes"
	"errors"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/raftnode"
)

// links says which messages between nodes arrive.
type links struct {
	cut  map[[2]uint64]int // from, to: how many faults cut it
	drop float64           // on top of the plan's
}

func (l *links) change(from, to uint64, by int) {
	if l.cut == nil {
		l.cut = map[[2]uint64]int{}
	}
	l.cut[[2]uint64{from, to}] += by
}

func (l *links) open(from, to uint64) bool { return l.cut[[2]uint64{from, to}] <= 0 }

// delay is how long the next message takes.
func (w *world) delay() time.Duration {
	d := w.plan.Network.Delay + w.between(0, w.plan.Network.Jitter)
	if w.chance(w.plan.Network.Late) {
		d += w.between(0, time.Second)
	}
	return d
}

func (w *world) lost() bool {
	return w.chance(w.plan.Network.Drop + w.links.drop)
}

// send brings a raft message to its receiver, perhaps, once or twice.
func (w *world) send(from *process, m *raftpb.Message) {
	w.inside.sending(from, m)
	b, err := proto.Marshal(m)
	if err != nil {
		w.inside.violate("harness", "marshal: %v", err)
		return
	}
	w.counts.Messages++
	w.trace.note(traceMessage, w.now, from.machine.id, nil, b)
	to := m.GetTo()
	if !w.links.open(from.machine.id, to) || w.lost() {
		if w.chance(0.1) { // a transport notices some of it
			from.after(w.delay(), func() { from.replica.ReportUnreachable(to) })
		}
		return
	}
	copies := 1
	if w.chance(w.plan.Network.Duplicate) {
		copies = 2
	}
	for range copies {
		w.after(w.delay(), func() {
			p := w.receiver(from, to)
			if p == nil {
				return
			}
			m := &raftpb.Message{}
			if err := proto.Unmarshal(b, m); err != nil {
				w.inside.violate("harness", "unmarshal: %v", err)
				return
			}
			p.run(func() {
				p.replica.Step(m)
				if dropped := p.replica.Dropped(); len(dropped) > 0 {
					w.inside.violate("dropped", "node %d takes a message of node %d for impossible: %v: %v", to, from.machine.id, dropped, m)
				}
			})
		})
	}
}

// receiver is the process that takes messages for an id from another one, if
// both know each other and the link is open.
func (w *world) receiver(from *process, to uint64) *process {
	m := w.machine(to)
	if m == nil || from.dead {
		return nil
	}
	p := m.process
	if p == nil || !from.greeted[p] { // there is no connection yet
		p = w.holder(to).process
	}
	if p == nil || p.dead || !w.links.open(from.machine.id, to) || !w.acquainted(from, p) {
		return nil
	}
	if p.replica.Removed(from.machine.id) {
		from.fail(raftnode.ErrRemoved)
		return nil
	}
	return p
}

// acquainted is the hello of raftnode/hello.go: no raft message passes before
// each has accepted the other's directory.
func (w *world) acquainted(a, b *process) bool {
	switch {
	case a.greeted[b]:
		return true
	case a.dead || b.dead || a.paused || b.paused || !w.links.open(a.machine.id, b.machine.id) || !w.links.open(b.machine.id, a.machine.id):
		return false
	}
	// Whoever does not hold its own address is greeted by nobody.
	if !hello(a, b) || w.holder(a.machine.id).process != a || !hello(b, a) {
		return false
	}
	a.greeted[b], b.greeted[a] = true, true
	a.watch.Compare(b.machine.id, a.machine.wall(), b.machine.wall(), a.machine.wall())
	b.watch.Compare(a.machine.id, b.machine.wall(), a.machine.wall(), b.machine.wall())
	return true
}

// hello asks b to accept a.
func hello(a, b *process) bool {
	m := a.machine
	err := b.replica.Admits(m.id, m.incarnation, b.met[m.id], m.url)
	var identity *raftnode.IdentityError
	if errors.Is(err, raftnode.ErrRemoved) || errors.As(err, &identity) {
		a.fail(err)
		return false
	}
	if err != nil && !vouched(a, b) {
		return false
	}
	if err == nil {
		if err := b.machine.met.Admits(m.id, m.starts); err != nil {
			a.fail(err)
			return false
		}
	}
	// Who is not known, or not at its address, cannot be called back, and is not
	// believed.
	if m.world.holder(m.id).process != a || !b.meets(m) {
		return false
	}
	if err := b.replica.Mistaken(a.replica.Expects(b.machine.id)); err != nil {
		b.fail(err)
		return false
	}
	if err := b.machine.starts.Mistaken(b.machine.id, m.met[b.machine.id]); err != nil {
		b.fail(err)
		return false
	}
	b.met[m.id] = m.incarnation
	return a.meets(b.machine) // what the answer shows
}

// vouched asks those whom b has met about a.
func vouched(a, b *process) bool {
	w := b.machine.world
	for _, m := range w.machines {
		o := m.process
		if o != nil && o != a && !o.dead && !o.paused && b.greeted[o] && w.links.open(b.machine.id, m.id) && w.links.open(m.id, b.machine.id) &&
			o.replica.Vouches(a.machine.id, a.machine.incarnation, a.machine.url) {
			return true
		}
	}
	return false
}

// sendSnapshot streams the store to a member, as raftnode/snapshots.go does.
func (p *process) sendSnapshot(m *raftpb.Message) {
	w, to := p.machine.world, m.GetTo()
	if p.sending >= 2 || p.machine.differs.wanted || !w.links.open(p.machine.id, to) {
		p.replica.ReportSnapshot(to, false)
		return
	}
	var file bytes.Buffer
	m = proto.CloneOf(m)
	if err := p.replica.WriteSnapshot(m, &file); err != nil {
		w.tell("node %d cannot send a snapshot to %d: %v", p.machine.id, to, err)
		p.replica.ReportSnapshot(to, false)
		return
	}
	p.sending++
	w.counts.Snapshots++
	w.tell("node %d sends node %d a snapshot of entry %d", p.machine.id, to, m.GetSnapshot().GetMetadata().GetIndex())
	w.trace.note(traceMessage, w.now, p.machine.id, []uint64{to, m.GetSnapshot().GetMetadata().GetIndex()}, nil)
	content := file.Bytes()
	broken := w.chance(0.1)
	if broken {
		content[w.random.IntN(len(content))] ^= 1 << w.random.IntN(8)
	}
	w.after(w.between(10*time.Millisecond, 1500*time.Millisecond), func() {
		arrived := false
		if !p.dead && !w.lost() {
			if q := w.receiver(p, to); q != nil && !q.paused {
				q.run(func() { arrived = q.takeSnapshot(m, content, broken) })
			}
		}
		p.run(func() {
			p.sending--
			p.replica.ReportSnapshot(to, arrived)
		})
	})
}

// takeSnapshot verifies, stages and takes a snapshot.
func (p *process) takeSnapshot(m *raftpb.Message, content []byte, broken bool) bool {
	w := p.machine.world
	if err := p.replica.CheckSnapshot(m, content); err != nil {
		w.tell("node %d refuses a snapshot: %v", p.machine.id, err)
		if !broken {
			w.inside.violate("snapshot", "node %d refuses a whole snapshot: %v", p.machine.id, err)
		}
		return false
	}
	if broken {
		w.inside.violate("snapshot", "node %d takes a snapshot that was damaged on its way", p.machine.id)
		return false
	}
	p.machine.step()
	if p.dead {
		return false
	}
	p.machine.disk.staged[m.GetSnapshot().GetMetadata().GetIndex()] = content
	p.replica.Step(m)
	return true
}
