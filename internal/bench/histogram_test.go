package bench

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	shapes := map[string]func() time.Duration{
		"uniform":     func() time.Duration { return time.Duration(r.Int64N(int64(50 * time.Millisecond))) },
		"exponential": func() time.Duration { return time.Duration(r.ExpFloat64() * float64(3*time.Millisecond)) },
		"log":         func() time.Duration { return time.Duration(math.Exp(r.Float64() * 27)) },
		"nanoseconds": func() time.Duration { return time.Duration(r.IntN(300)) },
	}
	for name, draw := range shapes {
		t.Run(name, func(t *testing.T) {
			var h Histogram
			all := make([]time.Duration, 20_001)
			for i := range all {
				all[i] = draw()
				h.Record(all[i])
			}
			slices.Sort(all)
			for _, q := range []float64{0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1} {
				rank := max(int(math.Ceil(q*float64(len(all)))), 1)
				exact := all[rank-1]
				got := h.Quantile(q)
				if got < exact || float64(got-exact) > 0.01*float64(exact) {
					t.Errorf("quantile %v: got %v, exactly it is %v", q, got, exact)
				}
			}
			if got, want := h.Max(), all[len(all)-1]; got != want {
				t.Errorf("max: got %v, want %v", got, want)
			}
			if got := h.Count(); got != uint64(len(all)) {
				t.Errorf("count: got %d, want %d", got, len(all))
			}
		})
	}
}

func TestHistogramMergeEqualsOne(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var whole, sum Histogram
	parts := make([]Histogram, 5)
	for range 10_000 {
		d := time.Duration(math.Exp(r.Float64() * 25))
		whole.Record(d)
		parts[r.IntN(4)].Record(d) // the fifth part stays empty
	}
	for i := range parts {
		sum.Merge(&parts[i])
	}
	if whole != sum {
		t.Error("merged parts differ from the whole")
	}
}

func TestHistogramEmptyAndExtremes(t *testing.T) {
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 || h.Mean() != 0 || h.Count() != 0 {
		t.Error("an empty histogram is not all zero")
	}
	h.Record(-time.Second)
	h.Record(math.MaxInt64 / 4)
	if got := h.Quantile(0); got != 0 {
		t.Errorf("a negative duration counts as %v, want 0", got)
	}
	if got := h.Max(); got != math.MaxInt64/4 {
		t.Errorf("max: got %v", got)
	}
	if got := h.Mean(); got != math.MaxInt64/8 {
		t.Errorf("mean: got %v", got)
	}
}

// Every bucket begins right after the one before ends, and its values lead
// back to it.
func TestHistogramBucketsAreContiguous(t *testing.T) {
	for i := range bucketCount {
		upper := upperEdge(i)
		if got := bucketOf(upper); got != i {
			t.Fatalf("upper edge %d of bucket %d belongs to bucket %d", upper, i, got)
		}
		next := min(i+1, bucketCount-1)
		if got := bucketOf(upper + 1); got != next {
			t.Fatalf("%d follows bucket %d but belongs to bucket %d", upper+1, i, got)
		}
	}
}

func BenchmarkHistogramRecord(b *testing.B) {
	var h Histogram
	d := time.Duration(0)
	for b.Loop() {
		d = (d + 7919) % time.Second
		h.Record(d)
	}
}
