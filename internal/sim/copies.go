package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raft-chat/raft-chat/raftnode"
)

// copied is a copy of a directory that was made while no process ran on it.
type copied struct {
	identity
	met   raftnode.Met
	knows map[uint64]raftnode.BootID
	remains
}

// keptCopies is how many copies of a directory there are at most, the newest.
const keptCopies = 3

// keepCopy copies the directory of a machine that is down.
func (m *machine) keepCopy() {
	if m.lost() || m.original != nil || !m.prepared {
		return
	}
	c := &copied{m.identity, maps.Clone(m.met), maps.Clone(m.knows), remains{m.disk.durable.clone(0), m.fs.CrashClone(vfs.CrashCloneCfg{})}}
	m.copies = append(m.copies[max(0, len(m.copies)+1-keptCopies):], c)
}

// putBack makes a copy the directory of a machine that is down. The copy stays.
func (m *machine) putBack(c *copied) {
	m.identity, m.met, m.knows = c.identity, maps.Clone(c.met), maps.Clone(c.knows)
	m.disk.durable, m.fs = c.durable.clone(0), c.fs.CrashClone(vfs.CrashCloneCfg{})
}

// noticeable chooses a copy of a directory of which every other machine knows that
// it is older, nil if there is none. What others have not met they cannot miss: see
// docs/operations.md. A directory that was alone needs nobody.
func (w *world) noticeable(m *machine, n uint64) *copied {
	if len(w.peers) == 1 || m.lost() || m.twin != nil {
		return nil
	}
	var older []*copied
	for _, c := range m.copies {
		if !slices.ContainsFunc(w.machines, func(o *machine) bool {
			return o != m && o.fate == alive && (o.knows[m.id] == 0 || slices.Contains(c.starts, o.knows[m.id]))
		}) {
			older = append(older, c)
		}
	}
	return pick(older, n)
}

// copiedMachines are the running ones that have a noticeable copy.
func (w *world) copiedMachines() []*machine {
	return slices.DeleteFunc(w.running(), func(m *machine) bool { return w.noticeable(m, 0) == nil })
}

// oldRuns reports whether an older copy may be running somewhere. Nobody is added
// then, who could know no better.
func (w *world) oldRuns() bool {
	return slices.ContainsFunc(w.machines, func(m *machine) bool { return m.old && m.fate == alive || m.twin != nil })
}

// runTwin starts a second process on a copy of a machine's directory. If n is odd,
// whoever connects to the member's address reaches it in place of the first.
func (w *world) runTwin(m *machine, n uint64) bool {
	from := w.noticeable(m, n/2)
	if from == nil || w.oldRuns() {
		return false
	}
	m.twin = &machine{world: w, id: m.id, url: m.url, free: plenty, old: true, original: m}
	m.usurped = n%2 == 1
	m.twin.disk = &disk{machine: m.twin}
	m.twin.putBack(from)
	m.twin.start()
	return true
}

// holder is the machine that is reached at a member's address.
func (w *world) holder(id uint64) *machine {
	m := w.machine(id)
	if m != nil && m.twin != nil && m.usurped {
		return m.twin
	}
	return m
}

// meets notes durably which start of a member was met; false if it cannot, or if
// the member's directory is an older one than was met.
func (p *process) meets(other *machine) bool {
	m, w := p.machine, p.machine.world
	if p.dead || m.met.Older(other.id, other.starts) {
		return false
	}
	next, news := m.met.Meet(other.id, other.starts, p.replica.Removed)
	if !news {
		m.knows[other.id] = other.starts[len(other.starts)-1]
		return true
	}
	switch m.step(); {
	case m.crashed != nil:
		w.after(0, func() {
			if m.process == p && m.crashed != nil {
				m.crash("while noting a start")
				w.after(w.between(200*time.Millisecond, 4*time.Second), m.start)
			}
		})
		return false
	case m.full || m.failWrites:
		return false // it is tried again
	}
	m.met, m.knows[other.id] = next, other.starts[len(other.starts)-1]
	return true
}

// greet says hello to every member, as raftnode/peers.go does: one that joins and
// knows nobody yet, to those of its list.
func (p *process) greet() {
	w := p.machine.world
	var ids []uint64
	for _, x := range p.replica.Members() {
		ids = append(ids, x.ID)
	}
	if len(ids) == 0 {
		ids = w.members()
	}
	for _, id := range ids {
		if id != p.machine.id && !p.dead {
			w.receiver(p, id)
		}
	}
}
