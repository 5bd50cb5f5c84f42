package httpapi

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat/chattest"
	"github.com/raft-chat/raft-chat/internal/webguard"
)

func guardFor(o webguard.Options) func(*Options) {
	return func(options *Options) { options.Guard = webguard.New(o) }
}

// changes are requests that would change something if they came through.
var changes = []struct{ method, path, body string }{
	{"POST", "/rooms/r", `{"Message":"m","User":"u"}`}, {"POST", "/raft/9", "http://127.0.0.1:1"}, {"POST", "/raft/9?learner=1", "http://127.0.0.1:1"},
	{"POST", "/raft/2/promote", ""}, {"POST", "/raft/leader", `{"ID":2}`}, {"DELETE", "/raft/2", ""}, {"PUT", "/rooms/r", "x"}, {"POST", "/none/at/all", ""},
}

// What a page of another origin, or under a name of its own, asks for: nothing is changed, no stream begins.
func TestForeignPages(t *testing.T) {
	n := newNode(t, nil)
	n.post("r", "u", "m")
	own := "http://" + n.address
	handshakeLines := strings.ReplaceAll(handshake, "|", "\r\n") + "\r\n"
	for _, page := range []struct {
		name, host, header string
		change, read, open int // statuses; 0: as if no page had asked
	}{
		{"no page", n.address, "", 0, 0, 0},
		{"own page", n.address, "Origin: " + own + "\r\nSec-Fetch-Site: same-origin\r\n", 0, 0, 0},
		{"cookies of others", n.address, "Cookie: a=b\r\n", 0, 0, 0},
		{"foreign origin", n.address, "Origin: https://evil.example\r\nContent-Type: text/plain\r\n", 403, 0, 403},
		{"foreign origin, told by the browser", n.address, "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403, 0, 403},
		{"no origin, told by the browser", n.address, "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n", 403, 0, 403},
		{"null", n.address, "Origin: null\r\n", 403, 0, 403},
		{"foreign host", "evil.example", "", 421, 421, 421},
		{"foreign host with port and its origin", "evil.example:12380", "Origin: http://evil.example:12380\r\nSec-Fetch-Site: same-origin\r\n", 421, 421, 421},
	} {
		ask := func(method, path, header, body string) int {
			return n.handshake(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s%sContent-Length: %d\r\n\r\n%s", method, path, page.host, page.header, header, len(body), body))
		}
		for _, c := range changes {
			if got := ask(c.method, c.path, "", c.body); page.change != 0 && got != page.change || page.change == 0 && (got == 403 || got == 421) {
				t.Errorf("%s: %s %s is %d", page.name, c.method, c.path, got)
			}
		}
		for _, path := range []string{"/rooms", "/rooms/r", "/rooms/r/1", "/raft", "/health", "/livez", "/readyz?sync", "/metrics", "/openapi.yaml", "/", "/_/app.js"} {
			for _, method := range []string{"GET", "HEAD"} {
				if got := ask(method, path, "", ""); page.read != 0 && got != page.read || page.read == 0 && got != 200 {
					t.Errorf("%s: %s %s is %d", page.name, method, path, got)
				}
			}
		}
		for _, path := range []string{"/rooms/r/events?poll=1", "/rooms/r/json?poll=1", "/rooms/r/raw?poll=1"} {
			if got := ask("GET", path, "", ""); page.open != 0 && got != page.open || page.open == 0 && got != 200 {
				t.Errorf("%s: %s is %d", page.name, path, got)
			}
		}
		for _, path := range []string{"/ws", "/rooms/r/ws"} {
			if got := ask("GET", path, handshakeLines, ""); page.open != 0 && got != page.open || page.open == 0 && got != http.StatusSwitchingProtocols {
				t.Errorf("%s: handshake of %s is %d", page.name, path, got)
			}
		}
		calls := 0
		n.cluster.set(func(c *fakeCluster) { calls, c.calls = len(c.calls), nil })
		if (calls != 0) != (page.change == 0) {
			t.Errorf("%s: the cluster was asked %d times", page.name, calls)
		}
	}
	if got := n.raw("GET /rooms HTTP/1.0\r\n\r\n"); got.status != 200 {
		t.Errorf("HTTP/1.0 without a Host: %d", got.status)
	}
}

// Refusals are problem documents that name what an operator can do, with the headers of every answer.
func TestForeignPagesAreTold(t *testing.T) {
	n := newNode(t, nil)
	for _, test := range []struct {
		header, code, flag string
		status             int
	}{
		{"Host: evil.example:12380", "misdirected_request", "--allowed-hosts", 421},
		{"Host: " + n.address + "\r\nOrigin: https://evil.example", "origin_not_allowed", "--allowed-origins", 403},
	} {
		got := n.raw("POST /rooms/r HTTP/1.1\r\nContent-Length: 0\r\n" + test.header + "\r\n\r\n")
		if status, code, detail := problemIn(t, got); status != test.status || code != test.code || !strings.Contains(detail, test.flag) ||
			got.header.Get("X-Request-Id") == "" || got.header.Get("X-Raft-Chat-Node") != "node1" {
			t.Errorf("%s: %d %v %s", test.header, status, got.header, got.body)
		}
	}
	health := httptest.NewServer(n.server.HealthHandler())
	defer health.Close()
	alone := *n
	alone.address = strings.TrimPrefix(health.URL, "http://")
	for _, path := range []string{"/health", "/livez", "/readyz", "/none"} {
		if status, code, _ := problemIn(t, alone.raw("GET "+path+" HTTP/1.1\r\nHost: evil.example\r\n\r\n")); status != 421 || code != "misdirected_request" {
			t.Errorf("%s at the listener for health: %d %s", path, status, code)
		}
	}
}

// A page of an allowed origin can read every answer, streams and errors included.
func TestAllowedPages(t *testing.T) {
	const origin = "https://app.example"
	n := newNode(t, guardFor(webguard.Options{AllowedOrigins: []string{"https://app.example:443"}}))
	n.post("r", "u", "m")
	for _, test := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/rooms", "", 200}, {"GET", "/rooms/r", "", 200}, {"HEAD", "/rooms/r/1", "", 200}, {"GET", "/rooms/r/99", "", 404},
		{"POST", "/rooms/r", `{"Message":"m","User":"u"}`, 201}, {"POST", "/rooms/r", "{", 400}, {"PUT", "/rooms/r", "", 405}, {"GET", "/none/at/all", "", 404},
		{"GET", "/rooms/r/events?poll=1", "", 200}, {"GET", "/rooms/r/json?poll=1&since=all", "", 200}, {"HEAD", "/rooms/r/raw", "", 200},
		{"GET", "/rooms/r/events?since=x", "", 400}, {"GET", "/r", "", 302}, {"GET", "/rooms/", "", 308}, {"GET", "/ws", "", 426},
		{"POST", "/raft/leader", `{"ID":2}`, 204}, {"DELETE", "/raft/2", "", 204}, {"GET", "/health", "", 200}, {"OPTIONS", "/rooms", "", 204},
	} {
		got := n.do(test.method, test.path, test.body, "Origin", origin, "Sec-Fetch-Site", "cross-site")
		if got.status != test.status || got.header.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(strings.Join(got.header["Vary"], ","), "Origin") ||
			got.header.Get("Access-Control-Expose-Headers") != "Location, Link, Retry-After, X-Request-Id, X-Raft-Chat-Node" {
			t.Errorf("%s %s: %d %v", test.method, test.path, got.status, got.header)
		}
		got = n.do("OPTIONS", test.path, "", "Origin", origin, "Access-Control-Request-Method", test.method, "Access-Control-Request-Headers", "content-type")
		if got.status != 204 || got.header.Get("Access-Control-Allow-Origin") != origin || got.header.Get("Access-Control-Allow-Methods") == "" {
			t.Errorf("preflight of %s %s: %d %v", test.method, test.path, got.status, got.header)
		}
		// Nobody else is given anything.
		if got = n.do(test.method, test.path, test.body); got.header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(strings.Join(got.header["Vary"], ","), "Origin") {
			t.Errorf("%s %s without a page: %v", test.method, test.path, got.header)
		}
	}
	// Streams that stay open, which a page reads as they come.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, form := range []string{"events", "json", "raw"} {
		request, err := http.NewRequestWithContext(ctx, "GET", n.url+"/rooms/r/"+form+"?since=all", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Origin", origin)
		response, err := dialer(0).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(response.Body).ReadString('\n')
		if err != nil || line == "" || response.Header.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("%s: %q %v %v", form, line, err, response.Header)
		}
		_ = response.Body.Close()
	}
	conn, _, err := websocket.Dial(ctx, n.url+"/ws?since=0", &websocket.DialOptions{HTTPClient: dialer(0), HTTPHeader: http.Header{"Origin": {origin}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	if _, _, err := conn.Read(ctx); err != nil {
		t.Error(err)
	}
}

func TestFirehoseOrigins(t *testing.T) {
	n := newNode(t, guardFor(webguard.Options{AllowedOrigins: []string{"https://chat.example", "other.example:8443"}}))
	for origin, allowed := range map[string]bool{
		"": true, "http://" + n.address: true, "https://chat.example": true, "https://CHAT.example": true, "http://other.example:8443": true,
		"http://chat.example": false, "https://chat.example.evil": false, "https://evil.example": false, "null": false, "%": false,
	} {
		header := strings.ReplaceAll(handshake, "|", "\r\n")
		if origin != "" {
			header += "\r\nOrigin: " + origin
		}
		got := n.handshake("GET /ws HTTP/1.1\r\nHost: " + n.address + "\r\n" + header + "\r\n\r\n")
		if (got == http.StatusSwitchingProtocols) != allowed {
			t.Errorf("origin %q: %d", origin, got)
		}
	}
	open := newNode(t, guardFor(webguard.Options{AllowedHosts: []string{"x"}, AllowedOrigins: []string{"*"}}))
	if got := open.handshake("GET /ws HTTP/1.1\r\nHost: x\r\n" + strings.ReplaceAll(handshake, "|", "\r\n") + "\r\nOrigin: https://evil.example\r\n\r\n"); got != http.StatusSwitchingProtocols {
		t.Errorf("any origin: %d", got)
	}
}

// A path that is no room's is an error, whatever it looks like.
func TestUnknownPaths(t *testing.T) {
	n := newNode(t, nil)
	n.post("status-page", "u", "m")
	if _, _, err := n.service.CreateRoom(t.Context(), actor, "empty", ""); err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{
		"/healthz": 404, "/status": 404, "/favicon.ico": 404, "/ready": 404, "/livez2": 404, "/status-pag": 404, "/robots.txt": 404, "/index.html": 404,
		"/status-page": 302, "/status-page?limit=3": 302, "/status-page?consistency=stale": 302, "/empty": 302, "/raft": 200, "/livez": 200, "/rooms": 200,
	} {
		for _, accept := range []string{"*/*", "text/html,application/xhtml+xml"} {
			for _, method := range []string{"GET", "HEAD"} {
				got := n.do(method, path, "", "Accept", accept)
				if got.status != status {
					t.Errorf("%s %s: %d", method, path, got.status)
				}
				if status == 302 && got.header.Get("Location") != "/rooms"+path {
					t.Errorf("%s leads to %s", path, got.header.Get("Location"))
				}
				if status == 404 && method == "GET" {
					if _, code, _ := problemIn(t, got); code != "not_found" {
						t.Errorf("%s: %s", path, code)
					}
				}
			}
		}
	}
	// Without a leader nobody can tell, and it is no success either.
	n.log.FailReads(chattest.Error("no_leader"))
	if got := n.do("GET", "/healthz", ""); got.status != 503 {
		t.Errorf("without a leader: %d", got.status)
	}
}

// Text order is time order, and readers that take microseconds only can read all times.
func TestTimesHaveSixDigits(t *testing.T) {
	for _, test := range []struct {
		at   time.Time
		want string
	}{
		{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), `"2026-01-02T03:04:05.000000Z"`},
		{time.Date(2026, 1, 2, 3, 4, 5, 120_000_000, time.UTC), `"2026-01-02T03:04:05.120000Z"`},
		{time.Date(2026, 1, 2, 3, 4, 5, 123_456_000, time.UTC), `"2026-01-02T03:04:05.123456Z"`},
		{time.Date(2026, 1, 2, 4, 4, 5, 10_000, time.FixedZone("", 3600)), `"2026-01-02T03:04:05.000010Z"`},
	} {
		if got := string(appendTime(nil, test.at)); got != test.want {
			t.Errorf("%v is %s", test.at, got)
		}
	}
}
