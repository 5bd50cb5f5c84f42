package chat

import (
	"bytes"
	"context"
	"sync/atomic"
)

// Pending is how many commands wait for the log or for its outcome.
func Pending(s *Service) int {
	s.batcher.mu.Lock()
	defer s.batcher.mu.Unlock()
	return s.batcher.pending
}

// PlantPoison makes a store of these options panic in the decision on each post
// of text, and in decoding each entry that holds whole.
func PlantPoison(opts StoreOptions, text, whole string) StoreOptions {
	opts.planted = func(data []byte, c *command) {
		switch {
		case c == nil && bytes.Contains(data, []byte(whole)),
			c != nil && string(c.post.payload) == text,
			c != nil && c.createRoom.name == text,
			c != nil && c.trim.below == uint64(len(text))+1e6:
			panic("planted")
		}
	}
	return opts
}

// StuckLog never answers what it takes. It takes room proposals; one more
// blocks until its context ends, and is refused then.
type StuckLog struct {
	room     int64
	proposed atomic.Int64
}

// NewStuckLog makes a StuckLog.
func NewStuckLog(room int) *StuckLog { return &StuckLog{room: int64(room)} }

// Propose implements Log.
func (l *StuckLog) Propose(ctx context.Context, _ []byte, done func(any, error)) {
	if l.proposed.Add(1) > l.room {
		<-ctx.Done()
		done(nil, fail(CodeStopping, "refused"))
	}
}

// ReadIndex implements Log.
func (l *StuckLog) ReadIndex(context.Context) error { return nil }

// Proposed is how many proposals it took.
func (l *StuckLog) Proposed() int { return int(l.proposed.Load()) }
