package raftnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// logs keeps what nodes log.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// count is how many lines hold all of parts.
func (l *logs) count(parts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.b.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			n++
		}
	}
	return n
}

// keepLogs has a cluster that is not started yet log for the test to read, each
// line with the node that wrote it.
func keepLogs(c *testCluster) *logs {
	l := &logs{}
	tune := c.tune
	c.tune = func(cfg *Config) {
		if tune != nil {
			tune(cfg)
		}
		cfg.Logger = slog.New(slog.NewTextHandler(l, nil)).With("node", cfg.ID)
	}
	return l
}

// roundsPass waits until each node has asked the others some times more.
func (c *testCluster) roundsPass(n uint64) {
	c.t.Helper()
	for id, node := range c.nodes {
		end := node.watch.now() + n
		eventually(c.t, fmt.Sprint("rounds of member ", id), func() bool { return node.watch.now() >= end })
	}
}

// A member that goes away and comes back is one line each on every other one,
// however long it is away; and so is one whose links are cut.
func TestMemberAwayAndBackAreOneLineEach(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	l := keepLogs(c)
	c.startAll()
	lead := c.leader()
	c.mustPropose(lead, "before")
	victim := lead%3 + 1
	check := func(what, text string, times int) {
		t.Helper()
		for id := range c.nodes {
			if id == victim {
				continue
			}
			has := []string{text, fmt.Sprint("node=", id, " "), fmt.Sprint("member=", victim, " "), fmt.Sprint("name=n", victim)}
			eventually(t, what, func() bool { return l.count(has...) >= times })
		}
		c.roundsPass(4)
		for id := range c.nodes {
			if n := l.count(text, fmt.Sprint("node=", id, " "), fmt.Sprint("member=", victim, " ")); id != victim && n != times {
				t.Errorf("%s: member %d logged it %d times, want %d", what, id, n, times)
			}
		}
	}
	// All have met.
	c.roundsPass(3)
	c.stop(victim)
	check("the stopped member to be missed", "member is away", 1)
	c.start(victim)
	check("the return of the member", "member is back", 1)
	c.cutLinks(func(from, to uint64) bool { return from == victim || to == victim })
	check("the cut member to be missed", "member is away", 2)
	c.cutLinks(func(uint64, uint64) bool { return false })
	check("the mended links", "member is back", 2)
}

// A member that is not there yet is a line, not one for each attempt, and it is
// no active member, not for a moment.
func TestMemberThatNeverStarted(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	l := keepLogs(c)
	c.start(1, 2)
	lead := c.leader()
	ctx := context.Background()
	active := func(id uint64) bool {
		for _, m := range c.nodes[lead].MemberStatus(ctx) {
			if m.ID == id {
				return m.Active
			}
		}
		return false
	}
	eventually(t, "the other to be active", func() bool { return active(3-lead) && active(lead) })
	if active(3) {
		t.Error("a voter that never started is active")
	}
	eventually(t, "a learner", func() bool {
		_ = c.nodes[lead].AddMember(ctx, 7, "http://127.0.0.1:1", true)
		return len(c.nodes[lead].Members()) == 4
	})
	if active(7) {
		t.Error("a learner that never started is active")
	}
	c.roundsPass(4)
	for id := range c.nodes {
		for _, absent := range []string{"member=3 ", "member=7 "} {
			if n := l.count("waiting for member", fmt.Sprint("node=", id, " "), absent); n != 1 {
				t.Errorf("member %d logged %d times that it waits for %s", id, n, absent)
			}
		}
		if n := l.count("member is away", fmt.Sprint("node=", id, " ")); n != 0 {
			t.Errorf("member %d misses somebody who never came", id)
		}
	}
	c.start(3)
	eventually(t, "the latecomer to be told of", func() bool { return l.count("member answers", "member=3 ") == 2 })
	eventually(t, "it to be active", func() bool { return active(3) })
}

// Failures whose texts differ by a port are one state; two kinds that take
// turns are told now and then.
func TestLastingStateIsLoggedByTime(t *testing.T) {
	dial := func(port int, errno syscall.Errno) error {
		return &url.Error{Op: "Post", URL: "http://x", Err: &net.OpError{Op: "read", Net: "tcp",
			Source: &net.TCPAddr{Port: port}, Err: os.NewSyscallError("connect", errno)}}
	}
	start := time.Unix(1_000_000, 0)
	var l lasting
	lines, told := 0, 0
	for i := range 20 * 60 * 10 { // twenty minutes, ten a second
		if n, due := l.due(start.Add(time.Duration(i)*100*time.Millisecond), dial(i, syscall.ECONNREFUSED)); due {
			lines++
			told += n
		}
	}
	if lines != 20 || told != 19*60*10+1 {
		t.Errorf("%d lines that stand for %d failures", lines, told)
	}
	lines = 0
	for i := range 60 * 10 {
		errno := syscall.ECONNREFUSED
		if i%2 == 1 {
			errno = syscall.ECONNRESET
		}
		if _, due := l.due(start.Add(time.Hour+time.Duration(i)*100*time.Millisecond), dial(i, errno)); due {
			lines++
		}
	}
	if lines > 13 {
		t.Errorf("two kinds that take turns gave %d lines in a minute", lines)
	}
	if _, due := l.due(start.Add(3*time.Hour), errorf(codeOtherCluster, "one")); !due {
		t.Error("another kind is not told")
	}
	if _, due := l.due(start.Add(3*time.Hour+10*time.Second), errorf(codeOtherCluster, "two")); due {
		t.Error("the same code is told again")
	}
	if _, due := l.due(start.Add(3*time.Hour+20*time.Second), errors.New("else")); !due {
		t.Error("another kind is not told")
	}
}

// A join that can ask nobody says so at once.
func TestJoinThatListsOnlyItself(t *testing.T) {
	c := newTestCluster(t, 1)
	c.tune = func(cfg *Config) { cfg.Join = true }
	_, err := c.open(1)
	if err == nil || !strings.Contains(err.Error(), "--cluster lists this member alone") || strings.Contains(err.Error(), "%!") {
		t.Errorf("got %v", err)
	}
}

// A join that waits logs by time, and ends when it is told to.
func TestJoinThatWaitsEnds(t *testing.T) {
	c := newTestCluster(t, 2)
	l := keepLogs(c)
	tune := c.tune
	c.tune = func(cfg *Config) { tune(cfg); cfg.Join = true }
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := Open(ctx, c.config(2))
		failed <- err
	}()
	eventually(t, "a line", func() bool { return l.count("waiting for a member of the cluster to join") > 0 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "%!") {
		t.Errorf("got %v", err)
	}
	if n := l.count("waiting for a member"); n != 1 {
		t.Errorf("%d lines", n)
	}
}
