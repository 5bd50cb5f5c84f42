package testcluster

import (
	"slices"
	"strings"
	"sync"
)

// Log keeps what a node writes, for the case that the test fails. A node may
// say its last words when the test has ended, so they do not go to the test
// directly. All methods may be called concurrently; the zero value is empty.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all of it.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Tail returns the last n lines of text.
func Tail(text string, n int) string {
	at := len(text)
	for range n + 1 {
		next := strings.LastIndexByte(text[:at], '\n')
		if next < 0 {
			return text
		}
		at = next
	}
	return text[at+1:]
}

// OurGoroutines returns those stacks of a dump that lead through this module
// or through etcd's.
func OurGoroutines(dump string) string {
	stacks := strings.Split(dump, "\n\n")
	stacks = slices.DeleteFunc(stacks, func(s string) bool {
		return !strings.Contains(s, "github.com/raft-chat/raft-chat/") && !strings.Contains(s, "go.etcd.io/")
	})
	return strings.Join(stacks, "\n\n")
}
