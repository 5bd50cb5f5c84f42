package chat

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// takesSpace says whether an operation can fail for want of space.
func takesSpace(k errorfs.OpKind) bool {
	switch k {
	case errorfs.OpCreate, errorfs.OpLink, errorfs.OpRename, errorfs.OpMkdirAll, errorfs.OpFileWrite, errorfs.OpFileWriteAt,
		errorfs.OpFilePreallocate, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
		return true
	}
	return false
}

// fullAfter is a disk that is full after some operations that take space, and
// stays so.
type fullAfter struct{ left atomic.Int64 }

func newFullAfter(n int) *fullAfter {
	f := &fullAfter{}
	f.left.Store(int64(n))
	return f
}

// MaybeError implements errorfs.Injector.
func (f *fullAfter) MaybeError(op errorfs.Op) error {
	if takesSpace(op.Kind) && f.left.Add(-1) < 0 {
		return syscall.ENOSPC
	}
	return nil
}

// String implements errorfs.Injector.
func (f *fullAfter) String() string { return "full" }

// soon fails the test if f does not return.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s does not return", what)
	}
}

// Whatever write the disk is full at: who opens or restores a store learns it,
// and once there is space the store is there, as it was or as it was to become.
func TestFullDiskAtEveryStep(t *testing.T) {
	slow.Test(t)
	if !inOwnProcess(t) {
		return
	}
	source := memStore(t)
	apply(t, source, manyBytes(60)...)
	saved, restored := content(t, source), fullHash(t, source)
	empty := fullHash(t, memStore(t))
	filled := func(t *testing.T) (*vfs.MemFS, uint64) {
		fs := vfs.NewCrashableMem()
		s := openTestStore(t, fs, "data")
		apply(t, s, randomEntries(2, 20)...)
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		h := fullHash(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return fs, h
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T) (*vfs.MemFS, uint64)
		do   func(s *Store) error
	}{
		{"made", func(*testing.T) (*vfs.MemFS, uint64) { return vfs.NewCrashableMem(), empty }, nil},
		{"opened", filled, nil},
		{"flushed", filled, func(s *Store) error {
			if _, err := s.Apply(nil, 21, []byte("members")); err != nil {
				return err
			}
			_, err := s.Flush()
			return err
		}},
		{"restored", filled, func(s *Store) error {
			s.restoreTable = 48 << 10
			return s.Restore(bytes.NewReader(saved))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			steps := 0
			for steps < 500 {
				fs, old := tt.make(t)
				through := fullDisk(t, fs, steps, tt.do, func(s *Store) bool {
					got := fullHash(t, s)
					index, _ := s.Applied()
					return got == old || tt.name == "restored" && got == restored || tt.name == "flushed" && index == 21
				})
				if through {
					break
				}
				steps++
			}
			if steps < 4 || steps == 500 {
				t.Errorf("%d steps were tried", steps)
			}
		})
	}
}

// fullDisk opens a store and does what is asked of it. The disk is full after some
// operations of that, or of the opening if nothing is asked. It reports whether there was space enough; if not, valid
// judges what is there once there is space again.
func fullDisk(t *testing.T, fs *vfs.MemFS, steps int, do func(*Store) error, valid func(*Store) bool) (through bool) {
	t.Helper()
	s, err := (*Store)(nil), error(nil)
	disk := newFullAfter(steps)
	if do != nil {
		disk = newFullAfter(1 << 30)
	}
	soon(t, "OpenStore", func() {
		s, err = OpenStore("data", StoreOptions{FS: errorfs.Wrap(fs, disk)})
	})
	if err == nil && do != nil {
		disk.left.Store(int64(steps))
		soon(t, "the work", func() { err = do(s) })
	}
	if s != nil {
		soon(t, "Close", func() { _ = s.Close() })
	}
	if err == nil {
		return true
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full after %d: the reason is %v", steps, err)
	}
	if _, err := fs.Stat("data/" + tmpName); err == nil {
		t.Errorf("full after %d: %s is left, and takes space", steps, tmpName)
	}
	// The end of a process takes nothing of the disk but its locks.
	after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	again, err := OpenStore("data", StoreOptions{FS: after})
	if err != nil {
		t.Fatalf("full after %d: open again: %v", steps, err)
	}
	if !valid(again) {
		t.Errorf("full after %d: the store is neither the old nor the new one", steps)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	return false
}
