package webguard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// request makes a request with header lines of the form "Name: value".
func request(method, host string, header ...string) *http.Request {
	r := httptest.NewRequest(method, "/rooms/r", nil)
	r.Host = host
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// status is what Judge answers; 200 stands for going on.
func status(g *Guard, r *http.Request) int {
	if v := g.Judge(http.Header{}, r); v != nil {
		return v.Status
	}
	return 200
}

func TestHosts(t *testing.T) {
	g := New(Options{
		Own: []string{"https://own.example:9443", "grpc.example:9000", "bare.example", "0.0.0.0:12380", ":1", "", "http://[::1]:1"},
		AllowedHosts: []string{"chat.example", "Upper.Example", "full.example.", "*.below.example", ".all.example", "192.0.2.1",
			"under_score", "xn--bcher-kva.example"},
	})
	for host, passes := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:12380": true, "10.1.2.3:80": true, "[::1]": true, "[::1]:12380": true, "[2001:db8::1]:": true,
		"[fe80::1%25eth0]:1": true, "0.0.0.0:1": true, "127.0.0.1.": true,
		"localhost": true, "LOCALHOST:12380": true, "localhost.": true, "a.localhost": true, "a.b.localhost:1": true, "a.localhost.:1": true,
		"own.example": true, "own.example:1": true, "grpc.example": true, "bare.example:7": true,
		"chat.example": true, "chat.example:8443": true, "CHAT.Example.": true, "upper.example": true, "full.example": true, "under_score:1": true,
		"xn--bcher-kva.example": true,
		"a.below.example":       true, "a.b.below.example:1": true, "below.example": false, "xbelow.example": false,
		"all.example": true, "a.all.example": true, "xall.example": false,

		"notlocalhost": true, "raft-chat-1:12380": true, "x": true, // to programs

		"evil.example": false, "evil.example:12380": false, "chat.example.evil": false, "evilchat.example": false, "a.chat.example": false,
		"localhost.evil.example": false, "127.0.0.1.evil.example": false, "127.0.0.1.nip.io": false,
		"localhost:12380:1": false, "localhost:x": false, "localhost:123456": false, "[::1": false, "[::1]x": false, "[localhost]": false,
		"chat.example@evil.example": false, "user@localhost": false, "a b": false, ".": false, ":80": false, "bücher.example": false,
		"localhost,evil.example": false, "localhost/": false, "..localhost": false, ".localhost": false,
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "X"} {
			if got := status(g, request(method, host)); (got == 200) != passes || got != 200 && got != http.StatusMisdirectedRequest {
				t.Errorf("%s with Host %q: %d", method, host, got)
			}
		}
	}
	for _, header := range []string{"Origin: http://nas", "Origin: null", "Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin",
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"} {
		for _, host := range []string{"nas", "nas:12380", "NAS."} {
			if got := status(g, request("GET", host, header)); got != http.StatusMisdirectedRequest {
				t.Errorf("%s with Host %s: %d", header, host, got)
			}
		}
	}
	everybody := New(Options{AllowedHosts: []string{"*"}})
	if got := status(everybody, request("POST", "any.example:1")); got != 200 {
		t.Errorf("any host: %d", got)
	}
	if got := status(everybody, request("POST", "a@b")); got != http.StatusMisdirectedRequest {
		t.Errorf("no host at all: %d", got)
	}
	// HTTP/1.0
	for header, passes := range map[string]bool{"X: y": true, "Origin: http://localhost": false, "Origin: null": false, "Sec-Fetch-Site: none": false} {
		if got := status(g, request("GET", "", header)); (got == 200) != passes {
			t.Errorf("%s without a Host: %d", header, got)
		}
	}
	if v := g.Judge(http.Header{}, request("GET", "evil.example")); !strings.Contains(v.Detail, "--allowed-hosts") || !strings.Contains(v.Detail, `"evil.example"`) {
		t.Errorf("detail: %s", v.Detail)
	}
}

