package grpcapi

import (
	"net"
	"sync"
)

// ConnectionBytes is about what a connection to this front holds: its buffers, its
// goroutines and the headers of its calls.
const ConnectionBytes = 64 << 10

// limitedListener closes connections beyond a limit at once. To leave them
// unaccepted instead would let their clients wait, and count on the backlog of
// the system.
type limitedListener struct {
	net.Listener
	free chan struct{} // holds one token for each open connection
}

func newLimitedListener(l net.Listener, limit int) *limitedListener {
	return &limitedListener{Listener: l, free: make(chan struct{}, limit)}
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
			return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			_ = conn.Close() // its client has no use for a reason
		}
	}
}

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
