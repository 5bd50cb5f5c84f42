//go:build linux

package faults

import (
	"math/rand/v2"
	"testing"
)

func TestLargeMessagesDiffer(t *testing.T) {
	l := newLarge(rand.New(rand.NewPCG(1, 2)), 256<<20)
	seen := map[string]bool{}
	for i := range l.seqs {
		m := l.message(i)
		if len(m) != largeMessage || seen[m[:64]] {
			t.Fatalf("message %d has %d bytes or begins as another one", i, len(m))
		}
		seen[m[:64]] = true
	}
}
