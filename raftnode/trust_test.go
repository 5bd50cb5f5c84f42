package raftnode

import (
	"testing"
	"time"
)

// Calls are an interval apart, whatever the clock does: one that was set back
// must not close the gate until it is again as late as it was.
func TestGateKeepsAnIntervalWhenTheClockIsSet(t *testing.T) {
	const interval = time.Second
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		after time.Duration
		opens bool
	}{
		{"at once", 0, false},
		{"a little later", interval - 1, false},
		{"an interval later", interval, true},
		{"set forth", time.Hour, true},
		{"set back", -time.Hour, true},
		{"set back by little", -interval / 2, false},
	} {
		var g gate
		calls := 0
		call := func() { calls++ }
		g.do(t.Context(), start, interval, call)
		g.do(t.Context(), start.Add(tt.after), interval, call)
		if opened := calls == 2; opened != tt.opens {
			t.Errorf("%s: it opens %v, want %v", tt.name, opened, tt.opens)
		}
	}
}
