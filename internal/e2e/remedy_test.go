package e2e

import (
	encoding "encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// remedyText finds the command that a refusal tells to run.
var remedyText = regexp.MustCompile("`(raft-chat members [^`]+)`")

// follow runs what the last line of a refused node says, and what that prints,
// word for word; the node comes back under another id.
func (c *cluster) follow(n *node) {
	c.t.Helper()
	line := testcluster.Tail(n.log.String(), 1)
	found := remedyText.FindStringSubmatch(line)
	if found == nil {
		c.t.Fatalf("the last line names no command:\n%s", line)
	}
	var up []string
	for _, x := range c.nodes {
		if !x.ended() {
			up = append(up, x.url)
		}
	}
	p := c.shell(up, found[1])
	if code := p.wait(); code != 0 {
		c.t.Fatalf("%s: exit code %d", p.name, code)
	}
	command := strings.Fields(testcluster.Tail(p.out.String(), 1))
	if len(command) < 3 || command[0] != "raft-chat" || command[1] != "--id" {
		c.t.Fatalf("%s prints no command:\n%s", p.name, p.out.String())
	}
	id, err := strconv.Atoi(command[2])
	if err != nil {
		c.t.Fatal(err)
	}
	n.id = id
	n.process = start(c.t, c.dir, binary, append(append(slices.Clone(command[1:]), "--host", testaddr.Host()), c.flags...)...)
	c.awaitURL(n.process, n.url)
}

// damageLog zeroes the length of a record in the middle of what a node's log
// holds: as much of it is lost as etcd's reader would drop in silence.
func (c *cluster) damageLog(id int) (file string) {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.dataDir(id), "wal", "*.wal"))
	if err != nil || len(names) == 0 {
		c.t.Fatalf("node %d has no log: %v", id, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		c.t.Fatal(err)
	}
	var records []int
	for at := 0; at+8 <= len(b); {
		frame := encoding.LittleEndian.Uint64(b[at:])
		if frame == 0 {
			break
		}
		records = append(records, at)
		at += 8 + int(frame&(1<<56-1))
		if frame>>63 == 1 {
			at += int(frame >> 56 & 7)
		}
	}
	at := records[len(records)/2]
	clear(b[at : at+8])
	if err := os.WriteFile(names[0], b, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return filepath.Base(names[0])
}

// Whatever has become of a data directory: the node refuses it, and what the
// refusal says to do leads back to three healthy voters with every message.
func TestRefusedNodesAreReplacedAsTheySay(t *testing.T) {
	slow.Test(t)
	for _, tt := range []struct {
		name string
		harm func(c *cluster) (says []string)
	}{
		{"damaged log", func(c *cluster) []string { return []string{c.damageLog(3), "at offset", "follow at offset"} }},
		{"wiped", func(c *cluster) []string {
			if err := os.RemoveAll(c.dataDir(3)); err != nil {
				t.Fatal(err)
			}
			return []string{"wiped", "Bring the right directory back"}
		}},
		{"high-water record gone", func(c *cluster) []string {
			if err := os.Remove(filepath.Join(c.dataDir(3), "highwater")); err != nil {
				t.Fatal(err)
			}
			return []string{"highwater", "missing"}
		}},
		{"identity damaged", func(c *cluster) []string {
			if err := os.WriteFile(filepath.Join(c.dataDir(3), "identity"), []byte("0000{}"), 0o600); err != nil {
				t.Fatal(err)
			}
			return []string{"identity", "checksum"}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := startCluster(t, 3, quick...)
			load := testcluster.StartLoad(t, 4, c.urls())
			load.Await(100)
			c.nodes[2].stop(syscall.SIGTERM)
			says := tt.harm(c)
			load.Await(50) // the others go on
			refused(t, c.start(3), 1, append(says, "raft-chat members replace 3")...)
			load.Await(50)
			c.follow(c.nodes[2])
			load.Await(50)
			if c.nodes[2].id != 4 {
				t.Errorf("the new member is %d, want 4", c.nodes[2].id)
			}
			c.wantMembers(c.urls()) // three voters that the leader hears of
			load.Check(c.urls())
		})
	}
}

// Two directories that changed places are no loss: the remedy is to put them
// back, and the refusal says whose each one is.
func TestSwappedDirectoriesArePutBack(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	c.post(c.nodes[0], testcluster.Message{Room: "general", User: "ann", Message: "before"})
	swap := func() {
		for _, step := range [][2]string{{c.dataDir(2), c.dataDir(9)}, {c.dataDir(3), c.dataDir(2)}, {c.dataDir(9), c.dataDir(3)}} {
			if err := os.Rename(step[0], step[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.nodes[1].stop(syscall.SIGTERM)
	c.nodes[2].stop(syscall.SIGTERM)
	swap()
	refused(t, c.start(2), 1, "raft-chat-2 belongs to member 3, not to member 2", "--data-dir")
	refused(t, c.start(3), 1, "raft-chat-3 belongs to member 2, not to member 3", "--data-dir")
	swap()
	c.start(2)
	c.start(3)
	c.awaitReady()
	c.wantMembers(c.urls())
}

// The single steps: a learner stays one until it is promoted, which is refused
// before it has caught up; a removed node ends well.
func TestMembersCommandsStepByStep(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	first := c.post(c.nodes[0], testcluster.Message{Room: "general", User: "ann", Message: "before"})
	fresh := newNode(t, 4)
	p := c.shell(c.urls(), "raft-chat members add 4 "+fresh.peerURL+" --learner")
	if p.wait() != 0 || !strings.Contains(p.out.String(), "member 4 is added, at "+fresh.peerURL) {
		t.Fatalf("add: %s%s", p.out.String(), p.log.String())
	}
	wantRun(t, c.shell(c.urls(), "raft-chat members promote 4"), 1, "", "learner_not_ready")
	wantRun(t, c.shell(c.urls(), "raft-chat members add 3 "+fresh.peerURL), 1, "", "member_exists")

	command := strings.Fields(testcluster.Tail(p.out.String(), 1))
	fresh.process = start(t, c.dir, binary, append(append(command[1:], fresh.listenFlags()...), c.flags...)...)
	c.awaitURL(fresh.process, fresh.url)
	if got, err := c.client.Messages(t.Context(), fresh.url, "general"); err != nil || len(got) != 1 || got[0].Message != first.Message {
		t.Errorf("the learner reads %+v, %v", got, err)
	}
	testcluster.Eventually(t, "the promotion of the learner", func() error {
		if p := c.shell(c.urls(), "raft-chat members promote 4"); p.wait() != 0 {
			return errors.New(p.log.String())
		}
		return nil
	})
	c.nodes = append(c.nodes, fresh)
	c.wantMembers(c.urls())

	wantRun(t, c.shell(c.urls()[:3], "raft-chat members remove 4"), 0, "member 4 is removed\n", "")
	if code := fresh.wait(); code != 0 {
		t.Errorf("the removed node ends with %d", code)
	}
	c.nodes = c.nodes[:3]
	wantRun(t, c.shell(c.urls(), "raft-chat members add 4 "+fresh.peerURL), 1, "", "member_id_used")
	c.wantMembers(c.urls())
}
