package httpapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// pathOf is the URL path of a form for room r; "firehose" is /ws.
func pathOf(form string) string {
	if form == "firehose" {
		return "/ws"
	}
	return "/rooms/r/" + form
}

// openForm opens a stream of room r, or of every room, and returns its first messages' texts and its header.
func (n *node) openForm(form, query string) (header http.Header, texts func(count int) []string) {
	n.t.Helper()
	if form != "firehose" && form != "ws" {
		request, err := http.NewRequest("GET", n.url+pathOf(form)+query, nil)
		if err != nil {
			n.t.Fatal(err)
		}
		response, err := dialer(0).Do(request)
		if err != nil {
			n.t.Fatal(err)
		}
		response.Body.Close()
		header = response.Header
		r := n.follow(form, "r", query)
		return header, func(count int) (list []string) {
			for len(list) < count {
				if e := r.next(); e.kind == "message" {
					list = append(list, *e.message.Message)
				}
			}
			return list
		}
	}
	conn, response, err := websocket.Dial(n.t.Context(), n.url+pathOf(form)+query, &websocket.DialOptions{HTTPClient: dialer(0)})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.CloseNow() })
	return response.Header, func(count int) (list []string) {
		for len(list) < count {
			if form == "firehose" {
				list = append(list, *next(n.t, conn).Post.Message)
				continue
			}
			list = append(list, *frameEvent(n.t, n.t.Context(), conn).message.Message)
		}
		return list
	}
}

// Every form takes the same words for where to begin, says where that is, and goes on from the head when told a number
// that nobody has posted yet.
func TestEveryFormBeginsAlike(t *testing.T) {
	n := newNode(t, nil)
	n.post("r", "u", "1")
	m, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: "r", User: "u", Payload: []byte("2")})
	if err != nil {
		t.Fatal(err)
	}
	unix := fmt.Sprintf("@%d.%06d", m.PostedAt.Unix(), m.PostedAt.Nanosecond()/1000)
	for _, form := range append([]string{"firehose"}, allForms...) {
		for _, test := range []struct {
			query, cursor, texts string
			beyond               string // the number, if it is
		}{
			{"", "2", "", ""},
			{"?since=latest", "2", "", ""},
			{"?since=all", "0", "1 2", ""},
			{"?since=1", "1", "2", ""},
			{"?since=1h", "0", "1 2", ""},
			{"?since=@0", "0", "1 2", ""},
			{"?since=@1", "0", "1 2", ""},
			{"?since=" + unix, "1", "2", ""},
			{"?since=@253402300799", "2", "", ""},
			{"?since=2000-01-01T00:00:00Z", "0", "1 2", ""},
			{"?since=2&consistency=stale", "2", "", ""},
			{"?since=3", "2", "", "3"},
			{"?since=1700000000", "2", "", "1700000000"},
			{"?since=18446744073709551615", "2", "", "18446744073709551615"},
		} {
			header, texts := n.openForm(form, test.query)
			cursor := header.Get("X-Raft-Chat-Cursor")
			if form == "events" && test.beyond != "" {
				test.cursor = test.beyond // a gap tells where it goes on
			}
			if cursor != test.cursor {
				t.Errorf("%s%s begins after %s, want %s", form, test.query, cursor, test.cursor)
			}
			want := strings.Fields(test.texts)
			if got := texts(len(want)); strings.Join(got, " ") != test.texts {
				t.Errorf("%s%s gives %q, want %q", form, test.query, got, test.texts)
			}
		}
	}
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"1","Rooms":["r"],"Since":"%s"}`, unix)
	c.of("subscribed", "1")
	c.want("r/2")
}

// A number beyond the head is answered in both forms that have a word for it, with where the end is and how to write a
// time; live and in a poll.
func TestBeyondTheHeadIsTold(t *testing.T) {
	n := newNode(t, nil)
	n.post("r", "u", "1")
	n.post("s", "u", "1")
	for query, header := range map[string][]string{
		"?since=1700000000":        nil,
		"?since=1700000000&poll=1": nil,
		"?after=9":                 nil,
		"?after=9&poll=1":          nil,
		"?since=all":               {"Last-Event-ID", "500"},
	} {
		r := n.follow("events", "r", query, header...)
		e := r.of("gap")
		if e.Room != "r" || e.LastSeq != 1 || e.id != "2" || e.Code != "cursor_beyond_head" {
			t.Errorf("%s: gap %+v", query, e)
		}
		if strings.Contains(query, "1700000000") && !strings.Contains(e.Detail, "since=@SECONDS") {
			t.Errorf("%s: the answer is %q", query, e.Detail)
		}
		if strings.Contains(query, "poll") {
			r.of("over")
		}
	}
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"1","Rooms":["r","s","none"],"Since":"1700000000"}`)
	c.of("subscribed", "1")
	last := map[string]uint64{}
	for range 3 {
		f := c.of("gap", "")
		if f.ID != 2 || !strings.Contains(f.Detail, "since=@SECONDS") {
			t.Errorf("gap %+v", f)
		}
		last[f.Room] = f.LastSeq
	}
	if fmt.Sprint(last) != "map[none:0 r:1 s:1]" {
		t.Errorf("gaps up to %v", last)
	}
	n.post("none", "u", "new")
	c.want("none/1")
}

