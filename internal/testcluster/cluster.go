package testcluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/server"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// TickInterval is the nodes' unit of time: elections take ten to twenty of it.
const TickInterval = 20 * time.Millisecond

// stopTimeout bounds a graceful stop. It is generous: a busy machine must not
// turn a slow stop into a failed test.
const stopTimeout = time.Minute

// Cluster is a number of nodes in this process.
type Cluster struct {
	t      testing.TB
	dir    string
	tune   func(*server.Config)
	links  *links
	client *Client

	mu    sync.Mutex // guards nodes
	nodes map[uint64]*node
}

// node is one member: its place, which it keeps, and its server while it runs.
type node struct {
	id       uint64
	apiAddr  string
	peerAddr string
	cluster  []server.Peer // what it is started with
	join     bool
	log      Log

	// api and peer are open sockets that the next start serves on.
	api, peer *listener

	server *server.Server // nil: not running
	served *listener      // the API's socket of the running server
}

// New makes a cluster of n nodes with the ids 1 to n and starts all of them.
// tune, which may be nil, changes the configuration of a node that is about to
// start; the sockets, the directory and the identity are set already.
func New(t testing.TB, n int, tune func(*server.Config)) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), tune: tune, links: newLinks(), client: NewClient(t), nodes: map[uint64]*node{}}
	var list []server.Peer
	for id := range uint64(n) {
		list = append(list, server.Peer{ID: id + 1, URL: "http://" + c.place(id+1).peerAddr})
	}
	for _, m := range c.nodes {
		m.cluster = list
	}
	t.Cleanup(c.end)
	for _, p := range list {
		c.Start(p.ID)
	}
	return c
}

// place gives a new node its addresses and opens its sockets.
func (c *Cluster) place(id uint64) *node {
	c.t.Helper()
	m := &node{id: id, api: c.listen(testaddr.Addr(c.t)), peer: c.listen(testaddr.Addr(c.t))}
	m.apiAddr, m.peerAddr = m.api.Addr().String(), m.peer.Addr().String()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[id] = m
	return m
}

// listen waits for an address: after a stop the system may take a moment to
// give a port back.
func (c *Cluster) listen(addr string) *listener {
	c.t.Helper()
	var l net.Listener
	Eventually(c.t, "an address", func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return &listener{Listener: l}
}

func (c *Cluster) node(id uint64) *node {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.nodes[id]
	if m == nil {
		c.t.Fatalf("there is no node %d in this test", id)
	}
	return m
}

// Start starts a node that does not run, on its directory and its ports.
func (c *Cluster) Start(id uint64) {
	c.t.Helper()
	m := c.node(id)
	if m.server != nil {
		c.t.Fatalf("node %d runs already", id)
	}
	if m.api == nil {
		m.api = c.listen(m.apiAddr)
		m.peer = c.listen(m.peerAddr)
	}
	conf := server.Config{
		ID: id, Cluster: m.cluster, Join: m.join, DataDir: filepath.Join(c.dir, fmt.Sprint("node-", id)),
		Listen: m.apiAddr, AdvertiseClient: "http://" + m.apiAddr,
		TickInterval: TickInterval, MinFreeBytes: -1, ListenFirst: 50 * time.Millisecond,
		Logger:      slog.New(slog.NewTextHandler(&m.log, nil)),
		APIListener: m.api, PeerListener: m.peer, Reachable: c.links.reachable,
	}
	if c.tune != nil {
		c.tune(&conf)
	}
	c.links.revive(id)
	m.served = m.api
	m.api, m.peer = nil, nil // the server closes them
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	s, err := server.Open(ctx, conf)
	if err != nil {
		c.t.Fatalf("open node %d: %v", id, err)
	}
	c.mu.Lock()
	m.server = s
	c.mu.Unlock()
}

// Stop stops a node in good order, as SIGTERM does.
func (c *Cluster) Stop(id uint64) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	s, _ := c.take(id)
	if err := s.Close(ctx); err != nil {
		c.t.Errorf("stop node %d: %v", id, err)
	}
}

// Kill ends a node as nearly like a crash as one process allows. From one
// moment on no member hears from it or reaches it; every connection to its API
// is reset, answers under way included; its store is abandoned with what it
// had not flushed; nothing is handed over or drained. What differs from a real
// kill: an fsync that is under way ends, records that the log's writer still
// buffered (never acknowledged ones) reach the file, and goroutines end by
// themselves instead of vanishing. internal/e2e kills real processes.
func (c *Cluster) Kill(id uint64) {
	c.t.Helper()
	c.links.kill(id)
	s, socket := c.take(id)
	socket.reset()
	// Closing the store does not flush it. The node finds out at its next
	// entry, and the server's own flush at the end is refused.
	_ = s.Store().Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing may take time to end well
	_ = s.Close(ctx)
}

