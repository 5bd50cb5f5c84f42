package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/raftnode"
)

// machine is a place where one member runs: its directory and what is wrong
// with it. The process comes and goes.
type machine struct {
	world *world
	id    uint64
	url   string

	// The data directory.
	identity
	met   raftnode.Met
	knows map[uint64]raftnode.BootID // what met should say; the judge's
	disk  *disk
	fs    *vfs.MemFS

	differs  difference
	differed bool      // it did once
	copies   []*copied // of the directory, as it was at power cuts
	old      bool      // the directory is an older copy of itself
	twin     *machine  // runs on a copy at the same time; nil: none does
	usurped  bool      // whoever connects to the member's address reaches the twin
	original *machine  // of a twin

	process   *process  // nil: down, or not of a cluster yet
	newcomer  *newcomer // nil: neither
	fate      fate
	damaged   string        // what was done to the directory that a start must refuse
	wiped     bool          // the directory is not the one that the cluster knows
	successor *machine      // once it is being replaced
	stepped   time.Duration // what faults did to the wall clock

	slow       time.Duration // extra time that each sync takes
	free       int64         // bytes on the disk, as far as the reserve is concerned
	full       bool
	failWrites bool // the next one

	// steps counts writes and syncs, of the log and of the store. When it
	// reaches crashAt, what a crash at that moment leaves is kept in crashed, and
	// the process is dead from there on.
	steps   int
	crashAt int
	plan    crash
	crashed *remains
	// crashInCompaction arms crashAt at the next compaction; 0: it does not.
	crashInCompaction int
}

// identity is what a directory says of itself.
type identity struct {
	incarnation raftnode.Incarnation
	boots       uint64
	starts      raftnode.BootList
	join        bool          // made by a node that joined
	prepared    bool          // the log exists
	origin      origin        // zero: it belongs to no cluster yet
	vote        raftnode.Vote // until then
}

// fate is why a machine does not run again.
type fate string

const (
	alive    fate = ""
	removed  fate = "removed from the cluster"
	refused  fate = "refused for its directory"
	retiring fate = "being replaced"
)

// serves reports whether the machine has an API that clients use: one that joins
// opens it when it is a member, and what one holds that differs nobody shall see.
func (m *machine) serves() bool {
	return m.process != nil && !m.process.dead && !m.differs.wanted && len(m.process.replica.Members()) > 0
}

// lost reports whether the member cannot come back under its id.
func (m *machine) lost() bool {
	return m.fate != alive || m.damaged != "" || m.wiped || m.old || m.differs.wanted
}

// crash is what becomes of unsynced writes: keep records of the log survive, and
// all of the store's bytes or none.
type crash struct {
	keep  int
	store bool
}

type remains struct {
	durable
	fs *vfs.MemFS
}

func (w *world) newMachine(join bool) *machine {
	id := uint64(len(w.machines) + 1)
	m := &machine{world: w, id: id, url: fmt.Sprintf("http://node-%d:1", id), free: plenty, identity: identity{join: join}}
	m.format()
	w.machines = append(w.machines, m)
	return m
}

// format makes the directory empty, and another one than before.
func (m *machine) format() {
	m.identity = identity{join: m.join}
	m.met, m.knows, m.copies = raftnode.Met{}, map[uint64]raftnode.BootID{}, nil
	binary.BigEndian.PutUint64(m.incarnation[:], m.world.random.Uint64())
	binary.BigEndian.PutUint64(m.incarnation[8:], m.world.random.Uint64())
	m.disk = &disk{machine: m, durable: newDurable()}
	m.fs = vfs.NewCrashableMem()
}

// step is one write or sync.
func (m *machine) step() {
	m.steps++
	if m.steps == m.crashAt && m.crashed == nil {
		m.crashed = m.leave()
		if m.process != nil {
			m.process.dead = true
		}
	}
}

// leave is what a crash at this moment leaves.
func (m *machine) leave() *remains {
	r := &remains{durable: m.disk.durable.clone(m.plan.keep)}
	all := vfs.CrashCloneCfg{}
	if m.plan.store {
		// Anything between all and nothing would not be the same each time: the
		// file system goes through its files in no order.
		all = vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))}
	}
	r.fs = m.fs.CrashClone(all)
	return r
}

// armCrash lets the machine crash at the nth write or sync from now.
func (m *machine) armCrash(n int, c crash) {
	m.crashAt, m.plan = m.steps+n, c
}

func (w *world) drawCrash() crash {
	return crash{keep: w.random.IntN(6), store: w.random.IntN(2) == 0}
}

