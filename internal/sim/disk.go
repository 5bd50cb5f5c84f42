package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/raftnode"
)

// disk stands in for etcd's write-ahead log, the snapshotter and the high-water
// file, with the contract of raftnode.Disk: records become durable in order
// with the sync at the end of each write, and a crash leaves some first part of
// what was not synced. What a start makes of records is what walDisk makes of
// them (raftnode/disk.go, scan.go); that the real files behave so is tested
// there.
type disk struct {
	machine *machine
	durable
	tide *raftnode.Tide
	// noting says that a high-water record waits to become durable.
	noting bool
}

// durable is what a disk holds. It is copied at a crash.
type durable struct {
	records []record
	synced  int                         // records that are durable
	files   map[uint64]*raftpb.Snapshot // snapshot files, by index
	staged  map[uint64][]byte           // received contents, by index
	high    raftnode.Water              // durable
	highAt  time.Duration               // when it became so
	waiting raftnode.Water              // the newest
}

// record is one of: an entry, a hard state, the mark of a snapshot.
type record struct {
	entry *raftpb.Entry
	state *raftpb.HardState
	mark  *raftpb.SnapshotMetadata
	at    time.Duration // when it was written
	rot   bool          // its checksum is wrong
}

const highWaterLag = 50 * time.Millisecond

var (
	errDisk = errors.New("simulated: input/output error")
	errFull = errors.New("simulated: no space left on device")
)

func newDurable() durable {
	return durable{files: map[uint64]*raftpb.Snapshot{}, staged: map[uint64][]byte{}}
}

// clone is what is there after a crash: keep of the records that were not
// synced have reached the disk all the same.
func (d *durable) clone(keep int) durable {
	c := *d
	c.records = slices.Clone(d.records[:min(d.synced+keep, len(d.records))])
	c.synced = len(c.records)
	c.files, c.staged = map[uint64]*raftpb.Snapshot{}, map[uint64][]byte{}
	for index, f := range d.files {
		c.files[index] = f
	}
	for index, b := range d.staged {
		c.staged[index] = b
	}
	return c
}

// step is one write or sync; it fails if a fault says so.
func (d *disk) step() error {
	d.machine.step()
	switch {
	case d.machine.full:
		return errFull
	case d.machine.failWrites:
		d.machine.failWrites = false
		return errDisk
	}
	return nil
}

func (d *disk) write(r record) error {
	if err := d.step(); err != nil {
		return err
	}
	r.at = d.machine.world.now
	d.records = append(d.records, r)
	return nil
}

func (d *disk) sync() error {
	if err := d.step(); err != nil {
		return err
	}
	from := d.synced
	d.synced = len(d.records)
	d.machine.world.inside.synced(d.machine, d.records[from:])
	return nil
}

// Save implements raftnode.Disk.
func (d *disk) Save(state *raftpb.HardState, entries []*raftpb.Entry) error {
	return d.tide.Save(state, entries, func() error {
		for _, e := range entries {
			if err := d.write(record{entry: e}); err != nil {
				return err
			}
		}
		if err := d.write(record{state: proto.CloneOf(state)}); err != nil {
			return err
		}
		return d.sync()
	})
}

// SaveSnapshot implements raftnode.Disk.
func (d *disk) SaveSnapshot(state *raftpb.HardState, snapshot *raftpb.Snapshot) error {
	if err := d.step(); err != nil {
		return err
	}
	m := snapshot.GetMetadata()
	d.files[m.GetIndex()] = snapshot
	return d.tide.SaveSnapshot(state, snapshot, func() error {
		if err := d.write(record{mark: m}); err != nil {
			return err
		}
		if err := d.write(record{state: proto.CloneOf(state)}); err != nil {
			return err
		}
		return d.sync()
	})
}

// Release implements raftnode.Disk. Whole segments go in reality; here it is all
// that a start does not need, but for a few entries.
func (d *disk) Release(index uint64) error {
	if err := d.step(); err != nil {
		return err
	}
	const slack = 8
	last := len(d.records) - 1
	for last >= 0 && d.records[last].state == nil {
		last--
	}
	var kept []record
	for i, r := range d.records {
		switch {
		case r.entry != nil && r.entry.GetIndex()+slack <= index:
		case r.mark != nil && r.mark.GetIndex() < index:
		case r.state != nil && i != last && r.state.GetCommit() < index:
		default:
			kept = append(kept, r)
		}
	}
	d.records, d.synced = kept, len(kept)
	for i := range d.files {
		if i < index {
			delete(d.files, i)
		}
	}
	for i := range d.staged {
		if i < index {
			delete(d.staged, i)
		}
	}
	return nil
}

// Close implements raftnode.Disk.
func (d *disk) Close() error { return nil }

// note stores a high-water record: at once if that is asked for, else in the
// background.
func (d *disk) note(now raftnode.Water) error {
	d.waiting = now
	if now.Urgent(d.high) {
		if err := d.step(); err != nil {
			return err
		}
		d.high, d.highAt = now, d.machine.world.now
		return nil
	}
	if !d.noting {
		d.noting = true
		p := d.machine.process
		d.machine.world.after(highWaterLag, func() {
			d.noting = false
			if d.machine.process == p && p != nil && !p.dead {
				d.high, d.highAt = d.waiting, d.machine.world.now
			}
		})
	}
	return nil
}

// recover reads what a start finds, as raftnode/disk.go does.
func (d *disk) recover() (rec raftnode.Recovered, err error) {
	records := d.records
	for i, r := range records {
		if !r.rot {
			continue
		}
		// A hard state and a record behind it prove that what precedes them had
		// been synced: damage. Otherwise it is a torn tail.
		for _, later := range records[i+1 : max(len(records)-1, i+1)] {
			if later.state != nil {
				return rec, fmt.Errorf("the log is damaged at record %d: records of a later write follow", i)
			}
		}
		records = records[:i]
		break
	}
	d.records, d.synced = slices.Clone(records), len(records)
	rec.State = &raftpb.HardState{}
	for _, r := range records {
		if r.state != nil {
			rec.State = proto.CloneOf(r.state)
		}
	}
	var mark *raftpb.SnapshotMetadata
	for _, r := range records {
		if r.mark != nil && r.mark.GetIndex() <= rec.State.GetCommit() && r.mark.GetIndex() >= mark.GetIndex() {
			mark = r.mark
		}
	}
	if mark != nil {
		file := d.files[mark.GetIndex()]
		if file == nil {
			return rec, fmt.Errorf("the log begins at snapshot %d, but its file is missing", mark.GetIndex())
		}
		rec.Snapshot = proto.CloneOf(file)
	}
	first := mark.GetIndex() + 1
	for _, r := range records {
		index := r.entry.GetIndex()
		if r.entry == nil || index < first {
			continue
		}
		at := index - first
		if at > uint64(len(rec.Entries)) {
			return rec, fmt.Errorf("entry %d follows entry %d", index, first+uint64(len(rec.Entries))-1)
		}
		rec.Entries = append(rec.Entries[:at], r.entry)
	}
	rec.Entries = raftnode.DropStale(mark.GetTerm(), rec.Entries)
	if last := first - 1 + uint64(len(rec.Entries)); rec.State.GetCommit() > last {
		return rec, fmt.Errorf("the log ends at entry %d, but %d is committed", last, rec.State.GetCommit())
	}
	d.noting = false
	d.tide, err = raftnode.OpenTide(rec, d.high, d.note)
	return rec, err
}
