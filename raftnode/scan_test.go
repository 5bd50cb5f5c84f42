package raftnode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/slow"
)

func TestUndamagedLogIsReadWhole(t *testing.T) {
	f := longLog(t)
	d, rec, err := f.open(f.after)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := f.whole(rec) + f.closed(d); wrong != "" {
		t.Fatal(wrong)
	}
}

// recordKinds names a record's type in a report.
var recordKinds = map[int64]string{wal.MetadataType: "metadata", wal.EntryType: "entry", wal.StateType: "state", wal.CrcType: "crc", wal.SnapshotType: "mark"}

func TestZeroedLengthIsRefused(t *testing.T) {
	f := longLog(t)
	for _, segment := range f.after.segments() {
		for _, r := range frames(f.after[segment]) {
			b := bytes.Clone(f.after[segment])
			clear(b[r.at : r.at+8])
			fs := f.after.with(segment, b)
			if f.inLast(segment, r.at) {
				if wrong := f.accepted(f.crashed(fs)); wrong != "" {
					t.Errorf("%s at %d (%s, in the last Save): %s", segment, r.at, recordKinds[r.kind], wrong)
				}
			} else if wrong := f.refused(fs); wrong != "" {
				t.Errorf("%s at %d (%s): %s", segment, r.at, recordKinds[r.kind], wrong)
			}
		}
	}
}

// The mark does not end with a hard state record, as a Save does.
func TestZeroedLengthBesideAMarkIsRefused(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	for range 4 {
		f.save(2, 2, 60)
	}
	f.markAt(5)
	f.save(2, 2, 60)
	f.close()
	segment := f.after.segments()[0]
	for _, r := range frames(f.after[segment]) {
		if f.inLast(segment, r.at) {
			continue
		}
		b := bytes.Clone(f.after[segment])
		clear(b[r.at : r.at+8])
		if wrong := f.refused(f.after.with(segment, b)); wrong != "" {
			t.Errorf("%s at %d (%s): %s", segment, r.at, recordKinds[r.kind], wrong)
		}
	}
}

func TestZeroedSectorIsRefused(t *testing.T) {
	f := longLog(t)
	for _, segment := range f.after.segments() {
		for from := int64(0); from < dataEnd(f.after[segment]); from += sector {
			b := bytes.Clone(f.after[segment])
			clear(b[from:min(from+sector, int64(len(b)))])
			fs := f.after.with(segment, b)
			if f.inLast(segment, from) {
				if wrong := f.accepted(f.crashed(fs)); wrong != "" {
					t.Errorf("%s, sector at %d (in the last Save): %s", segment, from, wrong)
				}
			} else if wrong := f.refused(fs); wrong != "" {
				t.Errorf("%s, sector at %d: %s", segment, from, wrong)
			}
		}
	}
}

// Every bit of the padding or the type of each record, and one bit of some of
// the other bytes. A bit that is not noticed changes nothing that is read.
func TestFlippedBitIsRefused(t *testing.T) {
	slow.Test(t)
	f := longLog(t)
	f.after.write(t, f.scratch)
	lost, nameless := findings{}, findings{}
	for _, segment := range f.after.segments() {
		path := filepath.Join(f.scratch, segment)
		unsummed := map[int64]bool{}
		for i, r := range frames(f.after[segment]) {
			unsummed[r.at+7] = i%2 == 0 // the padding
			unsummed[r.at+9] = i%2 == 1 // the type
		}
		for at := range dataEnd(f.after[segment]) {
			bits := []int{int(at) % 8}
			if unsummed[at] {
				bits = []int{0, 1, 2, 3, 4, 5, 6, 7}
			} else if at%37 != 0 {
				continue
			}
			for _, bit := range bits {
				if f.inLast(segment, at) {
					continue
				}
				// Most are refused by the scan, which changes nothing: only
				// the others need a directory of their own.
				old := f.after[segment][at]
				overwrite(t, path, at, old^1<<bit)
				_, err := scanLog(filepath.Join(f.scratch, walDir), f.id)
				if err == nil || !strings.Contains(err.Error(), ".wal") {
					b := bytes.Clone(f.after[segment])
					b[at] ^= 1 << bit
					wrong := f.refused(f.after.with(segment, b))
					if strings.HasPrefix(wrong, "silently") {
						lost.add("%s, bit %d of byte %d: %s", segment, bit, at, wrong)
					} else if wrong != "" {
						nameless.add("%s, bit %d of byte %d: %s", segment, bit, at, wrong)
					}
					f.after.write(t, f.scratch)
					continue
				}
				overwrite(t, path, at, old)
			}
		}
	}
	lost.report(t, "synced Saves are lost")
	nameless.report(t, "the refusal does not say where")
}

// findings are too many to print when something basic is wrong.
type findings struct {
	count int
	first []string
}

func (f *findings) add(format string, args ...any) {
	if f.count++; len(f.first) < 6 {
		f.first = append(f.first, fmt.Sprintf(format, args...))
	}
}

func (f *findings) report(t *testing.T, what string) {
	t.Helper()
	if f.count > 0 {
		t.Errorf("%s, %d times, first:\n%s", what, f.count, strings.Join(f.first, "\n"))
	}
}

func overwrite(t *testing.T, path string, at int64, b byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{b}, at); err != nil {
		t.Fatal(err)
	}
}

