package httpapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// client is the other side of an answer: it decides when a write goes on.
type client struct {
	discard
	before    func(write int) // called in the n-th write, from 1
	writes    int
	body      bytes.Buffer
	deadlines []time.Time
}

func newClient(before func(write int)) *client {
	return &client{discard: discard{header: make(http.Header)}, before: before}
}

func (r *client) SetWriteDeadline(t time.Time) error {
	r.deadlines = append(r.deadlines, t)
	return nil
}

func (r *client) Write(b []byte) (int, error) {
	r.writes++
	if r.before != nil {
		r.before(r.writes)
	}
	return r.body.Write(b)
}

// payloads are texts that are encoded in every way.
func payloads() map[string][]byte {
	return map[string][]byte{
		"plain":              []byte(strings.Repeat("x", 60<<10)),
		"control characters": bytes.Repeat([]byte{1}, 60<<10),
		"runes":              []byte(strings.Repeat("añ€𝄞", 6<<10)),
		"line separators":    []byte(strings.Repeat("\u2028\"\\\n", 8<<10)),
		"no text":            bytes.Repeat([]byte{0xff, 0x00, 0x80}, 20<<10+1),
		"a piece":            bytes.Repeat([]byte{0xff}, pagePiece),
		"short":              []byte("hi"),
	}
}

// A page in steps is the same as its messages one by one, and each step has a time limit of its own.
func TestPageInSteps(t *testing.T) {
	n := newNode(t, nil)
	for name, payload := range payloads() {
		const count = 9
		room := base64.RawURLEncoding.EncodeToString([]byte(name))
		for range count {
			if _, _, err := n.service.Post(t.Context(), chat.Actor{}, chat.PostRequest{
				Room: room, User: "ann", Payload: payload, ClientMessageID: "", AllowBytes: true,
			}); err != nil {
				t.Fatal(name, err)
			}
		}
		for _, query := range []string{"limit=1000", "limit=3&after=2", "limit=4&before=9"} {
			r := newClient(nil)
			n.server.ServeHTTP(r, httptest.NewRequest("GET", "http://127.0.0.1/rooms/"+room+"?"+query, nil))
			var page []json.RawMessage
			if err := json.Unmarshal(r.body.Bytes(), &page); err != nil || r.status != http.StatusOK {
				t.Fatalf("%s, %s: status %d, %v", name, query, r.status, err)
			}
			for _, got := range page {
				var m struct{ Seq uint64 }
				if err := json.Unmarshal(got, &m); err != nil {
					t.Fatal(name, err)
				}
				want, err := n.service.Message(t.Context(), chat.Actor{}, room, m.Seq, true)
				if err != nil {
					t.Fatal(name, err)
				}
				if !bytes.Equal(got, encodeMessage(want)) {
					t.Errorf("%s, %s: message %d differs from the one that is read alone", name, query, m.Seq)
				}
				one := newClient(nil)
				n.server.ServeHTTP(one, httptest.NewRequest("GET", fmt.Sprintf("http://127.0.0.1/rooms/%s/%d", room, m.Seq), nil))
				if one.body.String() != string(encodeMessage(want))+"\n" {
					t.Errorf("%s: GET of message %d differs", name, m.Seq)
				}
			}
			if want := map[string]int{"limit=1000": count, "limit=3&after=2": 3, "limit=4&before=9": 4}[query]; len(page) != want {
				t.Errorf("%s, %s: %d messages, want %d", name, query, len(page), want)
			}
			if r.body.Len() > 2*longestStep {
				if r.writes < 2 || len(r.deadlines) != r.writes {
					t.Errorf("%s, %s: %d writes with %d deadlines", name, query, r.writes, len(r.deadlines))
				}
			} else if r.body.Len() < pageStep && r.header.Get("Content-Length") != fmt.Sprint(r.body.Len()) {
				t.Errorf("%s, %s: a short answer has Content-Length %q", name, query, r.header.Get("Content-Length"))
			}
		}
	}
}