// start starts the process, if the machine may run and does not.
func (m *machine) start() {
	w := m.world
	if m.process != nil || m.newcomer != nil || m.fate != alive {
		return
	}
	if m.full {
		w.after(time.Second, m.start) // the identity cannot be written
		return
	}
	m.boots++
	m.starts = m.starts.With(raftnode.BootID(w.random.Uint64() | 1))
	m.failWrites = false
	w.trace.note(traceLife, w.now, m.id, []uint64{1, m.boots}, nil)
	if !m.join && m.origin.cluster == 0 {
		m.listen()
		return
	}
	p, err := m.open()
	if m.crashed != nil {
		m.process = p
		m.crash("while starting")
		w.after(w.between(100*time.Millisecond, 2*time.Second), m.start)
		return
	}
	if err != nil {
		m.refuse(err)
		return
	}
	if m.damaged != "" {
		w.inside.violate("damage", "node %d starts although %s", m.id, m.damaged)
		return
	}
	w.counts.Starts++
	s := p.replica.Status()
	w.tell("node %d starts: term %d, commit %d, applied %d", m.id, s.Term, s.Commit, s.Applied)
	m.process = p
	p.begin()
}

func (m *machine) open() (p *process, err error) {
	w := m.world
	p = &process{machine: m, met: map[uint64]raftnode.Incarnation{}, greeted: map[*process]bool{}, heard: map[uint64]sighting{}}
	m.process = p // the disk asks for it
	defer func() { m.process = nil }()
	var rec raftnode.Recovered
	if m.prepared {
		if rec, err = m.disk.recover(); err != nil {
			return nil, err
		}
	} else if rec, err = m.prepare(); err != nil {
		return nil, err
	}
	p.store, err = chat.OpenStore("store", chat.StoreOptions{FS: tap{m.fs, m}, Inline: true})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	p.service = chat.NewService(nil, p.store, chat.ServiceOptions{})
	p.replica, err = raftnode.OpenReplica(raftnode.ReplicaConfig{
		ID: m.id, ClusterID: m.origin.cluster, Incarnation: m.incarnation, Boots: m.boots, Bootstrap: w.peers, Founders: m.origin.founders,
		Disk: m.disk, StateMachine: differing{p.store, m}, Staged: m.disk.openStaged,
		ElectionTicks: electionTicks, MaxInFlight: 4, CatchUpBytes: w.plan.CatchUpBytes,
	}, rec)
	if err != nil {
		p.close()
		return nil, err
	}
	p.watch = p.replica.Watch(electionTimeout, p.compared)
	w.inside.started(p, rec.Entries)
	return p, nil
}

// prepare makes the log of a fresh directory.
func (m *machine) prepare() (rec raftnode.Recovered, err error) {
	m.disk.durable = newDurable()
	empty := raftnode.NewLog(nil)
	if m.disk.tide, err = raftnode.OpenTide(empty, raftnode.Water{}, m.disk.note); err != nil {
		return rec, err
	}
	if m.join {
		m.origin.cluster = m.world.founded
	}
	if m.origin.founders == nil {
		m.prepared = true
		return empty, nil
	}
	rec = raftnode.NewLog(m.world.peers)
	if err := m.disk.SaveSnapshot(rec.State, rec.Snapshot); err != nil {
		return rec, err
	}
	m.prepared = true
	return rec, nil
}

// refuse notes that the directory was refused, at the start or by a member.
func (m *machine) refuse(err error) {
	w := m.world
	w.tell("node %d is refused: %v", m.id, err)
	switch {
	case errors.Is(err, raftnode.ErrRemoved):
		m.fate = removed
	case m.damaged != "" || m.wiped || m.old || m.differs.wanted:
		m.fate = refused
		w.counts.Refusals++
	case errors.Is(err, errDisk) || errors.Is(err, errFull):
		w.after(time.Second, m.start)
	default:
		w.inside.violate("refusal", "node %d, whose directory is whole, is refused: %v", m.id, err)
	}
	if m.original != nil {
		m.original.twin = nil
	}
}

// crash ends the process as a power cut does.
func (m *machine) crash(why string) {
	p := m.process
	if p == nil && m.crashed == nil {
		return
	}
	w := m.world
	w.trace.note(traceLife, w.now, m.id, []uint64{2, uint64(m.steps)}, nil)
	w.tell("node %d crashes %s", m.id, why)
	w.counts.Crashes++
	m.plan = w.drawCrash()
	if p != nil && p.appending && m.crashed == nil {
		// A write was under way: the crash comes somewhere in it.
		m.armCrash(1+w.random.IntN(2*len(p.batch)+4), m.plan)
		p.dead = true
		_, _ = p.replica.Append(p.batch...)
	}
	left := m.crashed
	if left == nil {
		left = m.leave()
	}
	m.crashAt, m.crashInCompaction, m.crashed = 0, 0, nil
	if p != nil {
		p.close()
	}
	m.process = nil
	m.disk.durable, m.fs = left.durable, left.fs
	m.keepCopy()
}

// openStaged implements ReplicaConfig.Staged.
func (d *disk) openStaged(index uint64, f func(file io.Reader) error) error {
	content := d.staged[index]
	if content == nil {
		return fmt.Errorf("no content of snapshot %d was received", index)
	}
	return f(bytes.NewReader(content))
}