// A closed segment was synced as a whole.
func TestTruncatedClosedSegmentIsRefused(t *testing.T) {
	f := longLog(t)
	segs := f.after.segments()
	for _, segment := range segs[:len(segs)-1] {
		whole := f.after[segment]
		cuts := []int64{0, 1, 8, int64(len(whole)) - 1, int64(len(whole)) - 8}
		for _, r := range frames(whole) {
			cuts = append(cuts, r.at, r.at+4, r.at+8)
		}
		for _, cut := range cuts {
			d, rec, err := f.open(f.after.with(segment, whole[:cut]))
			if err == nil {
				t.Errorf("%s cut at %d: accepted: %s%s", segment, cut, f.whole(rec), f.closed(d))
			} else if !strings.Contains(err.Error(), ".wal") {
				t.Errorf("%s cut at %d: the refusal names no file: %v", segment, cut, err)
			}
		}
	}
}

// The open segment is preallocated, so a file that ends before its last Save
// was cut short by no crash.
func TestTruncatedOpenSegmentIsRefused(t *testing.T) {
	f := longLog(t)
	last := f.saves[len(f.saves)-1]
	whole := f.after[last.segment]
	var lost []int64
	for cut := int64(12); cut < last.from; cut += 40 {
		if f.refused(f.after.with(last.segment, whole[:cut])) != "" {
			lost = append(lost, cut)
		}
	}
	if len(lost) > 0 {
		t.Errorf("%s: synced Saves lost silently when it is cut at %d", last.segment, lost)
	}
}

func TestMissingAndSwappedSegmentsAreRefused(t *testing.T) {
	f := longLog(t)
	segs := f.after.segments()
	for i, gone := range segs[:len(segs)-1] {
		d, rec, err := f.open(f.after.with(gone, nil))
		if err == nil {
			if wrong := f.whole(rec); wrong != "" {
				t.Errorf("without segment %d: silently lost: %s", i, wrong)
			}
			if wrong := f.closed(d); wrong != "" {
				t.Error(wrong)
			}
		}
	}
	for i := range segs {
		for j := range i {
			fs := f.after.with(segs[i], f.after[segs[j]]).with(segs[j], f.after[segs[i]])
			d, rec, err := f.open(fs)
			if err == nil {
				t.Errorf("segments %d and %d swapped: accepted: %s%s", j, i, f.whole(rec), f.closed(d))
			} else if !strings.Contains(err.Error(), ".wal") {
				t.Errorf("segments %d and %d swapped: the refusal names no file: %v", j, i, err)
			}
		}
	}
}

func TestMissingNewestSegmentIsRefused(t *testing.T) {
	f := longLog(t)
	segs := f.after.segments()
	d, rec, err := f.open(f.after.with(segs[len(segs)-1], nil))
	if err == nil {
		t.Errorf("silently lost: %s%s", f.whole(rec), f.closed(d))
	}
}

// The header of a new segment is synced before the segment gets its name, so
// damage to it is no torn tail, also when it is all that the segment has.
func TestDamagedHeaderOfAFreshSegmentIsRefused(t *testing.T) {
	smallSegments(t, 4<<10)
	f := newLogFixture(t)
	for len(f.after.segments()) == 1 {
		f.save(2, 2, 300)
	}
	f.close()
	segment := f.after.segments()[1]
	for _, r := range frames(f.after[segment]) {
		b := bytes.Clone(f.after[segment])
		clear(b[r.at : r.at+8])
		d, rec, err := f.open(f.after.with(segment, b))
		if err != nil {
			continue // refused
		}
		// Accepted: then the log must stay usable.
		if wrong := f.whole(rec); wrong != "" {
			t.Errorf("%s zeroed: %s", recordKinds[r.kind], wrong)
		}
		next := testEntry(9, f.last()+1, 100)
		err = d.Save(&raftpb.HardState{Term: new(uint64(9)), Vote: new(uint64(1)), Commit: new(uint64(1))}, []*raftpb.Entry{next})
		if wrong := f.closed(d); err != nil || wrong != "" {
			t.Fatal(err, wrong)
		}
		d, rec, err = openDisk(f.scratch, f.id, quietZap())
		if err != nil {
			t.Errorf("%s zeroed: accepted, but after one more Save the log cannot be opened: %v", recordKinds[r.kind], err)
			continue
		}
		if lastIndex(rec.entries) != next.GetIndex() {
			t.Errorf("%s zeroed: accepted, but a later Save is lost", recordKinds[r.kind])
		}
		if wrong := f.closed(d); wrong != "" {
			t.Error(wrong)
		}
	}
}

// FuzzScan: whatever bytes lie behind a valid log, reading them neither
// panics nor loses what precedes them.
func FuzzScan(f *testing.F) {
	record := func(b []byte) []byte {
		return append(binary.LittleEndian.AppendUint64(nil, uint64(len(b))), b...)
	}
	f.Add([]byte{})
	f.Add(make([]byte, 64))
	f.Add([]byte("\x10\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(record([]byte{8, 3, 16, 0, 26, 0, 0, 0}))
	f.Add(append(record([]byte{8, 3, 16, 5, 26, 0, 0, 0}), record([]byte{8, 2, 16, 5, 26, 0, 0, 0})...))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, tail []byte) {
		if at := laterSave(tail, &recordCheck{}); at >= 0 && (at%8 != 0 || at >= len(tail)) {
			t.Fatalf("found at %d of %d bytes", at, len(tail))
		}
		for off := 0; off <= len(tail); off++ {
			if rec, next := recordAt(tail, off); rec != nil && (next <= off || next > len(tail)) {
				t.Fatalf("a record from %d to %d of %d bytes", off, next, len(tail))
			}
		}
	})
}
