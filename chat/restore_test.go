package chat

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// Whenever the machine loses power or the process is killed in Restore, the old
// store is there or the new one, never a mixture; from some step on it is the new.
func TestCrashAtEveryStepOfRestore(t *testing.T) {
	slow.Test(t)
	source := memStore(t)
	apply(t, source, manyBytes(60)...)
	saved, restored := content(t, source), fullHash(t, source)

	mem := vfs.NewCrashableMem()
	rnd := rand.New(rand.NewPCG(9, 9))
	var mu sync.Mutex
	var crashes []*vfs.MemFS
	watched, staged := false, false
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpRemove, errorfs.OpRemoveAll:
		default:
			if !takesSpace(op.Kind) {
				return nil
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if watched {
			kept := []int{0, 100}
			if _, err := mem.Stat("data/" + newName); err == nil {
				staged = true
			}
			if !staged {
				// Names that were not synced are lost one by one then. No file
				// system does so with the two of a rename, nor with the engine's
				// manifest, which is synced, and the later file that names it.
				kept = append(kept, 50)
			}
			for _, kept := range kept {
				crashes = append(crashes, mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rnd}))
			}
		}
		return nil
	}))
	s := openTestStore(t, fs, "data")
	apply(t, s, randomEntries(2, 20)...)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	old := fullHash(t, s)
	s.restoreTable = 16 << 10
	mu.Lock()
	watched = true
	mu.Unlock()
	if err := s.Restore(bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	watched = false
	all := crashes
	mu.Unlock()

	before, after := 0, 0
	for i, fs := range all {
		c := openTestStore(t, fs, "data")
		switch got := fullHash(t, c); {
		case got == old && after < 2: // those of a step may differ
			before++
		case got == restored:
			after++
		default:
			t.Errorf("crash %d of %d: neither the old store nor the new one, or the old one again", i, len(all))
		}
		names, err := fs.List("data")
		if err != nil || len(names) != 1 {
			t.Errorf("crash %d of %d: there are %v, %v", i, len(all), names, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if before < 30 || after < 2 {
		t.Errorf("%d crashes left the old store, %d the new one", before, after)
	}
}

// Restore keeps nothing of the content in the engine's memory: the records go
// into tables, which the engine takes in at its lowest level.
func TestRestoreWritesTables(t *testing.T) {
	source, to := memStore(t), memStore(t)
	apply(t, source, manyBytes(60)...)
	to.restoreTable = 16 << 10
	if err := to.Restore(bytes.NewReader(content(t, source))); err != nil {
		t.Fatal(err)
	}
	if fullHash(t, to) != fullHash(t, source) {
		t.Error("the restored store differs")
	}
	m := to.db.Metrics()
	lowest := len(m.Levels) - 1
	for level, l := range m.Levels {
		if level == lowest && l.TablesCount < 3 || level < lowest && l.TablesCount > 0 {
			t.Errorf("level %d has %d tables", level, l.TablesCount)
		}
	}
}

// manyBytes are entries of 2 KiB that cannot be compressed.
func manyBytes(n int) (entries [][]byte) {
	rnd := rand.NewChaCha8([32]byte{1})
	text := make([]byte, 2<<10)
	for i := range n {
		_, _ = rnd.Read(text) // never fails
		entries = append(entries, encodeEntry(int64(i), post("a", "u", string(text), "")))
	}
	return entries
}

type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// Close does not wait for a Restore that is still reading, and leaves the old
// content.
func TestCloseEndsRestore(t *testing.T) {
	fs := vfs.NewMem()
	source, s := memStore(t), openTestStore(t, fs, "data")
	apply(t, source, randomEntries(1, 60)...)
	apply(t, s, randomEntries(2, 20)...)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	old, saved := fullHash(t, s), content(t, source)
	reading, closed := make(chan struct{}), make(chan error, 1)
	go func() {
		<-reading
		closed <- s.Close()
	}()
	first := true
	err := s.Restore(readerFunc(func(b []byte) (int, error) {
		if first {
			first = false
			close(reading)
			<-s.closed
		}
		n := copy(b, saved)
		saved = saved[n:]
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}))
	if !errors.Is(err, ErrClosed) {
		t.Errorf("restore: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if got := fullHash(t, openTestStore(t, fs, "data")); got != old {
		t.Error("the store is not what it was")
	}
}
