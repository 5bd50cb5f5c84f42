package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/oracle"
)

// invariants look into the nodes while they run. They are not needed to find a
// lost message, but find the step that would lose it, long before and nearly
// always:
//
//   - R1: an entry is applied only when a majority has it on disk.
//   - R2: all nodes apply the same entry at an index.
//   - R3: a vote is on disk before the message that grants it leaves.
//   - R4: a term has at most one leader.
//   - R5: an answer to an append is sent only for what is on disk.
//   - R6: a start knows each change of the configuration in the log but the newest
//     to be committed, and that one as well if the node knew it when it had written
//     all that there was. It would campaign under an old configuration otherwise:
//     two disjoint sets of voters could each elect a leader, or a majority of the
//     voters of today nobody.
//
// Other rules: "founding" (there is one cluster), "damage" (a start on a damaged directory is refused), "wiped" (a
// directory that is not the one that the cluster knows takes no part), "refusal" and
// "failure" (nothing else is refused or fails), "dropped" (what a member sends is
// not taken for what no member can send), "reserve" and "clock" (who knows of a
// nearly full disk, or that its own clock is off, proposes nothing), "agreement"
// (equal states are not taken for different ones), "liveness", "panic".
type invariants struct {
	world   *world
	found   []oracle.Violation
	entries map[uint64]known             // by index: what was applied there first
	onDisk  map[uint64]map[uint64]uint64 // by index and machine: hash of the entry that its disk has
	floor   map[uint64]uint64            // by machine: it has everything up to here, by a snapshot
	leaders map[uint64]uint64            // by term
	roles   map[*process]string

	voters      []uint64 // of the newest configuration applied
	votersAt    uint64   // index by which it was applied
	changedAt   uint64   // index around which the voters changed last
	changeAt    uint64   // index of the newest change of the configuration applied
	lastTrimmed uint64   // newest Seq of the room that is trimmed
}

type known struct{ term, hash uint64 }

const maxViolations = 20

func newInvariants(w *world) invariants {
	return invariants{world: w, entries: map[uint64]known{}, onDisk: map[uint64]map[uint64]uint64{}, floor: map[uint64]uint64{},
		leaders: map[uint64]uint64{}, roles: map[*process]string{}}
}

func (v *invariants) violate(rule, format string, args ...any) {
	if len(v.found) < maxViolations {
		v.found = append(v.found, oracle.Violation{Rule: rule, Detail: fmt.Sprintf("at %.4f s: ", v.world.now.Seconds()) + fmt.Sprintf(format, args...)})
		v.world.tell("VIOLATION of %s: %s", rule, fmt.Sprintf(format, args...))
	}
}

// broken ends a run: what follows a broken promise only repeats it.
func (v *invariants) broken() bool { return len(v.found) > 0 }

func hashEntry(e *raftpb.Entry) uint64 {
	return xxhash.Sum64(e.GetData()) ^ e.GetTerm()*0x9e3779b97f4a7c15
}

// founds is told that a directory begins a cluster with others: one list is one
// cluster.
func (v *invariants) founds(m *machine) {
	w := v.world
	w.tell("node %d founds the cluster %x with %d others", m.id, m.origin.cluster, len(m.origin.founders)-1)
	if w.founded == 0 {
		w.founded = m.origin.cluster
	}
	if m.origin.cluster != w.founded {
		v.violate("founding", "node %d founds a second cluster", m.id)
	}
}

// synced is told of records that became durable.
func (v *invariants) synced(m *machine, records []record) {
	v.world.trace.note(traceSave, v.world.now, m.id, []uint64{uint64(len(records)), uint64(m.disk.synced)}, nil)
	if m.original != nil || m.old {
		return // whatever it has, nobody may count it
	}
	for _, r := range records {
		switch {
		case r.entry != nil:
			index := r.entry.GetIndex()
			if v.onDisk[index] == nil {
				v.onDisk[index] = map[uint64]uint64{}
			}
			v.onDisk[index][m.id] = hashEntry(r.entry)
		case r.mark != nil:
			v.floor[m.id] = max(v.floor[m.id], r.mark.GetIndex())
		}
	}
}

// changes are the configuration changes in the durable log, ascending.
func (d *disk) changes() (indexes []uint64) {
	for _, r := range d.records[:d.synced] {
		if r.entry == nil {
			continue
		}
		index := r.entry.GetIndex()
		for n := len(indexes); n > 0 && indexes[n-1] >= index; n-- {
			indexes = indexes[:n-1] // the entry takes the place of others
		}
		if r.entry.GetType() == raftpb.EntryConfChange {
			indexes = append(indexes, index)
		}
	}
	return indexes
}

// started checks R6 at a start with a log.
func (v *invariants) started(p *process, log []*raftpb.Entry) {
	var before, newest uint64
	for _, e := range log {
		if e.GetType() == raftpb.EntryConfChange {
			before, newest = newest, e.GetIndex()
		}
	}
	if commit := p.replica.Status().Commit; commit < before {
		v.violate("R6", "node %d starts with the changes of the configuration %d and %d in its log and the commit index %d", p.machine.id, before, newest, commit)
	}
}

