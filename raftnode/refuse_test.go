package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
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

// refuses waits until a member refuses with a code, and fails the test if the
// line is stored all the same.
func (c *testCluster) refuses(id uint64, code, line string) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("refusal with %s through member %d", code, id), func() bool { return c.proposeCode(id, line) == code })
}

// disks gives each member a disk of which the test says what is free.
func (c *testCluster) disks() map[uint64]*atomic.Int64 {
	free := map[uint64]*atomic.Int64{}
	tune := c.tune
	c.tune = func(cfg *Config) {
		if tune != nil {
			tune(cfg)
		}
		if free[cfg.ID] == nil {
			free[cfg.ID] = new(atomic.Int64)
			free[cfg.ID].Store(1 << 40)
		}
		cfg.MinFreeBytes, cfg.FreeBytes = 1<<30, free[cfg.ID].Load
	}
	return free
}

// Below the reserve of disk space of any voter nobody takes messages, whichever
// member is asked and whoever leads; reads and administration go on, which is
// how one gets out of it.
func TestLowDiskOfAVoterRefusesMessagesAlone(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	free := c.disks()
	c.startAll()
	lead := c.leader()
	c.mustPropose(lead, "before")
	for _, low := range []uint64{lead, lead%3 + 1} {
		free[low].Store(1<<30 - 1)
		for id := range c.nodes {
			eventually(t, "refusal", func() bool {
				_, err := c.propose(id, "filling")
				var e *Error
				return errors.As(err, &e) && e.Code == CodeStorageLow && strings.Contains(e.Detail, fmt.Sprintf("member %d (n%d)", low, low))
			})
			if code := c.proposeCode(id, "no room"); code != CodeStorageLow {
				t.Errorf("refused and then taken: %q", code)
			}
			if got := c.nodes[id].StorageLow(); got != (id == low) || c.nodes[id].LowMember() != low {
				t.Errorf("with the disk of %d nearly full, %d says %v, %d", low, id, got, c.nodes[id].LowMember())
			}
			eventually(t, "a read", func() bool { return c.nodes[id].ReadIndex(context.Background()) == nil })
			eventually(t, "a membership change", func() bool {
				return c.nodes[id].AddMember(context.Background(), 10*low+id, fmt.Sprint("http://127.0.0.1:", 10*low+id), true) == nil
			})
		}
		// A little more than the reserve is not enough: it would be low again at once.
		free[low].Store(1<<30 + 1)
		rounds := c.nodes[low].watch.now() + 2
		eventually(t, "a look at the disk", func() bool { return c.nodes[low].watch.now() >= rounds })
		c.refuses(low, CodeStorageLow, "hardly any room")
		free[low].Store(1 << 40)
		for id := range c.nodes {
			c.mustPropose(id, fmt.Sprint("room at ", low, " through ", id))
		}
	}
	for _, line := range c.sms[1].lines() {
		if line == "no room" || line == "hardly any room" {
			t.Error("a refused message was written")
		}
	}
}

// Whom the low member cannot reach hears of it from others.
func TestLowDiskIsPassedOn(t *testing.T) {
	c := newTestCluster(t, 3)
	free := c.disks()
	c.startAll()
	lead := c.leader()
	c.mustPropose(lead, "before")
	low, other := lead%3+1, (lead+1)%3+1
	c.cutLinks(func(from, to uint64) bool { return from == low && to == other || from == other && to == low })
	free[low].Store(0)
	c.refuses(other, CodeStorageLow, "no room")
	free[low].Store(1 << 40)
	c.mustPropose(other, "room")
}

// What a member said that is gone, or removed, or no voter, blocks nobody.
func TestLowDiskOfNobodyThatVotes(t *testing.T) {
	slow.Test(t)
	t.Run("dead", func(t *testing.T) {
		c := newTestCluster(t, 3)
		free := c.disks()
		c.startAll()
		lead := c.leader()
		low := lead%3 + 1
		free[low].Store(0)
		c.refuses(lead, CodeStorageLow, "no room")
		c.stop(low)
		c.mustPropose(lead, "it died of it")
	})
	t.Run("removed", func(t *testing.T) {
		c := newTestCluster(t, 3)
		free := c.disks()
		c.startAll()
		lead := c.leader()
		low := lead%3 + 1
		free[low].Store(0)
		c.refuses(lead, CodeStorageLow, "no room")
		eventually(t, "removal", func() bool {
			_ = c.nodes[lead].RemoveMember(context.Background(), low)
			return c.nodes[lead].IsIDRemoved(low)
		})
		c.mustPropose(lead, "it is gone")
	})
	t.Run("learner", func(t *testing.T) {
		c := newTestCluster(t, 1)
		free := c.disks()
		c.startAll()
		c.leader()
		c.peers = append(c.peers, Peer{ID: 2, URL: "http://" + testaddr.Addr(t)})
		eventually(t, "the learner", func() bool {
			_ = c.nodes[1].AddMember(context.Background(), 2, c.peers[1].URL, true)
			return len(c.nodes[1].Members()) == 2
		})
		tune := c.tune
		c.tune = func(cfg *Config) {
			tune(cfg)
			cfg.Join = cfg.ID == 2
			free[2].Store(0)
		}
		c.start(2)
		c.refuses(2, CodeStorageLow, "not through itself")
		c.mustPropose(1, "a learner holds up nobody")
	})
}

