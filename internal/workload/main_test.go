package workload_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// rafthttp's prober sleeps between probes and only then sees that it was stopped.
		goleak.IgnoreTopFunction("github.com/xiang90/probing.(*prober).AddHTTP.func1"),
	)
}
