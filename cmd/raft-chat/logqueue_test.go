package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate is a destination that takes nothing until it is opened, as a pipe that
// nobody reads, and then fails as often as told.
type gate struct {
	open    chan struct{}
	entered chan struct{} // one slot: somebody writes

	mu       sync.Mutex
	failures int
	written  bytes.Buffer
}

func newGate() *gate { return &gate{open: make(chan struct{}), entered: make(chan struct{}, 1)} }

func (g *gate) Write(p []byte) (int, error) {
	select {
	case g.entered <- struct{}{}:
	default:
	}
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failures > 0 {
		g.failures--
		return 0, errors.New("broken pipe")
	}
	return g.written.Write(p)
}

func lostLine(n int) []byte { return fmt.Appendf(nil, "lost %d\n", n) }

func TestLogQueueKeepsTheOrder(t *testing.T) {
	g := newGate()
	close(g.open)
	q := newLogQueue(g, 1<<20, lostLine)
	var want strings.Builder
	for i := range 1000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		if n, err := q.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	q.close(time.Minute)
	if got := g.written.String(); got != want.String() {
		t.Errorf("%d bytes went out, want %d in the order written", len(got), want.Len())
	}
}

// A destination that blocks holds nobody up. What does not fit is told where it
// is missing.
func TestLogQueueDropsWhatDoesNotFit(t *testing.T) {
	g := newGate()
	q := newLogQueue(g, 12, lostLine)
	write := func(line string) {
		if _, err := q.Write([]byte(line)); err != nil {
			t.Error(err)
		}
	}
	write("first\n")
	<-g.entered // it has left the queue and waits in the write
	for _, line := range []string{"old\n", "older\n", "new\n", "much too long\n", "end\n"} {
		write(line)
	}
	close(g.open)
	q.close(time.Minute)
	write("too late\n")
	if got, want := g.written.String(), "first\nlost 3\nnew\nend\n"; got != want {
		t.Errorf("went out: %q, want %q", got, want)
	}
}

func TestLogQueueOutlivesFailures(t *testing.T) {
	g := newGate()
	g.failures = 2
	close(g.open)
	q := newLogQueue(g, 1<<20, lostLine)
	for _, line := range []string{"a\n", "b\n"} {
		_, _ = q.Write([]byte(line))
	}
	deadline := time.After(time.Minute)
	for failed := false; !failed; {
		select {
		case <-deadline:
			t.Fatal("the failures were never met")
		case <-g.entered:
		}
		_, _ = q.Write([]byte("c\n"))
		g.mu.Lock()
		failed = g.failures == 0
		g.mu.Unlock()
	}
	_, _ = q.Write([]byte("last\n"))
	q.close(time.Minute)
	if got := g.written.String(); !strings.HasPrefix(got, "lost ") || !strings.HasSuffix(got, "last\n") {
		t.Errorf("went out: %q", got)
	}
}

// A torn line is ended before the next one begins.
func TestLogQueueTornLine(t *testing.T) {
	var out bytes.Buffer
	q := &logQueue{lost: lostLine}
	q.w = writerFunc(func(p []byte) (int, error) {
		out.Write(p[:3])
		return 3, errors.New("no space left on device")
	})
	missing, torn := q.pass([]byte("a\nbcd\ne\n"), 0, false)
	if missing != 2 || !torn {
		t.Fatalf("%d missing, torn %v", missing, torn)
	}
	q.w = &out
	if missing, torn = q.pass([]byte("f\n"), missing, torn); missing != 0 || torn {
		t.Errorf("%d missing, torn %v", missing, torn)
	}
	if got, want := out.String(), "a\nb\nlost 2\nf\n"; got != want {
		t.Errorf("went out: %q, want %q", got, want)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// The end of the process does not wait for a destination that blocks.
func TestLogQueueCloseDoesNotWaitForEver(t *testing.T) {
	g := newGate()
	q := newLogQueue(g, 100, lostLine)
	_, _ = q.Write([]byte("stuck\n"))
	q.close(time.Nanosecond)
	close(g.open)
	<-q.done
}
