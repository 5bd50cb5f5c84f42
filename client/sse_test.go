package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// blocks reads a whole stream.
func blocks(r io.Reader) (out []string, err error) {
	events := newEventReader(r)
	for {
		e, err := events.next()
		if err != nil {
			return out, err
		}
		s := fmt.Sprintf("%s|%q", e.name, e.data)
		if e.hasID {
			s += "|" + e.id
		}
		out = append(out, s)
	}
}

func TestEventReader(t *testing.T) {
	for name, tt := range map[string]struct{ stream, want string }{
		"message":         {"id: 7\ndata: {}\n\n", `|"{}"|7`},
		"named":           {"event: gap\ndata: x\n\n", `gap|"x"`},
		"lines":           {"data: a\ndata\ndata:  b\n\n", `|"a\n\n b"`},
		"CR LF":           {"data: a\r\nid: 1\r\n\r\ndata: b\r\n\r\n", `|"a"|1 |"b"`},
		"CR":              {"data: a\rid: 1\r\rdata: b\r\r", `|"a"|1 |"b"`},
		"comments":        {": keepalive\n\nretry: 1000\n\ndata: a\n: x\n\n", `|"a"`},
		"id alone":        {"id: 9\n\ndata: a\n\n", `|""|9 |"a"`},
		"empty id":        {"id\ndata: a\n\n", `|"a"|`},
		"id with NUL":     {"id: a\x00b\ndata: a\n\n", `|"a"`},
		"empty data":      {"data\n\n", `|""`},
		"byte order mark": {"\ufeffdata: a\n\n\ufeffdata: b\n\n", `|"a"`},
		"cut off":         {"data: a\n\ndata: b\n", `|"a"`},
		"name of a block": {"event: x\n\ndata: a\n\n", `|"a"`},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, r := range map[string]io.Reader{
				"whole": strings.NewReader(tt.stream), "bytes": iotest.OneByteReader(strings.NewReader(tt.stream)),
			} {
				got, err := blocks(r)
				if strings.Join(got, " ") != tt.want || !errors.Is(err, io.EOF) {
					t.Errorf("%s: got %s, %v, want %s", kind, strings.Join(got, " "), err, tt.want)
				}
			}
		})
	}
}

func TestEventReaderBoundsEvents(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"line":  repeat("x"),
		"lines": repeat("data: " + strings.Repeat("x", 1000) + "\n"),
	} {
		events := newEventReader(r)
		if events.limit != maxEvent {
			t.Errorf("%s: an event may have %d bytes", name, events.limit)
		}
		events.limit = 1 << 20
		if _, err := events.next(); !errors.Is(err, errEventTooLarge) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// repeat is s without end.
type repeat string

func (s repeat) Read(p []byte) (int, error) {
	n := 0
	for n+len(s) <= len(p) {
		n += copy(p[n:], s)
	}
	return n, nil
}

// The blocks do not depend on how the bytes arrive, and none holds what cannot
// be in a line.
func FuzzEventReader(f *testing.F) {
	for _, s := range []string{"id: 1\ndata: {}\n\n", "\ufeffdata: a\r\n\r\n", "data\r\rid\n\n", ": x\n\nevent: end\ndata: y\n\n", "\xef\xbb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, stream string) {
		whole, err := blocks(strings.NewReader(stream))
		if !errors.Is(err, io.EOF) {
			t.Fatalf("error %v", err)
		}
		single, _ := blocks(iotest.OneByteReader(strings.NewReader(stream)))
		if strings.Join(whole, "\n") != strings.Join(single, "\n") {
			t.Errorf("at once %q, byte by byte %q", whole, single)
		}
		events := newEventReader(strings.NewReader(stream))
		for {
			e, err := events.next()
			if err != nil {
				break
			}
			if strings.ContainsAny(e.name, "\r\n") || strings.ContainsAny(e.id, "\r\n\x00") || strings.ContainsRune(string(e.data), '\r') {
				t.Errorf("event %+v", e)
			}
		}
	})
}

// Whatever comes in, the place never goes back and no message is delivered
// twice.
func FuzzTakeEvent(f *testing.F) {
	f.Add("", "5", `{"Room":"r","Seq":1,"ID":5,"User":"u","Message":"m"}`)
	f.Add("gap", "7", `{"Room":"r","FirstSeq":1,"LastSeq":3}`)
	f.Add("end", "", `{"Code":"slow","Detail":"d","Since":"9","Endpoints":["http://a:1"]}`)
	f.Add("status", "", `{"Leader":true}`)
	f.Add("other", "18446744073709551615", `[]`)
	f.Fuzz(func(t *testing.T, name, id, data string) {
		s := &subscription{seen: map[string]uint64{}}
		delivered := 0
		s.yield = func(e Event) error {
			if _, ok := e.(*Message); ok {
				delivered++
			}
			return nil
		}
		s.place(3)
		e := serverEvent{name: name, id: id, hasID: true, data: []byte(data)}
		for range 2 {
			before := s.cursor
			_ = s.take("node", e)
			if s.cursor < before {
				t.Errorf("cursor went from %d to %d", before, s.cursor)
			}
		}
		if delivered > 1 {
			t.Error("delivered twice")
		}
	})
}

