package testcluster

import "testing"

func TestTail(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"", 2, ""}, {"a\n", 2, "a\n"}, {"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\n", 2, "a\nb\n"}, {"a\nb\nc\nd", 2, "b\nc\nd"},
	} {
		if got := Tail(tt.text, tt.n); got != tt.want {
			t.Errorf("the last %d lines of %q: %q, want %q", tt.n, tt.text, got, tt.want)
		}
	}
}
