package httpapi

import (
	"sync/atomic"
	"time"

	"github.com/raft-chat/raft-chat/internal/budget"
)

const (
	// roomBytes is about what a room of a stream holds, in bytes: its name, its place and its part of the wake-ups.
	roomBytes = 512
	// stalledAfter is how long a write must have been under way for its stream to be cut for the sake of others: most
	// writes take microseconds, and one to a reader that reads takes no longer than the network.
	stalledAfter = time.Second
	// reliefTime is how long a stream waits for what others hold, and reliefStep the time between two attempts.
	reliefTime = 3 * time.Second
	reliefStep = 50 * time.Millisecond
	// maxWaiting bounds the streams that wait so, with what they have to write.
	maxWaiting = 64
)

// holding is what a stream is charged for in the budget.
type holding struct {
	rooms int64         // bytes; set before the stream runs
	lease *budget.Lease // nil: nothing is charged yet

	// For those who look for a stream to cut.
	bytes atomic.Int64
	since atomic.Int64 // when the write under way began, in nanoseconds of the Unix time; 0: none is
	gone  chan struct{}
}

// begin and end are around a write. One of what counts with the connection need not be found.
func (h *holding) begin() {
	if h.bytes.Load() > budget.Free {
		h.since.Store(time.Now().UnixNano())
	}
}

func (h *holding) end() { h.since.Store(0) }

// resize charges n bytes besides the rooms; false if the budget refuses that.
func (h *holding) resize(n int) bool {
	if h.lease == nil || !h.lease.Resize(h.rooms+int64(n)) {
		return h.lease == nil
	}
	h.bytes.Store(h.rooms + int64(n))
	return true
}

// release gives everything back, once.
func (h *holding) release() {
	if h.lease != nil {
		h.lease.Close()
		close(h.gone)
	}
}

// admit charges a new stream for its rooms, and refuses it if not even one write of it could be charged for.
func (f *stream) admit(rooms int) *problem {
	lease := f.server.options.Budget.Account(budget.Streams).Lease()
	f.holding.lease, f.holding.gone = &lease, make(chan struct{})
	f.holding.rooms = int64(rooms) * roomBytes
	need := budget.Free + joinedBytes
	if !f.holding.resize(need) && !(f.server.relieve(f) && f.holding.resize(need)) || !f.holding.resize(0) {
		p := newProblem(codeOverloaded, "streams hold all the memory they may; try again, here or at another node")
		p.retryAfter = time.Second
		return p
	}
	return nil
}

// hold charges a stream for n bytes besides its rooms. If the budget refuses them, the stream that has kept most waiting
// for its reader for longest gives way, as soon as there is one, and otherwise the error is errOverload.
func (f *stream) hold(n int) error {
	if f.holding.resize(n) {
		return nil
	}
	if f.server.waiting.Add(1) > maxWaiting {
		f.server.waiting.Add(-1)
		return errOverload
	}
	defer f.server.waiting.Add(-1)
	tick := time.NewTicker(reliefStep)
	defer tick.Stop()
	for limit := time.Now().Add(reliefTime); time.Now().Before(limit); <-tick.C {
		if f.server.relieve(f); f.holding.resize(n) {
			return nil
		}
		if err := f.wait.ended(); err != nil {
			return err
		}
	}
	return errOverload
}

// relieve cuts the stream that has been stalled longest and holds most, other than f, and waits a little for what it gives
// back; false if no stream is stalled.
func (s *Server) relieve(f *stream) bool {
	now := time.Now().UnixNano()
	var worst *stream
	most := float64(0)
	s.mu.Lock()
	for other := range s.streams {
		since, bytes := other.holding.since.Load(), other.holding.bytes.Load()
		if other == f || since == 0 || now-since < int64(stalledAfter) {
			continue
		}
		if cost := float64(now-since) * float64(bytes); cost > most {
			worst, most = other, cost
		}
	}
	s.mu.Unlock()
	if worst == nil {
		return false
	}
	worst.abandon(errOverload)
	patience := time.NewTimer(reliefStep)
	defer patience.Stop()
	select {
	case <-worst.holding.gone:
	case <-patience.C:
	}
	return true
}

// abandon ends the stream from outside and the write that is under way with it.
func (f *stream) abandon(reason error) {
	f.wait.end(reason)
	f.mu.Lock()
	frames := f.frames
	f.mu.Unlock()
	if frames != nil {
		frames.giveUp()
	}
}

// closeGrace is how long a stream that is given up may take to say so: less while memory is short.
func (s *Server) closeGrace() time.Duration {
	account := s.options.Budget.Account(budget.Streams)
	if account.Used() > account.Limit()/2 {
		return min(partingTime, s.options.CloseGrace)
	}
	return s.options.CloseGrace
}
