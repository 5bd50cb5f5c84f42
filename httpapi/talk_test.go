package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/coder/websocket"
)

// sessionFrame is any frame of a server in raft-chat.v1.
type sessionFrame struct {
	Type, Id          string
	Cursors, Names    map[string]string
	Messages          []wire
	Message           *wire
	Deduplicated      *bool
	Earlier, Later    *bool
	Leader            *bool
	LeaderURL         string
	Room              string
	FirstSeq, LastSeq uint64
	ID                uint64
	Code, Detail      string
	RetryAfter, Seq   uint64
	Since             string
	Endpoints         []string
	closed            websocket.CloseError
}

// talk is a raft-chat.v1 connection of a test.
type talk struct {
	t      testing.TB
	conn   *websocket.Conn
	unread []wire // messages of the last frame
}

func (n *node) talk(buffer int) *talk {
	n.t.Helper()
	conn := n.dial("", buffer, &websocket.DialOptions{Subprotocols: []string{sessionProtocol}})
	if conn.Subprotocol() != sessionProtocol {
		n.t.Fatalf("the subprotocol is %q", conn.Subprotocol())
	}
	return &talk{t: n.t, conn: conn}
}

func (c *talk) say(format string, args ...any) {
	c.t.Helper()
	if err := c.conn.Write(c.t.Context(), websocket.MessageText, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads one frame.
func (c *talk) hear() (f sessionFrame) {
	c.t.Helper()
	if len(c.unread) > 0 {
		c.t.Fatalf("messages were not looked at: %+v", c.unread)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, data, err := c.conn.Read(ctx)
	if err != nil {
		if !errors.As(err, &f.closed) {
			c.t.Fatal(err)
		}
		f.Type = "closed"
		return f
	}
	if err := json.Unmarshal(data, &f); err != nil {
		c.t.Fatalf("%q: %v", data, err)
	}
	return f
}

// of reads one frame, which must be of a type.
func (c *talk) of(kind, id string) sessionFrame {
	c.t.Helper()
	f := c.hear()
	if f.Type != kind || f.Id != id {
		c.t.Fatalf("got %+v, want %s %s", f, kind, id)
	}
	return f
}

// message reads the next message, from this or the next frame of messages.
func (c *talk) message() wire {
	c.t.Helper()
	if len(c.unread) == 0 {
		c.unread = c.of("messages", "").Messages
	}
	m := c.unread[0]
	c.unread = c.unread[1:]
	return m
}

// want reads messages named room/seq.
func (c *talk) want(names ...string) {
	c.t.Helper()
	for _, name := range names {
		if m := c.message(); fmt.Sprintf("%s/%d", m.Room, m.Seq) != name {
			c.t.Fatalf("got %s/%d, want %s", m.Room, m.Seq, name)
		}
	}
}

// silent checks that nothing waits before the answer to a ping.
func (c *talk) silent() {
	c.t.Helper()
	c.say(`{"Type":"ping","Id":"quiet"}`)
	c.of("pong", "quiet")
}
