package raftnode

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

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

// The snapshot file comes first: when it cannot be written, the log says
// nothing of it.
func TestMarkIsNotWrittenWithoutItsFile(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	f.save(2, 5, 50)
	if err := os.RemoveAll(filepath.Join(f.dir, snapDir)); err != nil {
		t.Fatal(err)
	}
	state := proto.CloneOf(f.state)
	state.Commit = new(uint64(4))
	if err := f.disk.SaveSnapshot(state, fixtureSnapshot(4)); err == nil {
		t.Fatal("the file was not written, and there is no error")
	}
	f.close()
	if err := os.MkdirAll(filepath.Join(f.dir, snapDir), 0o700); err != nil {
		t.Fatal(err)
	}
	got := readFiles(t, f.dir)
	for _, segment := range f.after.segments() {
		if string(got[segment]) != string(f.after[segment]) {
			t.Errorf("%s was written to", segment)
		}
	}
}

func TestReleaseKeepsTheNewestSnapshotFiles(t *testing.T) {
	smallSegments(t, 16<<10)
	f := newLogFixture(t)
	f.save(2, 40, 20)
	for _, index := range []uint64{5, 10, 20, 30} {
		f.markAt(index)
	}
	dir := filepath.Join(f.dir, snapDir)
	for _, name := range []string{filepath.Base(stagedPath(f.dir, 29)), filepath.Base(stagedPath(f.dir, 30)), filepath.Base(stagedPath(f.dir, 31)), "x.snap.broken", "db.tmp-send-2-1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.disk.Release(30); err != nil {
		t.Fatal(err)
	}
	f.close()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range names {
		got = append(got, n.Name())
	}
	want := []string{"0000000000000002-0000000000000014.snap", "0000000000000002-000000000000001e.snap", "000000000000001e.snap.db", "000000000000001f.snap.db", "db.tmp-send-2-1"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Between the snapshot file and the mark that relies on it the directory is
// synced: the file is there, and the log knows nothing of it yet. If that fails,
// the log never will.
func TestDirectoryIsSyncedBetweenTheFileAndTheMark(t *testing.T) {
	for _, broken := range []bool{false, true} {
		smallSegments(t, 16<<10)
		f := newLogFixture(t)
		f.save(2, 5, 50)
		segment := f.after.segments()[0]
		var synced []string
		f.disk.syncDir = func(dir string) error {
			synced = append(synced, filepath.Base(dir))
			now := readFiles(t, f.dir)
			if now[filepath.Join(snapDir, fmt.Sprintf("%016x-%016x.snap", 1, 4))] == nil {
				t.Error("synced before the file was there")
			}
			if !bytes.Equal(now[segment], f.after[segment]) {
				t.Error("the log was written to before the file is durable")
			}
			if broken {
				return errDisk
			}
			return nil
		}
		state := proto.CloneOf(f.state)
		state.Commit = new(uint64(4))
		err := f.disk.SaveSnapshot(state, fixtureSnapshot(4))
		if !slices.Equal(synced, []string{snapDir}) || errors.Is(err, errDisk) != broken {
			t.Errorf("broken %v: synced %q, %v", broken, synced, err)
		}
		f.close()
		if changed := !bytes.Equal(readFiles(t, f.dir)[segment], f.after[segment]); changed == broken {
			t.Errorf("broken %v: the log was written to: %v", broken, changed)
		}
	}
}

// A deleted segment that is still locked, and so open, keeps its 64 MB.
func TestReleaseLetsGoOfDeletedSegments(t *testing.T) {
	smallSegments(t, 4<<10)
	f := newLogFixture(t)
	for range 20 {
		f.save(2, 3, 150)
	}
	f.markAt(f.last() - 4)
	if err := f.disk.Release(f.mark); err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	ours := 0
	for _, fd := range open {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err != nil || !strings.HasPrefix(target, f.dir) {
			continue // closed since, or another's
		}
		if ours++; strings.HasSuffix(target, "(deleted)") {
			t.Errorf("still open: %s", target)
		}
	}
	if ours == 0 {
		t.Error("not even the segment in use is open: nothing was looked at")
	}
	f.close()
}
