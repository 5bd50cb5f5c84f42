package chat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// stateMachine is what the log asks of a Store; raftnode declares it.
type stateMachine interface {
	Applied() (index uint64, meta []byte)
	Apply(entries iter.Seq2[uint64, []byte], last uint64, meta []byte) (results []any, err error)
	Flush() (index uint64, err error)
	Snapshot(f func(index uint64, meta []byte, content io.WriterTo) error) error
	Restore(content io.Reader) error
	Close() error
}

var _ stateMachine = (*Store)(nil)

// The whole life of a store on a real file system.
func TestOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "chat")
	s := openTestStore(t, nil, dir)
	entries := randomEntries(1, 100)
	apply(t, s, entries...)
	saved, want := content(t, s), fullHash(t, s)
	if i, err := s.Flush(); i != 100 || err != nil {
		t.Fatalf("flush: %d, %v", i, err)
	}
	if _, err := OpenStore(dir, StoreOptions{}); err == nil {
		t.Error("one directory was opened twice")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, nil, dir)
	if fullHash(t, s) != want {
		t.Error("the reopened store differs")
	}
	apply(t, s, randomEntries(2, 10)...)
	if err := s.Restore(bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	if fullHash(t, s) != want {
		t.Error("the restored store differs")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, nil, dir)
	if fullHash(t, s) != want {
		t.Error("the restored store differs when reopened")
	}
}

func TestFreshStore(t *testing.T) {
	s := memStore(t)
	if i, meta := s.Applied(); i != 0 || meta != nil {
		t.Errorf("a fresh store has applied %d, meta %q", i, meta)
	}
	if i, err := s.Flush(); i != 0 || err != nil {
		t.Errorf("flush of a fresh store: %d, %v", i, err)
	}
	if i, _, err := s.FullHash(); i != 0 || err != nil {
		t.Errorf("full hash of a fresh store: %d, %v", i, err)
	}
}

// What was flushed is there after reopening: entries, counters, member records.
func TestReopen(t *testing.T) {
	fs := vfs.NewMem()
	s := openTestStore(t, fs, "data")
	entries := randomEntries(1, 50)
	apply(t, s, entries...)
	if _, err := s.Apply(nil, 60, []byte("members")); err != nil {
		t.Fatal(err)
	}
	if i, err := s.Flush(); i != 60 || err != nil {
		t.Fatalf("flush: %d, %v", i, err)
	}
	index, hash := s.StateHash()
	full, head := fullHash(t, s), s.head()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTestStore(t, fs, "data")
	if i, meta := s.Applied(); i != 60 || string(meta) != "members" {
		t.Errorf("reopened: applied %d, meta %q", i, meta)
	}
	if i, h := s.StateHash(); i != index || h != hash || fullHash(t, s) != full || s.head() != head {
		t.Errorf("reopened store differs")
	}
	// It goes on as one that was never closed.
	other := memStore(t)
	apply(t, other, entries...)
	if _, err := other.Apply(nil, 60, []byte("members")); err != nil {
		t.Fatal(err)
	}
	more := randomEntries(2, 50)
	apply(t, s, more...)
	apply(t, other, more...)
	if fullHash(t, s) != fullHash(t, other) {
		t.Error("a reopened store goes on differently")
	}
}

func TestClosedStore(t *testing.T) {
	s := memStore(t)
	apply(t, s, encodeEntry(1, post("a", "u", "p", "")))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Apply(nil, 5, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("apply: %v", err)
	}
	if _, err := s.Flush(); !errors.Is(err, ErrClosed) {
		t.Errorf("flush: %v", err)
	}
	if err := s.Restore(strings.NewReader("")); !errors.Is(err, ErrClosed) {
		t.Errorf("restore: %v", err)
	}
	if _, _, err := s.FullHash(); !errors.Is(err, ErrClosed) {
		t.Errorf("full hash: %v", err)
	}
}

