package chat

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// Whatever is applied, the engine's memory stays in its bound.
func TestEngineMemoryIsBounded(t *testing.T) {
	slow.Test(t)
	s := memStore(t)
	var most int64
	for range 100 {
		apply(t, s, manyBytes(512)...)
		most = max(most, s.MemoryBytes())
	}
	if most < memTableBytes || most > 96<<20 {
		t.Errorf("the engine took %d MiB for 100 MiB", most>>20)
	}
}

// compactionGate is a disk on which a compaction waits at its first write.
type compactionGate struct {
	vfs.FS
	once             sync.Once
	waiting, release chan struct{}
	after            atomic.Int64 // writes since
}

func (g *compactionGate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, c)
	if err != nil || c != "pebble-compaction" {
		return f, err
	}
	return gatedFile{f, g}, nil
}

type gatedFile struct {
	vfs.File
	gate *compactionGate
}

func (f gatedFile) Write(b []byte) (int, error) {
	first := false
	f.gate.once.Do(func() {
		first = true
		close(f.gate.waiting)
		<-f.gate.release
	})
	if !first {
		f.gate.after.Add(1)
	}
	return f.File.Write(b)
}

// Close leaves the compactions that are under way where they are, as a crash
// does: they can take long.
func TestCloseDoesNotWaitForCompactions(t *testing.T) {
	gate := &compactionGate{FS: vfs.NewMem(), waiting: make(chan struct{}), release: make(chan struct{})}
	s := openTestStore(t, gate, "data")
	for waiting := false; !waiting; {
		apply(t, s, manyBytes(64)...)
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-gate.waiting:
			waiting = true
		default:
		}
	}
	want := fullHash(t, s)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for !s.trouble.closing.Load() {
		runtime.Gosched()
	}
	close(gate.release)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if n := gate.after.Load(); n > 0 {
		t.Errorf("%d more writes were made for a compaction", n)
	}
	if fullHash(t, openTestStore(t, gate.FS, "data")) != want {
		t.Error("the store is not what it was")
	}
}
