package server

import (
	"math"
	"strings"
	"testing"
)

func TestDefaultMemoryBudget(t *testing.T) {
	for _, tt := range []struct{ usable, want int64 }{
		{math.MaxInt64, 512 << 20},
		{24 << 30, 512 << 20},
		{3_000_000 << 10, 384_000_000},
		{1 << 30, 128 << 20},
		{256 << 20, 64 << 20},
	} {
		if got := defaultBudgetOf(tt.usable); got != tt.want {
			t.Errorf("%d bytes usable: %d, want %d", tt.usable, got, tt.want)
		}
	}
}

func TestMemoryBudgetThatCannotBeIsRefused(t *testing.T) {
	for _, tt := range []struct {
		budget, usable int64
		want           string
	}{
		{32 << 20, 1 << 30, ""},
		{1 << 30, 1 << 30, ""},
		{32<<20 - 1, 1 << 30, "less than 32 MiB"},
		{-1, 1 << 30, "less than 32 MiB"},
		{1<<30 + 1, 1 << 30, "may use at all"},
	} {
		got := memoryBudgetProblem(tt.budget, tt.usable)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%d of %d: %q, want %q", tt.budget, tt.usable, got, tt.want)
		}
	}
}
