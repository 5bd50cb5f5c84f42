package testcluster

import (
	"net"
	"sync"
)

// links says which members can talk to each other. It is asked for every
// message between two of them.
type links struct {
	mu   sync.RWMutex
	cut  map[[2]uint64]bool // from, to
	dead map[uint64]bool    // killed, and not started since
}

func newLinks() *links { return &links{cut: map[[2]uint64]bool{}, dead: map[uint64]bool{}} }

func (l *links) reachable(from, to uint64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return !l.dead[from] && !l.dead[to] && !l.cut[[2]uint64{from, to}]
}

func (l *links) kill(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead[id] = true
}

func (l *links) revive(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.dead, id)
}

func (l *links) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.cut)
}

// Cut cuts the link between two nodes in both directions, whether they run or
// not. Clients still reach both.
func (c *Cluster) Cut(a, b uint64) {
	c.CutOneWay(a, b)
	c.CutOneWay(b, a)
}

// CutOneWay keeps what node from sends from arriving at node to.
func (c *Cluster) CutOneWay(from, to uint64) {
	c.links.mu.Lock()
	defer c.links.mu.Unlock()
	c.links.cut[[2]uint64{from, to}] = true
}

// Isolate cuts a node off from all others there are.
func (c *Cluster) Isolate(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for other := range c.nodes {
		if other != id {
			c.Cut(id, other)
		}
	}
}

// Mend brings all links back.
func (c *Cluster) Mend() { c.links.mend() }

// listener remembers the connections it has accepted, so that a crash can
// reset them. They are kept when they have ended too, which is not many in a test.
type listener struct {
	net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, conn)
		l.mu.Unlock()
	}
	return conn, err
}

// reset closes the socket and resets every connection, as a process that dies
// with unread data does.
func (l *listener) reset() {
	_ = l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a connection that has ended says no
		}
		_ = conn.Close()
	}
}
