package raftnode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// sealed puts the checksum before b, as an identity file has it.
func sealed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)), b...)
}

// FuzzIdentity: a file is read as what save writes, or refused; with the right
// checksum, so that the fuzzer gets behind it.
func FuzzIdentity(f *testing.F) {
	dir := f.TempDir()
	if err := testIdentity().save(dir); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[4:], true)
	f.Add(b, false)
	f.Add([]byte(`{"version":2}`), true)
	f.Add([]byte(`{"version":1,"incarnation":"00"}`), true)
	f.Add([]byte("null"), true)
	f.Add([]byte{1, 2, 3}, false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			b = sealed(b)
		}
		path := filepath.Join(dir, identityFile)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := loadIdentity(dir)
		if err != nil {
			if id != nil || !strings.Contains(err.Error(), path) {
				t.Fatalf("%+v, %v", id, err)
			}
			return
		}
		if id.Version != identityVersion {
			t.Fatalf("version %d is taken", id.Version)
		}
		if err := id.save(dir); err != nil {
			t.Fatal(err)
		}
		again, err := loadIdentity(dir)
		if err != nil || !sameIdentity(again, id) {
			t.Fatalf("%+v became %+v, %v", id, again, err)
		}
	})
}

// FuzzHighWater: what is read was written whole in one of the slots, and the
// newer one of two; anything else is refused.
func FuzzHighWater(f *testing.F) {
	slot := func(counter uint64) []byte {
		b := []byte{highWaterVersion}
		for _, v := range []uint64{counter, 3, 1, 2, 9} {
			b = binary.BigEndian.AppendUint64(b, v)
		}
		return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	}
	f.Add(slot(4), slot(5))
	f.Add(slot(7), []byte{})
	f.Add([]byte{}, slot(1))
	f.Add(slot(1)[:20], slot(2)[:44])
	f.Add([]byte{}, []byte{})
	path := filepath.Join(f.TempDir(), highWaterFile)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		b := append(make([]byte, 0, 2*highWaterSlot), first[:min(len(first), highWaterSlot)]...)
		if len(second) > 0 {
			b = append(b[:cap(b)-highWaterSlot:cap(b)-highWaterSlot], second[:min(len(second), highWaterSlot)]...)
			clear(b[min(len(first), highWaterSlot):highWaterSlot])
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		h := &highWater{file: file}
		if err := h.read(path); err != nil {
			var d *damageError
			if !errors.As(err, &d) || d.path != path {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		// What was read, written again, is one of the slots, byte for byte.
		w := []byte{highWaterVersion}
		for _, v := range []uint64{h.counter, h.now.term, h.now.vote, h.now.lastTerm, h.now.lastIndex} {
			w = binary.BigEndian.AppendUint64(w, v)
		}
		w = binary.BigEndian.AppendUint32(w, crc32.Checksum(w, castagnoli))
		if !bytes.HasPrefix(b, w) && (len(b) < highWaterSlot || !bytes.HasPrefix(b[highWaterSlot:], w)) {
			t.Fatalf("read %+v with counter %d, which is in neither slot", h.now, h.counter)
		}
	})
}

// FuzzLog: whatever a segment holds behind a whole log, opening it refuses it
// with the file and the remedy, or gives entries that are whole and in order,
// the synced ones first.
func FuzzLog(f *testing.F) {
	dir := f.TempDir()
	id := &identity{Version: 1, ClusterID: 7, MemberID: 1, Incarnation: Incarnation{1, 2, 3}, Cluster: []Peer{{1, "http://a:1"}}}
	scratch := filepath.Join(dir, "log")
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		f.Fatal(err)
	}
	smallSegments(f, 16<<10)
	disk, err := createDisk(scratch, id, bootstrapSnapshot(id.Cluster), quietZap())
	if err != nil {
		f.Fatal(err)
	}
	whole := run(2, 2, 6)
	if err := errors.Join(disk.Save(hardState(2, 1, 6), whole), disk.Close()); err != nil {
		f.Fatal(err)
	}
	base := readFiles(f, scratch)
	segment := base.segments()[0]
	end := dataEnd(base[segment])
	// What a later Save looks like, and pieces of it.
	if disk, _, err = openDisk(scratch, id, quietZap()); err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(disk.Save(hardState(3, 1, 6), run(3, 7, 8)), disk.Save(hardState(3, 1, 8), run(3, 9, 9)), disk.Close()); err != nil {
		f.Fatal(err)
	}
	later := readFiles(f, scratch)[segment]
	later = later[end:dataEnd(later)]
	f.Add([]byte{}, false)
	f.Add(later, false)
	f.Add(later, true)
	f.Add(later[:len(later)/2], true)
	f.Add(append(make([]byte, 8), later[8:]...), false)
	f.Add(bytes.Repeat([]byte{0xff}, 40), false)
	f.Add([]byte("\x10\x00\x00\x00\x00\x00\x00\x00\x08\x02\x10\x00"), true)
	f.Fuzz(func(t *testing.T, tail []byte, cut bool) {
		b := append(bytes.Clone(base[segment][:end]), tail...)
		if !cut { // preallocated
			b = append(b, make([]byte, max(0, len(base[segment])-len(b)))...)
		}
		base.with(segment, b).write(t, scratch)
		disk, rec, err := openDisk(scratch, id, quietZap())
		if err != nil {
			var d *damageError
			if !errors.As(err, &d) || !strings.Contains(err.Error(), ".wal") || !strings.Contains(err.Error(), "raft-chat members replace 1") {
				var other *IdentityError
				if !errors.As(err, &other) {
					t.Fatalf("refused without the file or the remedy: %v", err)
				}
			}
			return
		}
		if err := disk.Close(); err != nil {
			t.Fatal(err)
		}
		if rec.state.GetTerm() < 2 || rec.state.GetCommit() > max(1, lastIndex(rec.entries)) {
			t.Fatalf("hard state %v over a log that ends at %d", rec.state, lastIndex(rec.entries))
		}
		for i, e := range rec.entries {
			if e.GetIndex() != uint64(i)+2 || e.GetTerm() == 0 {
				t.Fatalf("entry %d at position %d", e.GetIndex(), i)
			}
		}
		// A leader may have replaced entries by those of a later term.
		for i, e := range whole {
			if i >= len(rec.entries) || !proto.Equal(rec.entries[i], e) && rec.entries[i].GetTerm() <= 2 {
				t.Fatalf("entry %d is lost", e.GetIndex())
			}
		}
	})
}
