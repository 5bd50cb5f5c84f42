package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// chatRooms is a chat server with WebSocket subscribers.
type chatRooms struct {
	// deliver decides what becomes of message seq for the n-th subscriber of a
	// room: how often it is sent. nil: once.
	deliver func(n int, seq uint64) int
	// refuse, if not nil, gives a status in place of 201 for the n-th post.
	refuse func(n int) int

	mu    sync.Mutex // guards the rest
	posts int
	rooms map[string]*chatRoom
	paths map[string]int // of WebSockets
	ended chan struct{}
}

type chatRoom struct {
	seq         uint64
	ids         map[string]bool
	subscribers []chan []byte
}

func startChatRooms(t *testing.T) (*chatRooms, string) {
	t.Helper()
	c := &chatRooms{rooms: map[string]*chatRoom{}, paths: map[string]int{}, ended: make(chan struct{})}
	srv := httptest.NewServer(c)
	t.Cleanup(func() {
		close(c.ended)
		srv.Close()
	})
	return c, srv.URL
}

func (c *chatRooms) room(name string) *chatRoom {
	if c.rooms[name] == nil {
		c.rooms[name] = &chatRoom{ids: map[string]bool{}}
	}
	return c.rooms[name]
}

func (c *chatRooms) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, socket := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/rooms/"), "/ws")
	if socket || name == "/ws" {
		c.follow(w, r, name)
		return
	}
	var body struct{ User, Message, ClientMessageID string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts++
	if c.refuse != nil {
		if status := c.refuse(c.posts); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	room := c.room(name)
	if room.ids[body.ClientMessageID] {
		return // 200
	}
	room.ids[body.ClientMessageID] = true
	room.seq++
	frame := fmt.Appendf(nil, `{"Room":%q,"Seq":%d,"ID":1,"User":"bench","Message":%q}`, name, room.seq, body.Message)
	for n, ch := range room.subscribers {
		times := 1
		if c.deliver != nil {
			times = c.deliver(n, room.seq)
		}
		for range times {
			ch <- frame
		}
	}
	w.WriteHeader(http.StatusCreated)
}

func (c *chatRooms) follow(w http.ResponseWriter, r *http.Request, name string) {
	frames := make(chan []byte, 10_000)
	c.mu.Lock()
	c.paths[r.URL.Path]++
	room := c.room(name)
	room.subscribers = append(room.subscribers, frames)
	c.mu.Unlock()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(context.Background())
	for {
		select {
		case frame := <-frames:
			if frame == nil {
				_ = conn.Close(websocket.StatusTryAgainLater, "too slow")
				return
			}
			if err := conn.Write(ctx, websocket.MessageText, frame); err != nil {
				return
			}
		case <-ctx.Done():
			return
		case <-c.ended:
			return
		}
	}
}

func fanoutOptions(urls ...string) FanoutOptions {
	return FanoutOptions{
		Endpoints: urls, Rooms: 3, Subscribers: 4, Rate: 500, Bytes: 100,
		Duration: 300 * time.Millisecond, Warmup: 100 * time.Millisecond, Drain: time.Minute,
	}
}

func TestFanoutCountsDeliveries(t *testing.T) {
	c, url := startChatRooms(t)
	report, err := Fanout(t.Context(), fanoutOptions(url))
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.posts != 200 || len(c.paths) != 3 {
		t.Errorf("%d messages posted, sockets on %v", c.posts, c.paths)
	}
	for path, n := range c.paths {
		if n != 4 {
			t.Errorf("%d sockets on %s", n, path)
		}
	}
	// The warm-up takes 50 of the 200.
	if report.Acknowledged != 150 || report.Expected != 600 || report.Delivered != 600 || report.PerSecond != 2000 {
		t.Errorf("report: %+v", report)
	}
	if report.Skipped+report.Repeated+report.Failed != 0 || report.Incomplete+report.Lost != 0 || report.Interrupted {
		t.Errorf("faults out of nothing: %+v", report)
	}
	if report.Latency.P99 <= 0 || report.SendLatency.P50 <= 0 {
		t.Errorf("latencies: %+v, %+v", report.Latency, report.SendLatency)
	}
}

func TestFanoutSeesFaults(t *testing.T) {
	c, url := startChatRooms(t)
	c.deliver = func(n int, seq uint64) int {
		switch {
		case n == 0 && seq == 30:
			return 0 // one message less for one subscriber of each room
		case n == 1 && seq == 40:
			return 3
		}
		return 1
	}
	o := fanoutOptions(url)
	o.Drain = 50 * time.Millisecond
	report, err := Fanout(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if report.Skipped != 3 || report.Repeated != 6 || report.Incomplete != 3 || report.Delivered != 597 {
		t.Errorf("report: %+v", report)
	}
}

func TestFanoutSeesLostSubscribers(t *testing.T) {
	c, url := startChatRooms(t)
	c.deliver = func(n int, seq uint64) int { return 1 }
	c.refuse = func(n int) int {
		switch {
		case n == 20:
			for _, room := range c.rooms {
				room.subscribers[0] <- nil // closes it
			}
		case n%50 == 0:
			return http.StatusServiceUnavailable
		case n == 33:
			return http.StatusTeapot
		}
		return 0
	}
	o := fanoutOptions(url)
	o.Drain = 50 * time.Millisecond
	report, err := Fanout(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]uint64{}
	for _, e := range report.Errors {
		kinds[e.Kind] = e.Count
	}
	if report.Lost != 3 || kinds["closed by the server with 1013"] != 3 || kinds["503"] < 4 || kinds["418"] != 1 || report.Incomplete != 3 {
		t.Errorf("report: %+v", report)
	}
}

// A stalled subscriber whose server gives up on it counts as cut, another
// does not.
func TestFanoutStalled(t *testing.T) {
	for want := range 2 {
		c, url := startChatRooms(t)
		c.refuse = func(n int) int {
			if n == 30 && want == 1 {
				for _, room := range c.rooms {
					for _, frames := range room.subscribers {
						frames <- nil // closes it
					}
				}
			}
			return 0
		}
		o := fanoutOptions(url)
		o.Rooms, o.Subscribers, o.Stalled, o.Drain = 1, 1, 1, 50*time.Millisecond
		report, err := Fanout(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if report.StalledCut != want || report.Lost != want || report.Stalled != 1 {
			t.Errorf("%d cut: %+v", want, report)
		}
	}
}

func TestFanoutInterrupted(t *testing.T) {
	c, url := startChatRooms(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c.refuse = func(n int) int {
		if n == 60 {
			cancel()
		}
		return 0
	}
	o := fanoutOptions(url)
	o.Duration = time.Hour
	report, err := Fanout(ctx, o)
	if err != nil || !report.Interrupted || report.Seconds >= 3600 {
		t.Errorf("report: %+v, %v", report, err)
	}
}

func TestFanoutCannotOpen(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"code":"no_leader"}`)
	}))
	defer srv.Close()
	_, err := Fanout(t.Context(), fanoutOptions(srv.URL))
	if err == nil || !strings.Contains(err.Error(), "503 no_leader") {
		t.Errorf("got %v", err)
	}
}

func TestFanoutOptionsValidate(t *testing.T) {
	good := fanoutOptions("http://127.0.0.1:1")
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want string
		edit func(*FanoutOptions)
	}{
		{"endpoints", func(o *FanoutOptions) { o.Endpoints = nil }},
		{"rooms", func(o *FanoutOptions) { o.Rooms = 0 }},
		{"subscribers", func(o *FanoutOptions) { o.Subscribers = 0 }},
		{"subscribers", func(o *FanoutOptions) { o.Rooms, o.Subscribers = 1<<40, 1<<40 }},
		{"subscribers", func(o *FanoutOptions) { o.Stalled = maxSockets }},
		{"stalled", func(o *FanoutOptions) { o.Stalled = -1 }},
		{"rate", func(o *FanoutOptions) { o.Rate = 0 }},
		{"bytes", func(o *FanoutOptions) { o.Bytes = minStamped - 1 }},
		{"duration", func(o *FanoutOptions) { o.Duration = 0 }},
		{"warmup", func(o *FanoutOptions) { o.Warmup = -1 }},
		{"drain", func(o *FanoutOptions) { o.Drain = -1 }},
		{"request timeout", func(o *FanoutOptions) { o.RequestTimeout = -1 }},
	} {
		o := good
		tt.edit(&o)
		if _, err := Fanout(t.Context(), o); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("got %v, want an error about %q", err, tt.want)
		}
	}
}

func TestFanoutReportForms(t *testing.T) {
	r := FanoutReport{
		Rooms: 2, Subscribers: 100, Stalled: 5, Rate: 50, Bytes: 100, Seconds: 4, WarmupSeconds: 1, Interrupted: true,
		Acknowledged: 200, SendLatency: Latency{P50: 1, P90: 2, P99: 3, P999: 4, Max: 5},
		Expected: 20000, Delivered: 19999, PerSecond: 4999.75, Latency: Latency{P50: 6, P90: 7, P99: 8, P999: 9, Max: 10},
		Incomplete: 1, Skipped: 2, Repeated: 3, Lost: 4, StalledCut: 5,
		Failed: 7, Errors: []ErrorCount{{"timeout", 7}},
	}
	const want = `load          2 rooms × 100 subscribers, 50.0 messages/s of 100 bytes, 5 stalled subscribers
measured      4.0 s after 1.0 s of warm-up, interrupted
acknowledged  200
              p50 1.00 ms, p90 2.00 ms, p99 3.00 ms, p99.9 4.00 ms, max 5.00 ms
delivered     19999 of 20000, 4999.8/s
latency       p50 6.00 ms, p90 7.00 ms, p99 8.00 ms, p99.9 9.00 ms, max 10.00 ms
subscribers   1 incomplete, 4 lost their connection; 2 messages skipped, 3 repeated
stalled       5 of 5 cut off
errors        7
              7 × timeout
`
	var text strings.Builder
	if err := r.WriteText(&text); err != nil || text.String() != want {
		t.Errorf("text:\n%s\nwant:\n%s(%v)", text.String(), want, err)
	}
	var buf bytes.Buffer
	var back FanoutReport
	if err := r.WriteJSON(&buf); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(buf.Bytes(), &back); err != nil || fmt.Sprint(back) != fmt.Sprint(r) {
		t.Errorf("JSON: %+v, %v", back, err)
	}
}

func TestStampRoundTrip(t *testing.T) {
	s := stamp{number: 12345, due: 98765432101}
	text := appendStamped(nil, "ABCDEFGH", s, 100)
	if len(text) != 100 {
		t.Errorf("%d bytes", len(text))
	}
	frame := fmt.Appendf(nil, `{"Room":"r","Seq":77,"ID":9,"User":"bench","Message":"%s`, text[:60])
	got, seq, ok := parseDelivery(frame, "ABCDEFGH")
	if !ok || got != s || seq != 77 {
		t.Errorf("got %+v, %d, %v", got, seq, ok)
	}
	if _, _, ok := parseDelivery(frame, "OTHERRUN"); ok {
		t.Error("a message of another run counts")
	}
	longest := appendStamped(nil, "ABCDEFGH", stamp{number: 1<<64 - 1, due: 1<<63 - 1}, minStamped)
	if len(longest) != minStamped {
		t.Errorf("the longest stamp has %d bytes", len(longest))
	}
}

func FuzzParseDelivery(f *testing.F) {
	f.Add([]byte(`{"Room":"r","Seq":77,"ID":9,"User":"bench","Message":"RUN 1 2 xxx"}`))
	f.Add([]byte(`{"Seq":1,"Message":"RUN  `))
	f.Add([]byte(`"Seq":99999999999999999999"Message":"RUN 1 2 `))
	f.Fuzz(func(t *testing.T, frame []byte) {
		s, seq, ok := parseDelivery(frame, "RUN")
		if ok && s.due < 0 || !ok && seq != 0 && s.number != 0 && s.due != 0 {
			t.Errorf("%+v, %d, %v", s, seq, ok)
		}
	})
}
