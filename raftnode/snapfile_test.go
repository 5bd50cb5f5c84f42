package raftnode

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// pieces is content that is written in several writes.
type pieces [][]byte

func (p pieces) WriteTo(w io.Writer) (total int64, err error) {
	for _, b := range p {
		n, err := w.Write(b)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (p pieces) joined() []byte { return bytes.Join(p, nil) }

func noise(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b) // never fails
	return b
}

var testSnapHeader = snapHeader{ClusterID: 1<<63 + 5, Index: 12, Term: 3, FeatureLevel: 1, Membership: json.RawMessage(`{"version":1,"voters":[1],"members":[]}`)}

func snapshotBytes(t testing.TB, content io.WriterTo) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeSnapshot(&b, testSnapHeader, content); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readSnapshot reads a whole file. got is what was handed out, also before
// an error.
func readSnapshot(r io.Reader) (h snapHeader, got []byte, err error) {
	if h, err = readSnapHeader(r); err != nil {
		return h, nil, err
	}
	got, err = io.ReadAll(newBlockReader(r))
	return h, got, err
}

func TestSnapshotFileRoundTrip(t *testing.T) {
	for name, content := range map[string]pieces{
		"empty":            {},
		"one byte":         {{0}},
		"small pieces":     {[]byte("a"), nil, []byte("bc"), []byte(strings.Repeat("d", 100))},
		"one block":        {noise(snapBlock)},
		"one byte more":    {noise(snapBlock), {1}},
		"several blocks":   {noise(3*snapBlock + 17), noise(5), noise(snapBlock + 1)},
		"zeroes":           {make([]byte, 2*snapBlock)},
		"looks like a end": {make([]byte, 20)},
	} {
		t.Run(name, func(t *testing.T) {
			b := snapshotBytes(t, content)
			for how, r := range map[string]io.Reader{"whole": bytes.NewReader(b), "in halves": iotest.HalfReader(bytes.NewReader(b)), "data with EOF": iotest.DataErrReader(bytes.NewReader(b))} {
				h, got, err := readSnapshot(r)
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if h.ClusterID != testSnapHeader.ClusterID || h.Index != 12 || h.Term != 3 || h.FeatureLevel != 1 || !bytes.Equal(h.Membership, testSnapHeader.Membership) {
					t.Errorf("%s: header %+v", how, h)
				}
				if !bytes.Equal(got, content.joined()) {
					t.Errorf("%s: %d bytes came back, want %d", how, len(got), len(content.joined()))
				}
			}
			if again := snapshotBytes(t, content); !bytes.Equal(again, b) {
				t.Error("the same content gives two files")
			}
		})
	}
}

func TestVerifySnapshotReadsTheWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	b := snapshotBytes(t, pieces{noise(2 * snapBlock)})
	if err := writeFileSync(path, b); err != nil {
		t.Fatal(err)
	}
	if h, err := verifySnapshot(path, nil); err != nil || h.Index != 12 {
		t.Fatal(h, err)
	}
	b[len(b)-30] ^= 1
	if err := writeFileSync(path, b); err != nil {
		t.Fatal(err)
	}
	if _, err := verifySnapshot(path, nil); !errors.Is(err, errSnapshotFile) {
		t.Errorf("a flipped bit near the end: %v", err)
	}
	if _, err := verifySnapshot(path+".none", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// damagedSnapshot reads a damaged file: an error must come, and nothing wrong
// before it.
func damagedSnapshot(t *testing.T, what string, at int, b, content []byte) {
	t.Helper()
	_, got, err := readSnapshot(bytes.NewReader(b))
	if err == nil {
		t.Errorf("%s at %d: accepted", what, at)
	}
	if !bytes.HasPrefix(content, got) {
		t.Errorf("%s at %d: wrong content before the error", what, at)
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	slow.Test(t)
	for name, content := range map[string]pieces{"empty": {}, "small": {noise(300)}} {
		t.Run(name, func(t *testing.T) {
			b := snapshotBytes(t, content)
			for n := range b {
				damagedSnapshot(t, "truncation", n, b[:n], content.joined())
				for _, flip := range []byte{1, 0x80, 0xff} {
					damaged := bytes.Clone(b)
					damaged[n] ^= flip
					damagedSnapshot(t, "flip", n, damaged, content.joined())
				}
			}
			damagedSnapshot(t, "a byte behind the end", len(b), append(bytes.Clone(b), 0), content.joined())
		})
	}
	// Blocks that are lost, repeated or swapped are whole in themselves.
	t.Run("blocks", func(t *testing.T) {
		content := pieces{noise(3 * snapBlock)}
		content[0][0] ^= 1 // no two blocks are equal
		b := snapshotBytes(t, content)
		start, block := len(b)-20-3*(snapBlock+8), snapBlock+8
		head, tail := b[:start], b[start+3*block:]
		blocks := [][]byte{b[start : start+block], b[start+block : start+2*block], b[start+2*block : start+3*block]}
		for _, order := range [][]int{{}, {0}, {0, 1}, {0, 2}, {1, 0, 2}, {0, 1, 2, 2}, {0, 0, 1, 2}} {
			damaged := bytes.Clone(head)
			for _, i := range order {
				damaged = append(damaged, blocks[i]...)
			}
			damaged = append(damaged, tail...)
			if _, _, err := readSnapshot(bytes.NewReader(damaged)); err == nil {
				t.Errorf("blocks %v: accepted", order)
			}
		}
		for n := start; n < len(b); n += 9973 {
			damagedSnapshot(t, "truncation", n, b[:n], content.joined())
		}
	})
}

// A failing reader is not the end of the file.
func TestSnapshotReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	b := snapshotBytes(t, pieces{noise(100)})
	for n := range b {
		_, _, err := readSnapshot(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

type failingContent struct{ err error }

func (f failingContent) WriteTo(w io.Writer) (int64, error) {
	n, _ := w.Write([]byte("begun"))
	return int64(n), f.err
}

type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	if w.left -= n; n < len(p) {
		return n, w.err
	}
	return n, nil
}

func TestSnapshotWriterPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	if err := writeSnapshot(io.Discard, testSnapHeader, failingContent{broken}); !errors.Is(err, broken) {
		t.Errorf("content: %v", err)
	}
	content := pieces{noise(100)}
	size := len(snapshotBytes(t, content))
	for n := range size {
		if err := writeSnapshot(&limitedWriter{n, broken}, testSnapHeader, content); !errors.Is(err, broken) {
			t.Fatalf("disk full after %d bytes: %v", n, err)
		}
	}
	if err := writeSnapshot(&limitedWriter{size, broken}, testSnapHeader, content); err != nil {
		t.Error(err)
	}
}

func TestSnapshotOfAnotherFormatIsRefused(t *testing.T) {
	var b bytes.Buffer
	h := testSnapHeader
	h.FeatureLevel = featureLevel + 1
	if err := writeSnapshot(&b, h, pieces{}); err != nil {
		t.Fatal(err)
	}
	if _, err := readSnapHeader(&b); err == nil || !strings.Contains(err.Error(), "feature level") {
		t.Errorf("later feature level: %v", err)
	}
	for i := range 2 {
		whole := snapshotBytes(t, pieces{})
		whole[len(snapMagic)+i]++
		if _, err := readSnapHeader(bytes.NewReader(whole)); err == nil || !strings.Contains(err.Error(), "not known") {
			t.Errorf("version or codec: %v", err)
		}
	}
}

// FuzzSnapshotFile edits a valid file: the reader never panics, and what it
// returns without an error is the content that was written.
func FuzzSnapshotFile(f *testing.F) {
	content := pieces{noise(700)}
	valid := snapshotBytes(f, content)
	f.Add(0, []byte{}, 0)
	f.Add(3, []byte("x"), 1)
	f.Add(10, []byte{0xff, 0xff, 0xff, 0xff}, 4)
	f.Add(len(valid)-20, []byte{0, 0, 0, 0}, 4)
	f.Add(len(valid)-700, []byte{0, 4, 0, 1}, 4)
	f.Add(0, valid, len(valid))
	f.Add(0, []byte(snapMagic), 1<<20)
	f.Fuzz(func(t *testing.T, at int, with []byte, instead int) {
		at = min(max(at, 0), len(valid))
		instead = min(max(instead, 0), len(valid)-at)
		b := append(append(bytes.Clone(valid[:at]), with...), valid[at+instead:]...)
		h, got, err := readSnapshot(bytes.NewReader(b))
		if err != nil {
			return
		}
		if bytes.Equal(b, valid) && !bytes.Equal(got, content.joined()) {
			t.Fatal("wrong content of the valid file")
		}
		// Another valid file then: it says the same when written again.
		var again bytes.Buffer
		if err := writeSnapshot(&again, h, pieces{got}); err != nil {
			t.Fatal(err)
		}
		if _, second, err := readSnapshot(&again); err != nil || !bytes.Equal(second, got) {
			t.Fatal("the content does not survive a second file", err)
		}
	})
}

// FuzzReadSnapshot reads arbitrary bytes.
func FuzzReadSnapshot(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(snapMagic))
	f.Add(snapshotBytes(f, pieces{}))
	f.Add(snapshotBytes(f, pieces{[]byte("abc")}))
	f.Add([]byte(snapMagic + "\x01\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, got, err := readSnapshot(bytes.NewReader(b)); err == nil && len(got)+len(snapMagic)+2+4+4+20 > len(b) {
			t.Fatalf("%d bytes of content from %d bytes", len(got), len(b))
		}
	})
}
