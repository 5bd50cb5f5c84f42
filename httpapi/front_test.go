package httpapi

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/raft-chat/raft-chat/chat"
)

// actor is who the tests ask as.
var actor chat.Actor

func binaryPost(room string, payload []byte) chat.PostRequest {
	return chat.PostRequest{Room: room, User: "u", Payload: payload, AllowBytes: true}
}

func TestNegotiation(t *testing.T) {
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
	tests := []struct {
		accept []string
		html   bool // without a word from the browser
	}{
		{nil, false},
		{[]string{"*/*"}, false},
		{[]string{""}, false},
		{[]string{browser}, true},
		{[]string{"text/html"}, false},
		{[]string{"TEXT/HTML ; level=1"}, false},
		{[]string{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}, false}, // HttpURLConnection of older JDKs
		{[]string{"text/html, text/plain, */*"}, false},
		{[]string{"application/xml, text/html"}, false},
		{[]string{"application/xhtml+xml"}, true},
		{[]string{"image/png", "APPLICATION/xhtml+XML ; level=1"}, true},
		{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, true},
		{[]string{"text/html, application/xhtml+xml;q=0"}, false},
		{[]string{"application/json"}, false},
		{[]string{"application/json, text/html;q=0.9"}, false},
		{[]string{"application/json, application/xhtml+xml;q=0.9"}, false},
		{[]string{"application/json;q=0.5, application/xhtml+xml;q=0.9"}, true},
		{[]string{"application/json, application/xhtml+xml"}, false},
		{[]string{"application/xhtml+xml, application/json"}, true},
		{[]string{"text/html;q=0"}, false},
		{[]string{"text/html;q=x"}, false},
		{[]string{"text/html;q=2"}, false},
		{[]string{"text/htmlx"}, false},
		{[]string{"text/*"}, false},
		{[]string{"image/png"}, false},
		{[]string{";;,,q=1"}, false},
	}
	for _, test := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Accept"] = test.accept
		if got := wantsHTML(r); got != test.html {
			t.Errorf("Accept %q: HTML is %v", test.accept, got)
		}
	}

	for _, test := range []struct {
		accept, dest string
		html         bool
	}{
		{"text/html", "document", true}, {browser, "document", true}, {"text/html, application/json", "document", true}, {browser, "empty", true},
		{"text/html", "empty", false}, {"*/*", "document", true}, {"*/*", "empty", false}, {"", "document", true},
		{"text/html;q=0", "document", false}, {"application/json", "document", false}, {"application/*", "document", false},
		{"application/json, text/html", "document", false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", test.accept)
		r.Header.Set("Sec-Fetch-Dest", test.dest)
		if got := wantsHTML(r); got != test.html {
			t.Errorf("Accept %q for %s: HTML is %v", test.accept, test.dest, got)
		}
	}

	n := newNode(t, nil)
	n.post("r", "u", "m")
	for _, path := range []string{"/rooms", "/rooms/r", "/rooms/r/1", "/rooms/not%20yet", "/"} {
		page := n.do("GET", path, "", "Accept", browser)
		if page.status != 200 || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") || !strings.Contains(page.body, "<title>") {
			t.Errorf("%s for a browser: %d %v", path, page.status, page.header)
		}
		if path != "/" && page.header.Get("Vary") != "Accept, Sec-Fetch-Dest" {
			t.Errorf("%s for a browser: Vary is %q", path, page.header.Get("Vary"))
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
			"Referrer-Policy":         "no-referrer",
			"X-Content-Type-Options":  "nosniff",
			"Cache-Control":           "no-cache",
		} {
			if got := page.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
}

func TestAssets(t *testing.T) {
	n := newNode(t, nil)
	for name, kind := range map[string]string{
		"app.js": "text/javascript; charset=utf-8", "style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		got := n.do("GET", "/_/"+name, "")
		tag := got.header.Get("ETag")
		if got.status != 200 || got.header.Get("Content-Type") != kind || tag == "" || got.body == "" || got.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
		for _, known := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
			if again := n.do("GET", "/_/"+name, "", "If-None-Match", known); again.status != http.StatusNotModified || again.body != "" {
				t.Errorf("%s with %s: %d", name, known, again.status)
			}
		}
		if again := n.do("GET", "/_/"+name, "", "If-None-Match", `"x"`); again.status != 200 {
			t.Errorf("%s with another tag: %d", name, again.status)
		}
	}
}