// take returns what a running node consists of, and counts it as stopped.
func (c *Cluster) take(id uint64) (*server.Server, *listener) {
	c.t.Helper()
	m := c.node(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.server == nil {
		c.t.Fatalf("node %d does not run", id)
	}
	s, socket := m.server, m.served
	m.server, m.served = nil, nil
	return s, socket
}

// Add adds a further node by POST /raft/{id} on node via, and starts it. Id
// must be one more than the highest there ever was, so that the list it is
// started with is that of the seed's --join example.
func (c *Cluster) Add(via, id uint64) {
	c.t.Helper()
	m := c.place(id)
	m.join = true
	c.mu.Lock()
	for _, other := range c.nodes {
		m.cluster = append(m.cluster, server.Peer{ID: other.id, URL: "http://" + other.peerAddr})
	}
	c.mu.Unlock()
	slices.SortFunc(m.cluster, func(a, b server.Peer) int { return int(a.ID) - int(b.ID) })
	Eventually(c.t, fmt.Sprint("POST /raft/", id), func() error {
		return c.client.AddMember(context.Background(), c.URL(via), id, "http://"+m.peerAddr)
	})
	c.Start(id)
}

// AwaitRemoved waits until a running node has stopped by itself because it was
// removed from the cluster, and closes it.
func (c *Cluster) AwaitRemoved(id uint64) {
	c.t.Helper()
	s := c.Server(id)
	select {
	case <-s.Done():
	case <-time.After(patience):
		c.t.Fatalf("node %d did not notice that it was removed", id)
	}
	if err := s.Err(); err != nil {
		c.t.Errorf("node %d stopped with %v, not because it was removed", id, err)
	}
	c.Stop(id)
}

// URL is where node id serves its API, now or after its next start.
// It may be called concurrently.
func (c *Cluster) URL(id uint64) string { return "http://" + c.node(id).apiAddr }

// URLs are the URLs of all nodes, running or not, in the order of their ids.
// It may be called concurrently.
func (c *Cluster) URLs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var urls []string
	for _, id := range slices.Sorted(maps.Keys(c.nodes)) {
		urls = append(urls, "http://"+c.nodes[id].apiAddr)
	}
	return urls
}

// Client is a client of the cluster's API, for any node.
func (c *Cluster) Client() *Client { return c.client }

// Server is the server of a running node.
func (c *Cluster) Server(id uint64) *server.Server {
	c.t.Helper()
	m := c.node(id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.server == nil {
		c.t.Fatalf("node %d does not run", id)
	}
	return m.server
}

// Running lists the ids of the running nodes, ascending.
func (c *Cluster) Running() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []uint64
	for id, m := range c.nodes {
		if m.server != nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Leader waits until a majority of the running nodes name the same one of them
// as the leader and that node agrees, and returns its id. A leader that was
// cut off and does not know better yet is not taken for one.
func (c *Cluster) Leader() uint64 {
	c.t.Helper()
	var leader uint64
	Eventually(c.t, "a leader", func() error {
		named := map[uint64]int{}
		running := c.Running()
		for _, id := range running {
			named[c.Server(id).Node().Status().Leader]++
		}
		for _, id := range running {
			if s := c.Server(id).Node().Status(); s.Role == "leader" && named[id] > len(running)/2 {
				leader = id
				return nil
			}
		}
		return fmt.Errorf("votes of the running nodes: %v", named)
	})
	return leader
}

// Agree waits until all running nodes have applied the same entries, and fails
// the test if their states differ then. The cluster must have a leader and no
// writer.
func (c *Cluster) Agree() {
	c.t.Helper()
	running := c.Running()
	Eventually(c.t, "all nodes to have applied the same", func() error {
		last := c.Server(c.Leader()).Node().Status().Commit
		for _, id := range running {
			if index, _ := c.Server(id).Store().StateHash(); index != last {
				return fmt.Errorf("node %d has applied %d of %d entries", id, index, last)
			}
		}
		return nil
	})
	type state struct{ Index, Rolling, Full uint64 }
	var first state
	for i, id := range running {
		var s state
		var err error
		s.Index, s.Rolling = c.Server(id).Store().StateHash()
		var fullIndex uint64
		if fullIndex, s.Full, err = c.Server(id).Store().FullHash(); err != nil || fullIndex != s.Index {
			c.t.Fatalf("full hash of node %d: at entry %d, want %d, error %v", id, fullIndex, s.Index, err)
		}
		if i == 0 {
			first = s
		} else if s != first {
			c.t.Errorf("node %d has the state %+v, node %d has %+v", id, s, running[0], first)
		}
	}
}

// end stops what still runs. No good order is asked for: the cluster may have
// lost its majority.
func (c *Cluster) end() {
	if c.t.Failed() {
		// What hangs shows in no log.
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		c.t.Logf("goroutines:\n%s", OurGoroutines(stacks.String()))
	}
	c.links.mend()
	for _, id := range c.Running() {
		s, _ := c.take(id)
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		err := s.Close(ctx)
		cancel()
		if err != nil {
			c.t.Errorf("close node %d: %v", id, errors.Join(err, s.Err()))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.nodes)) {
		m := c.nodes[id]
		for _, l := range []*listener{m.api, m.peer} {
			if l != nil { // it was never started
				_ = l.Close()
			}
		}
		if c.t.Failed() {
			c.t.Logf("log of node %d:\n%s", id, Tail(m.log.String(), 100))
		}
	}
}
