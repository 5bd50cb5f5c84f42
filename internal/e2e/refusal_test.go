package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// refused expects that a process ends by itself with the exit code, and that
// its last line says all of words.
func refused(t *testing.T, p *process, code int, words ...string) {
	t.Helper()
	if got := p.wait(); got != code {
		t.Errorf("%s: exit code %d, want %d", p.name, got, code)
	}
	last := testcluster.Tail(p.log.String(), 1)
	for _, w := range words {
		if !strings.Contains(last, w) {
			t.Errorf("%s: the last line does not say %q:\n%s", p.name, w, last)
		}
	}
}

// oneLine expects that a process has said nothing but one line.
func oneLine(t *testing.T, p *process) {
	t.Helper()
	if text := p.log.String(); strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") {
		t.Errorf("%s says more or less than one line:\n%s", p.name, text)
	}
}

func TestDirectoryOfAnotherMemberIsRefused(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	c.post(c.nodes[0], testcluster.Message{Room: "general", User: "ann", Message: "before"})
	c.nodes[1].stop(syscall.SIGTERM)
	c.nodes[2].stop(syscall.SIGTERM)
	if err := os.RemoveAll(c.dataDir(3)); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(c.dataDir(3), os.DirFS(c.dataDir(2))); err != nil {
		t.Fatal(err)
	}
	refused(t, c.start(3), 1, "raft-chat-3", "belongs to member 2", "--data-dir")
	c.start(2)
	c.awaitURL(c.nodes[1].process, c.nodes[1].url) // the original is as good as before
}

func TestThreeNodeTourInTheOneNodeToursFolder(t *testing.T) {
	c := newCluster(t, 3, quick...)
	one := c.startWith(c.nodes[0], c.peers[0])
	c.awaitURL(one, c.nodes[0].url)
	c.post(c.nodes[0], testcluster.Message{Room: "general", User: "ann", Message: "alone"})
	one.stop(syscall.SIGTERM)
	refused(t, c.start(1), 1, "raft-chat-1",
		"1="+c.peers[0]+" (its members now: 1="+c.peers[0]+")",
		fmt.Sprintf("1=%s,2=%s,3=%s", c.peers[0], c.peers[1], c.peers[2]), "--data-dir")
	// Nothing was harmed.
	again := c.startWith(c.nodes[0], c.peers[0])
	c.awaitURL(again, c.nodes[0].url)
}

func TestEvenNumberOfVotersIsRefused(t *testing.T) {
	for _, n := range []int{2, 4} {
		c := newCluster(t, n, quick...)
		p := c.start(1)
		refused(t, p, 2, "--cluster", fmt.Sprint(n, " voters"), "odd")
		oneLine(t, p)
		if _, err := os.Stat(c.dataDir(1)); !os.IsNotExist(err) {
			t.Errorf("the refused start has left a directory (%v)", err)
		}
	}
}

func TestSecondProcessOnADirectoryIsRefused(t *testing.T) {
	c := startCluster(t, 1, quick...)
	second := start(t, c.dir, binary, append(newNode(t, 1).listenFlags(), "--id", "1", "--cluster", c.peers[0],
		"--listen-peer", testaddr.Addr(t), "--data-dir", c.dataDir(1))...)
	refused(t, second, 1, "raft-chat-1", "in use by another process")
	oneLine(t, second)
	c.awaitURL(c.nodes[0].process, c.nodes[0].url)
}

func TestPortInUseIsOneClearLine(t *testing.T) {
	c := newCluster(t, 1, quick...)
	for what, addr := range map[string]string{
		"clients": strings.TrimPrefix(c.nodes[0].url, "http://"),
		"peers":   strings.TrimPrefix(c.nodes[0].peerURL, "http://"),
	} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		p := c.start(1)
		refused(t, p, 1, what, addr, "address already in use")
		oneLine(t, p)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
