package grpcapi

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// ConnectionBytes is about what a connection to this front holds: its buffers and
// its goroutines.
const ConnectionBytes = 64 << 10

// limitedListener closes connections beyond a limit at once. To leave them
// unaccepted instead would let their clients wait, and count on the backlog of
// the system.
type limitedListener struct {
	net.Listener
	free         chan struct{} // holds one token for each open connection
	writeTimeout time.Duration
}

func newLimitedListener(l net.Listener, limit int, writeTimeout time.Duration) *limitedListener {
	return &limitedListener{Listener: l, free: make(chan struct{}, limit), writeTimeout: writeTimeout}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &limitedConn{Conn: conn, writeTimeout: l.writeTimeout, release: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			_ = conn.Close() // its client has no use for a reason
		}
	}
}

// limitedConn gives its place, and what its calls hold, back when it is closed: the
// transport drops what it has not written then, without a word. A client that takes
// nothing from the socket for writeTimeout is disconnected.
type limitedConn struct {
	net.Conn
	release      func()
	writeTimeout time.Duration

	mu     sync.Mutex
	closed bool
	held   map[*budget.Account]int64
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.release()
	c.mu.Lock()
	c.closed = true
	for account, n := range c.held {
		account.Give(n)
	}
	c.held = nil
	c.mu.Unlock()
	return c.Conn.Close()
}

// cut closes the connection for something else than its own end.
func (c *limitedConn) cut() { _ = c.Close() }

// Write implements net.Conn.
func (c *limitedConn) Write(b []byte) (int, error) {
	if err := c.Conn.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// take takes n bytes for a call. Nothing is held for a connection that is closed.
func (c *limitedConn) take(account *budget.Account, n int64) bool {
	if account == nil || n == 0 {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !account.Take(n) {
		return false
	}
	if c.held == nil {
		c.held = make(map[*budget.Account]int64, 2)
	}
	c.held[account] += n
	return true
}

// give gives n bytes back that take took.
func (c *limitedConn) give(account *budget.Account, n int64) {
	if account == nil || n == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.held[account] -= n
		account.Give(n)
	}
}

// RemoteAddr implements net.Conn. It leads from the context of a call, where gRPC
// puts it, to the connection.
func (c *limitedConn) RemoteAddr() net.Addr { return remoteAddr{c.Conn.RemoteAddr(), c} }

type remoteAddr struct {
	net.Addr
	conn *limitedConn
}

// connOf gives the connection of a call, nil for one that came another way.
func connOf(ctx context.Context) *limitedConn {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	at, ok := p.Addr.(remoteAddr)
	if !ok {
		return nil
	}
	return at.conn
}