// A reserve that is off never refuses, whatever is free.
func TestNoReserve(t *testing.T) {
	c := newTestCluster(t, 1)
	c.tune = func(cfg *Config) { cfg.MinFreeBytes, cfg.FreeBytes = -1, func() int64 { return 0 } }
	c.startAll()
	c.mustPropose(1, "to the last byte")
}

// shiftedClock is off by what the test says.
type shiftedClock struct {
	systemClock
	ahead *atomic.Int64
}

// Now has no monotonic reading: it is the wall that is off.
func (c shiftedClock) Now() time.Time {
	return time.Now().Round(0).Add(time.Duration(c.ahead.Load()))
}

// clocks gives each member a clock; those in ahead are off from the start.
func (c *testCluster) clocks(ahead map[uint64]time.Duration) map[uint64]*atomic.Int64 {
	clocks := map[uint64]*atomic.Int64{}
	c.tune = func(cfg *Config) {
		if clocks[cfg.ID] == nil {
			clocks[cfg.ID] = new(atomic.Int64)
			clocks[cfg.ID].Store(int64(ahead[cfg.ID]))
		}
		cfg.Clock = shiftedClock{ahead: clocks[cfg.ID]}
	}
	return clocks
}

// One wrong clock among three stops nobody else, whichever way it is off, and
// its node proposes nothing from its first moment on: its times would drag those
// of everybody's messages along.
func TestWrongClockStopsOnlyItsOwnNode(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			c := newTestCluster(t, 3)
			clocks := c.clocks(map[uint64]time.Duration{3: ahead})
			c.startAll()
			if ahead > 0 { // one that is behind can be the one of two that counts, until the third is met
				c.refuses(3, CodeClockSkew, "off from the start")
			}
			c.mustPropose(1, "on time")
			c.mustPropose(2, "on time too")
			c.refuses(3, CodeClockSkew, "off")
			if got, off := c.nodes[3].ClockOffset(); !off || (got-ahead).Abs() > time.Minute {
				t.Errorf("member 3 thinks that it is ahead by %v, %v", got, off)
			}
			if _, off := c.nodes[1].ClockOffset(); off {
				t.Error("member 1 thinks that its clock is off")
			}
			if ahead > 0 && slices.Contains(c.sms[1].lines(), "off from the start") {
				t.Error("a message was proposed before the clock was compared")
			}
			clocks[3].Store(0)
			c.mustPropose(3, "right again")
		})
	}
}

// A leader whose clock is off hands over, and meanwhile the others go on through it.
func TestLeaderWithAWrongClockStepsAside(t *testing.T) {
	c := newTestCluster(t, 3)
	clocks := c.clocks(nil)
	c.startAll()
	wrong := c.leader()
	c.mustPropose(wrong, "before")
	clocks[wrong].Store(int64(time.Hour))
	c.refuses(wrong, CodeClockSkew, "from the future")
	for id := range c.nodes {
		if id != wrong {
			c.mustPropose(id, fmt.Sprint("on time through ", id))
		}
	}
	eventually(t, "another leader", func() bool { return c.leader() != wrong })
	clocks[wrong].Store(0)
	c.mustPropose(wrong, "right again")
}

// Of two that disagree nobody knows which is wrong. The one behind goes on: what
// is dated ahead would stay ahead.
func TestOfTwoClocksTheLowerCounts(t *testing.T) {
	c := newTestCluster(t, 2)
	c.clocks(map[uint64]time.Duration{2: time.Hour})
	c.startAll()
	c.mustPropose(1, "on time")
	c.refuses(2, CodeClockSkew, "from the future")
	eventually(t, "the one behind to lead", func() bool { return c.leader() == 1 })
}

