package httpapi

import (
	"context"
	"sync"
	"time"
)

// waiter is the context that a stream waits in. It can be rung any number of times, which ends the wait and not the
// stream: something else than a message is to be looked at. One waiter lasts as long as its stream, so an idle stream
// holds no tree of contexts. rearm is for the waiting goroutine, everything else for any.
type waiter struct {
	mu    sync.Mutex // guards the rest
	done  chan struct{}
	rung  bool
	cause error
}

func newWaiter() *waiter { return &waiter{done: make(chan struct{})} }

// ring ends the wait that is under way, or the next one.
func (w *waiter) ring() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ringLocked()
}

func (w *waiter) ringLocked() {
	if !w.rung {
		w.rung = true
		close(w.done)
	}
}

// end ends all waits for a reason. The first reason counts.
func (w *waiter) end(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil {
		w.cause = cause
	}
	w.ringLocked()
}

// ended returns the reason given to end, nil before.
func (w *waiter) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause
}

// rearm makes waiting possible again after a ring, or returns the reason why there is nothing to wait for. What a ring
// is about has to be looked at after rearm, or it could be missed.
func (w *waiter) rearm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cause == nil && w.rung {
		w.rung, w.done = false, make(chan struct{})
	}
	return w.cause
}

// Done implements context.Context.
func (w *waiter) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done
}

// Err implements context.Context.
func (w *waiter) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rung {
		return context.Canceled
	}
	return nil
}

// Deadline implements context.Context.
func (w *waiter) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context.
func (w *waiter) Value(any) any { return nil }