// written checks R6 when a node has written all that there was to write.
func (v *invariants) written(p *process) {
	commit, durable := p.replica.Status().Commit, p.machine.disk.state().GetCommit()
	for _, index := range p.machine.disk.changes() {
		if durable < index && index <= commit {
			v.violate("R6", "node %d knows that the change of the configuration %d is committed, its disk says %d", p.machine.id, index, durable)
		}
	}
}

// applying judges committed entries before a node applies them.
func (v *invariants) applying(p *process, batch []*raftpb.Message) {
	for _, m := range batch {
		for _, e := range m.GetEntries() {
			index, k := e.GetIndex(), known{e.GetTerm(), hashEntry(e)}
			if first, seen := v.entries[index]; seen {
				if first != k {
					v.violate("R2", "node %d applies another entry %d (term %d) than was applied before (term %d)", p.machine.id, index, k.term, first.term)
				}
				continue
			}
			v.entries[index] = k
			if e.GetType() == raftpb.EntryConfChange {
				v.changeAt = index
			}
			v.durable(p, index, k)
		}
	}
}

// durable checks R1 when an entry is applied for the first time.
func (v *invariants) durable(p *process, index uint64, k known) {
	voters := p.replica.Voters()
	have := 0
	for _, id := range voters {
		if v.onDisk[index][id] == k.hash || v.floor[id] >= index {
			have++
		}
	}
	need := len(voters)/2 + 1
	if index < v.changedAt+64 {
		need-- // it may have been committed by the voters before the change
	}
	if have < need {
		v.violate("R1", "node %d applies entry %d, which %d of %d voters have on disk", p.machine.id, index, have, len(voters))
	}
}

// applied is told after a node has applied something.
func (v *invariants) applied(p *process) {
	if index, _ := p.store.Applied(); index > v.votersAt {
		v.votersAt = index
		if now := p.replica.Voters(); !slices.Equal(now, v.voters) {
			if v.voters != nil {
				v.changedAt = index
			}
			v.voters = slices.Clone(now)
		}
	}
}

// sending judges a raft message that is about to leave a node.
func (v *invariants) sending(p *process, m *raftpb.Message) {
	if (p.machine.wiped || p.machine.old) && m.GetType() != raftpb.MsgPreVote && m.GetType() != raftpb.MsgPreVoteResp {
		v.violate("wiped", "node %d sends %v from a directory that is not the one that the cluster knows", p.machine.id, m.GetType())
	}
	state := p.machine.disk.state()
	switch m.GetType() {
	case raftpb.MsgVoteResp:
		if !m.GetReject() && (state.GetTerm() < m.GetTerm() || state.GetTerm() == m.GetTerm() && state.GetVote() != m.GetTo()) {
			v.violate("R3", "node %d votes for %d in term %d, its disk says term %d, vote %d", p.machine.id, m.GetTo(), m.GetTerm(), state.GetTerm(), state.GetVote())
		}
	case raftpb.MsgAppResp:
		if last := p.machine.disk.last(); !m.GetReject() && m.GetIndex() > last {
			v.violate("R5", "node %d says that it has entry %d, its disk ends at %d", p.machine.id, m.GetIndex(), last)
		}
	}
}

// state is the durable hard state.
func (d *disk) state() *raftpb.HardState {
	for _, r := range slices.Backward(d.records[:d.synced]) {
		if r.state != nil {
			return r.state
		}
	}
	return nil
}

// last is the index of the last durable entry or mark.
func (d *disk) last() uint64 {
	for _, r := range slices.Backward(d.records[:d.synced]) {
		switch {
		case r.entry != nil:
			return r.entry.GetIndex()
		case r.mark != nil:
			// A mark within the log does not end it.
			last := r.mark.GetIndex()
			for _, before := range d.records[:d.synced] {
				last = max(last, before.entry.GetIndex())
			}
			return last
		}
	}
	return 0
}

// observe is called after each step of a node.
func (v *invariants) observe(p *process) {
	s := p.replica.Status()
	role := s.Role
	if before := v.roles[p]; before != role {
		v.roles[p] = role
		v.world.tell("node %d is %s in term %d", p.machine.id, role, s.Term)
	}
	if role != "leader" {
		return
	}
	if other, ok := v.leaders[s.Term]; ok && other != p.machine.id {
		v.violate("R4", "nodes %d and %d both lead term %d", other, p.machine.id, s.Term)
	}
	v.leaders[s.Term] = p.machine.id
}

// equalStores compares every byte of stores that have applied the same.
func (v *invariants) equalStores(machines []*machine) {
	hashes := map[uint64]uint64{}
	for _, m := range machines {
		index, hash, err := m.process.store.FullHash()
		if err != nil {
			v.violate("failure", "read the store of node %d: %v", m.id, err)
			continue
		}
		if other, ok := hashes[index]; ok && other != hash {
			v.violate("O5", "the store of node %d at entry %d has the hash %016x, another one %016x", m.id, index, hash, other)
		}
		hashes[index] = hash
	}
}

// live checks that a healthy majority made progress in time.
func (v *invariants) live(limit time.Duration) {
	if !v.world.progressed {
		v.violate("liveness", "no message that was sent after the faults was acknowledged within %v", limit)
	}
}
