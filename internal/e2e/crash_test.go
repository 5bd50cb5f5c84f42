package e2e

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

func TestKillingAllNodesLosesNothing(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	load := testcluster.StartLoad(t, 8, c.urls())
	for range 5 {
		load.Await(150)
		for _, n := range c.nodes {
			n.signal(syscall.SIGKILL)
		}
		for _, n := range c.nodes {
			n.wait()
		}
		c.startAll()
	}
	load.Await(150)
	load.Check(c.urls())
}

func TestWritesGoOnWhenTheLeaderIsKilled(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	load := testcluster.StartLoad(t, 8, c.urls())
	for range 3 {
		load.Await(100)
		leader := c.leader()
		leader.kill()
		load.Await(150) // by the two that are left
		c.start(leader.id)
	}
	load.Await(100)
	load.Check(c.urls())
}

func TestStoppingTheLeaderIsPlanned(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	load := testcluster.StartLoad(t, 8, c.urls())
	for range 3 {
		load.Await(100)
		leader := c.leader()
		leader.stop(syscall.SIGTERM)
		load.Await(150)
		c.start(leader.id)
		c.awaitReady()
	}
	load.Check(c.urls())
}

func TestOneNodeKeepsEverything(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 1, quick...)
	load := testcluster.StartLoad(t, 4, c.urls())
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGKILL} {
		load.Await(150)
		c.nodes[0].signal(s)
		c.nodes[0].wait()
		c.start(1)
	}
	load.Await(150)
	load.Check(c.urls())
}

// Each message is looked for as soon as the restarted node answers at all.
func TestReadsAfterARestartSeeWhatWasAcknowledged(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 1, quick...)
	for i := range 5 {
		m := testcluster.Message{Room: "general", User: "ann", Message: fmt.Sprint("message ", i), ClientMessageID: fmt.Sprint(i)}
		stored := c.post(c.nodes[0], m)
		c.nodes[0].kill()
		c.start(1)
		var page []testcluster.Message
		testcluster.Eventually(t, "an answer", func() (err error) {
			page, err = c.client.Page(t.Context(), c.nodes[0].url, "general", "")
			return err
		})
		if len(page) != i+1 || page[i].Seq != stored.Seq || page[i].Message != m.Message {
			t.Errorf("after restart %d a linearizable read answers %+v, the last acknowledged message is %+v", i+1, page, stored)
		}
	}
}
