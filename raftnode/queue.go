package raftnode

import (
	"sync"
)

// queue hands work to the one goroutine that takes it. It never blocks the
// giver; raft's limits bound what can be outstanding.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	ready chan struct{} // one slot
}

func (q *queue[T]) push(item T) {
	q.mu.Lock()
	q.items = append(q.items, item)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns everything that waits, or false when stop is closed.
func (q *queue[T]) take(stop <-chan struct{}) ([]T, bool) {
	for {
		select {
		case <-stop:
			return nil, false
		case <-q.ready:
		}
		if items := q.grab(); len(items) > 0 {
			return items, true
		}
	}
}

// grab returns everything that waits.
func (q *queue[T]) grab() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}
