package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// example returns the first fenced block of a language in docs/proxies.md.
func example(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "proxies.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(page), "\n```"+language+"\n")
	block, _, closed := strings.Cut(block, "\n```\n")
	if !found || !closed {
		t.Fatalf("docs/proxies.md has no example of %s", language)
	}
	return block + "\n"
}

// replace replaces what a pattern matches, once or more.
func replace(t *testing.T, text, pattern, by string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	if !re.MatchString(text) {
		t.Fatalf("no %s in %s", pattern, text)
	}
	return re.ReplaceAllString(text, by)
}

// The examples of the page do what it says: pages of the public name may write, messages come through streams and
// WebSockets at once, and other pages are refused. The proxies listen on sockets of the file system, so no port is needed.
func TestProxyExamples(t *testing.T) {
	slow.Test(t)
	for _, proxy := range []struct {
		name      string
		configure func(t *testing.T, dir, socket, node string) (config string, args []string)
	}{
		{"nginx", func(t *testing.T, dir, socket, node string) (string, []string) {
			block := replace(t, example(t, "nginx"), `(?m)^\s+server 127\.0\.0\.1:\d+;\n`, "")
			block = replace(t, block, `upstream raft_chat \{\n`, "upstream raft_chat {\nserver "+node+";\n")
			block = replace(t, block, `listen 443 ssl http2;`, "listen unix:"+socket+";")
			block = replace(t, block, `(?m)^\s+ssl_.*\n`, "")
			temporary := ""
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temporary += kind + "_temp_path " + filepath.Join(dir, kind) + ";\n"
			}
			return "daemon off; master_process off; pid " + filepath.Join(dir, "pid") + "; error_log stderr; events {}\nhttp {\naccess_log off;\n" + temporary + block + "}\n",
				[]string{"-p", dir, "-e", "stderr", "-c"}
		}},
		{"haproxy", func(t *testing.T, _, socket, node string) (string, []string) {
			block := replace(t, example(t, "haproxy"), `(?m)^\s+server node[23] .*\n`, "")
			block = replace(t, block, `server node1 127\.0\.0\.1:12380 check`, "server node1 "+node+" check inter 200ms")
			return replace(t, block, `bind :443 .*`, "bind unix@"+socket), []string{"-db", "-f"}
		}},
		{"caddy", func(t *testing.T, _, socket, node string) (string, []string) {
			block := replace(t, example(t, "caddy"), `127\.0\.0\.1:12380.* \{`, node+" {")
			block = replace(t, block, `(?m)^chat\.example \{\n`, "http://chat.example {\nbind unix/"+socket+"\n")
			return "{\nadmin off\nauto_https off\n}\n" + block, []string{"run", "--adapter", "caddyfile", "--config"}
		}},
	} {
		t.Run(proxy.name, func(t *testing.T) {
			program, err := exec.LookPath(proxy.name)
			if err != nil {
				if program, err = exec.LookPath("/usr/sbin/" + proxy.name); err != nil {
					t.Skipf("%s is not installed", proxy.name)
				}
			}
			node := openBehindProxy(t)
			// Short, because the name of a socket is.
			dir, err := os.MkdirTemp("", "proxy")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			socket, file := filepath.Join(dir, "socket"), filepath.Join(dir, "config")
			config, args := proxy.configure(t, dir, socket, node)
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			startProxy(t, dir, program, append(args, file)...)
			checkProxy(t, socket)
		})
	}
}

// openBehindProxy starts a node that knows the name of the page, and returns its address.
func openBehindProxy(t *testing.T) string {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	api, peers := listen(), listen()
	s, err := Open(t.Context(), Config{
		ID: 1, DataDir: t.TempDir(), APIListener: api, PeerListener: peers, MinFreeBytes: -1,
		Cluster: []Peer{{ID: 1, URL: "http://" + peers.Addr().String()}}, AllowedHosts: []string{"chat.example"},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return api.Addr().String()
}

// startProxy runs a program until the test ends. Its words are shown if the test fails.
func startProxy(t *testing.T, home, program string, args ...string) {
	t.Helper()
	var words bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &words, &words
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME="+home, "XDG_CONFIG_HOME="+home)
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // a graceful stop can wait for streams
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Errorf("%s: %v", program, err)
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", program, words.String())
		}
	})
}

func checkProxy(t *testing.T, socket string) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	do := func(method, path, body, origin string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(ctx, method, "http://chat.example"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			request.Header.Set("Origin", origin)
		}
		return client.Do(request)
	}
	post := func(text, origin string) int {
		response, err := do("POST", "/rooms/r", `{"Message":"`+text+`","User":"u"}`, origin)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	for { // until proxy and node are up
		response, err := do("GET", "/readyz", "", "")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == 200 {
				break
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the proxy does not come up: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	// TLS ends at the proxy: the page's origin is https, the node is asked with http.
	if got := post("first", "https://chat.example"); got != http.StatusCreated {
		t.Errorf("own page: %d", got)
	}
	if got := post("no", "https://evil.example"); got != http.StatusForbidden {
		t.Errorf("foreign page: %d", got)
	}
	// What is posted while a stream is open is on it before anything else happens there.
	for i, form := range []string{"events", "json", "raw"} {
		response, err := do("GET", "/rooms/r/"+form+"?since=all", "", "")
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(response.Body)
		for _, text := range []string{"first", "live-" + form} {
			if text != "first" && post(text, "") != http.StatusCreated {
				t.Errorf("post while %s is open", form)
			}
			for lines.Scan() && !strings.Contains(lines.Text(), text) {
			}
			if err := lines.Err(); err != nil || !strings.Contains(lines.Text(), text) {
				t.Errorf("%s: no %s: %v", form, text, err)
			}
		}
		_ = response.Body.Close()
		conn, _, err := websocket.Dial(ctx, "http://chat.example/ws?since=0", &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"Origin": {"https://chat.example"}}})
		if err != nil {
			t.Fatal(err)
		}
		for range i + 2 {
			if _, _, err := conn.Read(ctx); err != nil {
				t.Errorf("WebSocket: %v", err)
			}
		}
		_ = conn.CloseNow()
	}
	response, err := do("GET", "/rooms/r/json?poll=1&since=all", "", "")
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if n := strings.Count(string(all), "\n"); err != nil || n != 4 {
		t.Errorf("a poll of 4 messages: %v %q", err, all)
	}
}
