package raftnode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

const sector = 512

// smallSegments makes etcd's log cut its files early, for this test.
func smallSegments(t *testing.T, size int64) {
	old := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = size
	t.Cleanup(func() { wal.SegmentSizeBytes = old })
}

// files are a directory's regular files by relative path.
type files map[string][]byte

func readFiles(t *testing.T, dir string) files {
	t.Helper()
	out := files{}
	for _, sub := range []string{walDir, snapDir} {
		names, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range names {
			if strings.HasSuffix(f.Name(), ".tmp") {
				continue // the next segment, allocated ahead
			}
			b, err := os.ReadFile(filepath.Join(dir, sub, f.Name()))
			if err != nil {
				t.Fatal(err)
			}
			out[filepath.Join(sub, f.Name())] = b
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, highWaterFile))
	if err != nil {
		t.Fatal(err)
	}
	out[highWaterFile] = b
	return out
}

// with returns the files with one of them replaced, or absent when b is nil.
func (f files) with(name string, b []byte) files {
	c := files{}
	for n, old := range f {
		c[n] = old
	}
	if c[name] = b; b == nil {
		delete(c, name)
	}
	return c
}

func (f files) segments() (names []string) {
	for name := range f {
		if strings.HasSuffix(name, ".wal") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// write makes the files the log in dir.
func (f files) write(t *testing.T, dir string) {
	t.Helper()
	for _, sub := range []string{walDir, snapDir, highWaterFile} {
		if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{walDir, snapDir} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range f {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// logFixture is a log made of real Saves, and what a reader must find in it.
type logFixture struct {
	t        *testing.T
	dir      string
	id       *identity
	disk     *walDisk
	log      []*raftpb.Entry // index 2 first
	state    *raftpb.HardState
	mark     uint64
	saves    []fixtureSave
	before   files // as they were before the last Save
	after    files
	early    []byte // the high-water record of a fresh log
	scratch  string
	expected []*raftpb.Entry // of the last Save
	shorter  bool            // the last Save ends with an earlier term than the log had
}

// fixtureSave is one Save: where its records lie, and what is in the log
// when it is durable.
type fixtureSave struct {
	segment  string // relative path
	from, to int64
	log      []*raftpb.Entry
	state    *raftpb.HardState
	mark     uint64
}

func quietZap() *zap.Logger { return zapLogger(slog.New(slog.DiscardHandler)) }

func newLogFixture(t *testing.T) *logFixture {
	t.Helper()
	peers := []Peer{{ID: 1, URL: "http://127.0.0.1:1"}}
	f := &logFixture{t: t, dir: filepath.Join(t.TempDir(), "log"), mark: 1,
		id:    &identity{Version: 1, ClusterID: 7, MemberID: 1, Incarnation: Incarnation{1, 2, 3}, Cluster: peers},
		state: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}}
	f.scratch = filepath.Join(filepath.Dir(f.dir), "scratch")
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var err error
	if f.disk, err = createDisk(f.dir, f.id, bootstrapSnapshot(peers), quietZap()); err != nil {
		t.Fatal(err)
	}
	f.after = readFiles(t, f.dir)
	f.early = f.after[highWaterFile]
	return f
}

func testEntry(term, index uint64, size int) *raftpb.Entry {
	text := fmt.Sprintf("entry %d of term %d ", index, term)
	text += strings.Repeat("x", max(0, size-len(text)))
	data := appendEntry(nil, kindApplication, requestID{Incarnation{9}, index}, []byte(text))
	return &raftpb.Entry{Term: new(term), Index: new(index), Data: data, Type: raftpb.EntryNormal.Enum()}
}

func (f *logFixture) last() uint64 { return max(1, lastIndex(f.log)) }

// record runs one write of the log and notes where it went.
func (f *logFixture) record(write func() error) {
	f.t.Helper()
	segs := f.after.segments()
	segment := segs[len(segs)-1]
	from := dataEnd(f.after[segment])
	f.before = f.after
	if err := write(); err != nil {
		f.t.Fatal(err)
	}
	// As it is some time after a Save; a torn one has the record from before.
	f.catchUp()
	f.after = readFiles(f.t, f.dir)
	f.saves = append(f.saves, fixtureSave{segment: segment, from: from, to: dataEnd(f.after[segment]),
		log: slices.Clone(f.log), state: f.state, mark: f.mark})
}

// catchUp writes the high-water record, which otherwise follows in its own
// time: what a test sees does not depend on that.
func (f *logFixture) catchUp() {
	f.t.Helper()
	if err := f.disk.high.catchUp(); err != nil {
		f.t.Fatal(err)
	}
}

// crashed returns the files with the high-water record as a crash during the
// last Save leaves it: from before, unless that Save made the log shorter,
// which is noted first.
func (f *logFixture) crashed(fs files) files {
	high := f.before[highWaterFile]
	if f.shorter {
		high = f.after[highWaterFile]
	}
	return fs.with(highWaterFile, high)
}

// save appends entries of a size at the end of the log.
func (f *logFixture) save(term uint64, count, size int) { f.saveFrom(f.last()+1, term, count, size) }

// saveFrom rewrites the log from first on.
func (f *logFixture) saveFrom(first, term uint64, count, size int) {
	f.t.Helper()
	var entries []*raftpb.Entry
	for i := range uint64(count) {
		entries = append(entries, testEntry(term, first+i, size))
	}
	f.saveEntries(term, entries)
}

func (f *logFixture) saveEntries(term uint64, entries []*raftpb.Entry) {
	f.t.Helper()
	f.shorter = false
	if len(entries) > 0 {
		f.shorter = len(f.log) > 0 && entries[len(entries)-1].GetTerm() < f.log[len(f.log)-1].GetTerm()
		f.log = append(slices.Clone(f.log[:entries[0].GetIndex()-2]), entries...)
	}
	f.expected = entries
	term = max(term, f.state.GetTerm()) // entries can be of an earlier one
	f.state = &raftpb.HardState{Term: new(term), Vote: new(uint64(1)), Commit: new(f.last() - min(f.last()-1, 3))}
	f.record(func() error { return f.disk.Save(f.state, entries) })
}

// markAt sets a snapshot mark.
func (f *logFixture) markAt(index uint64) {
	f.t.Helper()
	term := f.state.GetTerm()
	if index <= f.last() {
		term = f.log[index-2].GetTerm()
	}
	f.markOf(index, term)
}

func (f *logFixture) markOf(index, term uint64) {
	f.t.Helper()
	f.expected, f.mark, f.shorter = nil, index, false
	f.state = proto.CloneOf(f.state)
	f.state.Commit = new(max(index, f.state.GetCommit()))
	f.record(func() error { return f.disk.SaveSnapshot(f.state, snapshotAt(index, term)) })
}

func fixtureSnapshot(index uint64) *raftpb.Snapshot { return snapshotAt(index, 1) }

func snapshotAt(index, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: &raftpb.ConfState{Voters: []uint64{1}, AutoLeave: new(false)}}}
}

func (f *logFixture) close() {
	f.t.Helper()
	if err := f.disk.Close(); err != nil {
		f.t.Fatal(err)
	}
}

type frame struct {
	at, end int64
	kind    int64
}

// frames walks the records of an undamaged segment.
func frames(b []byte) (out []frame) {
	for off := 0; off+8 <= len(b); {
		rec, next := recordAt(b, off)
		if rec == nil {
			break
		}
		out = append(out, frame{int64(off), int64(next), rec.GetType()})
		off = next
	}
	return out
}

func dataEnd(b []byte) int64 {
	all := frames(b)
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].end
}

// above is what openDisk returns of a log: what lies above the mark.
func above(log []*raftpb.Entry, mark uint64) (out []*raftpb.Entry) {
	for _, e := range log {
		if e.GetIndex() > mark {
			out = append(out, e)
		}
	}
	return out
}

func sameEntries(a, b []*raftpb.Entry) bool {
	return slices.EqualFunc(a, b, func(x, y *raftpb.Entry) bool { return proto.Equal(x, y) })
}

// whole says what is wrong with rec if anything that was ever synced is missing.
func (f *logFixture) whole(rec recovered) string { return f.saves[len(f.saves)-1].wrong(rec) }

func (s *fixtureSave) wrong(rec recovered) string {
	switch {
	case rec.snapshot.GetMetadata().GetIndex() != s.mark:
		return fmt.Sprintf("mark %d, want %d", rec.snapshot.GetMetadata().GetIndex(), s.mark)
	case rec.state.GetTerm() != s.state.GetTerm() || rec.state.GetVote() != s.state.GetVote() || rec.state.GetCommit() > s.state.GetCommit():
		// A lower commit index is nothing that anybody was promised.
		return fmt.Sprintf("state %v, want %v", rec.state, s.state)
	case !sameEntries(rec.entries, above(s.log, s.mark)):
		return fmt.Sprintf("%d entries up to %d, want %d up to %d", len(rec.entries), lastIndex(rec.entries), len(above(s.log, s.mark)), lastIndex(s.log))
	}
	return ""
}

// torn says what is wrong with rec if it is neither the log before the last
// Save nor that with a part of the last Save.
func (f *logFixture) torn(rec recovered) string {
	before, last := f.saves[len(f.saves)-2], f.saves[len(f.saves)-1]
	mark := rec.snapshot.GetMetadata().GetIndex()
	if mark != before.mark && mark != last.mark {
		return fmt.Sprintf("mark %d", mark)
	}
	if !proto.Equal(rec.state, before.state) && !proto.Equal(rec.state, last.state) {
		return fmt.Sprintf("state %v", rec.state)
	}
	if end := max(mark, lastIndex(rec.entries)); rec.state.GetCommit() > end {
		return fmt.Sprintf("commit index %d, but the log ends at %d: raft refuses to start with that", rec.state.GetCommit(), end)
	}
	for n := range len(f.expected) + 1 {
		log := before.log
		if n > 0 {
			log = append(slices.Clone(before.log[:f.expected[0].GetIndex()-2]), f.expected[:n]...)
		}
		if sameEntries(rec.entries, above(log, mark)) {
			return ""
		}
	}
	return fmt.Sprintf("%d entries up to %d, which is neither the log before the last Save, up to %d, nor a part of that Save", len(rec.entries), lastIndex(rec.entries), lastIndex(before.log))
}

// open opens a copy of the files.
func (f *logFixture) open(fs files) (*walDisk, recovered, error) {
	fs.write(f.t, f.scratch)
	return openDisk(f.scratch, f.id, quietZap())
}

// refused opens damaged files: either nothing that was synced is missing, or
// the error names a file and an offset. It returns what is wrong.
func (f *logFixture) refused(fs files) (wrong string) {
	defer func() {
		if r := recover(); r != nil {
			wrong = fmt.Sprintf("panic: %v", r)
		}
	}()
	d, rec, err := f.open(fs)
	if err == nil {
		if err := d.Close(); err != nil {
			f.t.Fatal(err)
		}
		if wrong := f.whole(rec); wrong != "" {
			return "silently lost: " + wrong
		}
		return ""
	}
	if !strings.Contains(err.Error(), ".wal") || !strings.Contains(err.Error(), "offset") {
		return fmt.Sprintf("the refusal names no file and offset: %v", err)
	}
	return ""
}

// accepted opens files with a torn tail, appends to the log and opens it
// again. It returns what is wrong.
func (f *logFixture) accepted(fs files) string {
	d, rec, err := f.open(fs)
	if err != nil {
		return fmt.Sprintf("refused: %v", err)
	}
	if wrong := f.torn(rec); wrong != "" {
		return wrong + f.closed(d)
	}
	mark := rec.snapshot.GetMetadata().GetIndex()
	next := testEntry(99, max(mark, lastIndex(rec.entries))+1, 100)
	state := &raftpb.HardState{Term: new(uint64(99)), Vote: new(uint64(1)), Commit: rec.state.Commit}
	if err := d.Save(state, []*raftpb.Entry{next}); err != nil {
		return "append after the repair: " + err.Error() + f.closed(d)
	}
	if wrong := f.closed(d); wrong != "" {
		return wrong
	}
	d, again, err := openDisk(f.scratch, f.id, quietZap())
	if err != nil {
		return "open after the repair and an append: " + err.Error()
	}
	want := fixtureSave{log: append(rec.entries, next), state: state, mark: mark}
	return want.wrong(again) + f.closed(d)
}

func (f *logFixture) closed(d *walDisk) string {
	if err := d.Close(); err != nil {
		return " close: " + err.Error()
	}
	return ""
}

// longLog has several segments, rewrites its tail, sets a mark, and has a
// last Save of several records.
func longLog(t *testing.T) *logFixture {
	smallSegments(t, 4<<10)
	f := newLogFixture(t)
	for range 12 {
		f.save(2, 3, 60)
	}
	f.saveFrom(f.last()-3, 3, 5, 80)
	f.markAt(9)
	for range 8 {
		f.save(3, 2, 150)
	}
	f.saveEntries(4, nil) // a vote
	f.save(4, 1, 700)
	f.save(5, 2, 90)
	f.save(5, 3, 120)
	f.close()
	if n := len(f.after.segments()); n < 3 {
		t.Fatalf("the log has %d segments, the test wants several", n)
	}
	if last := f.saves[len(f.saves)-1]; last.segment != f.after.segments()[len(f.after.segments())-1] {
		t.Fatal("the last Save cut a segment: make the log longer or shorter")
	}
	return f
}

// inLast reports whether damage to [from, to) of a segment lies within the
// last Save: nobody can tell that from a torn tail.
func (f *logFixture) inLast(segment string, from int64) bool {
	last := f.saves[len(f.saves)-1]
	return segment == last.segment && from >= last.from
}

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

// With the high-water record up to date, nothing that was synced goes
// unnoticed, also not the last Save.
func TestDamageToTheLastSaveIsRefusedWhenItIsKnown(t *testing.T) {
	f := longLog(t)
	last := f.saves[len(f.saves)-1]
	for at := last.from; at < last.to; at += 8 {
		b := bytes.Clone(f.after[last.segment])
		clear(b[at:last.to])
		if wrong := f.refused(f.after.with(last.segment, b)); wrong != "" {
			t.Errorf("cut at %d: %s", at-last.from, wrong)
		}
	}
}

// Until the high-water record follows, the log alone has to show that a later
// Save was begun. What it cannot show is damage that hides the very boundary
// before the last Save.
func TestDamageIsRefusedWhileTheHighWaterRecordLags(t *testing.T) {
	f := longLog(t)
	lagging, lost := f.after.with(highWaterFile, f.early), findings{}
	last := f.saves[len(f.saves)-1]
	boundary := last.from // of the hard state record before the last Save
	for _, r := range frames(f.after[last.segment]) {
		if r.end == last.from {
			boundary = r.at
		}
	}
	try := func(segment string, from, to int64, what string, b []byte) {
		if segment == last.segment && to > boundary {
			return
		}
		if wrong := f.refused(lagging.with(segment, b)); wrong != "" {
			lost.add("%s, %s at %d: %s", segment, what, from, wrong)
		}
	}
	for _, segment := range f.after.segments() {
		whole := f.after[segment]
		for _, r := range frames(whole) {
			b := bytes.Clone(whole)
			clear(b[r.at : r.at+8])
			try(segment, r.at, r.at+8, "zeroed length", b)
			for _, bit := range []int{0, 2, 7} {
				b := bytes.Clone(whole)
				b[r.at+7] ^= 1 << bit
				try(segment, r.at, r.at+8, fmt.Sprint("padding bit ", bit), b)
			}
		}
		for from := int64(0); from < dataEnd(whole); from += sector {
			b := bytes.Clone(whole)
			clear(b[from:min(from+sector, int64(len(b)))])
			try(segment, from, from+sector, "zeroed sector", b)
		}
	}
	lost.report(t, "synced Saves are lost")
}

func TestDamagedHighWaterRecordIsRefused(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	for range 4 {
		f.save(2, 2, 50)
	}
	f.close()
	high := f.after[highWaterFile]
	for slot := range 2 {
		// A torn write of one slot leaves the other.
		b := bytes.Clone(high)
		clear(b[slot*highWaterSlot : min((slot+1)*highWaterSlot, len(b))])
		if wrong := f.accepted(f.after.with(highWaterFile, b)); wrong != "" {
			t.Errorf("without slot %d: %s", slot, wrong)
		}
	}
	for name, b := range map[string][]byte{"empty": {}, "absent": nil, "zeroes": make([]byte, len(high))} {
		d, _, err := f.open(f.after.with(highWaterFile, b))
		if err == nil {
			t.Errorf("%s: accepted%s", name, f.closed(d))
		} else if !strings.Contains(err.Error(), highWaterFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for at := range highWaterSize {
		b := bytes.Clone(high)
		b[at] ^= 1
		b[highWaterSlot+at] ^= 1
		d, _, err := f.open(f.after.with(highWaterFile, b))
		if err == nil {
			t.Errorf("both slots damaged at byte %d: accepted%s", at, f.closed(d))
		}
	}
}

// A received snapshot can replace entries of a later term that were never
// committed: the log is then, as raft compares logs, behind what it was.
func TestReceivedSnapshotMayEndInAnEarlierTerm(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	f.save(2, 3, 60)
	f.markOf(500, 1)
	f.close()
	d, rec, err := f.open(f.after)
	if err != nil {
		t.Fatal(err)
	}
	if got := rec.snapshot.GetMetadata().GetIndex(); got != 500 || len(rec.entries) != 0 {
		t.Errorf("mark %d and %d entries", got, len(rec.entries))
	}
	if wrong := f.closed(d); wrong != "" {
		t.Error(wrong)
	}
}

// A clean stop leaves no window.
func TestCloseWritesTheHighWaterRecord(t *testing.T) {
	dir := t.TempDir()
	for i := range uint64(8) {
		h, err := openHighWater(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		want := water{lastTerm: 1, lastIndex: 10 + i}
		if err := errors.Join(h.advance(want), h.close()); err != nil {
			t.Fatal(err)
		}
		if h, err = openHighWater(dir, false); err != nil {
			t.Fatal(err)
		}
		if h.now != want {
			t.Errorf("%+v, want %+v", h.now, want)
		}
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A term, a vote and a shorter log are on the disk when advance returns.
func TestHighWaterIsSyncedBeforeAVoteIsHeardOf(t *testing.T) {
	dir := t.TempDir()
	h, err := openHighWater(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []water{{term: 3, vote: 1}, {term: 3, vote: 2}, {term: 4, lastTerm: 4, lastIndex: 9}, {term: 4, lastTerm: 4, lastIndex: 5}, {term: 4, lastTerm: 3, lastIndex: 50}} {
		if err := h.advance(w); err != nil {
			t.Fatal(err)
		}
		other := &highWater{file: h.file}
		if err := other.read("high water"); err != nil || other.now != w {
			t.Errorf("%+v, %v, want %+v", other.now, err, w)
		}
	}
	if err := h.close(); err != nil {
		t.Error(err)
	}
	if err := h.advance(water{term: 9}); err == nil {
		t.Error("a write to a closed file: no error")
	}
	if err := h.advance(water{term: 9}); err == nil {
		t.Error("the error is forgotten")
	}
}

func TestWaterIsComparedAsRaftComparesLogs(t *testing.T) {
	old := water{term: 5, vote: 2, lastTerm: 4, lastIndex: 10}
	for _, tt := range []struct {
		now water
		ok  bool
	}{
		{old, true},
		{water{5, 2, 4, 11}, true},
		{water{5, 2, 5, 3}, true}, // rewritten by a later leader
		{water{6, 0, 4, 10}, true},
		{water{6, 3, 4, 10}, true},
		{water{5, 2, 4, 9}, false},
		{water{5, 2, 3, 99}, false},
		{water{4, 2, 4, 10}, false},
		{water{5, 0, 4, 10}, false},
		{water{5, 3, 4, 10}, false},
		{water{6, 3, 4, 9}, false},
	} {
		if err := tt.now.holds(old); (err == nil) != tt.ok {
			t.Errorf("%+v after %+v: %v", tt.now, old, err)
		}
	}
	if err := (water{5, 7, 4, 10}).holds(water{5, 0, 4, 10}); err != nil {
		t.Errorf("a vote cast since: %v", err)
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

// fillTo appends until the log ends at an offset within a sector.
func (f *logFixture) fillTo(want int64) {
	f.t.Helper()
	at := func() int64 {
		segs := f.after.segments()
		return dataEnd(f.after[segs[len(segs)-1]])
	}
	start := at()
	term := f.state.GetTerm()
	f.save(term, 1, 100)
	used := at() - start
	missing := (want - at()%sector + sector) % sector
	for missing < used {
		missing += sector
	}
	f.save(term, 1, 100+int(missing-used))
	if got := at() % sector; got != want {
		f.t.Fatalf("the log ends at %d in its sector, want %d", got, want)
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

// The newest mark's snapshot file is part of what was synced.
func TestDamagedSnapshotFileIsRefused(t *testing.T) {
	for _, received := range []bool{false, true} {
		t.Run(fmt.Sprint("received ", received), func(t *testing.T) {
			smallSegments(t, 16<<10)
			f := newLogFixture(t)
			f.save(2, 9, 60)
			index := uint64(6)
			if received {
				index = 500
			}
			f.markAt(index)
			f.close()
			name := filepath.Join(snapDir, fmt.Sprintf("%016x-%016x.snap", 2, index))
			b := f.after[name]
			for _, damage := range [][]byte{nil, b[:len(b)/2], append(bytes.Clone(b[:len(b)-1]), b[len(b)-1]^1)} {
				d, rec, err := f.open(f.after.with(name, damage))
				if err != nil {
					continue
				}
				end := max(rec.snapshot.GetMetadata().GetIndex(), lastIndex(rec.entries))
				if end < max(index, f.last()) || rec.state.GetCommit() > end {
					t.Errorf("accepted with a log from %d up to %d and commit index %d", rec.snapshot.GetMetadata().GetIndex(), end, rec.state.GetCommit())
				}
				if wrong := f.closed(d); wrong != "" {
					t.Error(wrong)
				}
			}
		})
	}
}

// The records of a mark are on the disk, and not in a buffer, when SaveSnapshot
// returns: segments are deleted on the strength of it.
func TestMarkIsWrittenWhenSaveSnapshotReturns(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	f.save(2, 9, 60)
	f.markAt(10) // above what the Save committed
	asOfReturn := f.after
	f.close()
	d, rec, err := f.open(asOfReturn)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := f.whole(rec) + f.closed(d); wrong != "" {
		t.Error(wrong)
	}
}

// Segments below a mark go, those that a start needs stay.
func TestReleaseKeepsWhatAStartNeeds(t *testing.T) {
	smallSegments(t, 4<<10)
	f := newLogFixture(t)
	for range 20 {
		f.save(2, 3, 150)
	}
	index := f.last() - 4
	f.markAt(index)
	segs := len(f.after.segments())
	if err := f.disk.Release(index); err != nil {
		t.Fatal(err)
	}
	f.save(2, 2, 150)
	f.close()
	if got := len(f.after.segments()); got >= segs || got > 2 {
		t.Errorf("%d of %d segments left", got, segs)
	}
	d, rec, err := f.open(f.after)
	if err != nil {
		t.Fatal(err)
	}
	if wrong := f.whole(rec) + f.closed(d); wrong != "" {
		t.Error(wrong)
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