// A poll asks the cluster whether there is more than this node has, and says so when nobody answers; consistency=stale
// asks nobody. Live streams from a place that this node knows ask nobody either.
func TestPollsReadBehindTheBarrier(t *testing.T) {
	n := newNode(t, nil)
	n.post("r", "u", "1")
	n.log.FailReads(chattest.Error("no_leader"))
	for _, form := range append([]string{"firehose"}, allForms...) {
		header := []string(nil)
		if form == "firehose" || form == "ws" {
			header = []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}
		}
		for _, query := range []string{"?poll=1&since=all", "?poll=1", "?poll=1&since=1h", "?poll=1&since=99"} {
			got := n.do("GET", pathOf(form)+query, "", header...)
			if status, code, _ := problemIn(t, got); status != 503 || code != "no_leader" || got.header.Get("Retry-After") == "" {
				t.Errorf("%s%s: %d %s", form, query, status, code)
			}
		}
		for _, query := range []string{"?poll=1&since=all&consistency=stale", "?since=0", "?since=2000-01-01T00:00:00Z"} {
			_, texts := n.openForm(form, query)
			if got := texts(1); got[0] != "1" {
				t.Errorf("%s%s: %q", form, query, got)
			}
		}
	}
	for _, form := range []string{"json", "raw"} {
		for _, query := range []string{"?after=5", "?since=0s"} {
			if status, code, _ := problemIn(t, n.do("GET", pathOf(form)+query, "")); status != 503 || code != "no_leader" {
				t.Errorf("%s%s: %d %s", form, query, status, code)
			}
		}
	}
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"1","Rooms":["r"],"After":5}`)
	if f := c.of("error", "1"); f.Code != "no_leader" || f.RetryAfter < 1 {
		t.Errorf("answer is %+v", f)
	}
	c.say(`{"Type":"subscribe","Id":"2","Rooms":["r"],"Since":"99"}`)
	c.of("subscribed", "2") // and waits
	n.log.FailReads(nil)
	if f := c.of("gap", ""); f.Room != "r" || f.ID != 1 {
		t.Errorf("gap is %+v", f)
	}
}

// A stream that is opened while this node knows a leader never hears that there is none, whatever the last tick saw.
func TestLeaderStateAtTheStart(t *testing.T) {
	n := newNode(t, func(o *Options) { o.LeaderGrace = time.Hour })
	n.server.lost.Store(true) // as before the first tick that finds a leader
	r := n.follow("events", "r", "?since=all")
	n.post("r", "u", "1")
	r.want("1")
	n.server.lost.Store(true)
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"1","Rooms":["r"]}`)
	c.of("subscribed", "1")

	n.server.mu.Lock()
	n.server.leaderless = true
	n.server.mu.Unlock()
	n.server.lost.Store(true)
	if status := n.handshake("GET /rooms/r/json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); status != http.StatusOK {
		t.Errorf("a stream of a node with a leader: %d", status)
	}
}
