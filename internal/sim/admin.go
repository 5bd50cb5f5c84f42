package sim

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/raftnode"
)

// replace is the operator: a member whose directory was refused is removed, and
// another one added under a new id, as the refusal says.
func (w *world) replace() {
	defer w.after(time.Second, w.replace)
	l := w.leader()
	if l == nil || l.paused {
		return
	}
	for _, m := range w.machines {
		if m.fate != refused && m.fate != retiring {
			continue
		}
		if slices.ContainsFunc(l.replica.Members(), func(x raftnode.Member) bool { return x.ID == m.id }) {
			l.run(func() { l.replica.ChangeMembership(raftnode.RemoveMember, m.id, "", func(error) {}) })
			return // one change at a time
		}
		if m.fate == refused {
			if w.oldRuns() {
				return
			}
			m.fate = retiring
			m.successor = w.newMachine(true)
			return
		}
		s := m.successor
		if !slices.ContainsFunc(l.replica.Members(), func(x raftnode.Member) bool { return x.ID == s.id }) {
			l.run(func() { l.replica.ChangeMembership(raftnode.AddMember, s.id, s.url, func(error) {}) })
			return
		}
		w.counts.Replaced++
		w.tell("node %d replaces node %d", s.id, m.id)
		m.fate = removed
		s.start()
		return
	}
}

// content is all that a node stores.
func (p *process) content() (oracle.Replica, error) {
	name := p.machine.name()
	index, hash := p.store.StateHash()
	r := oracle.Replica{Name: name, Applied: index, Hash: hash}
	ctx := context.Background()
	rooms, _, err := p.service.Rooms(ctx, chat.Actor{}, chat.RoomsQuery{Stale: true})
	if err != nil {
		return r, err
	}
	for _, room := range rooms {
		for after := uint64(0); ; {
			page, err := p.service.Messages(ctx, chat.Actor{}, room.Name, chat.Page{After: &after, Limit: chat.MaxLimit, Stale: true})
			if err != nil {
				return r, err
			}
			if len(page.Messages) == 0 {
				break
			}
			r.Messages = append(r.Messages, allSeen(page.Messages)...)
			after = page.Messages[len(page.Messages)-1].Seq
		}
	}
	return r, nil
}

func (m *machine) name() string {
	if m.original != nil {
		return fmt.Sprintf("node-%d-twin-%d", m.id, m.boots)
	}
	return fmt.Sprint("node-", m.id)
}

// skew is how far the wall clock is off.
func (m *machine) skew() time.Duration {
	d := m.stepped
	if i := int(m.id) - 1; i < len(m.world.plan.Skew) {
		d += m.world.plan.Skew[i]
	}
	return d
}
