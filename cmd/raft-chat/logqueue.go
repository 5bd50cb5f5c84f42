package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// maxQueuedLog is how many bytes of log wait for a destination that does not
	// take them; as many again may be in the write that it holds up.
	maxQueuedLog = 1 << 20
	// logFlushTimeout is how long the end of the process waits for the log.
	logFlushTimeout = time.Second
)

// logQueue hands log lines on to a writer from a goroutine of its own, so that
// a destination that blocks or is gone costs its lines and nothing else: the
// node goes on. Lines keep their order. When they do not fit the oldest give
// way: the newest say why a node ended. What is missing is counted, and a line
// says so at its place, once lines get through again.
type logQueue struct {
	w     io.Writer
	limit int
	// lost returns the line that says that n lines are missing.
	lost func(n int) []byte

	mu      sync.Mutex
	pending []byte
	dropped int // lines that are missing before pending
	closed  bool

	wake chan struct{} // one slot
	done chan struct{} // closed when the goroutine has ended
}

// newLogQueue starts a queue of at most limit bytes in front of w. close ends it.
func newLogQueue(w io.Writer, limit int, lost func(n int) []byte) *logQueue {
	q := &logQueue{w: w, limit: limit, lost: lost, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write queues one or more whole lines. It never blocks and never fails.
func (q *logQueue) Write(lines []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return len(lines), nil
	case len(lines) > q.limit:
		q.dropped += countLines(lines)
		return len(lines), nil
	}
	for len(q.pending)+len(lines) > q.limit {
		q.dropOldest()
	}
	q.pending = append(q.pending, lines...)
	q.poke()
	return len(lines), nil
}

// dropOldest takes away the older half of what waits, in whole lines: one line
// at a time would copy the rest for each.
func (q *logQueue) dropOldest() {
	half := len(q.pending) / 2
	cut := half + bytes.IndexByte(q.pending[half:], '\n') + 1
	q.dropped += countLines(q.pending[:cut])
	q.pending = append(q.pending[:0], q.pending[cut:]...)
}

func countLines(b []byte) int { return bytes.Count(b, []byte{'\n'}) }

func (q *logQueue) poke() {
	select {
	case q.wake <- struct{}{}:
	default: // it looks at the queue after this anyway
	}
}

// close waits for what is queued, no longer than timeout. A goroutine that the
// destination still holds up by then is left behind; it ends with its write.
func (q *logQueue) close(timeout time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.poke()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
	}
}

func (q *logQueue) run() {
	defer close(q.done)
	var spare []byte
	missing, torn := 0, false
	for range q.wake {
		for more := true; more; {
			lines, dropped, closed := q.take(spare)
			missing, torn = q.pass(lines, missing+dropped, torn)
			if closed {
				return
			}
			spare, more = lines, len(lines) > 0
		}
	}
}

// take empties the queue, whose next lines are collected in spare.
func (q *logQueue) take(spare []byte) (lines []byte, dropped int, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lines, dropped = q.pending, q.dropped
	q.pending, q.dropped = spare[:0], 0
	return lines, dropped, q.closed
}

// pass writes lines, preceded by one about those that are missing before them.
// It returns how many are missing now, and whether what went out ends within a
// line.
func (q *logQueue) pass(lines []byte, missing int, torn bool) (int, bool) {
	if missing > 0 {
		head := q.lost(missing)
		if torn {
			head = append([]byte{'\n'}, head...)
		}
		n, err := q.w.Write(head)
		if err != nil {
			return missing + countLines(lines), torn || n > 0
		}
		missing, torn = 0, false
	}
	if len(lines) == 0 {
		return missing, torn
	}
	n, err := q.w.Write(lines)
	if err == nil {
		return 0, false
	}
	n = min(max(n, 0), len(lines))
	return countLines(lines[n:]), n > 0 && lines[n-1] != '\n'
}
