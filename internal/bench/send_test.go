package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// room is a chat server that keeps what it is sent.
type room struct {
	t *testing.T
	// answer decides on the n-th request (from 1): a status, and a code for the
	// problem document of a refusal. A status of 0 breaks the connection.
	answer func(n int) (status int, code string)

	mu       sync.Mutex
	requests int
	conns    map[string]bool
	paths    map[string]int
	texts    map[string]int
	ids      []string
}

func startRoom(t *testing.T, answer func(n int) (int, string)) (*room, *httptest.Server) {
	t.Helper()
	r := &room{t: t, answer: answer, conns: map[string]bool{}, paths: map[string]int{}, texts: map[string]int{}}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return r, srv
}

func (r *room) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Errorf("read body: %v", err)
	}
	var m struct{ User, Message, ClientMessageID string }
	if err := json.Unmarshal(body, &m); err != nil {
		r.t.Errorf("body %q: %v", body, err)
	}
	r.mu.Lock()
	r.requests++
	n := r.requests
	r.conns[req.RemoteAddr] = true
	r.paths[req.Method+" "+req.URL.Path]++
	r.texts[m.Message]++
	r.ids = append(r.ids, m.ClientMessageID)
	r.mu.Unlock()
	status, code := r.answer(n)
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	if code != "" {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"status":%d,"code":%q}`, status, code)
}

func created(int) (int, string) { return http.StatusCreated, "" }

// until returns a context that ends when the n-th request arrives, and answer
// wrapped accordingly, so that a test has a fixed amount of work.
func until(t *testing.T, n int, answer func(int) (int, string)) (context.Context, func(int) (int, string)) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx, func(i int) (int, string) {
		if i >= n {
			cancel()
		}
		return answer(i)
	}
}

func TestSendLoadsAllEndpoints(t *testing.T) {
	ctx, answer := until(t, 400, created)
	a, srvA := startRoom(t, answer)
	b, srvB := startRoom(t, answer)
	report, err := Send(ctx, Options{
		Endpoints: []string{srvA.URL, srvB.URL}, Rooms: 3, Concurrency: 4, Bytes: 100, Duration: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if !report.Interrupted {
		t.Error("the report does not say that it was interrupted")
	}
	// A handler may outlive the run that was called off; Close waits for it.
	srvA.Close()
	srvB.Close()
	stored := a.requests + b.requests
	// Up to one answer per worker is lost to the cancellation.
	if n := int(report.Acknowledged); n > stored || n < stored-4 {
		t.Errorf("acknowledged %d of %d stored", n, stored)
	}
	if report.Failed != 0 {
		t.Errorf("errors: %v", report.Errors)
	}
	if sum := report.Endpoints[0].Acknowledged + report.Endpoints[1].Acknowledged; sum != report.Acknowledged {
		t.Errorf("endpoints sum up to %d, acknowledged %d", sum, report.Acknowledged)
	}
	for _, r := range []*room{a, b} {
		if r.requests == 0 || len(r.conns) != 2 {
			t.Errorf("a node saw %d requests on %d connections, want 2 connections", r.requests, len(r.conns))
		}
		for path := range r.paths {
			if !regexp.MustCompile(`^POST /rooms/bench-[0-2]$`).MatchString(path) {
				t.Errorf("request to %q", path)
			}
		}
		for text := range r.texts {
			if len(text) != 100 {
				t.Errorf("message of %d bytes, want 100", len(text))
			}
		}
		if r.ids[0] != "" {
			t.Errorf("client message id %q without being asked for", r.ids[0])
		}
	}
}

func TestSendMeasuresAWholeWindow(t *testing.T) {
	r, srv := startRoom(t, created)
	report, err := Send(t.Context(), Options{
		Endpoints: []string{srv.URL}, Rooms: 1, Concurrency: 2, Bytes: 1,
		Warmup: 200 * time.Millisecond, Duration: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	if report.Interrupted || report.Seconds != 1 || report.PerSecond != float64(report.Acknowledged) {
		t.Errorf("report of one second: %+v", report)
	}
	if n := int(report.Acknowledged); n == 0 || n >= r.requests {
		t.Errorf("acknowledged %d of %d, warm-up included", n, r.requests)
	}
}

func TestSendCountsRefusalsByCode(t *testing.T) {
	ctx, answer := until(t, 60, func(n int) (int, string) {
		switch n % 6 {
		case 1, 2, 3:
			return http.StatusServiceUnavailable, "no_leader"
		case 4:
			return http.StatusBadGateway, ""
		case 5:
			return 0, ""
		}
		return http.StatusCreated, ""
	})
	_, srv := startRoom(t, answer)
	report, err := Send(ctx, Options{Endpoints: []string{srv.URL}, Rooms: 1, Concurrency: 1, Bytes: 10, Duration: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, e := range report.Errors {
		got[e.Kind] = e.Count
	}
	if got["503 no_leader"] != 30 || got["502"] != 10 || got["connection closed by the server"] != 10 || report.Failed != 50 {
		t.Errorf("errors: %v, %d in all", report.Errors, report.Failed)
	}
	if report.Errors[0].Kind != "503 no_leader" {
		t.Errorf("the most frequent error is not the first: %v", report.Errors)
	}
}

func TestSendRepeatsUnderTheSameID(t *testing.T) {
	ctx, answer := until(t, 9, func(n int) (int, string) {
		switch n {
		case 2:
			return http.StatusServiceUnavailable, "outcome_unknown"
		case 3:
			return 0, ""
		case 4:
			return http.StatusOK, ""
		case 6:
			return http.StatusBadRequest, "room_name_invalid"
		}
		return http.StatusCreated, ""
	})
	r, srv := startRoom(t, answer)
	report, err := Send(ctx, Options{Endpoints: []string{srv.URL}, Rooms: 1, Concurrency: 1, Bytes: 10, Duration: time.Minute, ClientIDs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	message := make([]string, len(r.ids))
	for i, id := range r.ids {
		parts := strings.Split(id, "-")
		if len(parts) != 3 || parts[0] == "" {
			t.Fatalf("client message id %q", id)
		}
		message[i] = parts[2]
	}
	// 2 and 3 are attempts at the message that 4 finds stored; 6 was refused for good.
	if got, want := strings.Join(message[:8], " "), "0 1 1 1 2 3 4 5"; got != want {
		t.Errorf("messages sent: %s, want %s", got, want)
	}
	if report.Repeated != 1 {
		t.Errorf("repeated: %d, want 1", report.Repeated)
	}
}

func TestSendMovesOnFromADeadNode(t *testing.T) {
	ctx, answer := until(t, 20, created)
	_, srv := startRoom(t, answer)
	dead := "http://" + testaddr.Addr(t)
	report, err := Send(ctx, Options{Endpoints: []string{dead, srv.URL}, Rooms: 1, Concurrency: 1, Bytes: 10, Duration: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if report.Endpoints[0].Acknowledged != 0 || report.Endpoints[1].Acknowledged == 0 {
		t.Errorf("endpoints: %+v", report.Endpoints)
	}
	if len(report.Errors) != 1 || report.Errors[0] != (ErrorCount{"connection refused", 1}) {
		t.Errorf("errors: %v", report.Errors)
	}
}

// An answer that comes after the window's end counts for the latency of the
// window, but not for its rate; a request that began before it, the other way
// round.
func TestWindowEdges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		go func() {
			r := bufio.NewReader(server)
			for {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, req.Body)
				time.Sleep(2 * time.Second) // of the bubble's own clock
				if _, err := io.WriteString(server, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		}()
		now := time.Now()
		w := &worker{
			addrs: []string{"node"}, timeout: time.Minute, tally: newTally(1),
			requests: &requestWriter{rooms: 1, text: "x"},
			window:   window{open: now.Add(time.Second), end: now.Add(5 * time.Second)},
			conn:     newConn(t.Context(), client, time.Minute),
		}
		w.run(t.Context())
		// Sent at 0, 2 and 4 s, answered at 2, 4 and 6 s.
		if w.acknowledged != 2 {
			t.Errorf("acknowledged in the window: %d, want 2", w.acknowledged)
		}
		if w.latency.Count() != 2 || w.latency.Max() != 2*time.Second {
			t.Errorf("latencies: %d, the longest %v, want 2 of 2 s", w.latency.Count(), w.latency.Max())
		}
	})
}

func TestSilentServerTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		go func() { _, _ = io.Copy(io.Discard, server) }()
		c := newConn(t.Context(), client, 10*time.Second)
		defer c.close()
		_, err := c.roundTrip([]byte("POST / HTTP/1.1\r\n\r\n"), time.Now())
		if err == nil || transportKind(err) != "timeout" {
			t.Errorf("got %v, want a timeout", err)
		}
	})
}

func TestOptionsValidate(t *testing.T) {
	good := Options{Endpoints: []string{"http://127.0.0.1:12380/"}, Rooms: 1, Concurrency: 1, Bytes: 1, Duration: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want string
		edit func(*Options)
	}{
		{"endpoints: at least one", func(o *Options) { o.Endpoints = nil }},
		{"only http", func(o *Options) { o.Endpoints = []string{"https://127.0.0.1:1"} }},
		{"not a URL", func(o *Options) { o.Endpoints = []string{"127.0.0.1:12380"} }},
		{"not a URL", func(o *Options) { o.Endpoints = []string{"http://127.0.0.1:1/rooms"} }},
		{"not a URL", func(o *Options) { o.Endpoints = []string{"http://"} }},
		{"ASCII", func(o *Options) { o.Endpoints = []string{"http://nöde:1"} }},
		{"rooms", func(o *Options) { o.Rooms = 0 }},
		{"concurrency", func(o *Options) { o.Concurrency = 0 }},
		{"concurrency", func(o *Options) { o.Concurrency = 10_001 }},
		{"bytes", func(o *Options) { o.Bytes = 0 }},
		{"bytes", func(o *Options) { o.Bytes = 16<<20 + 1 }},
		{"duration", func(o *Options) { o.Duration = 0 }},
		{"warmup", func(o *Options) { o.Warmup = -1 }},
		{"request timeout", func(o *Options) { o.RequestTimeout = -1 }},
	} {
		o := good
		tt.edit(&o)
		if _, err := Send(t.Context(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want an error about %q", o, err, tt.want)
		}
	}
}

func TestErrorKindsAreBounded(t *testing.T) {
	tl := newTally(1)
	for i := range 1000 {
		tl.countError(fmt.Sprint(i), 1)
	}
	if len(tl.errors) > maxErrorKinds+1 || tl.errors[otherErrors] != 1000-maxErrorKinds {
		t.Errorf("%d kinds, %d others", len(tl.errors), tl.errors[otherErrors])
	}
}

func TestReportForms(t *testing.T) {
	tl := newTally(2)
	for i := range 100 {
		tl.latency.Record(time.Duration(i+1) * time.Millisecond)
	}
	tl.acknowledged, tl.repeated = 100, 3
	tl.perEndpoint[0], tl.perEndpoint[1] = 60, 40
	tl.errors["503 no_leader"], tl.errors["timeout"] = 2, 7
	o := Options{Endpoints: []string{"http://a:1", "http://b:2"}, Rooms: 1, Concurrency: 64, Bytes: 100, Warmup: time.Second, ClientIDs: true}
	report := newReport(o, tl, 4*time.Second, true)

	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	const want = `load          64 workers, 1 room, 100-byte messages, client message ids
measured      4.0 s after 1.0 s of warm-up, interrupted
acknowledged  100, 25.0/s
              3 of them stored by an earlier attempt
              60 at http://a:1
              40 at http://b:2
latency       p50 50.07 ms, p90 90.18 ms, p99 99.09 ms, p99.9 100.00 ms, max 100.00 ms
errors        9
              7 × timeout
              2 × 503 no_leader
`
	if text.String() != want {
		t.Errorf("text:\n%s\nwant:\n%s", text.String(), want)
	}

	var buf bytes.Buffer
	if err := report.WriteJSON(&buf); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(buf.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(back) != fmt.Sprint(report) {
		t.Errorf("JSON: %+v, want %+v", back, report)
	}
}

func BenchmarkSend(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	defer srv.Close()
	w := &worker{
		addrs: []string{strings.TrimPrefix(srv.URL, "http://")}, timeout: time.Minute, tally: newTally(1),
		requests: &requestWriter{rooms: 64, text: messageText(100)},
	}
	defer w.disconnect()
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		if _, failed := w.sendOne(b.Context(), n); failed {
			b.Fatal(w.errors)
		}
		n++
	}
}
