package httpapi

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
	"github.com/raft-chat/raft-chat/internal/slow"
)

// small is a budget that few stalled streams use up.
func small(bytes int64) *budget.Budget { return budget.New(bytes * 100 / 40) }

// unread opens a stream in some form from the start, with a small receive buffer, and never reads from it.
func (n *node) unread(form string) {
	n.t.Helper()
	request := "GET " + pathOf(form) + "?since=all HTTP/1.1\r\nHost: 127.0.0.1\r\n"
	if form == "firehose" || form == "ws" {
		request += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		n.t.Fatal(err)
	}
}

// fill makes room r longer than sockets are.
func (n *node) fill(messages, size int) {
	n.t.Helper()
	text := strings.Repeat("x", size)
	var posting sync.WaitGroup
	for range 8 {
		posting.Go(func() {
			for range messages / 8 {
				if _, _, err := n.service.Post(n.t.Context(), actor, chat.PostRequest{Room: "r", User: "u", Payload: []byte(text)}); err != nil {
					n.t.Error(err)
				}
			}
		})
	}
	posting.Wait()
}

// Whatever form they have, streams that are not read hold no more than the budget, those that are read go on, and in the
// end nothing is held.
func TestUnreadStreamsKeepToTheBudget(t *testing.T) {
	slow.Test(t)
	forms := append([]string{"history", "events", "firehose", "session"}, allForms...)
	if testing.Short() {
		forms = forms[:2]
	}
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			limit := small(1 << 20)
			n := newNode(t, func(o *Options) { o.Budget, o.WriteTimeout = limit, time.Hour })
			account := limit.Account(budget.Streams)
			n.fill(96, 60<<10)
			healthy := n.talk(0)
			healthy.conn.SetReadLimit(1 << 20)
			healthy.say(`{"Type":"subscribe","Rooms":["r"],"Since":"all"}`)
			healthy.of("subscribed", "")
			var reading sync.WaitGroup
			reading.Go(func() {
				for read := uint64(0); read < 97; {
					for _, m := range healthy.hear().Messages {
						if read++; m.Seq != read {
							t.Errorf("the healthy stream got %d, want %d", m.Seq, read)
						}
					}
				}
			})
			for range 60 {
				switch form {
				case "session", "history":
					conn := n.dialSmall()
					if conn == nil {
						continue // refused for now
					}
					request := `{"Type":"subscribe","Rooms":["r"],"Since":"all"}`
					if form == "history" {
						request = `{"Type":"history","Room":"r","Limit":1000}`
					}
					for range 8 {
						if conn.Write(t.Context(), websocket.MessageText, []byte(request)) != nil {
							break // cut already
						}
					}
				default:
					n.unread(form)
				}
				if used := account.Used(); used > account.Limit() {
					t.Fatalf("%d of %d bytes are held", used, account.Limit())
				}
			}
			n.post("r", "u", "on")
			reading.Wait()
			_ = healthy.conn.CloseNow()
			go n.server.Shutdown()
			eventually(t, "something is held for ever", func() bool { return account.Used() == 0 })
		})
	}
}

