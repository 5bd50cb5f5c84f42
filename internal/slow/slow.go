// Package slow marks tests that go test -short leaves out, so that the daily
// round over everything stays under a minute.
package slow

import "testing"

// Test skips a test that takes seconds, unless all are asked for.
func Test(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
}
