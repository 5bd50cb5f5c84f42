package sim

import (
	"fmt"
	"time"

	"github.com/raft-chat/raft-chat/raftnode"
)

// newcomer is a process whose directory belongs to no cluster yet: it drives
// raftnode.Founding as raftnode/foundry.go does.
type newcomer struct {
	machine  *machine
	founding *raftnode.Founding
	began    time.Duration
	claimed  bool // a member of a cluster has answered
	dead     bool
}

const (
	listenFirst   = time.Second
	foundingRound = 100 * time.Millisecond
	askTimeout    = 100 * time.Millisecond // of a round; real ones wait longer
	firstElection = 300 * time.Millisecond // when others have said hello, most likely
)

// origin is the cluster that a directory belongs to.
type origin struct {
	cluster  uint64
	founders []raftnode.Founder // nil for one that joined
}

func (m *machine) self() raftnode.Founder {
	return raftnode.Founder{ID: m.id, Incarnation: m.incarnation}
}

// listen begins the founding.
func (m *machine) listen() {
	w := m.world
	m.newcomer = &newcomer{machine: m, began: w.now, founding: raftnode.NewFounding(raftnode.FoundingConfig{
		Self: m.self(), List: w.peers, Vote: m.vote, Listen: listenFirst,
	})}
	w.tell("node %d belongs to no cluster yet", m.id)
	m.newcomer.round()
}

// round asks everybody, and takes what has been answered when it is over.
func (n *newcomer) round() {
	m, w := n.machine, n.machine.world
	if n.dead {
		return
	}
	began := w.now - n.began
	listed, heard := map[uint64]raftnode.FoundingAnswer{}, []raftnode.FoundingAnswer{}
	for _, o := range w.machines {
		if o == m || w.lost() {
			continue
		}
		w.after(w.delay(), func() {
			a, ok := o.tells(m)
			if !ok {
				return
			}
			w.after(w.delay(), func() {
				if o.id <= uint64(len(w.peers)) {
					listed[o.id] = a
				} else if a.Founded != nil && o.greets(m) {
					heard = append(heard, a)
				}
			})
		})
	}
	w.after(askTimeout, func() {
		if !n.dead {
			n.take(n.founding.Round(began, listed, heard), listed, heard)
		}
	})
}

// tells is what a machine knows of a fresh directory; false if it does not answer.
func (m *machine) tells(fresh *machine) (a raftnode.FoundingAnswer, ok bool) {
	links := &m.world.links
	switch p := m.process; {
	case !links.open(m.id, fresh.id) || !links.open(fresh.id, m.id):
	case m.newcomer != nil:
		s := m.newcomer.founding.State()
		return raftnode.FoundingAnswer{Fresh: &s}, true
	case p != nil && !p.dead && !p.paused:
		s := &raftnode.FoundedState{ID: m.id, ClusterID: m.origin.cluster, PeerURL: m.url, Founders: m.origin.founders,
			Standing: p.replica.Standing(fresh.id, fresh.incarnation, fresh.url)}
		if s.Founders != nil {
			s.List = raftnode.ClusterID(m.world.peers, nil)
		}
		return raftnode.FoundingAnswer{Founded: s}, true
	}
	return a, false
}

// greets reports whether a machine says hello to another one.
func (m *machine) greets(other *machine) bool {
	return m.process != nil && !m.process.dead && m.process.knows(other)
}

func (p *process) knows(m *machine) bool {
	for _, x := range p.replica.Members() {
		if x.ID == m.id && x.PeerURL == m.url {
			return true
		}
	}
	return false
}

// take does what follows from a round.
func (n *newcomer) take(step raftnode.FoundingStep, listed map[uint64]raftnode.FoundingAnswer, heard []raftnode.FoundingAnswer) {
	m, w := n.machine, n.machine.world
	n.claimed = n.claimed || len(heard) > 0
	for _, a := range listed {
		n.claimed = n.claimed || a.Founded != nil
	}
	if step.Save {
		switch m.step(); {
		case m.crashed != nil:
			n.crash("while founding")
			return
		case m.full || m.failWrites:
			n.crash("after a failed write")
			return
		}
		m.vote = n.founding.State().Vote
	}
	switch {
	case step.Refused != nil:
		n.leave()
		w.tell("node %d founds nothing: member %d says %q", m.id, step.Refused.ID, step.Refused.Standing)
		m.refuse(&raftnode.IdentityError{Reason: fmt.Sprintf("the cluster takes it for %s", step.Refused.Standing)})
	case step.Join != nil:
		n.leave()
		m.origin = origin{cluster: step.Join.ClusterID}
		m.start()
	case step.Found != nil && m.wiped && len(w.peers) == 1 && !n.claimed:
		// All that a list of one can do is listen: when no member reaches it, it
		// founds another cluster, and an operator sees the alarm of both.
		n.leave()
		w.tell("node %d founds another cluster unheard", m.id)
		m.fate = refused
		w.counts.Refusals++
	case step.Found != nil:
		n.leave()
		m.origin = origin{raftnode.ClusterID(w.peers, step.Found), step.Found}
		w.inside.founds(m)
		m.start()
		if m.process != nil && step.Found[0] == m.self() {
			m.process.after(firstElection, m.process.replica.Campaign)
		}
	default:
		pause := foundingRound
		if step.Changed {
			pause = 2 * time.Millisecond
		}
		w.after(pause, n.round)
	}
}

func (n *newcomer) leave() {
	n.dead = true
	n.machine.newcomer = nil
}

// crash ends a newcomer as a power cut does; what it had saved is durable.
func (n *newcomer) crash(why string) {
	m, w := n.machine, n.machine.world
	n.leave()
	m.crashAt, m.crashed = 0, nil
	w.tell("node %d crashes %s", m.id, why)
	w.counts.Crashes++
	w.after(w.between(100*time.Millisecond, 2*time.Second), m.start)
}

// adopt lets members in that never had a directory, as the leader's hello does.
func (p *process) adopt() {
	for _, x := range p.replica.Members() {
		m := p.machine.world.machine(x.ID)
		if m == nil || m.newcomer == nil || !x.Incarnation.IsZero() {
			continue
		}
		if _, ok := m.tells(p.machine); ok && m.newcomer.founding.State().Incarnation == m.incarnation {
			p.replica.Adopt(m.id, m.incarnation, func(error) {})
		}
	}
}
