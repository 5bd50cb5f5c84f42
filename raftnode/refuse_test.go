package raftnode

import (
	"context"
	"errors"
	"testing"
	"time"
)

// proposeCode is the code that a proposal through a member is refused with,
// or "".
func (c *testCluster) proposeCode(id uint64, line string) string {
	_, err := c.propose(id, line)
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Below the reserve of disk space a node takes no messages, but it still
// serves reads and administration, which is how one gets out of it.
func TestLowDiskRefusesMessagesAlone(t *testing.T) {
	c := newTestCluster(t, 3)
	c.tune = func(cfg *Config) {
		if cfg.ID == 1 {
			cfg.MinFreeBytes = 1 << 59 // more than is free anywhere
		}
	}
	c.startAll()
	c.leader()
	eventually(t, "refusal", func() bool { return c.proposeCode(1, "no room") == CodeStorageLow })
	c.mustPropose(2, "there is room here")
	eventually(t, "a read", func() bool { return c.nodes[1].ReadIndex(context.Background()) == nil })
	eventually(t, "a membership change", func() bool {
		return c.nodes[1].AddMember(context.Background(), 7, "http://127.0.0.1:1", true) == nil
	})
	for _, line := range c.sms[1].lines() {
		if line == "no room" {
			t.Error("a refused message was written")
		}
	}
}

// offClock runs an hour ahead.
type offClock struct{ systemClock }

func (offClock) Now() time.Time { return time.Now().Add(time.Hour) }

// A follower whose clock is off against the leader's proposes nothing: its
// times would drag those of everybody's messages along.
func TestClockOffAgainstTheLeaderRefuses(t *testing.T) {
	c := newTestCluster(t, 3)
	c.tune = func(cfg *Config) {
		if cfg.ID == 3 {
			cfg.Clock = offClock{}
		}
	}
	c.startAll()
	eventually(t, "another leader", func() bool {
		if c.leader() != 3 {
			return true
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = c.nodes[3].TransferLeadership(ctx, 1) // tried again when it failed
		return false
	})
	eventually(t, "refusal", func() bool { return c.proposeCode(3, "from the future") == CodeClockSkew })
	c.mustPropose(1, "on time")
	c.mustPropose(2, "on time too")
}