// What is trimmed while a page is being written is left out of the rest, which stays a page.
func TestTrimOvertakesAPage(t *testing.T) {
	n := newNode(t, nil)
	for range 50 {
		n.post("general", "ann", strings.Repeat("x", 10<<10))
	}
	r := newClient(func(write int) {
		if write == 1 {
			if _, err := n.service.Trim(t.Context(), chat.Actor{}, "general", 40); err != nil {
				t.Error(err)
			}
		}
	})
	n.server.ServeHTTP(r, httptest.NewRequest("GET", "http://127.0.0.1/rooms/general?limit=1000", nil))
	var page []struct{ Seq uint64 }
	if err := json.Unmarshal(r.body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if len(page) == 50 || page[0].Seq != 1 || page[len(page)-1].Seq != 50 || page[len(page)-11].Seq != 40 || page[len(page)-12].Seq >= 39 {
		t.Errorf("%d messages, first %d, last %d", len(page), page[0].Seq, page[len(page)-1].Seq)
	}
}

// A room that is made while the list is being written is not in the rest.
func TestRoomsInSteps(t *testing.T) {
	n := newNode(t, nil)
	const count = 3 * roomsPart
	for i := range count {
		name := fmt.Sprintf("room-%04d-%s", i, strings.Repeat("x", 100))
		if _, _, err := n.service.CreateRoom(t.Context(), chat.Actor{}, name, strings.Repeat("\"", 120)); err != nil {
			t.Fatal(err)
		}
	}
	made := false
	r := newClient(func(int) {
		if !made {
			made = true
			if _, _, err := n.service.CreateRoom(t.Context(), chat.Actor{}, fmt.Sprintf("room-%04d-a", count-1), ""); err != nil {
				t.Error(err)
			}
		}
	})
	n.server.ServeHTTP(r, httptest.NewRequest("GET", fmt.Sprintf("http://127.0.0.1/rooms?details=true&limit=%d", count-1), nil))
	var page []struct{ Name string }
	if err := json.Unmarshal(r.body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if len(page) != count-1 || !strings.Contains(r.header.Get("Link"), fmt.Sprintf("room-%04d-x", count-2)) {
		t.Errorf("%d rooms, Link %q", len(page), r.header.Get("Link"))
	}
	for i, room := range page {
		if !strings.HasPrefix(room.Name, fmt.Sprintf("room-%04d-x", i)) {
			t.Fatalf("room %d is %s", i, room.Name)
		}
	}
	if r.writes < 2 {
		t.Errorf("%d writes", r.writes)
	}
}

// Clients that do not read hold no more than the budget; what is beyond is refused, and small requests are served.
func TestUnreadAnswersAreBounded(t *testing.T) {
	for _, path := range []string{"/rooms/big?limit=1000", "/rooms/wild?limit=1000", "/rooms/big/1", "/rooms/wild/1", "/rooms?limit=1000&details=true", "/metrics"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			b := budget.New(4 << 20)
			n := newNode(t, func(o *Options) { o.Budget = b })
			for range 4 {
				for room, text := range map[string]string{"big": "x", "wild": "\x01"} {
					if _, _, err := n.service.Post(t.Context(), chat.Actor{}, chat.PostRequest{Room: room, User: "u", Payload: []byte(strings.Repeat(text, 60<<10))}); err != nil {
						t.Fatal(err)
					}
				}
			}
			for i := range 300 {
				n.post(fmt.Sprintf("%s-%d", strings.Repeat("r", 100), i), "u", "hi")
			}
			pages := b.Account(budget.Pages)
			release := make(chan struct{})
			var clients sync.WaitGroup
			refused := 0
			for i := 0; i < 10_000 && refused == 0 && pages.Used() <= pages.Limit(); i++ {
				writing := make(chan struct{})
				r := newClient(nil)
				r.before = func(write int) {
					if write == 1 && r.status != http.StatusServiceUnavailable {
						close(writing)
						<-release
					}
				}
				done := make(chan struct{})
				clients.Go(func() {
					defer close(done)
					n.server.ServeHTTP(r, httptest.NewRequest("GET", "http://127.0.0.1"+path, nil))
				})
				select {
				case <-writing:
				case <-done:
				}
				if r.status == http.StatusServiceUnavailable {
					refused++
					if r.header.Get("Retry-After") != "1" || !strings.Contains(r.body.String(), `"code":"overloaded"`) || !strings.Contains(r.body.String(), "--memory-budget") {
						t.Errorf("refused with %v %s", r.header, r.body.String())
					}
				}
			}
			if refused == 0 {
				t.Errorf("nothing was refused, though %d of %d bytes are used", pages.Used(), pages.Limit())
			}
			n.post("small", "ann", "still served")
			for _, path := range []string{"/rooms/small", "/rooms/small/1", "/rooms?limit=10", "/raft", "/livez"} {
				if got := n.do("GET", path, ""); got.status != http.StatusOK {
					t.Errorf("GET %s beside them: %d %s", path, got.status, got.body)
				}
			}
			close(release)
			clients.Wait()
			if used := pages.Used(); used != 0 {
				t.Errorf("%d bytes are used in the end", used)
			}
		})
	}
}

