package httpapi

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// errSlow is what a write returns that was finished, but only after its time was over.
var errSlow = errors.New("the reader is too slow")

// errControlBacklog ends a connection whose peer asks for more answers than it takes.
var errControlBacklog = errors.New("too many unread control frames")

// maxControlBacklog bounds the control frames that wait behind a data write, in bytes: 64 of the longest.
const maxControlBacklog = 64 * 127

// frameConn is the server's side of a hijacked WebSocket connection. The WebSocket library writes control frames to it
// through Write, the stream writes data frames through WriteFrames; each call is a number of whole frames and reaches
// the socket in one piece. A control frame never waits for a data write that is under way: it is queued behind it, so
// that the library's own five-second limit on control frames cannot end a stream that is merely slow.
//
// A write that does not finish within writeTimeout calls stalled, once and from the writing goroutine, and then has
// grace to finish after all.
type frameConn struct {
	net.Conn
	ahead        []byte // read by the HTTP server together with the request; touched by the reading goroutine only
	writeTimeout time.Duration
	grace        func() time.Duration
	stalled      func()

	turn chan struct{} // holds a token while somebody writes to the socket

	mu      sync.Mutex // guards the rest
	control []byte     // control frames that wait for the turn to end
	slow    bool       // stalled was called
	hurried bool       // the write deadline is hurry's and must not be moved any more
}

func newFrameConn(conn net.Conn, ahead []byte, writeTimeout time.Duration, grace func() time.Duration, stalled func()) *frameConn {
	return &frameConn{
		Conn: conn, ahead: ahead, writeTimeout: writeTimeout, grace: grace, stalled: stalled, turn: make(chan struct{}, 1),
	}
}

// Read implements net.Conn.
func (c *frameConn) Read(b []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(b, c.ahead)
		c.ahead = c.ahead[n:]
		if len(c.ahead) == 0 {
			c.ahead = nil
		}
		return n, nil
	}
	return c.Conn.Read(b)
}

// Write writes control frames. It returns without an error when they are queued behind a data write.
func (c *frameConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	if len(c.control)+len(b) > maxControlBacklog {
		c.mu.Unlock()
		return 0, errControlBacklog
	}
	c.control = append(c.control, b...)
	c.mu.Unlock()
	if err := c.writeControl(); err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteFrames writes whole data frames. An error other than errSlow leaves the connection in the middle of a frame.
func (c *frameConn) WriteFrames(b []byte) error {
	c.turn <- struct{}{}
	err := c.send(b)
	<-c.turn
	if err != nil && !errors.Is(err, errSlow) {
		return err
	}
	return errors.Join(err, c.writeControl())
}

// writeControl writes what is queued, unless somebody else has the turn: whoever gives the turn back calls writeControl
// again, so nothing stays behind.
func (c *frameConn) writeControl() error {
	for {
		c.mu.Lock()
		waiting := len(c.control) > 0
		c.mu.Unlock()
		if !waiting {
			return nil
		}
		select {
		case c.turn <- struct{}{}:
		default:
			return nil
		}
		c.mu.Lock()
		frames := c.control
		c.control = nil
		c.mu.Unlock()
		err := c.send(frames)
		<-c.turn
		if err != nil && !errors.Is(err, errSlow) {
			return err
		}
	}
}

// send writes b to the socket. The caller has the turn.
func (c *frameConn) send(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if err := c.allow(c.writeTimeout); err != nil {
		return err
	}
	n, err := c.Conn.Write(b)
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	c.mu.Lock()
	first, hurried := !c.slow, c.hurried
	c.slow = true
	c.mu.Unlock()
	if hurried {
		return err
	}
	if first {
		c.stalled()
	}
	if err := c.allow(c.grace()); err != nil {
		return err
	}
	if _, err := c.Conn.Write(b[n:]); err != nil {
		return err
	}
	return errSlow
}

// allow gives the next write d from now, or leaves the deadline that hurry has set.
func (c *frameConn) allow(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hurried {
		return nil
	}
	return c.Conn.SetWriteDeadline(time.Now().Add(d))
}

// hurry gives the write that is under way, and all later ones together, d from now. The first call counts.
func (c *frameConn) hurry(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hurried {
		return
	}
	c.hurried = true
	// An error means that the connection is closed, which is what the caller is about to do.
	_ = c.Conn.SetWriteDeadline(time.Now().Add(d))
}

// giveUp ends the write that is under way, wherever it is, and all later ones.
func (c *frameConn) giveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hurried = true
	_ = c.Conn.SetWriteDeadline(time.Now())
}

// closeWrite closes the connection for writing, or for both where only that is possible.
func (c *frameConn) closeWrite() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		_ = c.Conn.Close()
	}
}

// prependFrameHeader puts the header of a final, unmasked text frame (RFC 6455, 5.2) into the maxFrameHeader bytes
// that b starts with, and returns b from where that header begins.
func prependFrameHeader(b []byte) []byte {
	const finalText = 0x81
	length := len(b) - maxFrameHeader
	switch {
	case length < 126:
		b = b[maxFrameHeader-2:]
		b[1] = byte(length)
	case length <= 0xffff:
		b = b[maxFrameHeader-4:]
		b[1] = 126
		binary.BigEndian.PutUint16(b[2:], uint16(length))
	default:
		b[1] = 127
		binary.BigEndian.PutUint64(b[2:], uint64(length))
	}
	b[0] = finalText
	return b
}
