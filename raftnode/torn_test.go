package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// tornTails gives what a power loss during the last Save can leave: every
// prefix of its sectors, and every set of them. When the Save cut the segment,
// the file can have any length from a whole segment up to the end of the Save.
func (f *logFixture) tornTails(try func(name string, fs files)) {
	last := f.saves[len(f.saves)-1]
	before, after := f.before[last.segment], f.after[last.segment]
	// A snapshot file comes before everything else, a new segment after.
	base := f.crashed(f.before)
	for name, b := range f.after {
		if strings.HasSuffix(name, ".snap") {
			base = base.with(name, b)
		}
	}
	sizes := []int{len(before)}
	if len(f.after.segments()) > len(f.before.segments()) {
		for size := int(last.from); size < len(after); size += 1733 {
			sizes = append(sizes, size)
		}
		sizes = append(sizes, len(after))
	}
	build := func(size int, keep func(sector int64) bool) []byte {
		b := make([]byte, size)
		copy(b, before)
		for at := last.from; at < min(last.to, int64(size)); at++ {
			if keep(at / sector) {
				b[at] = after[at]
			}
		}
		return b
	}
	first, count := last.from/sector, int((last.to-1)/sector-last.from/sector)+1
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range sizes {
		for n := range count + 1 {
			b := build(size, func(s int64) bool { return s < first+int64(n) })
			try(fmt.Sprintf("prefix of %d sectors in a file of %d", n, size), base.with(last.segment, b))
		}
		subset := func(set uint64) {
			b := build(size, func(s int64) bool { return set>>(s-first)&1 == 1 })
			try(fmt.Sprintf("sectors %0*b in a file of %d", count, set, size), base.with(last.segment, b))
		}
		if count <= 5 {
			for set := range uint64(1) << count {
				subset(set)
			}
			continue
		}
		for range 30 / len(sizes) {
			subset(r.Uint64() & (1<<count - 1))
		}
	}
}