func TestRequestIDs(t *testing.T) {
	n := newNode(t, func(o *Options) { o.NodeName = "näme\n1" })
	seen := make(map[string]bool)
	for range 3 {
		id := n.do("GET", "/livez", "").header.Get("X-Request-Id")
		if id == "" || seen[id] {
			t.Errorf("request id %q", id)
		}
		seen[id] = true
	}
	for given, taken := range map[string]bool{
		"abc-1": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "a b": false, "ü": false,
	} {
		if got := n.do("GET", "/none/at/all", "", "X-Request-Id", given).header.Get("X-Request-Id"); (got == given) != taken {
			t.Errorf("id %q came back as %q", given, got)
		}
	}
	if got := n.do("GET", "/livez", "").header.Get("X-Raft-Chat-Node"); got != "n__me_1" {
		t.Errorf("node is %q", got)
	}
}

func TestHealth(t *testing.T) {
	n := newNode(t, nil)
	health := httptest.NewServer(n.server.HealthHandler())
	defer health.Close()
	alone := *n
	alone.url = health.URL
	applied := func() string {
		index, hash := n.service.StateHash()
		return fmt.Sprintf(`,"applied_index":%d,"state_hash":"%016x"}`+"\n", index, hash)
	}
	empty := applied()
	if got := n.do("POST", "/rooms/r", `{"User":"ann","Message":"m"}`); got.status != 201 {
		t.Fatalf("post: %d %s", got.status, got.body)
	}
	if applied() == empty {
		t.Errorf("a message does not change the state %s", empty)
	}
	for _, n := range []*node{n, &alone} {
		n.cluster.set(func(c *fakeCluster) { c.status, c.ready, c.sync = newFakeCluster().status, nil, nil })
		if got := n.do("GET", "/health", ""); got.status != 200 || got.body !=
			`{"node_id":"node1","role":"follower","is_leader":false,"leader_id":"node2","leader_raft_addr":"127.0.0.1:7001","leader_grpc_addr":"127.0.0.1:9001"`+applied() {
			t.Errorf("follower: %d %s", got.status, got.body)
		}
		n.cluster.set(func(c *fakeCluster) { c.status = Status{NodeID: 3, Role: "leader", LeaderID: 3} })
		if got := n.do("GET", "/health", ""); got.body != `{"node_id":"3","role":"leader","is_leader":true,"leader_id":"3"`+applied() {
			t.Errorf("nameless leader: %s", got.body)
		}
		n.cluster.set(func(c *fakeCluster) { c.status = Status{NodeID: 1, Name: "node1", Role: "candidate"} })
		if got := n.do("GET", "/health", ""); got.status != 200 || got.body != `{"node_id":"node1","role":"candidate","is_leader":false`+applied() {
			t.Errorf("without a leader: %d %s", got.status, got.body)
		}
		for _, path := range []string{"/livez", "/readyz", "/readyz?sync", "/readyz?sync=true"} {
			if got := n.do("GET", path, ""); got.status != 200 || got.body != "ok\n" {
				t.Errorf("%s: %d %s", path, got.status, got.body)
			}
		}
		n.cluster.set(func(c *fakeCluster) { c.sync = codedError("no_leader") })
		if got := n.do("GET", "/readyz", ""); got.status != 200 {
			t.Errorf("readyz without sync: %d", got.status)
		}
		if status, code, _ := problemIn(t, n.do("GET", "/readyz?sync", "")); status != 503 || code != "not_ready" {
			t.Errorf("readyz with sync: %d %s", status, code)
		}
		n.cluster.set(func(c *fakeCluster) { c.ready = codedError("leader unknown") })
		if status, code, detail := problemIn(t, n.do("GET", "/readyz", "")); status != 503 || code != "not_ready" || !strings.Contains(detail, "leader unknown") {
			t.Errorf("readyz: %d %s %s", status, code, detail)
		}
		if got := n.do("GET", "/livez", ""); got.status != 200 {
			t.Errorf("livez: %d", got.status)
		}
	}
	if status, code, _ := problemIn(t, alone.do("GET", "/rooms", "")); status != 404 || code != "not_found" {
		t.Errorf("rooms on the health listener: %d %s", status, code)
	}
}

