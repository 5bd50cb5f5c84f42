package raftnode

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// An entry as large as the configuration allows a message to be gets through,
// forwarded by a follower, which is the longest way.
func TestLargestEntry(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	c.tune = func(cfg *Config) { cfg.TickInterval = 200 * time.Millisecond }
	c.startAll()
	lead := c.leader()
	c.mustPropose(lead, "before")
	follower := lead%3 + 1
	size := 16<<20 + 64<<10 // a message and its envelope
	if raced {
		size = 4 << 20 // more than one message of raft's, one write, one buffer
	}
	line := strings.Repeat("x", size)
	eventually(t, "the largest entry", func() bool {
		done := make(chan error, 1)
		c.nodes[follower].Propose(context.Background(), []byte(line), func(_ any, err error) { done <- err })
		return <-done == nil
	})
	eventually(t, "it to be everywhere", func() bool {
		for id := range c.nodes {
			if lines := c.sms[id].lines(); lines[len(lines)-1] != line {
				return false
			}
		}
		return true
	})
}
