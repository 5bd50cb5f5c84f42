package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/raft-chat/raft-chat/chat"
)

// eachForm runs a test for every form of a room stream.
func eachForm(t *testing.T, forms []string, configure func(*Options), test func(t *testing.T, n *node, form string)) {
	for _, form := range forms {
		t.Run(form, func(t *testing.T) { test(t, newNode(t, configure), form) })
	}
}

// Every form begins where it is asked to, delivers what is there and then what comes.
func TestStreamPlaces(t *testing.T) {
	eachForm(t, allForms, nil, func(t *testing.T, n *node, form string) {
		for i := range 3 {
			n.post("a", "u", fmt.Sprint("a", i+1)) // IDs 1, 3, 5
			n.post("b", "u", fmt.Sprint("b", i+1)) // IDs 2, 4, 6
		}
		tests := []struct {
			rooms, query string
			texts        []string
		}{
			{"a", "", nil},
			{"a", "?since=latest", nil},
			{"a", "?since=all", []string{"a1", "a2", "a3"}},
			{"a", "?since=0", []string{"a1", "a2", "a3"}},
			{"a", "?after=0", []string{"a1", "a2", "a3"}},
			{"a", "?after=2", []string{"a3"}},
			{"a", "?after=3", nil},
			{"b", "?since=3", []string{"b2", "b3"}},
			{"a", "?since=1h", []string{"a1", "a2", "a3"}},
			{"a", "?since=0s", nil},
			{"a", "?since=2000-01-01T00:00:00Z", []string{"a1", "a2", "a3"}},
			{"a", "?since=2000-01-01T00:00:00.5+02:00", []string{"a1", "a2", "a3"}},
			{"a", "?since=2999-01-01T00:00:00Z", nil},
			{"a,b", "?since=all", []string{"a1", "b1", "a2", "b2", "a3", "b3"}},
			{"b,a,b", "?since=4", []string{"a3", "b3"}},
			{"a%2Cb", "?since=5", []string{"b3"}},
			{"none", "?since=all", nil},
			{"none", "?after=0", nil},
		}
		var open []*reader
		for _, test := range tests {
			poll := "?poll=1"
			if test.query != "" {
				poll = test.query + "&poll=1"
			}
			drained := n.follow(form, test.rooms, poll)
			drained.want(test.texts...)
			if e := drained.of("over"); form == "ws" && e.closed.Code != websocket.StatusNormalClosure {
				t.Errorf("%s: closed with %v", test.query, e.closed)
			}
			r := n.follow(form, test.rooms, test.query)
			r.want(test.texts...)
			open = append(open, r)
		}
		n.post("a", "u", "live a")
		n.post("b", "u", "live b")
		n.post("none", "u", "live none")
		for i, test := range tests {
			for room := range strings.SplitSeq(strings.ReplaceAll(test.rooms, "%2C", ","), ",") {
				if !strings.HasPrefix(test.rooms, "b,a,b") {
					open[i].want("live " + room)
				}
			}
		}
		// A number that the room has not reached yet.
		ahead := n.follow(form, "a", "?after=5")
		if form == "events" {
			ahead.of("gap")
		}
		n.post("a", "u", "five")
		n.post("a", "u", "six")
		ahead.want("five", "six")
	})
}

// A message is whole in every form that has it whole.
func TestStreamContent(t *testing.T) {
	eachForm(t, allForms, nil, func(t *testing.T, n *node, form string) {
		n.post("r", "ann", "line\r\nline\nline\rend\u2028 <&> \x01")
		if _, _, err := n.service.Post(t.Context(), actor, binaryPost("r", []byte{0xff, 'a'})); err != nil {
			t.Fatal(err)
		}
		r := n.follow(form, "r", "?since=all")
		if form == "raw" {
			r.want("line line line end\u2028 <&> \x01", "/2E=")
			return
		}
		text, bytes := r.next(), r.next()
		if got := text.message; got.Room != "r" || got.Seq != 1 || got.ID != 1 || got.User != "ann" || got.PostedAt == "" ||
			got.Message == nil || *got.Message != "line\r\nline\nline\rend\u2028 <&> \x01" {
			t.Errorf("got %+v", got)
		}
		if got := bytes.message; got.Seq != 2 || string(got.Payload) != "\xffa" {
			t.Errorf("got %+v", got)
		}
		if form == "events" && (text.id != "1" || bytes.id != "2") {
			t.Errorf("event ids %q and %q", text.id, bytes.id)
		}
	})
}