func TestClockOffset(t *testing.T) {
	const h = time.Hour
	for _, tt := range []struct {
		name   string
		self   uint64
		voters []uint64
		others map[uint64]time.Duration // against this clock
		stale  []uint64
		want   time.Duration
		known  bool
	}{
		{"alone", 1, []uint64{1}, nil, nil, 0, true},
		{"nobody met", 1, []uint64{1, 2, 3}, nil, nil, 0, false},
		{"all agree", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: 0, 3: 1}, nil, 0, true},
		{"another is ahead", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: 0, 3: h}, nil, 0, true},
		{"another is behind", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: 0, 3: -h}, nil, 0, true},
		{"this one is ahead", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: -h, 3: -h}, nil, h, true},
		{"this one is behind", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: h, 3: h}, nil, -h, true},
		{"two of three, ahead", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: -h}, nil, h, true},
		{"two of three, behind", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: h}, nil, 0, true},
		{"a stale one does not count", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: -h, 3: 0}, []uint64{3}, h, true},
		{"all are stale", 1, []uint64{1, 2, 3}, map[uint64]time.Duration{2: -h, 3: 0}, []uint64{2, 3}, 0, false},
		{"a learner does not count", 1, []uint64{1, 2}, map[uint64]time.Duration{2: 0, 9: -h}, nil, 0, true},
		{"a learner judges itself by the voters", 9, []uint64{1, 2, 3}, map[uint64]time.Duration{1: -h, 2: -h, 3: h}, nil, h, true},
		{"two wrong of five", 1, []uint64{1, 2, 3, 4, 5}, map[uint64]time.Duration{2: h, 3: 2 * h, 4: 0, 5: 0}, nil, 0, true},
	} {
		w := newWatch()
		for id, ahead := range tt.others {
			at := w.round
			if slices.Contains(tt.stale, id) {
				at -= freshRounds + 1
			}
			w.seen[id] = &sighting{compared: at, offset: ahead}
		}
		if got, known := w.clockOffset(tt.self, tt.voters); got != tt.want || known != tt.known {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, got, known, tt.want, tt.known)
		}
	}
}

// What lies within the round trip is no difference.
func TestCompareClocks(t *testing.T) {
	for _, tt := range []struct {
		before, theirs, after int64
		want                  time.Duration
	}{
		{10, 15, 20, 0},
		{10, 10, 20, 0},
		{10, 20, 20, 0},
		{10, 7, 20, -3},
		{10, 24, 20, 4},
	} {
		w := newWatch()
		w.compare(2, tt.before, tt.theirs, tt.after)
		if got := w.seen[2].offset; got != tt.want {
			t.Errorf("%d between %d and %d: %v, want %v", tt.theirs, tt.before, tt.after, got, tt.want)
		}
	}
	w := newWatch()
	w.compare(2, 10, 0, 20)
	if w.seen[2] != nil {
		t.Error("a clock that was not told counts")
	}
}

// Two members do not keep each other's old word alive.
func TestPassedOnReportsAge(t *testing.T) {
	n := newNode(Config{ID: 1, TickInterval: 100 * time.Millisecond, ElectionTicks: 10})
	defer n.cancel()
	n.applier = &applier{}
	n.applier.members.Store(&membership{Voters: []uint64{1, 2, 3}})
	for _, tt := range []struct {
		name string
		from uint64
		d    diskReport
		low  uint64
	}{
		{"itself", 3, diskReport{3, true, 0}, 3},
		{"older from another", 2, diskReport{3, false, 600}, 3},
		{"itself again", 3, diskReport{3, false, 0}, 0},
		{"older and low from another", 2, diskReport{3, true, 500}, 0},
		{"too old", 2, diskReport{2, true, 500 * freshRounds}, 2}, // of itself: it speaks now
		{"negative", 3, diskReport{2, false, -1}, 2},
		{"about this one", 2, diskReport{1, true, 0}, 2},
	} {
		n.hear(tt.from, []diskReport{tt.d})
		if got := n.watch.lowVoter([]uint64{1, 2, 3}); got != tt.low {
			t.Errorf("%s: %d is low, want %d", tt.name, got, tt.low)
		}
	}
	n.watch.round += freshRounds
	if n.watch.lowVoter([]uint64{2}) != 2 || len(n.disks()) != 3 {
		t.Error("a report counts for too short")
	}
	n.watch.round++
	if n.watch.lowVoter([]uint64{2}) != 0 || len(n.disks()) != 1 {
		t.Error("a report counts for ever")
	}
}