// dialSmall opens a session whose receive buffer is small; nil if it is refused.
func (n *node) dialSmall() *websocket.Conn {
	n.t.Helper()
	conn, response, err := websocket.Dial(n.t.Context(), n.url+"/ws", &websocket.DialOptions{
		HTTPClient: dialer(4 << 10), Subprotocols: []string{sessionProtocol},
	})
	if err != nil {
		if response == nil || response.StatusCode != http.StatusServiceUnavailable {
			n.t.Error(err)
		}
		return nil
	}
	n.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// While others only hold memory, new streams get it; when nobody can give way, they are refused for now.
func TestStreamsOverBudgetAreRefused(t *testing.T) {
	slow.Test(t)
	limit := small(1 << 20)
	n := newNode(t, func(o *Options) { o.Budget, o.WriteTimeout = limit, time.Hour })
	account := limit.Account(budget.Streams)
	taken := account.Limit() - 20<<10
	if !account.Take(taken) {
		t.Fatal("the budget is taken already")
	}
	for _, form := range []string{"json", "raw"} {
		got := n.do("GET", pathOf(form), "")
		if status, code, _ := problemIn(t, got); status != 503 || code != "overloaded" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", form, status, code)
		}
	}
	for _, path := range []string{"/ws", "/rooms/r/ws"} {
		if status := n.handshake("GET " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"); status != 503 {
			t.Errorf("%s: %d", path, status)
		}
	}
	s := n.eventSource("", "")
	if e := s.next(); e.kind != "status" || s.lastID != "0" || s.retry == "" {
		t.Errorf("%+v", e)
	}
	if e := s.next(); e.kind != "end" || !strings.Contains(e.data, `"overloaded"`) {
		t.Errorf("%+v", e)
	}
	account.Give(taken)
	n.follow("json", "r", "")

	// A stream whose write is refused ends with its cursor, and what it was not sent comes later.
	r := n.follow("events", "r", "")
	n.post("r", "u", "1")
	r.want("1")
	if !account.Take(taken) {
		t.Fatal("the budget is taken")
	}
	n.post("r", "u", strings.Repeat("x", 60<<10))
	if e := r.of("end"); e.Code != "overloaded" || e.Since != "1" {
		t.Errorf("end is %+v", e)
	}
	account.Give(taken)
	if m := n.follow("events", "r", "?since=1").message(); m.Seq != 2 {
		t.Errorf("resumed with %+v", m)
	}
}

// Rooms that come and go leave nothing behind in a session, and hold up neither its messages nor the server's end.
func TestSessionRoomsComeAndGo(t *testing.T) {
	slow.Test(t)
	n := newNode(t, nil)
	n.fill(800, 100)
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"live","Rooms":["live"]}`)
	c.of("subscribed", "live")
	const pairs = 5000
	var asking sync.WaitGroup
	asking.Go(func() {
		for i := range pairs {
			c.say(`{"Type":"subscribe","Id":"%d","Rooms":["r","x%d"],"Since":"all"}`, i, i)
			c.say(`{"Type":"unsubscribe","Id":"u%d","Rooms":["r","x%d"]}`, i, i)
		}
	})
	seq := uint64(0) // of the next message; 0: there is none
	for seen := 0; seen < 2*pairs; {
		f := c.hear()
		switch f.Type {
		case "subscribed":
			seen, seq = seen+1, 1
		case "unsubscribed":
			seen, seq = seen+1, 0
		case "messages":
			for _, m := range f.Messages {
				if m.Room != "r" || m.Seq != seq {
					t.Fatalf("got %s/%d, want %d", m.Room, m.Seq, seq)
				}
				seq++
			}
		default:
			t.Fatalf("%+v", f)
		}
	}
	asking.Wait()
	n.post("live", "u", "m")
	c.want("live/1")
	n.server.mu.Lock()
	for f := range n.server.streams {
		f.session.mu.Lock()
		if len(f.session.names) != 1 || len(f.session.changes) != 0 || f.session.held != 0 {
			t.Errorf("left: names %v, %d changes, %d bytes", f.session.names, len(f.session.changes), f.session.held)
		}
		f.session.mu.Unlock()
	}
	n.server.mu.Unlock()
	n.server.Shutdown()
	if f := c.of("end", ""); fmt.Sprint(f.Cursors) != "map[live:801]" {
		t.Errorf("cursors are %v", f.Cursors)
	}
}

// Cursors come back under the names that were asked for, however these are spelled.
func TestSessionNames(t *testing.T) {
	slow.Test(t)
	n := newNode(t, nil)
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"1","Rooms":["cafe\u0301","plain"]}`)
	if f := c.of("subscribed", "1"); fmt.Sprint(f.Cursors) != "map[cafe\u0301:0 plain:0]" || fmt.Sprint(f.Names) != "map[cafe\u0301:caf\u00e9]" {
		t.Errorf("subscribed with %+v", f)
	}
	n.post("cafe%CC%81", "u", "1")
	if m := c.message(); m.Room != "caf\u00e9" {
		t.Errorf("message of %q", m.Room)
	}
	n.server.Shutdown()
	if f := c.of("end", ""); fmt.Sprint(f.Cursors) != "map[cafe\u0301:1 plain:1]" {
		t.Errorf("end with %+v", f.Cursors)
	}
}
