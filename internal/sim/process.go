package sim

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/raftnode"
)

// process is a running node: what raftnode.Node does on its goroutines, step by
// step.
type process struct {
	machine *machine
	replica *raftnode.Replica
	store   *chat.Store
	service *chat.Service
	watch   *raftnode.Watching
	heard   map[uint64]sighting // by member: its last report; the judge's
	judged  []uint64            // the voters of the last round

	appends   []*raftpb.Message
	batch     []*raftpb.Message // being written
	appending bool
	applies   []*raftpb.Message
	applying  bool
	compact   bool // one is under way
	sending   int  // snapshots

	posts []*attempt // that wait for the log

	met     map[uint64]raftnode.Incarnation // members that said hello
	greeted map[*process]bool               // both have accepted the other

	paused bool
	held   []func() // what came while it was paused
	dead   bool     // ended: nothing of it happens any more
}

const superviseInterval = 500 * time.Millisecond

// begin sets the process going.
func (p *process) begin() {
	w := p.machine.world
	// No two clocks tick alike.
	interval := w.between(tickInterval*95/100, tickInterval*105/100)
	var tick, supervise func()
	tick = func() {
		p.replica.Tick()
		p.after(interval, tick)
	}
	supervise = func() {
		p.supervise()
		p.after(superviseInterval, supervise)
	}
	p.after(w.between(0, interval), tick)
	p.after(w.between(0, superviseInterval), supervise)
	p.look()
	p.pump()
}

// after lets the process do something when d has passed, if it lives then.
func (p *process) after(d time.Duration, do func()) {
	p.machine.world.after(d, func() { p.run(do) })
}

// run lets the process do something now, or when it is no longer paused.
func (p *process) run(do func()) {
	switch {
	case p.dead:
	case p.paused:
		p.held = append(p.held, do)
	default:
		do()
		p.pump()
		if p.machine.crashed != nil && p.machine.process == p {
			p.machine.crash("at a write or sync")
			w := p.machine.world
			w.after(w.between(200*time.Millisecond, 4*time.Second), p.machine.start)
		}
	}
}

func (p *process) resume() {
	p.paused = false
	held := p.held
	p.held = nil
	for _, do := range held {
		p.run(do)
	}
}

// close frees what the process holds. It writes nothing that counts.
func (p *process) close() {
	p.dead = true
	if p.service != nil {
		p.service.Close()
	}
	if p.store != nil {
		_ = p.store.Close() // its file system was left behind
	}
}

// fail ends the process because it cannot go on.
func (p *process) fail(err error) {
	m := p.machine
	if p.dead {
		return // it had crashed before
	}
	w := m.world
	expected := errors.Is(err, errDisk) || errors.Is(err, errFull)
	var identity *raftnode.IdentityError
	switch {
	case expected:
		w.tell("node %d stops: %v", m.id, err)
		m.crash("after a failed write")
		w.after(w.between(500*time.Millisecond, 3*time.Second), m.start)
	case errors.Is(err, raftnode.ErrRemoved), errors.As(err, &identity):
		m.crash("because it is not wanted")
		m.refuse(err)
	default:
		w.inside.violate("failure", "node %d stops: %v", m.id, err)
	}
}

// pump does what the core wants done until it wants nothing.
func (p *process) pump() {
	for !p.dead {
		p.propose()
		work, any := p.replica.Ready()
		if !any {
			break
		}
		for _, m := range work.Send {
			p.machine.world.send(p, m)
		}
		if work.Append != nil {
			p.appends = append(p.appends, work.Append)
		}
		if work.Apply != nil {
			p.applies = append(p.applies, work.Apply)
		}
		for _, m := range work.Snapshots {
			p.sendSnapshot(m)
		}
	}
	if p.dead {
		return
	}
	p.machine.world.inside.observe(p)
	if !p.appending && len(p.appends) > 0 {
		p.batch, p.appends, p.appending = p.appends, nil, true
		p.after(p.machine.syncTime(), p.finishAppend)
	}
	if !p.applying && len(p.applies) > 0 {
		p.applying = true
		p.after(p.machine.world.between(0, 2*time.Millisecond), p.finishApply)
	}
}

// syncTime is how long the next sync takes.
func (m *machine) syncTime() time.Duration {
	return m.world.between(50*time.Microsecond, 4*time.Millisecond) + m.slow
}

