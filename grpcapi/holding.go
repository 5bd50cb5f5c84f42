package grpcapi

import (
	"sync/atomic"
	"time"

	"github.com/raft-chat/raft-chat/internal/budget"
)

const (
	// stalledAfter is how long a subscriber must have kept a chunk waiting for its
	// subscription to be ended for the sake of others.
	stalledAfter = 100 * time.Millisecond
	// reliefTime is how long a subscription waits for what another one that was
	// ended gives back.
	reliefTime = 100 * time.Millisecond
)

// holding is what a subscription is charged for in the budget: the chunk that its
// client has yet to make room for.
type holding struct {
	lease budget.Lease
	bytes atomic.Int64 // 0: no chunk waits
	since atomic.Int64 // when the chunk began to wait, in nanoseconds of the Unix time
	gone  chan struct{}
}

// hold charges for n bytes. If the budget refuses them, the subscription that has
// kept most waiting for longest gives way; false if there is none.
func (st *openStream) hold(n int) bool {
	h := &st.holding
	if !h.lease.Resize(int64(n)) && (!st.server.relieve(st) || !h.lease.Resize(int64(n))) {
		return false
	}
	h.since.Store(time.Now().UnixNano())
	h.bytes.Store(int64(n))
	return true
}

// answer is charge.answer for a stream. What is to be sent is held once more, besides
// the messages it is made from, until the transport has written it.
func (st *openStream) answer(m any) (any, bool) {
	account := st.server.options.Budget.Account(budget.Streams)
	out, ok := st.charge.answer(account, m)
	if !ok && st.server.relieve(st) {
		out, ok = st.charge.answer(account, m)
	}
	return out, ok
}

func (st *openStream) release() {
	st.holding.bytes.Store(0)
	st.holding.lease.Close()
}

// relieve ends the subscription that has kept most waiting for longest, other than
// st, and waits until it has given that back; false if none is stalled.
func (s *Server) relieve(st *openStream) bool {
	now := time.Now().UnixNano()
	var worst *openStream
	most := float64(0)
	s.mu.Lock()
	for other := range s.streams {
		waits := now - other.holding.since.Load()
		if other == st || waits < int64(stalledAfter) {
			continue
		}
		if cost := float64(waits) * float64(other.holding.bytes.Load()); cost > most {
			worst, most = other, cost
		}
	}
	s.mu.Unlock()
	if worst == nil {
		return false
	}
	worst.cancel(errOverload)
	patience := time.NewTimer(reliefTime)
	defer patience.Stop()
	select {
	case <-worst.holding.gone:
	case <-patience.C:
	}
	return true
}
