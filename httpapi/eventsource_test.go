package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat/chattest"
)

// eventSource reads a text/event-stream as the HTML standard says (9.2.6), and keeps what a browser would send when it
// connects again.
type eventSource struct {
	t      testing.TB
	body   *bufio.Reader
	close  func()
	lastID string // of the last block that was ended by an empty line
	retry  string
	empty  int // blocks without data, which some libraries take for events
}

// dispatched is an event that a script sees.
type dispatched struct{ kind, data string }

func (n *node) eventSource(query, lastID string) *eventSource {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	n.t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, "GET", n.url+"/rooms/r/events"+query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	response, err := dialer(0).Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { response.Body.Close() })
	if kind := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || kind != "text/event-stream" {
		n.t.Fatalf("%s: %d %s: an EventSource gives up for ever", query, response.StatusCode, kind)
	}
	return &eventSource{t: n.t, body: bufio.NewReader(response.Body), close: func() { response.Body.Close() }, lastID: lastID}
}

// next reads the next event; "over" is the end of the stream.
func (s *eventSource) next() dispatched {
	s.t.Helper()
	id, kind, data, fields := s.lastID, "", "", 0
	for {
		line, err := s.body.ReadString('\n')
		if err == io.EOF {
			return dispatched{kind: "over"}
		}
		if err != nil {
			s.t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			s.lastID = id
			if fields > 0 && data == "" {
				s.empty++
			}
			if data != "" {
				return dispatched{kind, strings.TrimSuffix(data, "\n")}
			}
			kind, fields = "", 0
			continue
		case name == "":
			continue // a comment
		case name == "event":
			kind = value
		case name == "data":
			data += value + "\n"
		case name == "id":
			id = value
		case name == "retry":
			s.retry = value
		}
		fields++
	}
}

// Whoever loses a stream before its first message has the place to go on all the same, and no block is empty.
func TestEventSourceHasAnIDFromTheStart(t *testing.T) {
	n := newNode(t, nil)
	n.post("other", "u", "x")
	n.post("r", "u", "old")
	s := n.eventSource("", "")
	if e := s.next(); e.kind != "status" || e.data != `{"Leader":true}` || s.lastID != "2" || s.retry != "1000" {
		t.Errorf("the first event is %+v, with id %s and retry %s", e, s.lastID, s.retry)
	}
	s.close()
	n.post("r", "u", "meanwhile")
	s = n.eventSource("", s.lastID)
	if e := s.next(); e.kind != "" || !strings.Contains(e.data, `"meanwhile"`) || s.lastID != "3" {
		t.Errorf("got %+v with id %s", e, s.lastID)
	}

	// What waits comes without anything before it: five events for five messages.
	for i := range 3 {
		n.post("r", "u", fmt.Sprint(i))
	}
	s = n.eventSource("?since=all", "")
	for i := range 5 {
		if e := s.next(); e.kind != "" {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	if s.empty != 0 || s.retry != "1000" {
		t.Errorf("%d blocks were empty, retry is %q", s.empty, s.retry)
	}
	quiet := n.eventSource("?since=0s", "")
	quiet.next()
	if quiet.lastID == "" || quiet.empty != 0 {
		t.Errorf("id %q, %d empty blocks", quiet.lastID, quiet.empty)
	}
}

// What passes is no reason for a browser to give up: the stream begins and ends, and the next one goes on.
func TestEventSourceOutlivesTransientStates(t *testing.T) {
	n := newNode(t, func(o *Options) { o.LeaderGrace = 20 * time.Millisecond })
	n.post("r", "u", "1")
	s := n.eventSource("", "")
	s.next()
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 0 })
	n.log.FailReads(chattest.Error("no_leader"))
	for i := range 3 {
		var kinds []string
		for e := s.next(); ; e = s.next() {
			kinds = append(kinds, e.kind)
			if e.kind == "end" && !strings.Contains(e.data, `"no_leader"`) {
				t.Errorf("the end is %s", e.data)
			}
			if e.kind == "over" {
				break
			}
		}
		if got := fmt.Sprint(kinds); got != "[status end over]" || s.lastID != "1" || s.empty != 0 {
			t.Errorf("stream %d: %s, id %q", i, got, s.lastID)
		}
		s = n.eventSource("", s.lastID)
	}
	// Where it begins is not known yet: nothing that would be taken for a place.
	for _, query := range []string{"?since=0s", "?after=5"} {
		s := n.eventSource(query, "")
		if e := s.next(); e.kind != "status" || s.lastID != "" {
			t.Errorf("%s: %+v with id %q", query, e, s.lastID)
		}
		if e := s.next(); e.kind != "end" || strings.Contains(e.data, "Since") {
			t.Errorf("%s: %+v", query, e)
		}
	}
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 2 })
	n.log.FailReads(nil)
	eventually(t, "the leader is not noticed", func() bool { return !n.server.leaderLost() })
	n.post("r", "u", "2")
	s = n.eventSource("", s.lastID)
	if e := s.next(); !strings.Contains(e.data, `"Message":"2"`) {
		t.Errorf("got %+v", e)
	}
	// A real mistake is for good.
	if status, _, _ := problemIn(t, n.do("GET", "/rooms/r/events?since=x", "")); status != 400 {
		t.Errorf("a wrong cursor: %d", status)
	}
}

// A client of HTTP/1.0, as nginx is one unless told otherwise, gets a body without chunks that ends with the connection.
func TestStreamsOfHTTP10(t *testing.T) {
	eachForm(t, httpForms, func(o *Options) { o.KeepaliveInterval = time.Hour }, func(t *testing.T, n *node, form string) {
		n.post("r", "ann", "one")
		for _, query := range []string{"?since=all", "?since=all&poll=1"} {
			for _, method := range []string{"GET", "HEAD"} {
				got := n.rawStream(method + " /rooms/r/" + form + query + " HTTP/1.0\r\n\r\n")
				if !strings.HasPrefix(got.head, "HTTP/1.0 200 OK\r\n") || strings.Contains(got.head, "Transfer-Encoding") ||
					method == "GET" && !strings.Contains(got.head, "Connection: close") {
					t.Errorf("%s%s: %s", method, query, got.head)
				}
				if method == "HEAD" {
					continue
				}
				line := got.line()
				for form == "events" && !strings.HasPrefix(line, "data: ") {
					line = got.line()
				}
				if !strings.Contains(line, "one") || form == "raw" && line != "one" {
					t.Errorf("%s: got %q", query, line)
				}
				if strings.Contains(query, "poll") {
					if rest, err := io.ReadAll(got.body); err != nil || strings.TrimSpace(string(rest)) != "" {
						t.Errorf("after the poll: %q, %v", rest, err)
					}
				}
			}
		}
		live := n.rawStream("GET /rooms/r/" + form + " HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
		n.post("r", "ann", "two")
		for !strings.Contains(live.line(), "two") {
		}
		go n.server.Shutdown()
		if rest, err := io.ReadAll(live.body); err != nil || strings.Contains(string(rest), "0\r\n") {
			t.Errorf("the end is %q, %v", rest, err)
		}
	})
}
