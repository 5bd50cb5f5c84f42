package chat

import (
	"io"
	"math/rand/v2"
	"testing"
)

// What is told of the past is what was there, however entries came, and it is
// told for as long as it is said to be.
func TestHashesOfThePast(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var h hashes
		first := r.Uint64N(3000)
		h.reset(first, 7)
		was := map[uint64]uint64{first: 7}
		changed := []uint64{first}
		last, hash := first, uint64(7)
		for range 800 {
			var marks []hashMark
			for range r.IntN(20) {
				next := last + 1
				if r.IntN(10) == 0 {
					next += r.Uint64N(300) // entries that are not the application's
				}
				for i := last + 1; i < next; i++ {
					was[i] = hash
				}
				last, hash = next, r.Uint64()
				was[last] = hash
				changed = append(changed, last)
				marks = append(marks, hashMark{last, hash})
			}
			end := last + r.Uint64N(3)
			for i := last + 1; i <= end; i++ {
				was[i] = hash
			}
			last = end
			h.add(marks, last)
		}
		recent := changed[max(0, len(changed)-recentHashes)]
		for i := uint64(0); i < last+10; i++ {
			got, known := h.at(i)
			want, reached := was[i]
			switch {
			case known && (!reached || got != want):
				t.Fatalf("seed %d: at %d the hash was %x (%v), and %x is told", seed, i, want, reached, got)
			case !known && reached && i >= recent:
				t.Fatalf("seed %d: the hash at %d of %d is not known", seed, i, last)
			case !known && i%hashStep == 0 && i > first && i+(spacedHashes-1)*hashStep > last && i <= last:
				t.Fatalf("seed %d: the hash at %d of %d is forgotten", seed, i, last)
			}
		}
		if len(h.recent) > 2*recentHashes || len(h.spaced) > 2*spacedHashes {
			t.Fatalf("%d and %d are kept", len(h.recent), len(h.spaced))
		}
	}
	var h hashes
	h.reset(1, 1)
	h.add([]hashMark{{1 << 62, 2}}, 1<<62) // far away is not far to go
	if got, known := h.at(1<<62 - hashStep); !known || got != 1 {
		t.Error(got, known)
	}
}

// Two stores know the same of the past, also one that began with a snapshot of
// the other or was opened anew.
func TestHashAtOfStores(t *testing.T) {
	s := memStore(t)
	other := memStore(t)
	at := map[uint64]uint64{}
	for i := range uint64(3 * hashStep) {
		apply(t, s, encodeEntry(int64(i), post("a", "u", "p", "")))
		_, at[i+1] = s.StateHash()
		if i == 2*hashStep+10 {
			err := s.Snapshot(func(_ uint64, _ []byte, content io.WriterTo) error {
				in, out := io.Pipe()
				go func() {
					_, err := content.WriteTo(out)
					_ = out.CloseWithError(err)
				}()
				return other.Restore(in)
			})
			if err != nil {
				t.Fatal(err)
			}
		} else if i > 2*hashStep+10 {
			apply(t, other, encodeEntry(int64(i), post("a", "u", "p", "")))
		}
	}
	for i, want := range at {
		for _, each := range []struct {
			s     *Store
			known bool
		}{{s, i > 2*hashStep || i%hashStep == 0}, {other, i >= 2*hashStep+11}} {
			got, known := each.s.HashAt(i)
			if each.known && !known || known && got != want {
				t.Fatalf("at %d: %x, %v, want %x", i, got, known, want)
			}
		}
	}
	if a, b := s.HashIndex(0), s.HashIndex(3*hashStep); a != 3*hashStep || b != 3*hashStep {
		t.Error(a, b)
	}
	apply(t, s, encodeEntry(9, post("a", "u", "p", "")))
	if a, b := s.HashIndex(0), s.HashIndex(3*hashStep); a != 3*hashStep || b != 3*hashStep+1 {
		t.Error(a, b)
	}
	if _, known := s.HashAt(3*hashStep + 2); known {
		t.Error("the future is known")
	}
}