// pages are who may ask, and what is decided about a change of state.
var pages = []struct {
	name    string
	host    string
	header  string // lines joined by |
	refused bool
	cors    bool
}{
	{name: "no browser", host: "127.0.0.1:12380"},
	{name: "no browser with a cookie", host: "127.0.0.1:12380", header: "Cookie: a=b"},
	{name: "typed by the user", host: "127.0.0.1:12380", header: "Sec-Fetch-Site: none"},
	{name: "own page", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:12380|Sec-Fetch-Site: same-origin"},
	{name: "own page of an older browser", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:12380"},
	{name: "own page without Origin", host: "127.0.0.1:12380", header: "Sec-Fetch-Site: same-origin"},
	{name: "own page, IPv6", host: "[::1]:12380", header: "Origin: http://[::1]:12380"},
	{name: "own page behind TLS", host: "chat.example", header: "Origin: https://chat.example|Sec-Fetch-Site: same-origin"},
	{name: "own page behind TLS, port given", host: "chat.example:443", header: "Origin: https://chat.example"},
	{name: "own page, port 80 given", host: "chat.example:80", header: "Origin: http://chat.example"},
	{name: "own page, port given in the origin", host: "chat.example", header: "Origin: https://chat.example:443"},
	{name: "own page, http port given in the origin", host: "chat.example", header: "Origin: http://chat.example:80"},
	{name: "own page behind TLS at another port", host: "chat.example:8443", header: "Origin: https://chat.example:8443"},
	{name: "own page in capitals", host: "Chat.Example", header: "Origin: https://CHAT.EXAMPLE"},
	{name: "own page with a full name", host: "chat.example.", header: "Origin: https://chat.example."},
	{name: "origin of a socket", host: "chat.example:443", header: "Origin: wss://chat.example"},
	{name: "own page by its scheme same-site", host: "chat.example", header: "Origin: https://chat.example|Sec-Fetch-Site: same-site"},
	{name: "advertised origin behind a proxy that changes Host", host: "127.0.0.1:12380", header: "Origin: https://own.example"},

	{name: "foreign page", host: "127.0.0.1:12380", header: "Origin: https://evil.example|Sec-Fetch-Site: cross-site", refused: true},
	{name: "foreign page of an older browser", host: "127.0.0.1:12380", header: "Origin: https://evil.example", refused: true},
	{name: "foreign page without Origin", host: "127.0.0.1:12380", header: "Sec-Fetch-Site: cross-site", refused: true},
	{name: "page of another port", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:41793|Sec-Fetch-Site: same-site", refused: true},
	{name: "page of another port without Origin", host: "127.0.0.1:12380", header: "Sec-Fetch-Site: same-site", refused: true},
	{name: "page of the same address under another name", host: "127.0.0.1:12380", header: "Origin: http://localhost:12380", refused: true},
	{name: "page of the standard port", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1", refused: true},
	{name: "other standard port", host: "chat.example:80", header: "Origin: https://chat.example", refused: true},
	{name: "other standard port, given", host: "chat.example", header: "Origin: https://chat.example:80", refused: true},
	{name: "null", host: "127.0.0.1:12380", header: "Origin: null", refused: true},
	{name: "empty origin", host: "127.0.0.1:12380", header: "Origin: ", refused: true},
	{name: "no origin", host: "127.0.0.1:12380", header: "Origin: %", refused: true},
	{name: "origin with a user", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:12380@evil.example", refused: true},
	{name: "origin with a path", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:12380/", refused: true},
	{name: "host alone as origin", host: "127.0.0.1:12380", header: "Origin: 127.0.0.1:12380", refused: true},
	{name: "two origins", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:12380|Origin: https://evil.example", refused: true},
	{name: "list of origins", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:12380 https://evil.example", refused: true},
	{name: "own origin by way of another site", host: "127.0.0.1:12380", header: "Origin: http://127.0.0.1:12380|Sec-Fetch-Site: cross-site", refused: true},
	{name: "unknown site", host: "127.0.0.1:12380", header: "Sec-Fetch-Site: elsewhere", refused: true},
	{name: "two sites", host: "127.0.0.1:12380", header: "Sec-Fetch-Site: same-origin|Sec-Fetch-Site: cross-site", refused: true},
	{name: "app of the same host", host: "localhost", header: "Origin: ionic://localhost", refused: true},
	{name: "own origin of a proxy that tells so itself", host: "127.0.0.1:12380", header: "Origin: https://evil.example|X-Forwarded-Host: evil.example|Forwarded: host=evil.example", refused: true},

	{name: "allowed page", host: "127.0.0.1:12380", header: "Origin: https://app.example|Sec-Fetch-Site: cross-site", cors: true},
	{name: "allowed page, port given", host: "127.0.0.1:12380", header: "Origin: https://app.example:443", cors: true},
	{name: "allowed with its port, page without", host: "127.0.0.1:12380", header: "Origin: https://port.example", cors: true},
	{name: "allowed in capitals", host: "127.0.0.1:12380", header: "Origin: https://upper.example", cors: true},
	{name: "allowed without a scheme", host: "127.0.0.1:12380", header: "Origin: http://bare.example:8443", cors: true},
	{name: "allowed without a scheme, TLS", host: "127.0.0.1:12380", header: "Origin: https://bare.example:8443", cors: true},
	{name: "allowed without scheme and port", host: "127.0.0.1:12380", header: "Origin: https://barest.example", cors: true},
	{name: "allowed app", host: "127.0.0.1:12380", header: "Origin: capacitor://localhost", cors: true},
	{name: "allowed host, other scheme", host: "127.0.0.1:12380", header: "Origin: http://app.example", refused: true},
	{name: "allowed host, other port", host: "127.0.0.1:12380", header: "Origin: https://app.example:8443", refused: true},
	{name: "allowed bare host, other port", host: "127.0.0.1:12380", header: "Origin: https://bare.example", refused: true},
	{name: "longer than an allowed one", host: "127.0.0.1:12380", header: "Origin: https://app.example.evil.example", refused: true},
	{name: "below an allowed one", host: "127.0.0.1:12380", header: "Origin: https://a.app.example", refused: true},
}

func guardOfPages() *Guard {
	return New(Options{
		Own: []string{"https://own.example", "chat.example:1"},
		AllowedOrigins: []string{"https://app.example", "https://port.example:443", "HTTPS://Upper.Example", "bare.example:8443", "barest.example",
			"capacitor://localhost"},
	})
}

func TestPages(t *testing.T) {
	g := guardOfPages()
	for _, test := range pages {
		header := strings.Split(test.header, "|")
		want := map[bool]int{false: 200, true: http.StatusForbidden}[test.refused]
		for _, method := range []string{"POST", "DELETE", "PUT", "PATCH", "X", "post"} {
			if got := status(g, request(method, test.host, header...)); got != want {
				t.Errorf("%s: %s is %d, want %d", test.name, method, got, want)
			}
		}
		// The answer to a plain read is for the browser to keep from the page.
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			h := http.Header{}
			r := request(method, test.host, header...)
			if v := g.Judge(h, r); v != nil {
				t.Errorf("%s: %s is %d", test.name, method, v.Status)
			}
			if got := h.Get("Access-Control-Allow-Origin"); (got != "") != test.cors || test.cors && got != r.Header.Get("Origin") {
				t.Errorf("%s: %s gives Access-Control-Allow-Origin %q", test.name, method, got)
			}
			if h.Get("Vary") != "Origin" || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: %s gives %v", test.name, method, h)
			}
			stream := 200
			if v := g.JudgeStream(r); v != nil {
				stream = v.Status
			}
			if stream != want {
				t.Errorf("%s: %s of a stream is %d, want %d", test.name, method, stream, want)
			}
		}
		if got := status(g, request("GET", test.host, append(header, "Connection: Upgrade", "Upgrade: websocket")...)); got != want {
			t.Errorf("%s: handshake is %d, want %d", test.name, got, want)
		}
		preflight := want
		if test.cors {
			preflight = http.StatusNoContent
		}
		if got := status(g, request("OPTIONS", test.host, append(header, "Access-Control-Request-Method: POST")...)); got != preflight {
			t.Errorf("%s: preflight is %d, want %d", test.name, got, preflight)
		}
		strict := New(Options{Own: []string{"https://own.example", "chat.example:1"}, Strict: true})
		if got := status(strict, request("GET", test.host, header...)); (got == 200) != (!test.refused && !test.cors) {
			t.Errorf("%s: strict GET is %d", test.name, got)
		}
	}
	if v := g.Judge(http.Header{}, request("POST", "127.0.0.1:1", "Origin: https://evil.example")); !strings.Contains(v.Detail, "--allowed-origins") ||
		!strings.Contains(v.Detail, "https://evil.example") || !strings.Contains(v.Detail, "127.0.0.1:1") {
		t.Errorf("detail: %s", v.Detail)
	}
}

// A link in another page may lead to a stream; a frame in it may not.
func TestFollowedLinks(t *testing.T) {
	g := guardOfPages()
	for header, refused := range map[string]bool{
		"Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document":                              false,
		"Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: iframe":                                true,
		"Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: document":                               true,
		"Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: no-cors|Sec-Fetch-Dest: image":                                  true,
		"Origin: https://evil.example|Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: document": true,
	} {
		if v := g.JudgeStream(request("GET", "127.0.0.1:1", strings.Split(header, "|")...)); (v != nil) != refused {
			t.Errorf("%s: %v", header, v)
		}
	}
}

func TestEveryOrigin(t *testing.T) {
	for text, null := range map[string]bool{"*": true, "null": true, "https://app.example": false} {
		g := New(Options{AllowedOrigins: []string{text}})
		if got := status(g, request("POST", "127.0.0.1:1", "Origin: null")); (got == 200) != null {
			t.Errorf("%s: null is %d", text, got)
		}
		if got := status(g, request("POST", "127.0.0.1:1", "Origin: https://evil.example")); (got == 200) != (text == "*") {
			t.Errorf("%s: any origin is %d", text, got)
		}
	}
	// Who asks under a foreign name is refused before.
	g := New(Options{AllowedOrigins: []string{"*"}})
	if got := status(g, request("POST", "evil.example", "Origin: http://evil.example")); got != http.StatusMisdirectedRequest {
		t.Errorf("rebound name: %d", got)
	}
}

func TestPreflight(t *testing.T) {
	g := guardOfPages()
	h := http.Header{}
	v := g.Judge(h, request("OPTIONS", "127.0.0.1:1", "Origin: https://app.example", "Access-Control-Request-Method: DELETE",
		"Access-Control-Request-Headers: content-type,x-user", "Access-Control-Request-Private-Network: true"))
	if v == nil || v.Status != http.StatusNoContent {
		t.Fatalf("preflight: %+v", v)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":          "https://app.example",
		"Access-Control-Allow-Methods":         "GET, HEAD, POST, DELETE",
		"Access-Control-Allow-Headers":         "Content-Type, X-User, X-Client-Message-ID, Idempotency-Key, Last-Event-ID, X-Request-Id, Cache-Control",
		"Access-Control-Max-Age":               "600",
		"Access-Control-Allow-Private-Network": "true",
		"Vary":                                 "Origin",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	h = http.Header{}
	if v := g.Judge(h, request("OPTIONS", "127.0.0.1:1", "Origin: https://evil.example", "Access-Control-Request-Method: DELETE",
		"Access-Control-Request-Private-Network: true")); v == nil || v.Status != http.StatusForbidden || len(h) != 1 {
		t.Errorf("preflight of a foreign page: %+v %v", v, h)
	}
}

func TestWrap(t *testing.T) {
	handled := 0
	handler := New(Options{AllowedOrigins: []string{"https://app.example"}}).Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { handled++ }))
	for _, test := range []struct {
		request *http.Request
		status  int
		code    string
	}{
		{request("POST", "127.0.0.1:1"), 200, ""},
		{request("POST", "evil.example"), 421, CodeMisdirected},
		{request("POST", "127.0.0.1:1", "Origin: https://evil.example\"<"), 403, CodeOriginNotAllowed},
		{request("OPTIONS", "127.0.0.1:1", "Origin: https://app.example", "Access-Control-Request-Method: POST"), 204, ""},
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, test.request)
		if w.Code != test.status {
			t.Errorf("%s %v: %d", test.request.Host, test.request.Header, w.Code)
		}
		if test.code == "" {
			continue
		}
		var p struct {
			Type, Title, Detail, Code string
			Status                    int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code != test.code || p.Status != test.status || p.Title == "" ||
			p.Type != "about:blank" || p.Detail == "" || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %v %s", test.request.Host, w.Header(), w.Body)
		}
	}
	if handled != 1 {
		t.Errorf("%d requests came through", handled)
	}
}

func TestChecks(t *testing.T) {
	for text, fine := range map[string]bool{
		"*": true, "null": true, "https://app.example": true, "http://app.example:8080": true, "app.example": true, "app.example:8443": true,
		"http://[::1]:1": true, "127.0.0.1:1": true, "chrome-extension://abcdef": true, "HTTPS://A.example": true,
		"": false, "https://": false, "https://app.example/": false, "https://app.example/path": false, "https://a.example?x": false,
		"https://*.example": false, "*.example": false, "https://u@a.example": false, "https://a.example:x": false, "://a": false, "a b": false,
		"http//a": false, "https://a.example#": false, "file://": false, "https://bücher.example": false, "1http://a": false,
	} {
		if err := CheckOrigin(text); (err == nil) != fine {
			t.Errorf("origin %q: %v", text, err)
		}
	}
	for text, fine := range map[string]bool{
		"*": true, "a.example": true, "*.example": true, ".example": true, "A.Example.": true, "localhost": true, "10.0.0.1": true, "::1": true,
		"": false, "a.example:80": false, "http://a.example": false, "*a.example": false, "*.*.example": false, "a.*": false, "**": false, "*.": false,
		".": false, "..example": false, "a/b": false, "bücher.example": false, "a b": false, "[::1]:1": false, "*:80": false,
	} {
		if err := CheckHost(text); (err == nil) != fine {
			t.Errorf("host %q: %v", text, err)
		}
	}
	for _, o := range []Options{{AllowedHosts: []string{"a:1"}}, {AllowedOrigins: []string{"https://a/"}}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v is taken", o)
				}
			}()
			New(o)
		}()
	}
}

// A refusal is told once an hour, and who refuses to stop cannot fill the log.
func TestRefusalsAreLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := New(Options{Logger: slog.New(slog.NewJSONHandler(&log, nil))})
		lines := func() []string {
			defer log.Reset()
			return strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
		}
		for range 3 {
			status(g, request("POST", "127.0.0.1:1", "Origin: https://chat.example"))
			status(g, request("POST", "127.0.0.1:2", "Origin: https://chat.example"))
			status(g, request("POST", "chat.example"))
			status(g, request("DELETE", "127.0.0.1:1", "Sec-Fetch-Site: cross-site"))
		}
		got := lines()
		if len(got) != 3 {
			t.Fatalf("%d lines: %s", len(got), got)
		}
		for i, want := range []string{"keep the Host header", "--allowed-hosts", "--allowed-origins"} {
			if !strings.Contains(got[i], want) || !strings.Contains(got[i], `"level":"WARN"`) {
				t.Errorf("line %d: %s", i, got[i])
			}
		}
		for i := range 1000 {
			status(g, request("POST", fmt.Sprint("a", i, ".example")))
			status(g, request("POST", "127.0.0.1:1", "Origin: "+strings.Repeat("x", 10_000)+fmt.Sprint(i)))
		}
		got = lines()
		if len(got) != maxRefusals-3 {
			t.Errorf("%d lines", len(got))
		}
		for _, line := range got {
			if len(line) > 2000 {
				t.Errorf("line of %d bytes", len(line))
			}
		}
		time.Sleep(refusalPeriod)
		status(g, request("POST", "chat.example"))
		if got = lines(); len(got) != 1 || !strings.Contains(got[0], "chat.example") {
			t.Errorf("an hour later: %s", got)
		}
	})
}

// Whatever a client sends is judged without a panic, and a page of another origin never passes as one of this node.
func FuzzJudge(f *testing.F) {
	for _, test := range pages {
		for _, line := range strings.Split(test.header, "|") {
			_, value, _ := strings.Cut(line, ": ")
			f.Add(test.host, value)
		}
	}
	f.Fuzz(func(t *testing.T, host, from string) {
		g := New(Options{AllowedHosts: []string{".example"}})
		r := request("POST", host)
		r.Header["Origin"] = []string{from}
		if g.Judge(http.Header{}, r) != nil {
			return
		}
		o, ok := parseOrigin(from)
		name, port, named := splitHost(host)
		if !ok || !named || o.host != name || port != "" && o.port != port {
			t.Errorf("host %q takes a page of %q", host, from)
		}
	})
}
