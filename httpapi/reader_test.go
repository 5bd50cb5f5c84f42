package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
)

// event is one thing that a stream says, in any form.
type event struct {
	kind    string // message, gap, status, end, or "over" when the stream has ended whole
	id      string // of SSE
	message wire
	// of gap, status and end
	Room              string
	FirstSeq, LastSeq uint64
	Leader            bool
	LeaderURL         string
	Code, Detail      string
	Since             string
	Cursors           map[string]string
	Endpoints         []string
	closed            websocket.CloseError
}

// reader reads a stream of some form. A raw stream gives messages with nothing but their text.
type reader struct {
	t     testing.TB
	form  string
	next  func() event
	close func()
}

// message reads the next event, which must be a message.
func (r *reader) message() wire {
	r.t.Helper()
	e := r.next()
	if e.kind != "message" {
		r.t.Fatalf("%s: got %+v, want a message", r.form, e)
	}
	return e.message
}

// want reads messages with the given texts and nothing else.
func (r *reader) want(texts ...string) {
	r.t.Helper()
	for _, text := range texts {
		if m := r.message(); m.Message == nil || *m.Message != text {
			r.t.Fatalf("%s: got %+v, want %q", r.form, m, text)
		}
	}
}

// of reads the next event, which must be of a kind.
func (r *reader) of(kind string) event {
	r.t.Helper()
	e := r.next()
	if e.kind != kind {
		r.t.Fatalf("%s: got %+v, want %s", r.form, e, kind)
	}
	return e
}

// httpForms are the forms of a room stream that are HTTP answers; allForms adds WebSocket.
var (
	httpForms = []string{"events", "json", "raw"}
	allForms  = append([]string{"ws"}, httpForms...)
)

// follow opens a stream of rooms; header holds pairs of name and value.
func (n *node) follow(form, rooms, query string, header ...string) *reader {
	n.t.Helper()
	return n.followSlowly(0, form, rooms, query, header...)
}

// dialer returns a client with one connection whose receive buffer is bounded to buffer bytes, if that is not 0.
func dialer(buffer int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil && buffer > 0 {
				err = conn.(*net.TCPConn).SetReadBuffer(buffer)
			}
			return conn, err
		},
	}}
}

func (n *node) followSlowly(buffer int, form, rooms, query string, header ...string) *reader {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	n.t.Cleanup(cancel)
	given := make(http.Header)
	for i := 0; i < len(header); i += 2 {
		given.Set(header[i], header[i+1])
	}
	path := n.url + "/rooms/" + rooms + "/" + form + query
	r := &reader{t: n.t, form: form}
	if form == "ws" {
		conn, _, err := websocket.Dial(ctx, path, &websocket.DialOptions{HTTPHeader: given, HTTPClient: dialer(buffer)})
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { _ = conn.CloseNow() })
		conn.SetReadLimit(1 << 20)
		r.close = func() { _ = conn.CloseNow() }
		r.next = func() event { return frameEvent(n.t, ctx, conn) }
		return r
	}
	request, err := http.NewRequestWithContext(ctx, "GET", path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	request.Header = given
	response, err := dialer(buffer).Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		n.t.Fatalf("%s: status %d", path, response.StatusCode)
	}
	if node := response.Header.Get("X-Raft-Chat-Node"); node != "node1" || response.Header.Get("X-Request-Id") == "" {
		n.t.Errorf("%s: headers %v", path, response.Header)
	}
	lines := bufio.NewReader(response.Body)
	r.close = func() { response.Body.Close() }
	begun := false
	r.next = func() event {
		e := lineEvent(n.t, form, lines)
		if form == "events" && !begun && e.id == "" && e.kind != "over" {
			n.t.Errorf("the first event has no id: %+v", e)
		}
		greeting := !begun && e.kind == "status" && e.Leader
		if begun = true; greeting {
			e = lineEvent(n.t, form, lines)
		}
		return e
	}
	return r
}

// frameEvent reads one frame of a socket without a subprotocol.
func frameEvent(t testing.TB, ctx context.Context, conn *websocket.Conn) (e event) {
	t.Helper()
	_, data, err := conn.Read(ctx)
	if err != nil {
		if !errors.As(err, &e.closed) {
			t.Fatal(err)
		}
		e.kind = "over"
		return e
	}
	e.kind = "message"
	if err := json.Unmarshal(data, &e.message); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	return e
}

// lineEvent reads one event of an HTTP form.
func lineEvent(t testing.TB, form string, lines *bufio.Reader) event {
	t.Helper()
	e := event{kind: "message"}
	for seen := false; ; {
		line, err := lines.ReadString('\n')
		if err == io.EOF && line == "" && !seen {
			return event{kind: "over"}
		}
		if err != nil {
			t.Fatalf("%s: after %q: %v", form, line, err)
		}
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" && (form != "events" || !seen):
			continue // keepalive
		case form == "raw":
			e.message.Message = &line
			return e
		case form == "json":
			if err := json.Unmarshal([]byte(line), &e.message); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return e
		case line == "":
			return e
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		seen = seen || field != ""
		switch field {
		case "event":
			e.kind = value
		case "id":
			e.id = value
		case "retry":
		case "data":
			var into any = &e
			if e.kind == "message" {
				into = &e.message
			}
			if err := json.Unmarshal([]byte(value), into); err != nil {
				t.Fatalf("%q: %v", value, err)
			}
		case "": // a comment
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("field %q", line)
		}
	}
}

// trim drops the messages of a room below a Seq.
func (n *node) trim(room string, below uint64) {
	n.t.Helper()
	if _, err := n.service.Trim(n.t.Context(), chat.Actor{}, room, below); err != nil {
		n.t.Fatal(err)
	}
}

// rawAnswer is an answer as it comes over the wire.
type rawAnswer struct {
	t    testing.TB
	head string
	body *bufio.Reader
}

// rawStream sends a request as it stands and reads the head of the answer.
func (n *node) rawStream(request string) *rawAnswer {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		n.t.Fatal(err)
	}
	a := &rawAnswer{t: n.t, body: bufio.NewReader(conn)}
	for line := ""; line != "\r\n"; a.head += line {
		if line, err = a.body.ReadString('\n'); err != nil {
			n.t.Fatal(err)
		}
	}
	return a
}

func (a *rawAnswer) line() string {
	a.t.Helper()
	line, err := a.body.ReadString('\n')
	if err != nil {
		a.t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\n")
}
