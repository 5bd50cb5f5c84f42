package bench

import (
	"bufio"
	"context"
	"net"
	"time"
)

// conn is one keep-alive HTTP/1.1 connection with one request under way at a
// time. It belongs to a single worker.
type conn struct {
	nc      net.Conn
	r       *bufio.Reader
	timeout time.Duration
	// deadlineSet is when the socket's deadline was last moved.
	deadlineSet time.Time
	// unhook ends the watch for a cancelled context, or waits for it to have
	// done its work.
	unhook func()
}

// dial connects to addr within timeout. When ctx ends, whatever waits on the
// connection fails at once.
func dial(ctx context.Context, addr string, timeout time.Duration) (*conn, error) {
	d := net.Dialer{Timeout: timeout}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return newConn(ctx, nc, timeout), nil
}

// newConn takes over nc.
func newConn(ctx context.Context, nc net.Conn, timeout time.Duration) *conn {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		nc.Close()
		close(closed)
	})
	return &conn{
		nc: nc, r: bufio.NewReaderSize(nc, 4096), timeout: timeout,
		unhook: func() {
			if !stop() {
				<-closed
			}
		},
	}
}

// roundTrip writes a complete request and reads the answer to it. After an
// error the connection is of no further use.
func (c *conn) roundTrip(request []byte, now time.Time) (response, error) {
	// Moving the deadline costs a timer operation, so it is not moved for every
	// request: a request has between three quarters and all of the timeout.
	if now.Sub(c.deadlineSet) > c.timeout/4 {
		if err := c.nc.SetDeadline(now.Add(c.timeout)); err != nil {
			return response{}, err
		}
		c.deadlineSet = now
	}
	if _, err := c.nc.Write(request); err != nil {
		return response{}, err
	}
	return readResponse(c.r)
}

// close ends the connection; it is called once.
func (c *conn) close() {
	c.unhook()
	c.nc.Close()
}
