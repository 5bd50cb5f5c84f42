package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// noticeAfter is how long a command tries in silence. Most nodes that do not
// answer are made good for by another one before that.
const noticeAfter = time.Second

// waiting tells somebody who waits for a command why it has not ended: once,
// what the last node that was tried had to say. It takes in the client's log.
type waiting struct {
	w     io.Writer
	until time.Duration // --timeout; 0: for ever

	mu    sync.Mutex
	due   bool // noticeAfter is over
	told  bool
	over  bool
	last  string // of the last failure
	timer *time.Timer
}

// wait begins to wait. done ends it, and is to be called.
func wait(w io.Writer, until time.Duration) (log *slog.Logger, done func()) {
	x := &waiting{w: w, until: until}
	x.timer = time.AfterFunc(noticeAfter, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.due = true
		x.tell()
	})
	return slog.New(x), func() {
		x.timer.Stop()
		x.mu.Lock()
		defer x.mu.Unlock()
		x.over = true
	}
}

// tell is called with mu held.
func (x *waiting) tell() {
	if !x.due || x.told || x.over || x.last == "" {
		return
	}
	x.told = true
	limit := "until it is interrupted"
	if x.until > 0 {
		limit = "for " + x.until.String()
	}
	fmt.Fprintf(x.w, "raft-chat: %s; trying again %s (--timeout)\n", printable(x.last), limit)
}

// Enabled implements slog.Handler.
func (x *waiting) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (x *waiting) Handle(_ context.Context, r slog.Record) error {
	var endpoint, reason string
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "endpoint":
			endpoint = a.Value.String()
		case "error":
			reason = a.Value.String()
		}
		return true
	})
	if endpoint == "" || reason == "" {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.last = endpoint + " does not answer: " + reason
	x.tell()
	return nil
}

// WithAttrs implements slog.Handler; the client adds none.
func (x *waiting) WithAttrs([]slog.Attr) slog.Handler { return x }

// WithGroup implements slog.Handler.
func (x *waiting) WithGroup(string) slog.Handler { return x }