func TestTornTailIsRepaired(t *testing.T) {
	slow.Test(t)
	for _, tt := range []struct {
		name string
		last func(f *logFixture)
	}{
		{"small", func(f *logFixture) { f.save(3, 1, 40) }},
		{"several records over several sectors", func(f *logFixture) { f.save(3, 9, 200) }},
		{"one record over many sectors", func(f *logFixture) { f.save(3, 1, 5000) }},
		{"zeroes inside", func(f *logFixture) {
			e := testEntry(3, f.last()+1, 40)
			e.Data = append(append(e.Data, make([]byte, 1500)...), "end"...)
			f.saveEntries(3, []*raftpb.Entry{e})
		}},
		{"rewritten tail", func(f *logFixture) { f.saveFrom(f.last()-2, 4, 4, 120) }},
		{"tail rewritten by an earlier term", func(f *logFixture) {
			f.save(6, 3, 80)
			f.saveFrom(f.last()-2, 4, 2, 90)
		}},
		{"vote", func(f *logFixture) { f.saveEntries(8, nil) }},
		{"mark", func(f *logFixture) { f.markAt(6) }},
		// The mark's first record is 24 to 40 bytes long: it ends at the
		// boundary in one of these.
		{"mark over a sector boundary, 24", func(f *logFixture) { f.fillTo(sector - 24); f.markAt(6) }},
		{"mark over a sector boundary, 32", func(f *logFixture) { f.fillTo(sector - 32); f.markAt(6) }},
		{"mark over a sector boundary, 40", func(f *logFixture) { f.fillTo(sector - 40); f.markAt(6) }},
		{"cut", func(f *logFixture) {
			f.save(2, 12, 700) // fills the segment: the next Save cuts it
			f.save(3, 5, 700)
			if len(f.after.segments()) == len(f.before.segments()) {
				f.t.Fatal("the last Save cut no segment")
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			smallSegments(t, 8<<10)
			f := newLogFixture(t)
			for range 5 {
				f.save(2, 2, 70)
			}
			tt.last(f)
			f.close()
			f.tornTails(func(name string, fs files) {
				if wrong := f.accepted(fs); wrong != "" {
					t.Errorf("%s: %s", name, wrong)
				}
			})
		})
	}
}

// A message whose text looks like the records that the scan searches for, in
// a Save that a crash tore, must not keep the node from starting.
func TestForgedRecordsInAMessageDoNotForgeDamage(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	for range 3 {
		f.save(2, 2, 70)
	}
	// Saves of a log made elsewhere, as the text of a message.
	other := newLogFixture(t)
	other.disk.inc = Incarnation{6, 6, 6}
	for range 3 {
		other.save(2, 2, 70)
	}
	other.close()
	var forged []byte
	for range 8 {
		b := other.after[other.after.segments()[0]]
		forged = append(append(forged, b[other.saves[0].from:other.saves[2].to]...), ' ')
	}
	e := testEntry(3, f.last()+1, 600)
	e.Data = append(e.Data, forged...)
	f.saveEntries(3, []*raftpb.Entry{e})
	f.close()
	last := f.saves[len(f.saves)-1]
	b := bytes.Clone(f.after[last.segment])
	clear(b[last.from : (last.from/sector+1)*sector])
	if wrong := f.accepted(f.crashed(f.after.with(last.segment, b))); wrong != "" {
		t.Error(wrong)
	}
}

// A crash between the hard state and the mark of a received snapshot: the
// member has neither its log nor its content yet, and must start all the same.
func TestTornMarkOfAReceivedSnapshotIsRepaired(t *testing.T) {
	smallSegments(t, 16<<10)
	for _, room := range []int64{24, 32, 40} {
		f := newLogFixture(t)
		f.save(1, 3, 60)
		f.fillTo(sector - room)
		f.markAt(500)
		f.close()
		f.tornTails(func(name string, fs files) {
			d, rec, err := f.open(fs)
			if err != nil {
				t.Errorf("%s: refused: %v", name, err)
				return
			}
			if end := max(rec.snapshot.GetMetadata().GetIndex(), lastIndex(rec.entries)); rec.state.GetCommit() > end {
				t.Errorf("%s: commit index %d, but the log ends at %d: raft panics with that", name, rec.state.GetCommit(), end)
			}
			if wrong := f.closed(d); wrong != "" {
				t.Error(wrong)
			}
		})
	}
}

// The same at the level of the node, whose start must not panic, after a crash
// between any two records.
func TestNodeStartsAfterACrashBeforeTheMarkOfAReceivedSnapshot(t *testing.T) {
	smallSegments(t, 1<<20)
	c := newTestCluster(t, 3)
	foundedDir(t, c.memberDir(1), 1, c.peers)
	c.start(1)
	id := c.nodes[1].identity
	c.stop(1)
	dir := c.memberDir(1)
	before := readFiles(t, dir)
	disk, rec, err := openDisk(dir, id, quietZap())
	if err != nil {
		t.Fatal(err)
	}
	state := &raftpb.HardState{Term: new(rec.state.GetTerm() + 5), Vote: new(uint64(0)), Commit: new(uint64(500))}
	if err := errors.Join(disk.SaveSnapshot(state, fixtureSnapshot(500)), disk.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, highWaterFile), before[highWaterFile], 0o600); err != nil {
		t.Fatal(err)
	}
	segment := before.segments()[0]
	after := readFiles(t, dir)[segment]
	written := frames(after)[len(frames(before[segment])):]
	if len(written) < 2 {
		t.Fatalf("%d records for a mark", len(written))
	}
	for n, r := range written {
		before.write(t, dir)
		b := bytes.Clone(after)
		clear(b[r.at:])
		if err := os.WriteFile(filepath.Join(dir, segment), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, highWaterFile), before[highWaterFile], 0o600); err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Fatalf("Open panics after %d of %d records: %v", n, len(written), r)
				}
			}()
			c.start(1)
		}()
		c.stop(1)
	}
}