// Readers that come back all the time get everything once and in order, while many write.
func TestStreamResumes(t *testing.T) {
	eachForm(t, []string{"ws", "events", "json"}, nil, func(t *testing.T, n *node, form string) {
		const writers, each = 6, 50
		var posting sync.WaitGroup
		for w := range writers {
			posting.Go(func() {
				for i := range each {
					room := fmt.Sprint("room", w%3)
					if _, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: room, User: "u", Payload: fmt.Append(nil, i)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		seqs := map[string]uint64{}
		var last uint64
		for steps, got := 1, 0; got < 2*writers/3*each; steps++ {
			query, header := fmt.Sprint("?since=", last), []string(nil)
			if form == "events" && steps > 1 {
				// As a browser does it: the URL stays, and the header counts.
				query, header = "?since=all", []string{"Last-Event-ID", strconv.FormatUint(last, 10)}
			}
			r := n.follow(form, "room0,room2", query, header...)
			for range min(steps*7, 2*writers/3*each-got) {
				m := r.message()
				if m.Seq != seqs[m.Room]+1 || m.ID <= last {
					t.Fatalf("%s %d (ID %d) follows %d (ID %d)", m.Room, m.Seq, m.ID, seqs[m.Room], last)
				}
				seqs[m.Room], last = m.Seq, m.ID
				got++
			}
			r.close()
		}
		posting.Wait()
		eventually(t, "closed streams stay open", func() bool { return testutil.ToFloat64(n.server.metrics.streams) == 0 })
	})
}

// Messages that were dropped before a stream came to them are told of where the form can, and skipped where not.
func TestStreamGaps(t *testing.T) {
	eachForm(t, allForms, nil, func(t *testing.T, n *node, form string) {
		for i := range 6 {
			n.post("r", "u", fmt.Sprint(i+1))
		}
		n.trim("r", 5)
		for _, query := range []string{"?after=2", "?since=2"} {
			r := n.follow(form, "r", query)
			if form == "events" {
				if e := r.of("gap"); e.Room != "r" || e.FirstSeq != 3 || e.LastSeq != 4 || e.id != "4" {
					t.Errorf("%s: gap is %+v", query, e)
				}
			}
			r.want("5", "6")
		}
		// Everything is gone, and a poll says so and ends.
		n.trim("r", 7)
		r := n.follow(form, "r", "?after=5&poll=1")
		if form == "events" {
			if e := r.of("gap"); e.FirstSeq != 6 || e.LastSeq != 6 {
				t.Errorf("gap is %+v", e)
			}
		}
		r.of("over")
		n.post("r", "u", "7")
		live := n.follow(form, "r", "?after=6")
		live.want("7")
		n.trim("r", 8) // was delivered: no gap
		n.post("r", "u", "8")
		live.want("8")
	})
}

// A server that stops says so, with the place to go on.
func TestStreamShutdown(t *testing.T) {
	eachForm(t, allForms, nil, func(t *testing.T, n *node, form string) {
		n.cluster.set(func(c *fakeCluster) { c.members[1].ClientURL = "http://127.0.0.1:22380" })
		n.post("r", "u", "1")
		idle, busy := n.follow(form, "none", ""), n.follow(form, "r", "?since=all")
		busy.want("1")
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			n.server.Shutdown()
		}()
		for _, r := range []*reader{idle, busy} {
			if form == "events" {
				if e := r.of("end"); e.Code != "stopping" || e.Since != "1" || e.Detail == "" || !slices.Equal(e.Endpoints, []string{"http://127.0.0.1:22380"}) {
					t.Errorf("end is %+v", e)
				}
			}
			if e := r.of("over"); form == "ws" && (e.closed.Code != websocket.StatusGoingAway || !strings.HasSuffix(e.closed.Reason, "since=1")) {
				t.Errorf("closed with %v", e.closed)
			}
			r.close()
		}
		select {
		case <-stopped:
		case <-time.After(patience):
			t.Fatal("Shutdown does not return")
		}
	})
}

// Streams are told that the leader is lost, go on when it is back, and are sent away when it stays lost.
func TestStreamLeader(t *testing.T) {
	slowGrace := func(o *Options) { o.LeaderGrace = time.Hour }
	eachForm(t, allForms, slowGrace, func(t *testing.T, n *node, form string) {
		lose := func() { n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 0 }) }
		r := n.follow(form, "r", "")
		n.post("r", "u", "1")
		r.want("1")
		lose()
		eventually(t, "the loss is not noticed", n.server.lost.Load)
		late := n.follow(form, "r", "")
		if form == "events" {
			for _, r := range []*reader{r, late} {
				if e := r.of("status"); e.Leader {
					t.Errorf("status is %+v", e)
				}
			}
		}
		n.post("r", "u", "2")
		r.want("2")
		n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 2 })
		if form == "events" {
			if e := r.of("status"); !e.Leader {
				t.Errorf("status is %+v", e)
			}
		}
		n.post("r", "u", "3")
		r.want("3")
	})
	quickGrace := func(o *Options) { o.LeaderGrace = 20 * time.Millisecond }
	eachForm(t, allForms, quickGrace, func(t *testing.T, n *node, form string) {
		n.cluster.set(func(c *fakeCluster) { c.members[1].ClientURL = "http://127.0.0.1:22380" })
		n.post("r", "u", "1")
		r := n.follow(form, "r", "?since=all")
		r.want("1")
		n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 0 })
		if form == "events" {
			r.of("status")
			if e := r.of("end"); e.Code != "no_leader" || e.Since != "1" || !slices.Equal(e.Endpoints, []string{"http://127.0.0.1:22380"}) {
				t.Errorf("end is %+v", e)
			}
		}
		if e := r.of("over"); form == "ws" && e.closed.Code != websocket.StatusTryAgainLater {
			t.Errorf("closed with %v", e.closed)
		}
		got := n.do("GET", "/rooms/r/json", "")
		if status, code, _ := problemIn(t, got); status != 503 || code != "no_leader" || got.header.Get("Retry-After") == "" {
			t.Errorf("stream without a leader: %d %s", status, code)
		}
	})
}

