//go:build linux

package faults

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// area is a part of a data directory that mutations hit.
type area struct {
	name string
	glob string
}

func areas() []area {
	return []area{
		{"wal", "wal/*.wal"},
		{"snap", "snap/*"},
		{"store", "store/store/*"},
		{"highwater", "highwater"},
		{"identity", "identity"},
	}
}

// mutation is one kind of damage to one file.
type mutation struct {
	name string
	// do damages the file at path and says where. older is the same directory
	// at an earlier time, with the file at the same place if it had it.
	do func(rnd *rand.Rand, dir, path, older string) (where string, err error)
}

func mutations() []mutation {
	return []mutation{
		{"zeroed length", zeroLength},
		{"zeroed sector", zeroSector},
		{"truncated", truncate},
		{"flipped bit", flipBit},
		{"deleted", func(_ *rand.Rand, _, path, _ string) (string, error) { return "", os.Remove(path) }},
		{"swapped", swap},
		{"older copy", olderCopy},
	}
}

// errNothing says that a mutation does not apply to what is there.
var errNothing = errors.New("there is nothing to damage in this way")

// mutate damages dir in one way, which the random numbers choose, and says
// what it did. Areas come up equally often, however many files they have.
func mutate(rnd *rand.Rand, dir, older string) (string, error) {
	for range 1000 {
		where := areas()[rnd.IntN(len(areas()))]
		how := mutations()[rnd.IntN(len(mutations()))]
		paths, err := filepath.Glob(filepath.Join(dir, where.glob))
		if err != nil {
			return "", fmt.Errorf("mutate: %w", err)
		}
		if len(paths) == 0 {
			continue
		}
		path := paths[rnd.IntN(len(paths))]
		detail, err := how.do(rnd, dir, path, older)
		if errors.Is(err, errNothing) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("mutate: %s %s: %w", how.name, path, err)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return "", fmt.Errorf("mutate: %w", err)
		}
		return strings.TrimSpace(fmt.Sprintf("%s: %s %s", how.name, name, detail)), nil
	}
	return "", fmt.Errorf("mutate %s: %w", dir, errNothing)
}

// used is how far the file was ever written: a log segment is zeroes behind.
func used(b []byte) int { return len(bytes.TrimRight(b, "\x00")) }

// rewrite changes the content of a file in place.
func rewrite(path string, change func(b []byte) (where string, err error)) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	before := slices.Clone(b)
	where, err := change(b)
	if err != nil {
		return "", err
	}
	if bytes.Equal(before, b) {
		return "", errNothing
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	// What did not change is not written: files here are sparse.
	for at := 0; at < len(b); at += 512 {
		end := min(at+512, len(b))
		if !bytes.Equal(before[at:end], b[at:end]) {
			if _, err := f.WriteAt(b[at:end], int64(at)); err != nil {
				return "", errors.Join(err, f.Close())
			}
		}
	}
	return where, f.Close()
}

// zeroLength takes the length of a log record away, or any 8 bytes of another
// file.
func zeroLength(rnd *rand.Rand, _, path, _ string) (string, error) {
	return rewrite(path, func(b []byte) (string, error) {
		at := 0
		if strings.HasSuffix(path, ".wal") {
			records := recordOffsets(b)
			if len(records) == 0 {
				return "", errNothing
			}
			at = records[rnd.IntN(len(records))]
		} else {
			n := used(b) / 8
			if n == 0 {
				return "", errNothing
			}
			at = 8 * rnd.IntN(n)
		}
		clear(b[at:min(at+8, len(b))])
		return fmt.Sprint("at offset ", at), nil
	})
}

// recordOffsets finds the records of a log segment: each begins with its
// length in the lower 56 bits, the padding in the lower three of the rest.
func recordOffsets(b []byte) (offsets []int) {
	for at := 0; at+8 <= len(b); {
		frame := binary.LittleEndian.Uint64(b[at:])
		if frame == 0 {
			break
		}
		size := frame &^ (0xff << 56)
		if frame>>63 == 1 {
			size += frame >> 56 & 7
		}
		if size > uint64(len(b)-at-8) {
			break
		}
		offsets = append(offsets, at)
		at += 8 + int(size)
	}
	return offsets
}

func zeroSector(rnd *rand.Rand, _, path, _ string) (string, error) {
	return rewrite(path, func(b []byte) (string, error) {
		n := (used(b) + 511) / 512
		if n == 0 {
			return "", errNothing
		}
		at := 512 * rnd.IntN(n)
		clear(b[at:min(at+512, len(b))])
		return fmt.Sprint("at offset ", at), nil
	})
}

func flipBit(rnd *rand.Rand, _, path, _ string) (string, error) {
	return rewrite(path, func(b []byte) (string, error) {
		n := used(b)
		if n == 0 {
			return "", errNothing
		}
		at, bit := rnd.IntN(n), rnd.IntN(8)
		b[at] ^= 1 << bit
		return fmt.Sprintf("%d at offset %d", bit, at), nil
	})
}

func truncate(rnd *rand.Rand, _, path, _ string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	n := used(b)
	if n == 0 {
		return "", errNothing
	}
	size := rnd.IntN(n)
	return fmt.Sprintf("to %d of %d bytes", size, n), os.Truncate(path, int64(size))
}

// swap exchanges the contents of two files of one directory.
func swap(rnd *rand.Rand, _, path, _ string) (string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	var others []string
	for _, e := range entries {
		if other := filepath.Join(filepath.Dir(path), e.Name()); e.Type().IsRegular() && other != path && e.Name() != "lock" && e.Name() != "LOCK" {
			others = append(others, other)
		}
	}
	if len(others) == 0 {
		return "", errNothing
	}
	other := others[rnd.IntN(len(others))]
	temporary := path + ".swap"
	err = errors.Join(os.Rename(path, temporary), os.Rename(other, path), os.Rename(temporary, other))
	return "with " + filepath.Base(other), err
}

// olderCopy puts a file as it was some time ago in the place of what it is.
func olderCopy(_ *rand.Rand, dir, path, older string) (string, error) {
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return "", err
	}
	then, err := os.ReadFile(filepath.Join(older, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errNothing
	}
	if err != nil {
		return "", err
	}
	now, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if bytes.Equal(then, now) {
		return "", errNothing
	}
	return "", os.WriteFile(path, then, 0o600)
}