func TestHasLink(t *testing.T) {
	h := http.Header{"Link": {
		`</a?x=1,2;3>; title="<odd"; rel="prev"`, `</b>; rel=next, </c>;REL="last"`, `</d`, `junk`, `<>`,
	}}
	for rel, want := range map[string]bool{"prev": true, "next": true, "last": true, "first": false, "odd": false, "": false} {
		if got := hasLink(h, rel); got != want {
			t.Errorf("%q: %v", rel, got)
		}
	}
}

func FuzzHasLink(f *testing.F) {
	f.Add(`</a>; rel="prev", </b>; rel=next`)
	f.Add(`<<>;>;=`)
	f.Fuzz(func(t *testing.T, value string) {
		if hasLink(http.Header{"Link": {value}}, "next") && !strings.Contains(value, "next") {
			t.Errorf("found next in %q", value)
		}
	})
}

func FuzzDecodeMessages(f *testing.F) {
	f.Add([]byte(`[{"Room":"r","Seq":1,"ID":2,"User":"u","Message":"m","PostedAt":"2030-01-02T03:04:05Z"}]`))
	f.Add([]byte(`[{"Room":"r","Seq":1,"ID":2,"User":"u","Payload":"/w==","PostedAt":"2030-01-02T03:04:05Z"}]`))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		messages, err := decodeMessages(body)
		for _, m := range messages {
			if err == nil && (m.Room == "" || m.Seq == 0 || m.ID == 0) {
				t.Errorf("message %+v", m)
			}
		}
	})
}

// Whatever a node or a proxy answers in place of a success: it is one refusal
// that can be told in a line, and no wait is longer than the longest.
func FuzzProblem(f *testing.F) {
	f.Add(404, "", []byte(`{"type":"about:blank","status":404,"code":"room_not_found","detail":"there is no such room"}`))
	f.Add(409, "", []byte(`{"code":"client_message_id_conflict","detail":"taken","Seq":7}`))
	f.Add(503, "2", []byte(`{"code":"no_leader"}`))
	f.Add(502, "99999999999", []byte("<html>bad gateway</html>"))
	f.Add(429, "-1", []byte(`{"code":5}`))
	f.Fuzz(func(t *testing.T, status int, retryAfter string, body []byte) {
		e := problem("node", status, http.Header{"Retry-After": {retryAfter}}, body)
		if e.Status != status || e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
			t.Errorf("%+v", e)
		}
		if e.temporary() != (status == 429 || status >= 500 && status < 600) {
			t.Errorf("status %d is temporary: %v", status, e.temporary())
		}
		if status != 0 && e.Error() == "" {
			t.Errorf("status %d with %q says nothing", status, body)
		}
		if harmless(e) && e.Code == "outcome_unknown" {
			t.Errorf("%q is taken for harmless", body)
		}
	})
}

func TestPacer(t *testing.T) {
	var p pacer
	for round := 1; round < 40; round++ {
		if d := p.backoff(round); d < firstPause/2 || d > maxPause {
			t.Errorf("round %d: %v", round, d)
		}
	}
	p.failed(5 * time.Second)
	p.failed(0)
	if p.wait != 0 {
		t.Errorf("one node may be asked at once, but the wait is %v", p.wait)
	}
	p = pacer{}
	p.failed(5 * time.Second)
	p.failed(2 * time.Second)
	if p.wait != 2*time.Second {
		t.Errorf("the wait is %v", p.wait)
	}
}

func TestLearn(t *testing.T) {
	e, err := newEndpoints([]string{"https://a:1/", "https://a:1"})
	if err != nil || e.count() != 1 {
		t.Fatal(e.urls, err)
	}
	e.learn([]string{"http://b:1", "https://c:1", "https://c:1/", "junk"})
	if e.count() != 2 || e.urls[1] != "https://c:1" || len(e.given()) != 1 {
		t.Errorf("endpoints: %v", e.urls)
	}
	for i := range 200 {
		e.learn([]string{fmt.Sprintf("https://d:%d", i+1)})
	}
	if e.count() != 1+maxLearned {
		t.Errorf("%d endpoints", e.count())
	}
}

func TestProblemRetryAfter(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "2": 2 * time.Second, "9999": maxRetryAfter, "-1": 0, "soon": 0} {
		if got := problem("n", 503, http.Header{"Retry-After": {value}}, nil).RetryAfter; got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}
