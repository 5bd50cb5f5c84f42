package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// wipe kills a node and takes its directory away.
func (c *cluster) wipe(id int) {
	c.t.Helper()
	if n := c.nodes[id-1]; n.process != nil && !n.ended() {
		n.kill()
	}
	if err := os.RemoveAll(c.dataDir(id)); err != nil {
		c.t.Fatal(err)
	}
}

// list is the list of the nodes of some ids.
func (c *cluster) list(ids ...int) string {
	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprintf("%d=%s", id, c.nodes[id-1].peerURL))
	}
	return strings.Join(list, ",")
}

// grown is a cluster that began as node 1 alone and has three members.
func grown(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, 4, quick...)
	c.nodes[0].process = c.startWith(c.nodes[0], c.list(1))
	c.awaitURL(c.nodes[0].process, c.nodes[0].url)
	for id := 2; id <= 3; id++ {
		n := c.nodes[id-1]
		if p := c.shell([]string{c.nodes[0].url}, fmt.Sprintf("raft-chat members add %d %s", id, n.peerURL)); p.wait() != 0 {
			t.Fatal(p.log.String())
		}
		n.process = c.startWith(n, c.list([]int{1, 2, 3}[:id]...), "--join")
		c.awaitURL(n.process, n.url)
		c.awaitVoters(c.nodes[0], id)
	}
	c.post(c.nodes[0], testcluster.Message{Room: "general", User: "ann", Message: "before"})
	return c
}

// awaitVoters waits until no member of n is a learner.
func (c *cluster) awaitVoters(n *node, members int) {
	c.t.Helper()
	testcluster.Eventually(c.t, "voters", func() error {
		list, err := c.client.Members(c.t.Context(), n.url)
		if err != nil {
			return err
		}
		voters := 0
		for _, m := range list {
			if m.Role != "learner" {
				voters++
			}
		}
		if voters != members {
			return fmt.Errorf("%d voters", voters)
		}
		return nil
	})
}

// However the cluster grew, and whatever list it is given: an empty directory is
// refused with the commands that help, and the others go on.
func TestEmptyDirectoryIsRefusedHoweverTheClusterGrew(t *testing.T) {
	slow.Test(t)
	c := grown(t)
	c.wipe(1)
	for _, list := range []string{c.list(1), c.list(1, 2, 3), c.list(1, 3, 4)} {
		p := c.startWith(c.nodes[0], list)
		refused(t, p, 1, "raft-chat members replace 1 --endpoints http://", "Bring the right directory back", "--found-anyway")
		if err := os.RemoveAll(c.dataDir(1)); err != nil {
			t.Fatal(err)
		}
	}
	c.post(c.nodes[1], testcluster.Message{Room: "general", User: "ann", Message: "after"})

	// Replaced, at another address: the old machine starts as its unit file says.
	four := c.nodes[3]
	if p := c.shell([]string{c.nodes[1].url, c.nodes[2].url}, "raft-chat members replace 1 4 "+four.peerURL); p.wait() != 0 {
		t.Fatal(p.log.String())
	}
	four.process = c.startWith(four, c.list(2, 3, 4), "--join")
	c.awaitURL(four.process, four.url)
	c.awaitVoters(c.nodes[1], 3)
	refused(t, c.startWith(c.nodes[0], c.list(1)), 1, "member 1 was removed", "raft-chat members add 5 "+c.nodes[0].peerURL+" --endpoints http://")

	// Two of three members of today, with the list of today.
	c.wipe(3)
	c.wipe(4)
	three := c.startWith(c.nodes[2], c.list(2, 3, 4))
	four.process = c.startWith(four, c.list(2, 3, 4))
	refused(t, three, 1, "raft-chat members replace 3 --endpoints "+c.nodes[1].url)
	refused(t, four.process, 1, "raft-chat members replace 4 --endpoints "+c.nodes[1].url)
	if c.nodes[1].ended() {
		t.Error("the node that was left has stopped")
	}
}

// Any majority of a list founds it, in any order; the third is let in when it comes,
// and is refused once it has lost its directory.
func TestMajorityFoundsAndTheThirdIsLetIn(t *testing.T) {
	slow.Test(t)
	c := newCluster(t, 3, quick...)
	c.start(3)
	testcluster.Eventually(t, "word of whom node 3 waits for", func() error {
		if err := c.client.Ready(t.Context(), c.nodes[2].url); err == nil || !strings.Contains(err.Error(), "founding: a majority of the list has to be there: [1 2]") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
	began := time.Now()
	c.start(2)
	c.awaitURL(c.nodes[1].process, c.nodes[1].url)
	c.post(c.nodes[2], testcluster.Message{Room: "general", User: "ann", Message: "of two"})
	t.Logf("a message was taken %v after the second of three had started", time.Since(began))
	c.start(1)
	c.awaitURL(c.nodes[0].process, c.nodes[0].url)
	c.nodes[2].stop(syscall.SIGTERM)
	c.post(c.nodes[0], testcluster.Message{Room: "general", User: "ann", Message: "without the third"})
	c.start(3)
	c.awaitURL(c.nodes[2].process, c.nodes[2].url)
	c.wipe(1)
	refused(t, c.start(1), 1, "raft-chat members replace 1")
}

// With --found-anyway there are two clusters; neither stops, and both say so.
func TestFoundAnywayRaisesTheAlarmOnBothSides(t *testing.T) {
	slow.Test(t)
	c := grown(t)
	c.wipe(1)
	c.nodes[0].process = c.startWith(c.nodes[0], c.list(1), "--found-anyway")
	for _, n := range c.nodes[:3] {
		testcluster.Eventually(t, "the alarm", func() error {
			if err := c.client.Ready(t.Context(), n.url); err == nil || !strings.Contains(err.Error(), "is of another cluster") {
				return fmt.Errorf("node %d says %w", n.id, err)
			}
			return nil
		})
		c.post(n, testcluster.Message{Room: "general", User: "ann", Message: "still taken"})
	}
}
