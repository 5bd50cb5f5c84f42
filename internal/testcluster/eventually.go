package testcluster

import (
	"testing"
	"time"
)

// patience is how long a test waits for what must happen. It only ends tests
// that would fail anyway.
const patience = time.Minute

// pause is the time between two looks at what a test waits for.
const pause = 10 * time.Millisecond

// Eventually calls f until it returns nil. After a minute the test ends with
// f's last error.
func Eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(pause)
	defer again.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("gave up waiting for %s: %v", what, err)
		case <-again.C:
		}
	}
}