func TestMembership(t *testing.T) {
	n := newNode(t, nil)
	if got := n.do("GET", "/raft", ""); got.status != 200 || got.body != `[{"ID":1,"Name":"node1","PeerURL":"http://127.0.0.1:7000","ClientURL":"","GRPCAddr":"","Role":"follower","Match":9,"Lag":1,"Active":true},`+
		`{"ID":2,"Name":"node2","PeerURL":"http://127.0.0.1:7001","ClientURL":"","GRPCAddr":"","Role":"leader","Match":10,"Lag":0,"Active":true}]`+"\n" {
		t.Errorf("members: %d %s", got.status, got.body)
	}
	for _, test := range []struct{ method, path, body, call string }{
		{"POST", "/raft/4", "http://127.0.0.1:42379", "add 4 http://127.0.0.1:42379 false"},
		{"POST", "/raft/5?learner=true", " http://node-5.example:42379/\n", "add 5 http://node-5.example:42379 true"},
		{"POST", "/raft/6?learner", "HTTP://[0::1]:042379/", "add 6 http://[::1]:42379 true"},
		{"POST", "/raft/7?learner=false", "http://n_7:1", "add 7 http://n_7:1 false"},
		{"POST", "/raft/5/promote", "", "promote 5"},
		{"POST", "/raft/leader", `{"ID":2}`, "transfer 2"},
		{"DELETE", "/raft/3", "", "remove 3"},
		{"DELETE", "/raft/18446744073709551613", "", "remove 18446744073709551613"},
	} {
		n.cluster.set(func(c *fakeCluster) { c.calls, c.failure = nil, nil })
		got := n.do(test.method, test.path, test.body, "Content-Type", "application/x-www-form-urlencoded")
		n.cluster.set(func(c *fakeCluster) {
			if got.status != http.StatusNoContent || got.body != "" || len(c.calls) != 1 || c.calls[0] != test.call {
				t.Errorf("%s %s: %d %s, calls %q", test.method, test.path, got.status, got.body, c.calls)
			}
		})
		for code, status := range map[string]int{
			"member_id_invalid": 400, "member_url_invalid": 400, "member_exists": 409, "member_id_used": 409, "member_limit_reached": 409, "member_not_found": 404,
			"learner_not_ready": 409, "quorum_at_risk": 409, "no_leader": 503, "outcome_unknown": 503, "leader_transfer_failed": 503, "stopping": 503,
		} {
			n.cluster.set(func(c *fakeCluster) { c.failure = codedError(code) })
			if is, got, _ := problemIn(t, n.do(test.method, test.path, test.body)); is != status || got != code {
				t.Errorf("%s %s failing with %s: %d %s", test.method, test.path, code, is, got)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	n := newNode(t, func(o *Options) { o.Registry = registry })
	n.post("r", "u", "m")
	n.do("POST", "/rooms/r", "{}")
	n.do("GET", "/none/at/all/", "")
	got := n.do("GET", "/metrics", "")
	for _, line := range []string{
		`raft_chat_http_requests_total{class="2xx",route="/rooms/{room}"} 1`,
		`raft_chat_http_requests_total{class="4xx",route="/rooms/{room}"} 1`,
		`raft_chat_http_requests_total{class="3xx",route="other"} 1`,
		`raft_chat_http_streams 0`,
	} {
		if !strings.Contains(got.body, line+"\n") {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func TestPanic(t *testing.T) {
	var log bytes.Buffer
	n := newNode(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	broken := n.server.newRouter([]route{
		{pattern: "/early", get: func(http.ResponseWriter, *http.Request) *problem { panic("out of cheese") }},
		{pattern: "/late", get: func(w http.ResponseWriter, _ *http.Request) *problem {
			w.WriteHeader(http.StatusOK)
			panic("too late")
		}},
	})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { n.server.serve(broken, w, r) }))
	defer front.Close()
	sick := *n
	sick.url = front.URL
	got := sick.do("GET", "/early", "")
	if status, code, _ := problemIn(t, got); status != 500 || code != "internal" || strings.Contains(got.body, "cheese") {
		t.Errorf("early panic: %s", got.body)
	}
	if response, err := n.client.Get(front.URL + "/late"); err == nil {
		response.Body.Close()
		t.Errorf("late panic: a whole answer with status %d", response.StatusCode)
	}
	front.Close()
	for _, word := range []string{"out of cheese", "too late", "front_test.go"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("log lacks %q:\n%s", word, log.String())
		}
	}
}

func TestNewRefusesMistakes(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New took options without a service")
		}
	}()
	New(Options{Cluster: newFakeCluster()})
}
