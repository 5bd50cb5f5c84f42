//go:build linux

package faults

import (
	"fmt"
	"regexp"
)

// scenario is one row of the table: play does the faults, and what is judged
// at the end is the same for all.
type scenario struct {
	name string
	what string // one sentence
	play func(*run)
}

// scenarios is the table, in the order they are played.
func scenarios() []scenario {
	return []scenario{
		{"kill-leader", "The leader is killed with kill -9 and comes back, again and again.", killLeader},
		{"kill-one", "Any node is killed with kill -9 and comes back.", killOne},
		{"kill-all", "All nodes are killed with kill -9 at once.", killAll},
		{"pause", "SIGSTOP holds the leader or a follower for longer than an election.", pause},
		{"partition-symmetric", "One node and the others hear nothing of each other.", partitionSymmetric},
		{"partition-one-way", "One node hears the others but is not heard, or is heard but hears nothing.", partitionOneWay},
		{"partition-bridge", "One node hears both others, which do not hear each other.", partitionBridge},
		{"partition-flapping", "Random links between members break and heal all the time.", partitionFlapping},
		{"loss", "30 % of all packets between members vanish, while a node is killed.", loss},
		{"slow-proxy", "Everything between members is held back by 20 to 120 ms each way, while leaders are killed.", slowProxy},
		{"fsync-eio", "One fsync of a node fails: it stops at once and never goes on.", fsyncEIO},
		{"fsync-slow", "Each fsync of a node takes 300 ms longer.", fsyncSlow},
		{"disk-reserve", "The free space of all nodes falls below the reserve: messages are refused, reads go on.", diskReserve},
		{"disk-full", "A node without a reserve runs out of space: it stops and says so.", diskFull},
		{"disk-low", "The free space of one node of three falls below its reserve: all refuse messages and name it, reads go on.", diskLow},
		{"power-loss-one", "One machine loses its power and every write that was not synced.", powerLossOf(1)},
		{"power-loss-majority", "Two of three machines lose their power at once.", powerLossOf(2)},
		{"power-loss-all", "All machines lose their power at once.", powerLossOf(3)},
		{"damage", "A node starts on damaged copies of its directory: it refuses and says what to do, or has lost nothing.", damage},
		{"copied-directory", "A node starts on a copy of another's directory, or on its own at another address: it refuses.", copiedDirectory},
		{"swapped-directory", "Two nodes start on each other's directory: both refuse.", swappedDirectory},
		{"empty-founded", "Members of a cluster that was founded as three start on empty directories, singly and together: they refuse, and the remedy works.", emptyFounded},
		{"empty-grown", "The same in a cluster that was grown from one.", emptyGrown},
		{"older-copy", "A member starts on an older copy of its directory, beside one that lacks what the copy lacks: it refuses.", putBack},
		{"second-copy", "A copy of a member's directory runs in its place and beside it.", secondCopy},
		{"moved-machine", "A machine stands still, another one goes on in its place with its directory, and then the first one goes on, too: it stops.", movedMachine},
		{"churn", "The cluster grows from three members to five and shrinks again, under kills.", churn},
		{"clock-step", "The wall clocks of single nodes are set forth and back.", clockStep},
		{"clock-leader", "The wall clock of one leader after the other is wrong: it hands over, and the others go on.", clockLeader},
		{"snapshot-lag", "A follower needs a snapshot, and the sender is killed in the middle of it.", snapshotLag},
		{"snapshot-memory", "A follower whose memory is bounded takes a large snapshot in.", snapshotMemory},
	}
}

// chosen are the scenarios whose whole name matches pattern; "" matches all.
func chosen(pattern string) ([]scenario, error) {
	if pattern == "" {
		return scenarios(), nil
	}
	re, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return nil, fmt.Errorf("scenario: %w", err)
	}
	var some []scenario
	for _, s := range scenarios() {
		if re.MatchString(s.name) {
			some = append(some, s)
		}
	}
	if len(some) == 0 {
		return nil, fmt.Errorf("scenario: none is called %q", pattern)
	}
	return some, nil
}
