package chat

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// content gives what Snapshot writes.
func content(t testing.TB, s *Store) []byte {
	t.Helper()
	var buf bytes.Buffer
	err := s.Snapshot(func(_ uint64, _ []byte, c io.WriterTo) error {
		_, err := c.WriteTo(&buf)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestSnapshotRestore(t *testing.T) {
	fs := vfs.NewCrashableMem()
	from, to := memStore(t), openTestStore(t, fs, "data")
	entries := randomEntries(3, 300)
	apply(t, from, entries...)
	// More than one chunk.
	apply(t, from, encodeEntry(1, post("long", "u", strings.Repeat("long", 100_000), "")))
	if _, err := from.Apply(nil, 400, []byte("members")); err != nil {
		t.Fatal(err)
	}
	apply(t, to, randomEntries(4, 50)...)

	if err := to.Restore(bytes.NewReader(content(t, from))); err != nil {
		t.Fatal(err)
	}
	check := func(s *Store) {
		t.Helper()
		if i, meta := s.Applied(); i != 400 || string(meta) != "members" {
			t.Errorf("applied %d, meta %q", i, meta)
		}
		if fullHash(t, s) != fullHash(t, from) || s.head() != from.head() {
			t.Error("the restored store differs")
		}
	}
	check(to)
	// It was durable when Restore returned.
	crashed := openTestStore(t, fs.CrashClone(vfs.CrashCloneCfg{}), "data")
	check(crashed)
	// And it goes on as the original does.
	more := randomEntries(5, 50)
	apply(t, from, more...)
	apply(t, to, more...)
	if fullHash(t, to) != fullHash(t, from) {
		t.Error("the restored store goes on differently")
	}
	if i, err := to.Flush(); i != 450 || err != nil {
		t.Errorf("flush: %d, %v", i, err)
	}
}

// A snapshot does not see what is applied while it is read.
func TestSnapshotIsConsistent(t *testing.T) {
	s := memStore(t)
	apply(t, s, randomEntries(1, 50)...)
	want := content(t, s)
	var got bytes.Buffer
	err := s.Snapshot(func(index uint64, _ []byte, c io.WriterTo) error {
		apply(t, s, encodeEntry(1, post("new", "u", "p", "")))
		if index != 50 {
			t.Errorf("snapshot of %d", index)
		}
		_, err := c.WriteTo(&got)
		return err
	})
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the snapshot changed while it was read: %v", err)
	}
}

// A reader of a snapshot that never comes to an end does not hold up Restore or
// Close; it learns that its snapshot is gone.
func TestSlowSnapshot(t *testing.T) {
	for _, ends := range []string{"restore", "close"} {
		t.Run(ends, func(t *testing.T) {
			s := memStore(t)
			apply(t, s, encodeEntry(1, post("a", "u", strings.Repeat("x", 3*contentChunk), "")), encodeEntry(2, post("b", "u", "p", "")))
			saved := content(t, s)
			blocked, release := make(chan struct{}), make(chan struct{})
			result := make(chan error, 1)
			go func() {
				result <- s.Snapshot(func(_ uint64, _ []byte, c io.WriterTo) error {
					_, err := c.WriteTo(&gate{blocked: blocked, release: release})
					return err
				})
			}()
			<-blocked
			want := ErrReplaced
			if ends == "restore" {
				if err := s.Restore(bytes.NewReader(saved)); err != nil {
					t.Fatal(err)
				}
			} else {
				want = ErrClosed
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			close(release)
			if err := <-result; !errors.Is(err, want) {
				t.Errorf("snapshot ended with %v", err)
			}
		})
	}
}

// gate blocks the first write until released.
type gate struct {
	blocked, release chan struct{}
	passed           bool
}

func (g *gate) Write(p []byte) (int, error) {
	if !g.passed {
		g.passed = true
		close(g.blocked)
		<-g.release
	}
	return len(p), nil
}

// A crash at any step of a swap leaves the old store or the new one.
func TestCrashInSwap(t *testing.T) {
	source := memStore(t)
	apply(t, source, randomEntries(1, 100)...)
	saved, want := content(t, source), fullHash(t, source)

	fs := vfs.NewCrashableMem()
	s := openTestStore(t, fs, "data")
	apply(t, s, randomEntries(2, 20)...)
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	old := fullHash(t, s)
	reopen := func(what string, fs *vfs.MemFS, want uint64) {
		t.Helper()
		s := openTestStore(t, fs, "data")
		if got := fullHash(t, s); got != want {
			t.Errorf("%s: wrong content", what)
		}
		for _, name := range []string{newName, tmpName} {
			if _, err := fs.Stat("data/" + name); err == nil {
				t.Errorf("%s: %s is still there", what, name)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}

	if err := s.Restore(bytes.NewReader(saved[:len(saved)/2])); err == nil {
		t.Fatal("half a snapshot was restored")
	}
	if fullHash(t, s) != old {
		t.Error("a refused snapshot changed the store")
	}
	reopen("half a snapshot", fs.CrashClone(vfs.CrashCloneCfg{}), old)

	if err := s.stage(bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	reopen("staged", fs.CrashClone(vfs.CrashCloneCfg{}), want)

	// The old store is partly removed, and then wholly.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("data/" + storeName)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if err := fs.Remove("data/" + storeName + "/" + name); err != nil {
			t.Fatal(err)
		}
		if i == len(names)/2 {
			reopen("old half removed", fs.CrashClone(vfs.CrashCloneCfg{}), want)
		}
	}
	if err := fs.RemoveAll("data/" + storeName); err != nil {
		t.Fatal(err)
	}
	reopen("old removed", fs.CrashClone(vfs.CrashCloneCfg{}), want)
	if err := fs.Rename("data/"+newName, "data/"+storeName); err != nil {
		t.Fatal(err)
	}
	reopen("renamed, not synced", fs.CrashClone(vfs.CrashCloneCfg{}), want)
	reopen("renamed", fs, want)
}

func TestRestoreRefusesDamage(t *testing.T) {
	s := memStore(t)
	apply(t, s, encodeEntry(1, post("a", "u", "p", "id")))
	good, before := content(t, s), fullHash(t, s)
	bad := map[string][]byte{
		"empty":        {},
		"magic":        append([]byte("RCSTORE\x01"), good[8:]...),
		"version":      append([]byte("rcstore\x02"), good[8:]...),
		"no end":       good[:len(good)-2],
		"wrong count":  append(append([]byte{}, good[:len(good)-1]...), good[len(good)-1]+1),
		"trailing":     append(append([]byte{}, good...), 0),
		"huge lengths": append([]byte(contentMagic), 0xff, 0xff, 0xff, 0xff, 0x7f, 1),
		"long value":   append([]byte(contentMagic), 1, 0xff, 0xff, 0xff, 0x7f, 1),
		"unknown key":  append([]byte(contentMagic), 1, 0, prefixEnd, 0, 1),
		"not sorted":   append([]byte(contentMagic), 1, 0, 2, 1, 0, 1, 0, 2),
		"bad counters": append([]byte(contentMagic), 2, 1, prefixMeta, 'a', 77, 0, 1),
	}
	for name, c := range bad {
		if err := s.Restore(bytes.NewReader(c)); err == nil {
			t.Errorf("%s: was restored", name)
		}
		if fullHash(t, s) != before {
			t.Fatalf("%s: changed the store", name)
		}
	}
	if err := s.Restore(bytes.NewReader(good)); err != nil {
		t.Errorf("good content after bad: %v", err)
	}
}