func (p *process) finishAppend() {
	for _, m := range p.batch {
		if m.GetSnapshot() != nil {
			p.applyAll() // what was to be applied before the store is replaced
			break
		}
	}
	if p.dead {
		return
	}
	batch := p.batch
	responses, err := p.replica.Append(batch...)
	if p.dead {
		return
	}
	p.batch, p.appending = nil, false
	if err != nil {
		p.fail(err)
		return
	}
	if len(p.appends) == 0 {
		p.machine.world.inside.written(p)
	}
	p.deliver(responses)
	if !p.compact && p.replica.CompactionDue() {
		p.compact = true
		p.after(p.machine.syncTime(), func() {
			p.compact = false
			if n := p.machine.crashInCompaction; n > 0 {
				p.machine.armCrash(n, p.machine.world.drawCrash())
			}
			if err := p.replica.Compact(p.sending > 0); err != nil {
				p.fail(err)
			}
		})
	}
}

func (p *process) finishApply() {
	p.applying = false
	p.applyAll()
}

func (p *process) applyAll() {
	batch := p.applies
	p.applies = nil
	if len(batch) == 0 {
		return
	}
	w := p.machine.world
	w.inside.applying(p, batch)
	responses, err := p.replica.Apply(batch...)
	if p.dead {
		return
	}
	if err != nil {
		p.fail(err)
		return
	}
	index, hash := p.store.StateHash()
	w.trace.note(traceApply, w.now, p.machine.id, []uint64{index, hash}, nil)
	if !p.machine.differs.wanted {
		w.history.StateAt(p.machine.name(), index, hash)
	}
	w.inside.applied(p)
	p.deliver(responses)
}

func (p *process) deliver(responses []*raftpb.Message) {
	for _, r := range responses {
		if r.GetTo() == p.machine.id {
			p.replica.Step(r)
		} else {
			p.machine.world.send(p, r)
		}
	}
}

// supervise is Node's superviseLoop.
func (p *process) supervise() {
	p.replica.Register(func(error) {})
	if p.greet(); p.dead {
		return
	}
	if p.replica.Status().Role != "leader" {
		return
	}
	p.adopt()
	if p.watch.StepAside(p.steppedAside) {
		return
	}
	for _, id := range p.replica.ReadyToPromote() {
		p.replica.ChangeMembership(raftnode.PromoteMember, id, "", func(error) {})
	}
}

// propose hands posts that wait to the log: all of them as one entry, as chat's
// batcher does.
func (p *process) propose() {
	if err := p.watch.Refusal(); err != nil && len(p.posts) > 0 {
		p.refusePosts(err)
	}
	for len(p.posts) > 0 && !p.dead && p.replica.Accepting() {
		joined := p.posts[:min(len(p.posts), 16)]
		p.posts = slices.Clone(p.posts[len(joined):])
		if joined[0].trim != nil {
			p.posts = append(slices.Clone(joined[1:]), p.posts...)
			joined = joined[:1]
		} else if n := slices.IndexFunc(joined, func(a *attempt) bool { return a.trim != nil }); n > 0 {
			p.posts = append(slices.Clone(joined[n:]), p.posts...)
			joined = joined[:n]
		}
		p.machine.world.inside.proposing(p)
		data, err := encode(p.machine.wall(), joined)
		if err != nil {
			p.machine.world.inside.violate("harness", "encode: %v", err)
			return
		}
		p.replica.Propose(data, func(result any, err error) {
			if p.dead || p.machine.differs.wanted {
				return // it crashed before it could answer, or nobody shall see
			}
			outcomes := chat.DecodePosts(result)
			for i, a := range joined {
				if err != nil {
					a.answer(p, nil, err)
				} else if a.trim == nil {
					a.answer(p, outcomes[i].Message, outcomes[i].Err)
				}
			}
		})
	}
}

// read answers a linearizable read of the newest messages of a room.
func (p *process) read(room string, answer func(page []*chat.Message, err error)) {
	p.replica.Read(func(err error) {
		if p.dead || p.machine.differs.wanted {
			return
		}
		var page chat.MessagePage
		if err == nil {
			page, err = p.service.Messages(context.Background(), chat.Actor{}, room, chat.Page{Limit: 20, Stale: true})
		}
		answer(page.Messages, err)
	})
}

// wall is what the machine's clock says.
func (m *machine) wall() time.Time {
	return epoch.Add(m.world.now + m.skew())
}