// A reader that stalls is cut and can resume, and a neighbour gets everything meanwhile.
func TestStreamSlowReader(t *testing.T) {
	quick := func(o *Options) { o.WriteTimeout, o.CloseGrace = 200*time.Millisecond, time.Hour }
	eachForm(t, []string{"ws", "events", "json"}, quick, func(t *testing.T, n *node, form string) {
		slow := n.followSlowly(32<<10, form, "r", "?after=0")
		fast := n.follow(form, "r", "?after=0")
		stalled := func() bool {
			n.server.mu.Lock()
			defer n.server.mu.Unlock()
			for f := range n.server.streams {
				if errors.Is(f.wait.ended(), errSlow) {
					return true
				}
			}
			return false
		}
		payload := []byte(strings.Repeat("x", 60<<10))
		var posted uint64
		for !stalled() {
			if posted > 4000 {
				t.Fatal("the slow reader is not cut")
			}
			if _, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: "r", User: "u", Payload: payload}); err != nil {
				t.Fatal(err)
			}
			posted++
			if m := fast.message(); m.Seq != posted {
				t.Fatalf("the fast reader got %d, want %d", m.Seq, posted)
			}
		}
		n.post("r", "u", "last")
		// Now the slow reader reads on.
		var last uint64
		e := slow.next()
		for ; e.kind == "message"; e = slow.next() {
			if e.message.Seq != last+1 {
				t.Fatalf("message %d follows %d", e.message.Seq, last)
			}
			last = e.message.Seq
		}
		if form == "events" {
			if e.kind != "end" || e.Code != "slow" || e.Since != fmt.Sprint(last) {
				t.Errorf("after message %d: %+v", last, e)
			}
			e = slow.next()
		}
		if e.kind != "over" || last == 0 || last > posted {
			t.Errorf("after %d of %d messages: %+v", last, posted, e)
		}
		if m := n.follow(form, "r", fmt.Sprint("?since=", last)).message(); m.Seq != last+1 {
			t.Errorf("resumed with %d after %d", m.Seq, last)
		}
		if m := fast.message(); m.Seq != posted+1 {
			t.Errorf("the fast reader got %d, want %d", m.Seq, posted+1)
		}
		if got := testutil.ToFloat64(n.server.metrics.ended.WithLabelValues("slow")); got != 1 {
			t.Errorf("%v streams were cut", got)
		}
	})
}

