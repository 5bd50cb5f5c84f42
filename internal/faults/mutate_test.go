//go:build linux

package faults

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// record is a frame as the log has it: length and padding, then the bytes.
func record(n int) []byte {
	pad := (8 - n%8) % 8
	frame := uint64(n)
	if pad > 0 {
		frame |= uint64(0x80|pad) << 56
	}
	b := binary.LittleEndian.AppendUint64(nil, frame)
	return append(b, append(bytes.Repeat([]byte{0xaa}, n), make([]byte, pad)...)...)
}

// dataDir makes a directory with a file for every area.
func dataDir(t *testing.T, mark byte) string {
	t.Helper()
	dir := t.TempDir()
	segment := slices.Concat(record(13), record(200), record(8), make([]byte, 4096))
	segment[8] = mark
	for name, content := range map[string][]byte{
		"lock":                    {},
		"identity":                append([]byte("this is who I am "), mark),
		"highwater":               append(bytes.Repeat([]byte{1}, 5000), mark),
		"wal/0-0.wal":             segment,
		"wal/1-9.wal":             segment[:300],
		"snap/1-1.snap":           append(bytes.Repeat([]byte{3}, 25), mark),
		"store/store/000004.sst":  append(bytes.Repeat([]byte{4}, 2000), mark),
		"store/store/MANIFEST-01": append(bytes.Repeat([]byte{5}, 600), mark),
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir+"/")] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEachMutationDamagesSomething(t *testing.T) {
	older := dataDir(t, 7)
	kinds, places := map[string]int{}, map[string]int{}
	for seed := range uint64(300) {
		dir := dataDir(t, 9)
		before := contents(t, dir)
		what, err := mutate(rand.New(rand.NewPCG(seed, 0)), dir, older)
		if err != nil {
			t.Fatal(err)
		}
		after := contents(t, dir)
		if maps.Equal(before, after) {
			t.Errorf("seed %d: %q changed nothing", seed, what)
		}
		changed := 0
		for name := range before {
			if is, there := after[name]; !there || is != before[name] {
				changed++
			}
		}
		if len(after) > len(before) || changed > 2 {
			t.Errorf("seed %d: %q changed %d files and made %d", seed, what, changed, len(after)-len(before))
		}
		kind, rest, _ := strings.Cut(what, ": ")
		kinds[kind]++
		places[strings.FieldsFunc(rest, func(r rune) bool { return r == '/' || r == ' ' })[0]]++
	}
	if len(kinds) != len(mutations()) {
		t.Errorf("kinds of damage done: %v", kinds)
	}
	for _, a := range areas() {
		if places[a.name] == 0 {
			t.Errorf("nothing hit %s: %v", a.name, places)
		}
	}
}

func TestEqualSeedsMutateAlike(t *testing.T) {
	for seed := range uint64(50) {
		var what [2]string
		var found [2]map[string]string
		for i := range what {
			dir := dataDir(t, 9)
			var err error
			if what[i], err = mutate(rand.New(rand.NewPCG(seed, 5)), dir, dataDir(t, 7)); err != nil {
				t.Fatal(err)
			}
			found[i] = contents(t, dir)
		}
		if what[0] != what[1] || !maps.Equal(found[0], found[1]) {
			t.Errorf("seed %d: %q and %q", seed, what[0], what[1])
		}
	}
}

func TestRecordOffsets(t *testing.T) {
	segment := slices.Concat(record(13), record(200), record(8))
	want := []int{0, 24, 232}
	if got := recordOffsets(append(slices.Clone(segment), make([]byte, 64)...)); !slices.Equal(got, want) {
		t.Errorf("records begin at %v, want %v", got, want)
	}
	// A record that is cut off is none.
	if got := recordOffsets(segment[:len(segment)-1]); !slices.Equal(got, want[:2]) {
		t.Errorf("records begin at %v, want %v", got, want[:2])
	}
}

func TestZeroedLengthIsARecordsOwn(t *testing.T) {
	for seed := range uint64(20) {
		dir := dataDir(t, 9)
		path := filepath.Join(dir, "wal/0-0.wal")
		before := contents(t, dir)["wal/0-0.wal"]
		if _, err := zeroLength(rand.New(rand.NewPCG(seed, 0)), dir, path, ""); err != nil {
			t.Fatal(err)
		}
		after := contents(t, dir)["wal/0-0.wal"]
		for _, at := range recordOffsets([]byte(before)) {
			if after[at:at+8] == strings.Repeat("\x00", 8) {
				after = after[:at] + before[at:at+8] + after[at+8:]
				break
			}
		}
		if after != before {
			t.Errorf("seed %d: more or other bytes than one length changed", seed)
		}
	}
}

func TestNothingToMutate(t *testing.T) {
	if what, err := mutate(rand.New(rand.NewPCG(1, 1)), t.TempDir(), t.TempDir()); err == nil {
		t.Errorf("an empty directory was damaged: %q", what)
	}
}