// A client that takes nothing is cut, and what it held is given back.
func TestUnreadPageIsCut(t *testing.T) {
	b := budget.New(64 << 20)
	n := newNode(t, func(o *Options) { o.Budget, o.WriteTimeout = b, 100*time.Millisecond })
	text := strings.Repeat("\x01", 60<<10)
	for range 68 {
		n.post("general", "ann", text)
	}
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /rooms/general?limit=1000 HTTP/1.1\r\nHost: "+n.address+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	pages := b.Account(budget.Pages)
	eventually(t, "the page is not begun", func() bool { return pages.Used() > 0 })
	eventually(t, "the page is not given up", func() bool { return pages.Used() == 0 })
	if got, err := io.ReadAll(conn); err == nil && bytes.HasSuffix(got, []byte("0\r\n\r\n")) {
		t.Error("a page that was given up has a proper end")
	}
}

// Unfinished requests hold no more than the budget; a small one beside them is served.
func TestUnfinishedBodiesAreBounded(t *testing.T) {
	b := budget.New(8 << 20)
	n := newNode(t, func(o *Options) { o.Budget = b })
	requests := b.Account(budget.Requests)
	half := `{"User":"ann","Message":"` + strings.Repeat("x", 600<<10)
	var clients sync.WaitGroup
	var pipes []*io.PipeWriter
	refused := false
	for !refused && len(pipes) < 100 {
		before := requests.Used()
		body, pipe := io.Pipe()
		pipes = append(pipes, pipe)
		request := httptest.NewRequest("POST", "http://127.0.0.1/rooms/general", body)
		request.ContentLength = 1 << 20
		r := newClient(nil)
		done := make(chan struct{})
		clients.Go(func() {
			defer close(done)
			defer body.Close()
			n.server.ServeHTTP(r, request)
		})
		if before != requests.Used() {
			t.Error("memory is claimed for what was only declared")
		}
		_, err := io.WriteString(pipe, half)
		if refused = err != nil; refused {
			<-done
			if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") != "1" || r.header.Get("Connection") != "close" {
				t.Errorf("refused with %d %v %s", r.status, r.header, r.body.String())
			}
		}
	}
	if !refused {
		t.Error("no body was refused")
	}
	n.post("general", "ann", "still served")
	for _, pipe := range pipes {
		pipe.CloseWithError(io.ErrUnexpectedEOF)
	}
	clients.Wait()
	if used := requests.Used(); used != 0 {
		t.Errorf("%d bytes are used in the end", used)
	}
}