// HTTP forms send something now and then, so that nobody on the way takes them for dead.
func TestStreamKeepalive(t *testing.T) {
	often := func(o *Options) { o.KeepaliveInterval = time.Millisecond }
	for form, word := range map[string]string{"events": ": keepalive\n\n", "json": "\n", "raw": "\n"} {
		n := newNode(t, often)
		response, err := dialer(0).Get(n.url + "/rooms/r/" + form)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		want := strings.Repeat(word, 3)
		if form == "events" {
			want = "retry: 1000\nevent: status\nid: 0\ndata: {\"Leader\":true}\n\n" + want
		}
		got := make([]byte, len(want))
		for i := 0; i < len(got); {
			k, err := response.Body.Read(got[i:])
			if i += k; err != nil {
				t.Fatal(err)
			}
		}
		if string(got) != want {
			t.Errorf("%s: got %q", form, got)
		}
	}
}

func TestStreamHeaders(t *testing.T) {
	n := newNode(t, nil)
	for form, kind := range map[string]string{
		"events": "text/event-stream", "json": "application/x-ndjson", "raw": "text/plain; charset=utf-8",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			got := n.do(method, "/rooms/r/"+form+"?poll=1", "")
			if got.status != http.StatusOK || got.header.Get("Content-Type") != kind || got.header.Get("Cache-Control") != "no-store" ||
				got.header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: %d %v", method, form, got.status, got.header)
			}
		}
	}
	eventually(t, "streams stay open", func() bool { return testutil.ToFloat64(n.server.metrics.streams) == 0 })
	for _, form := range []string{formNameEvents, formNameLines, formNameRaw} {
		if got := testutil.ToFloat64(n.server.metrics.open.WithLabelValues(form)); got != 0 {
			t.Errorf("%v streams of %s are open", got, form)
		}
	}
}

// The lag is that of the slowest stream that has something to write.
func TestStreamLag(t *testing.T) {
	n := newNode(t, func(o *Options) { o.WriteTimeout = time.Hour })
	lag := func() float64 { return testutil.ToFloat64(newLagGauge(n.server)) }
	n.follow("json", "quiet", "?since=all")
	if got := lag(); got != 0 {
		t.Errorf("lag of a stream that waits is %v", got)
	}
	stalled := n.followSlowly(4<<10, "json", "flood", "?since=all")
	posted := n.flood(n.server.metrics.messages)
	if got := lag(); got < 1 || got > float64(posted) {
		t.Errorf("lag is %v after %d messages", got, posted)
	}
	stalled.close()
	eventually(t, "the lag of a stream that has gone stays", func() bool { return lag() == 0 })
}
