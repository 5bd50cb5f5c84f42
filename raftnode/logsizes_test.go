package raftnode

import (
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// logSizes against the sum of what it should hold.
func TestLogSizes(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 5))
		var l logSizes
		first := r.Uint64N(5)
		l.reset(first)
		first++
		var want []int64 // from first on
		for range 60 {
			switch next := first + uint64(len(want)); r.IntN(4) {
			case 0, 1, 2:
				from := next
				if len(want) > 0 && r.IntN(3) == 0 {
					from -= r.Uint64N(uint64(len(want))) // a rewrite
				}
				want = want[:from-first]
				var entries []*raftpb.Entry
				var added int64
				for i := range r.Uint64N(5) + 1 {
					e := testEntry(1, from+i, r.IntN(500))
					entries = append(entries, e)
					added += int64(len(e.GetData())) + 64
					want = append(want, int64(len(e.GetData()))+64)
				}
				if got := l.append(entries); got != added {
					t.Fatalf("append says %d bytes, want %d", got, added)
				}
			case 3:
				index := first - 1 + r.Uint64N(uint64(len(want))+1)
				l.compact(index)
				want = want[index+1-first:]
				first = index + 1
			}
			var total int64
			for _, s := range want {
				total += s
			}
			if l.first != first || len(l.sizes) != len(want) || l.total != total {
				t.Fatalf("seed %d: from %d, %d entries, %d bytes; want from %d, %d entries, %d bytes", seed, l.first, len(l.sizes), l.total, first, len(want), total)
			}
			keep := r.Int64N(total + 100)
			index := l.keepFrom(keep)
			var left int64
			for _, s := range want[index+1-first:] {
				left += s
			}
			if left > keep || index >= first && left+want[index-first] <= keep {
				t.Fatalf("seed %d: keepFrom(%d) of %d bytes leaves %d", seed, keep, total, left)
			}
		}
	}
}
