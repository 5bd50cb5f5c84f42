package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/testaddr"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// cluster is a number of nodes that run the built binary, each in the
// directory ./raft-chat-ID of a common working directory.
type cluster struct {
	t      *testing.T
	dir    string
	client *testcluster.Client
	flags  []string // of every node, besides id, list and port
	peers  []string // the --cluster list
	nodes  []*node  // node n has index n-1
}

type node struct {
	*process // the last one
	id       int
	port     int
	url      string
	peerURL  string
}

// quick makes elections short and needs no reserve on the disk.
var quick = []string{"--tick-interval", "50ms", "--min-free-bytes", "0"}

// newCluster gives n nodes their ports; none is started.
func newCluster(t *testing.T, n int, flags ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), client: testcluster.NewClient(t), flags: flags}
	for i := range n {
		c.nodes = append(c.nodes, newNode(t, i+1))
		c.peers = append(c.peers, c.nodes[i].peerURL)
	}
	return c
}

func newNode(t *testing.T, id int) *node {
	port := testaddr.Port(t)
	return &node{id: id, port: port, url: fmt.Sprintf("http://%s:%d", testaddr.Host(), port), peerURL: "http://" + testaddr.Addr(t)}
}

// listenFlags say where the node's API listens.
func (n *node) listenFlags() []string {
	return []string{"--host", testaddr.Host(), "--port", fmt.Sprint(n.port)}
}

// startCluster starts n nodes and waits until all are ready.
func startCluster(t *testing.T, n int, flags ...string) *cluster {
	t.Helper()
	c := newCluster(t, n, flags...)
	c.startAll()
	c.awaitReady()
	return c
}

// start starts node id with the cluster's list and returns its process.
func (c *cluster) start(id int, flags ...string) *process {
	c.t.Helper()
	n := c.nodes[id-1]
	n.process = c.startWith(n, strings.Join(c.peers, ","), flags...)
	return n.process
}

func (c *cluster) startWith(n *node, list string, flags ...string) *process {
	c.t.Helper()
	args := append([]string{"--id", fmt.Sprint(n.id), "--cluster", list}, n.listenFlags()...)
	return start(c.t, c.dir, binary, append(append(args, c.flags...), flags...)...)
}

func (c *cluster) startAll() {
	c.t.Helper()
	for _, n := range c.nodes {
		c.start(n.id)
	}
}

// awaitReady waits until every node that runs is ready.
func (c *cluster) awaitReady() {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.process != nil && !n.ended() {
			c.awaitURL(n.process, n.url)
		}
	}
}

func (c *cluster) awaitURL(p *process, url string) {
	c.t.Helper()
	testcluster.Eventually(c.t, url+" to be ready", func() error {
		if p.ended() {
			c.t.Fatalf("%s has ended: %v\n%s", p.name, p.cmd.ProcessState, testcluster.Tail(p.log.String(), 20))
		}
		return c.client.Ready(c.t.Context(), url)
	})
}

// leader waits until a node that runs says that it leads.
func (c *cluster) leader() *node {
	c.t.Helper()
	var leader *node
	testcluster.Eventually(c.t, "a leader", func() error {
		for _, n := range c.nodes {
			if n.ended() {
				continue
			}
			h, err := c.client.Health(c.t.Context(), n.url)
			if err == nil && h.IsLeader {
				leader = n
				return nil
			}
		}
		return fmt.Errorf("no node says that it leads")
	})
	return leader
}

func (c *cluster) urls() []string {
	var urls []string
	for _, n := range c.nodes {
		urls = append(urls, n.url)
	}
	return urls
}

// dataDir is the directory that node id stores in.
func (c *cluster) dataDir(id int) string { return filepath.Join(c.dir, fmt.Sprint("raft-chat-", id)) }

// post posts until the message is acknowledged.
func (c *cluster) post(n *node, m testcluster.Message) testcluster.Message {
	c.t.Helper()
	var stored testcluster.Message
	testcluster.Eventually(c.t, "a post of "+m.Message, func() (err error) {
		stored, _, err = c.client.Post(c.t.Context(), n.url, m)
		return err
	})
	return stored
}
