package raftnode

import (
	"maps"
	"sync"
)

// counts counts events by reason. All methods may be called concurrently; the
// reasons are few and fixed.
type counts struct {
	mu sync.Mutex
	by map[string]uint64
}

func (c *counts) add(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]uint64{}
	}
	c.by[reason]++
}

func (c *counts) all() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.by)
}
