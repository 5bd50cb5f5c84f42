package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// lockedBuffer takes the log of all goroutines of a node.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// One rule about web pages on every listener that speaks HTTP: what page asks, at which door, gets which status. -1
// stands for an answer of the handler itself, whatever that is.
func TestWebPagesAtEveryListener(t *testing.T) {
	var log lockedBuffer
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	peers, api := listen(), listen()
	health := listen()
	config := Config{
		ID: 1, DataDir: t.TempDir(), APIListener: api, PeerListener: peers, MinFreeBytes: -1,
		Cluster:         []Peer{{ID: 1, URL: "http://" + peers.Addr().String()}},
		AdvertiseClient: "https://Chat.example:8443/", AdvertiseGRPC: "grpc.example:9000",
		AllowedHosts: []string{"*.proxy.example"}, AllowedOrigins: []string{"https://app.example"},
		Logger: slog.New(slog.NewJSONHandler(&log, nil)),
	}
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	s.serve(health, s.api.HealthHandler(), 0) // a socket of our own, so that nobody else can have taken its port
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	defer func() {
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	requests := map[string][]string{ // by listener
		"api": {"GET /rooms", "POST /rooms/r", "POST /raft/9?learner=1", "POST /raft/leader", "POST /raft/1/promote", "GET /rooms/r/json?poll=1", "GET /metrics",
			"GET /none", "PUT /rooms/r", "OPTIONS /rooms"},
		"health": {"GET /health", "GET /livez", "GET /readyz", "POST /health", "GET /none"},
		"peers":  {"POST /member/v1/hello", "POST /member/v1/call", "GET /raft/stream/msgapp/1", "POST /raft", "POST /raft/snapshot", "GET /raft/probing", "GET /none"},
	}
	addresses := map[string]string{"api": api.Addr().String(), "health": health.Addr().String(), "peers": peers.Addr().String()}
	const through, refused, misdirected = -1, http.StatusForbidden, http.StatusMisdirectedRequest
	for _, page := range []struct {
		name, host, header string
		read, change, peer int
	}{
		{"no page", "", "", through, through, through},
		{"name of a proxy", "a.proxy.example", "", through, through, through},
		{"advertised name", "chat.example", "Origin: https://chat.example:8443", through, through, through},
		{"advertised name of gRPC", "grpc.example:1", "", through, through, through},
		{"own page of any listener", "", "Origin: http://$HOST", through, through, through},
		{"foreign origin", "", "Origin: https://evil.example", through, refused, refused},
		{"foreign origin as text", "", "Origin: http://127.0.0.1:1|Content-Type: text/plain|Sec-Fetch-Site: same-site", through, refused, refused},
		{"foreign page without Origin", "", "Sec-Fetch-Site: cross-site", through, refused, refused},
		{"null", "", "Origin: null", through, refused, refused},
		{"allowed origin", "", "Origin: https://app.example|Sec-Fetch-Site: cross-site", through, through, refused},
		{"foreign host", "evil.example:80", "", misdirected, misdirected, misdirected},
		{"rebound name", "evil.example", "Origin: http://evil.example|Sec-Fetch-Site: same-origin", misdirected, misdirected, misdirected},
		{"above the name of a proxy", "proxy.example", "", misdirected, misdirected, misdirected},
	} {
		for listener, all := range requests {
			for _, line := range all {
				method, path, _ := strings.Cut(line, " ")
				want := page.change
				if listener == "peers" {
					want = page.peer
				} else if (method == "GET" || method == "OPTIONS") && !strings.Contains(path, "poll") {
					want = page.read
				}
				request, err := http.NewRequestWithContext(ctx, method, "http://"+addresses[listener]+path, strings.NewReader("x"))
				if err != nil {
					t.Fatal(err)
				}
				request.Host = page.host
				for h := range strings.SplitSeq(strings.ReplaceAll(page.header, "$HOST", addresses[listener]), "|") {
					if name, value, found := strings.Cut(h, ": "); found {
						request.Header.Set(name, value)
					}
				}
				response, err := client.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				_ = response.Body.Close()
				got := response.StatusCode
				if want == through && (got == refused || got == misdirected) || want != through && got != want {
					t.Errorf("%s at %s: %s is %d", page.name, listener, line, got)
				}
				if want != through && response.Header.Get("Content-Type") != "application/problem+json" {
					t.Errorf("%s at %s: %s is refused as %s", page.name, listener, line, response.Header.Get("Content-Type"))
				}
			}
		}
	}
	if n := s.Members(); n != 1 {
		t.Errorf("there are %d members now", n)
	}
	for _, value := range []string{"https://evil.example", "http://127.0.0.1:1"} {
		// Once by the guard of clients, once by that of peers.
		if n := strings.Count(log.String(), fmt.Sprintf(`"origin":%q,"host":"127`, value)); n != 2 {
			t.Errorf("%s was logged %d times:\n%s", value, n, log.String())
		}
	}
}

func TestGuardSettings(t *testing.T) {
	for _, test := range []struct {
		hosts, origins []string
		setting        string
	}{
		{hosts: []string{"chat.example:443"}, setting: "allowed-hosts"},
		{hosts: []string{"https://chat.example"}, setting: "allowed-hosts"},
		{hosts: []string{"a", "b c"}, setting: "allowed-hosts"},
		{origins: []string{"https://chat.example/"}, setting: "allowed-origins"},
		{origins: []string{"https://*.example"}, setting: "allowed-origins"},
		{hosts: []string{"chat.example", "*.example", ".example", "*", "10.0.0.1"}, origins: []string{"https://a.example", "b.example:8443", "null", "*"}},
	} {
		c := Config{ID: 1, DataDir: t.TempDir(), Cluster: []Peer{{ID: 1, URL: "http://127.0.0.1:12379"}}, AllowedHosts: test.hosts, AllowedOrigins: test.origins}
		err := c.Validate()
		if (err == nil) != (test.setting == "") || err != nil && !strings.HasPrefix(err.Error(), test.setting+": ") {
			t.Errorf("%q and %q: %v", test.hosts, test.origins, err)
		}
	}
}
