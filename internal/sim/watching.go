package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/raft-chat/raft-chat/raftnode"
)

const (
	reserve = 1 << 30 // bytes that have to be free on a disk
	plenty  = 4 * reserve
	// forgotten is when the last word of a member about its disk counts no more.
	forgotten = 5 * electionTimeout
)

// sighting is a member's last report.
type sighting struct {
	at    time.Duration
	asked time.Duration
	low   bool
}

// look is a round of Node's watchLoop: a look at the disk, and a question to every
// member that was met.
func (p *process) look() {
	m, w := p.machine, p.machine.world
	p.watch.Round(m.free, reserve)
	for _, x := range p.replica.Members() {
		if x.ID != m.id {
			p.ask(x.ID)
		}
	}
	p.after(raftnode.WatchInterval(electionTimeout), p.look)
	p.judged = slices.Clone(p.replica.Voters())
	w.inside.lowHere(p)
}

func (p *process) ask(id uint64) {
	m, w := p.machine, p.machine.world
	o := w.machine(id)
	if o == nil || o.process == nil || !p.greeted[o.process] || w.lost() {
		return
	}
	q, asked, before, state := o.process, w.now, m.wall(), p.watch.Asks()
	w.after(w.delay(), func() {
		if q.dead || q.paused || !w.links.open(m.id, id) || !w.links.open(id, m.id) {
			return
		}
		report := q.watch.Report(o.wall(), state)
		low := slices.ContainsFunc(report.Disks, func(d raftnode.DiskReport) bool { return d.ID == id && d.Low })
		w.after(w.delay(), func() {
			p.run(func() {
				p.watch.Hear(id, report, before, m.wall())
				p.heard[id] = sighting{w.now, asked, low}
			})
		})
	})
}

// refusePosts answers what waits for the log.
func (p *process) refusePosts(err error) {
	posts := p.posts
	p.posts = nil
	var e *raftnode.Error
	for _, a := range posts {
		a.answer(p, nil, err)
		switch {
		case !errors.As(err, &e):
		case e.Code == raftnode.CodeStorageLow:
			p.machine.world.counts.Low++
		case e.Code == raftnode.CodeClockSkew:
			p.machine.world.counts.Skewed++
		}
	}
}

func (p *process) steppedAside(err error) {
	if err == nil {
		p.machine.world.counts.Aside++
		p.machine.world.tell("node %d gives the leadership away for its clock", p.machine.id)
	}
}

// plannedStop stops the leader once it has handed over.
func (w *world) plannedStop(d time.Duration) bool {
	l := w.leader()
	if l == nil || l.paused || len(l.replica.Voters()) == 1 {
		return false
	}
	l.run(func() {
		l.replica.HandOver(func(err error) {
			if err == nil {
				w.counts.HandedOver++
			}
			w.after(0, func() {
				if !l.dead {
					w.crashFor(d, l.machine)
				}
			})
		})
	})
	return true
}

// lowLost is how much longer the cluster may take no messages after the faults,
// because the last that was heard of a member which is gone is a low disk.
func (w *world) lowLost() time.Duration {
	for _, m := range w.machines {
		if m.process == nil || m.lost() {
			for _, o := range w.running() {
				if o.process.heard[m.id].low {
					return forgotten
				}
			}
		}
	}
	return 0
}

// lowHere checks that a node which has just seen that its disk is nearly full
// refuses messages.
func (v *invariants) lowHere(p *process) {
	if p.machine.free < reserve && p.watch.Refusal() == nil {
		v.violate("reserve", "node %d takes messages although its disk is nearly full", p.machine.id)
	}
}

// proposing judges a node that takes a message.
func (v *invariants) proposing(p *process) {
	w, voters := v.world, p.replica.Voters()
	var skews []time.Duration
	var within time.Duration // what lies within a question and its answer does not count
	for _, id := range voters {
		m := w.machine(id)
		if id == p.machine.id {
			skews = append(skews, m.skew())
			continue
		}
		s, heard := p.heard[id]
		recent := heard && s.at+electionTimeout > w.now
		if recent && s.low && slices.Contains(p.judged, id) {
			v.violate("reserve", "node %d takes a message, although it knows that the disk of node %d is nearly full", p.machine.id, id)
		}
		if recent && p.greeted[m.process] {
			skews = append(skews, m.skew())
			within = max(within, s.at-s.asked)
		}
	}
	if len(skews) < len(voters) || !slices.Equal(voters, p.judged) || w.steppedAt > 0 && w.now < w.steppedAt+forgotten {
		return // who was not heard of may count as before
	}
	slices.Sort(skews)
	ahead := p.machine.skew() - skews[(len(skews)-1)/2]
	if ahead.Abs() > electionTimeout+within {
		v.violate("clock", "node %d takes a message, although its clock is %v ahead of the voters'", p.machine.id, ahead)
	}
}