// After a crash at any point the store is as it was after some Apply, not older
// than the last Flush, and applying the rest of the log leads to the same state
// as if nothing had happened.
func TestCrash(t *testing.T) {
	entries := randomEntries(7, 200)
	want := memStore(t)
	states := map[uint64]uint64{0: fullHash(t, want)} // applied index to full hash
	for _, e := range entries {
		apply(t, want, e)
		i, _ := want.Applied()
		states[i] = fullHash(t, want)
	}
	final := states[200]

	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 3))
		fs := vfs.NewCrashableMem()
		s := openTestStore(t, fs, "data")
		var durable uint64
		for n := 0; n < len(entries); {
			step := min(1+r.IntN(10), len(entries)-n)
			apply(t, s, entries[n:n+step]...)
			n += step
			if r.IntN(3) == 0 {
				var err error
				if durable, err = s.Flush(); err != nil {
					t.Fatal(err)
				}
				if durable != uint64(n) {
					t.Fatalf("flush reached %d of %d", durable, n)
				}
			}
			if r.IntN(4) > 0 {
				continue
			}
			// A machine that lost power now: some of what was not synced is
			// there, block by block.
			lost := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(3) * 50, RNG: r})
			c := openTestStore(t, lost, "data")
			index, _ := c.Applied()
			if index < durable || index > uint64(n) {
				t.Fatalf("seed %d: recovered %d, durable were %d, applied %d", seed, index, durable, n)
			}
			if got := fullHash(t, c); got != states[index] {
				t.Fatalf("seed %d: the store at %d is not what it was at %d", seed, index, index)
			}
			apply(t, c, entries[index:]...)
			if got := fullHash(t, c); got != final {
				t.Fatalf("seed %d: replay from %d leads elsewhere", seed, index)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A failed write or sync is reported once, ends Apply and Flush with its error,
// and nothing is written after it.
func TestFailedWriteStopsTheStore(t *testing.T) {
	var failing atomic.Bool
	var tried atomic.Int64 // writes after the failure
	boom := errors.New("boom")
	mem := vfs.NewMem()
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !failing.Load() {
			return nil
		}
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileWrite:
			tried.Add(1)
			return boom
		}
		return nil
	}))
	reports := make(chan error, 10)
	s, err := OpenStore("data", StoreOptions{FS: fs, Fatal: func(err error) { reports <- err }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	apply(t, s, encodeEntry(1, post("a", "u", "p", "")))
	failing.Store(true)
	if _, err := s.Flush(); !errors.Is(err, boom) {
		t.Fatalf("flush: %v", err)
	}
	if err := <-reports; !errors.Is(err, boom) {
		t.Errorf("reported %v", err)
	}
	// The disk works again; the store must not.
	failing.Store(false)
	before := tried.Load()
	if _, err := s.Apply(from(2, encodeEntry(2, post("a", "u", "p", ""))), 2, nil); !errors.Is(err, boom) {
		t.Errorf("apply: %v", err)
	}
	if _, err := s.Flush(); !errors.Is(err, boom) {
		t.Errorf("flush again: %v", err)
	}
	if err := s.Restore(bytes.NewReader(nil)); !errors.Is(err, boom) {
		t.Errorf("restore: %v", err)
	}
	if before > 1 {
		t.Errorf("%d writes were tried after the first had failed", before-1)
	}
	select {
	case err := <-reports:
		t.Errorf("reported again: %v", err)
	default:
	}
	_ = s.Close() // what it says about a broken store does not matter
	c := openTestStore(t, mem, "data")
	if i, _ := c.Applied(); i != 0 {
		t.Errorf("applied %d in a store that never flushed", i)
	}
}

// Apply that has to wait for the disk ends when that fails, instead of waiting
// for ever.
func TestApplyEndsWhenFlushesFail(t *testing.T) {
	var failing atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && (op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpCreate) {
			return errors.New("disk is gone")
		}
		return nil
	}))
	s, err := OpenStore("data", StoreOptions{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	failing.Store(true)
	text := strings.Repeat("x", 60<<10)
	var commands [][]byte
	for range 64 {
		commands = append(commands, post("a", "u", text, ""))
	}
	for index := uint64(1); ; index++ {
		_, err := s.Apply(from(index, encodeEntry(1, commands...)), index, nil)
		if err != nil {
			break
		}
		if index > 100 {
			t.Fatal("hundreds of megabytes were taken without a disk")
		}
	}
}

// A store whose records are damaged says so instead of giving wrong answers.
func TestDamagedRecordsAreRefused(t *testing.T) {
	s := memStore(t)
	apply(t, s, encodeEntry(1, post("a", "u", "p", "id")))
	keys := map[string][]byte{
		"room":     appendRoomKey(nil, "a"),
		"state":    appendRoomStateKey(nil, 1),
		"dedup":    appendDedupKey(nil, 1, "id"),
		"message":  appendMessageKey(nil, 1, 1),
		"counters": countersKey(),
	}
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			s := memStore(t)
			apply(t, s, encodeEntry(1, post("a", "u", "p", "id")))
			if err := s.db.Set(key, []byte{99}, pebble.NoSync); err != nil {
				t.Fatal(err)
			}
			s.applier.rooms.clear() // so that apply reads the store
			if name == "counters" {
				if _, err := loadPublished(s.db); !errors.Is(err, errRecord) {
					t.Errorf("load: %v", err)
				}
				return
			}
			_, err := s.Apply(from(2, encodeEntry(2, post("a", "u", "p", "id"))), 2, nil)
			if !errors.Is(err, errRecord) {
				t.Errorf("apply: %v", err)
			}
		})
	}
}

// More rooms than the cache holds are all right.
func TestManyRooms(t *testing.T) {
	s := memStore(t)
	s.applier.rooms.max = 8
	for round := range 3 {
		for i := 0; i < 100; i += 10 {
			var commands [][]byte
			for j := range 10 {
				commands = append(commands, post(fmt.Sprintf("room-%d", i+j), "u", "p", ""))
			}
			for _, r := range apply(t, s, encodeEntry(1, commands...))[0] {
				if r.message.Seq != uint64(round+1) {
					t.Fatalf("room %s: seq %d in round %d", r.message.Room, r.message.Seq, round)
				}
			}
			if n := s.applier.rooms.order.Len(); n > 8 || n != len(s.applier.rooms.byName) {
				t.Fatalf("%d rooms cached", n)
			}
		}
	}
}
