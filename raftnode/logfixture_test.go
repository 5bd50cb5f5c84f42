package raftnode

import (
	"fmt"
	"log/slog"
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
func smallSegments(t testing.TB, size int64) {
	old := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = size
	t.Cleanup(func() { wal.SegmentSizeBytes = old })
}

// files are a directory's regular files by relative path.
type files map[string][]byte

func readFiles(t testing.TB, dir string) files {
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
func (f files) write(t testing.TB, dir string) {
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
	entries  []*raftpb.Entry // that it wrote
	state    *raftpb.HardState
	mark     uint64
	files    files // after it, with the high-water record caught up
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
		log: slices.Clone(f.log), entries: f.expected, state: f.state, mark: f.mark, files: f.after})
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

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: new(term), Vote: new(vote), Commit: new(commit)}
}
