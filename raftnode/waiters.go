package raftnode

import (
	"maps"
	"slices"
	"sync"
)

// waiters are the proposals of this node whose outcome is not known yet. The
// loop adds, the apply step resolves, and whoever takes a waiter out calls
// it, so each is called exactly once.
type waiters struct {
	mu      sync.Mutex
	pending map[uint64]func(result any, err error)
}

func newWaiters() *waiters {
	return &waiters{pending: map[uint64]func(any, error){}}
}

func (w *waiters) add(sequence uint64, done func(any, error)) {
	w.mu.Lock()
	w.pending[sequence] = done
	w.mu.Unlock()
}

func (w *waiters) has(sequence uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.pending[sequence]
	return ok
}

func (w *waiters) resolve(sequence uint64, result any, err error) {
	w.mu.Lock()
	done, ok := w.pending[sequence]
	delete(w.pending, sequence)
	w.mu.Unlock()
	if ok {
		done(result, err)
	}
}

func (w *waiters) failAll(err error) {
	w.mu.Lock()
	all := w.pending
	w.pending = map[uint64]func(any, error){}
	w.mu.Unlock()
	// In order, so that equal runs are equal.
	for _, sequence := range slices.Sorted(maps.Keys(all)) {
		all[sequence](nil, err)
	}
}
