package bench

import (
	"math"
	"math/bits"
	"time"
)

// The buckets are those of a floating-point number: values below subBuckets
// nanoseconds have one each, and above that every power of two is split into
// subBuckets equal parts. A bucket is therefore at most 1/128 (0.8 %) as wide
// as the values in it.
const (
	subBits    = 7
	subBuckets = 1 << subBits
	// maxBits bounds what is told apart: 2^41 ns is 36 minutes.
	maxBits     = 41
	bucketCount = (maxBits - subBits + 1) * subBuckets
)

// Histogram counts durations with a relative error of less than 1 %. The zero
// value is empty and ready. It is not safe for concurrent use: every worker
// fills its own, and Merge adds them up.
type Histogram struct {
	counts [bucketCount]uint64
	n      uint64
	sum    time.Duration
	min    time.Duration
	max    time.Duration
}

// Record counts d. A negative d counts as 0, one beyond 36 minutes goes into
// the last bucket; Max stays exact.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	if h.n == 0 || d < h.min {
		h.min = d
	}
	h.max = max(h.max, d)
	h.n++
	h.sum += d
	h.counts[bucketOf(d)]++
}

// Merge adds what other has counted to h.
func (h *Histogram) Merge(other *Histogram) {
	if other.n == 0 {
		return
	}
	if h.n == 0 || other.min < h.min {
		h.min = other.min
	}
	h.max = max(h.max, other.max)
	h.n += other.n
	h.sum += other.sum
	for i := bucketOf(other.min); i <= bucketOf(other.max); i++ {
		h.counts[i] += other.counts[i]
	}
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Max returns the longest duration recorded, exactly; 0 when there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the arithmetic mean, exactly; 0 when there is none.
func (h *Histogram) Mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// Quantile returns the duration that the fraction q (0 to 1) of all recorded
// ones do not exceed, by the nearest-rank rule. It is the upper edge of a
// bucket, so it may be up to 0.8 % too high and is never too low, except that
// nothing above 36 minutes is told apart. It is 0 when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.n)))
	rank = min(max(rank, 1), h.n)
	var seen uint64
	for i := bucketOf(h.min); i <= bucketOf(h.max); i++ {
		seen += h.counts[i]
		if seen >= rank {
			return min(max(upperEdge(i), h.min), h.max)
		}
	}
	return h.max
}

// bucketOf returns the index of the bucket that d, 0 or more, belongs to.
func bucketOf(d time.Duration) int {
	v := uint64(d)
	if v < subBuckets {
		return int(v)
	}
	if bits.Len64(v) > maxBits {
		return bucketCount - 1
	}
	shift := bits.Len64(v) - 1 - subBits
	return shift<<subBits + int(v>>shift)
}

// upperEdge returns the longest duration that belongs to bucket i.
func upperEdge(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	mantissa := uint64(i - shift<<subBits)
	return time.Duration((mantissa+1)<<shift - 1)
}
