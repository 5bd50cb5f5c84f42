package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raft-chat/raft-chat/internal/server"
)

// opens returns a program whose node is n, or whose start fails with err.
func opens(n node, err error) (*program, *bytes.Buffer) {
	stderr := &bytes.Buffer{}
	return &program{
		stdout: io.Discard, stderr: stderr,
		open: func(context.Context, server.Config) (node, error) {
			if err != nil {
				return nil, err
			}
			return n, nil
		},
	}, stderr
}

// logLines decodes JSON logs.
func logLines(t *testing.T, logs string) []map[string]any {
	t.Helper()
	var lines []map[string]any
	for line := range strings.Lines(logs) {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		lines = append(lines, m)
	}
	return lines
}

func last(lines []map[string]any) map[string]any { return lines[len(lines)-1] }

func TestServeStopsGracefully(t *testing.T) {
	n := newFakeNode()
	p, stderr := opens(n, nil)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	go func() { code <- p.run(ctx, []string{"--shutdown-timeout", "1h"}) }()
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
	lines := logLines(t, stderr.String())
	first := lines[0]
	if first["url"] != "http://127.0.0.1:12380" || first["cluster"] != "this node is alone" || first["level"] != "INFO" || first["node"] != 1.0 {
		t.Errorf("first line: %v", first)
	}
	if got := last(lines)["msg"]; got != "stopped" {
		t.Errorf("last line: %v", got)
	}
	if n.closed != 1 || time.Until(n.deadline) < 30*time.Minute {
		t.Errorf("closed %d times with the deadline %v", n.closed, n.deadline)
	}
}

func TestServeSaysHowManyNodes(t *testing.T) {
	for args, want := range map[string]string{
		"--cluster " + threeNodes: "one of 3 nodes",
		"--join --id 4 --cluster " + threeNodes + ",http://127.0.0.1:42379": "joining a cluster that makes 4 nodes with this one",
	} {
		got := invoke(t, "", strings.Fields(args))
		if first := logLines(t, got.stderr)[0]; first["cluster"] != want {
			t.Errorf("%s: %v, want %q", args, first["cluster"], want)
		}
	}
}

func TestServeRemovedNode(t *testing.T) {
	got := invoke(t, "", nil)
	if got.code != exitOK {
		t.Errorf("exit code %d", got.code)
	}
	if line := last(logLines(t, got.stderr)); !strings.Contains(line["msg"].(string), "removed from the cluster") || line["node"] != 1.0 {
		t.Errorf("last line: %v", line)
	}
}

func TestServeFault(t *testing.T) {
	n := newFakeNode()
	n.err = errors.New("append: fdatasync: input/output error")
	close(n.done)
	p, stderr := opens(n, nil)
	if code := p.run(t.Context(), nil); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	line := last(logLines(t, stderr.String()))
	if line["level"] != "ERROR" || line["error"] != n.err.Error() {
		t.Errorf("last line: %v", line)
	}
	if n.closed != 1 {
		t.Errorf("closed %d times", n.closed)
	}
}

func TestServeUncleanStop(t *testing.T) {
	n := newFakeNode()
	n.closeErr = context.DeadlineExceeded
	p, stderr := opens(n, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if code := p.run(ctx, nil); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	if line := last(logLines(t, stderr.String())); line["level"] != "ERROR" {
		t.Errorf("last line: %v", line)
	}
}

func TestServeOpenErrors(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"fault", errors.New("listen tcp 127.0.0.1:12380: bind: address already in use"), exitFailure,
			"raft-chat: listen tcp 127.0.0.1:12380: bind: address already in use\n"},
		{"several lines", errors.New("open store:\n\tbroken\n"), exitFailure, "raft-chat: open store: broken\n"},
		{"configuration", fmt.Errorf("open: %w", &server.ConfigError{Setting: "data-dir", Problem: "belongs to node 2"}), exitUsage,
			"raft-chat: --data-dir: belongs to node 2\n"},
		{"listener", &server.ListenError{Setting: "port", Problem: "cannot listen for clients on 127.0.0.1:12380: taken"}, exitFailure,
			"raft-chat: --port: cannot listen for clients on 127.0.0.1:12380: taken\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, stderr := opens(nil, tt.err)
			if code := p.run(t.Context(), nil); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if stderr.String() != tt.want {
				t.Errorf("standard error %q, want %q", stderr, tt.want)
			}
		})
	}
	t.Run("called off", func(t *testing.T) {
		signal := errors.New("interrupt signal received")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(signal)
		for _, err := range []error{context.Canceled, signal} {
			p, _ := opens(nil, fmt.Errorf("open: %w", err))
			if code := p.run(ctx, nil); code != exitOK {
				t.Errorf("%v: exit code %d", err, code)
			}
		}
	})
}

func TestServeLogForms(t *testing.T) {
	if got := invoke(t, "", []string{"-dev"}); strings.HasPrefix(got.stderr, "{") || !strings.Contains(got.stderr, "url=http://127.0.0.1:12380") {
		t.Errorf("text log: %q", got.stderr)
	}
	if got := invoke(t, "", nil, "RAFTOGRAM_DEV=0"); strings.HasPrefix(got.stderr, "{") {
		t.Errorf("any value of RAFTOGRAM_DEV asks for text, got %q", got.stderr)
	}
	if got := invoke(t, "", nil, "RAFTOGRAM_DEV=1", "RAFT_CHAT_DEV=false"); !strings.HasPrefix(got.stderr, "{") {
		t.Errorf("RAFT_CHAT_DEV is the stronger one, got %q", got.stderr)
	}
	if got := invoke(t, "", []string{"--log-level", "error"}); got.stderr != "" {
		t.Errorf("log at level error: %q", got.stderr)
	}
	dir := t.TempDir()
	write(t, dir, "c.yaml", raftogramFile)
	if got := invoke(t, dir, []string{"-config", "c.yaml"}); !strings.Contains(got.stderr, "serving gRPC") {
		t.Errorf("nothing is said about gRPC: %q", got.stderr)
	}
}

func TestOtherCommands(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string
	}{
		{"version", "raft-chat " + buildVersion()},
		{"-version", "raft-chat " + buildVersion()},
		{"--help", "--min-free-bytes"},
		{"-help", "--min-free-bytes"},
		{"-h", "--min-free-bytes"},
		{"serve --help", "--min-free-bytes"},
		{"help bench send", "--concurrency"},
		{"completion bash", "bash completion"},
		{"completion zsh", "#compdef raft-chat"},
		{"__complete --listen", "--listen-peer"},
	} {
		got := invoke(t, "", strings.Fields(tt.args))
		if got.code != exitOK || !strings.Contains(got.stdout, tt.want) || got.config != nil {
			t.Errorf("%s: exit code %d, standard output %q, error %q", tt.args, got.code, got.stdout, got.stderr)
		}
	}
	for args, want := range map[string]string{
		"bench":                                  "raft-chat bench needs a command",
		"bench receive":                          `"receive" is neither`,
		"version now":                            `"now" is neither`,
		"version --port 1":                       "unknown flag --port (see raft-chat version --help)",
		"bench send --rooms 0":                   "--rooms: 0 is not 1 or more",
		"bench send --rooms many":                `--rooms: "many" is not a whole number`,
		"bench send -duration 10":                `--duration: "10" is not a duration`,
		"bench send --endpoints https://x":       "--endpoints: \"https://x\": only http",
		"bench send --endpoints ftp://127.0.0.1": "--endpoints: \"ftp://127.0.0.1\"",
	} {
		t.Run(args, func(t *testing.T) {
			wantUsageError(t, invoke(t, "", strings.Fields(args)), want)
		})
	}
}

func TestBenchSend(t *testing.T) {
	ok := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	defer ok.Close()
	args := []string{"bench", "send", "-endpoints", ok.URL, "-warmup", "0s", "-duration", "1s", "-concurrency", "2", "-rooms", "2"}
	got := invoke(t, "", append(slices.Clone(args), "--json", "--client-ids"))
	var report struct {
		Acknowledged uint64
		Concurrency  int
		ClientIDs    bool `json:"client_ids"`
	}
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil {
		t.Fatalf("%v: %q %q", err, got.stdout, got.stderr)
	}
	if got.code != exitOK || report.Acknowledged == 0 || report.Concurrency != 2 || !report.ClientIDs {
		t.Errorf("exit code %d, report %+v", got.code, report)
	}

	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"code":"no_leader"}`)
	}))
	defer down.Close()
	args[3] = down.URL
	got = invoke(t, "", args)
	if got.code != exitFailure || !strings.HasPrefix(got.stdout, "load ") ||
		got.stderr != "raft-chat: no message was acknowledged; the most frequent error was: 503 no_leader\n" {
		t.Errorf("exit code %d, %q, %q", got.code, got.stdout, got.stderr)
	}
}

func TestVersion(t *testing.T) {
	info := func(v string, settings ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{Main: debug.Module{Version: v}}
		for i := 0; i < len(settings); i += 2 {
			b.Settings = append(b.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return b
	}
	for _, tt := range []struct {
		linked string
		info   *debug.BuildInfo
		want   string
	}{
		{"v1.2.3", info("v0.0.1"), "v1.2.3"},
		{"", nil, "unknown"},
		{"", info("v0.0.1"), "v0.0.1"},
		{"", info("(devel)"), "devel"},
		{"", info("(devel)", "vcs.revision", "0123456789abcdef", "vcs.modified", "false"), "devel-0123456789ab"},
		{"", info("", "vcs.revision", "0123", "vcs.modified", "true"), "devel-0123-dirty"},
	} {
		if got := versionFrom(tt.linked, tt.info); got != tt.want {
			t.Errorf("%q, %+v: %q, want %q", tt.linked, tt.info, got, tt.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "10": 10, "1KiB": 1024, " 2 mib ": 2 << 20, "3GIB": 3 << 30, "1TiB": 1 << 40} {
		var v sizeValue
		if err := v.Set(in); err != nil || int64(v) != want {
			t.Errorf("%q: %d, %v, want %d", in, int64(v), err, want)
		}
		var back sizeValue
		if err := back.Set(v.String()); err != nil || back != v {
			t.Errorf("%q is written as %q, which reads as %d, %v", in, v.String(), int64(back), err)
		}
	}
	for _, in := range []string{"", "KiB", "-1", "1.5MiB", "1kB", "9223372036854775808", "8388608TiB"} {
		var v sizeValue
		if err := v.Set(in); err == nil {
			t.Errorf("%q reads as %d", in, int64(v))
		}
	}
}

func TestDoubleDashes(t *testing.T) {
	p, _ := opens(nil, nil)
	root := p.newRootCommand()
	for in, want := range map[string]string{
		"-config a -dev":            "--config a --dev",
		"-config=a --dev":           "--config=a --dev",
		"-h":                        "-h",
		"--name -dev -dev":          "--name -dev --dev",
		"--name=x -dev":             "--name=x --dev",
		"-dev -- -dev":              "--dev -- -dev",
		"--name -- -dev":            "--name -- --dev",
		"-":                         "-",
		"--port -1":                 "--port -1",
		"bench send -rooms 3 -json": "bench send --rooms 3 --json",
	} {
		if got := strings.Join(doubleDashes(root, strings.Fields(in)), " "); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// The real server's errors arrive through run as well.
func TestRunReportsTheServersErrors(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--port", "x"}, nil, &stdout, &stderr); code != exitUsage || stdout.Len() != 0 {
		t.Errorf("exit code %d, %q, %q", code, stdout.String(), stderr.String())
	}
}

// A stop during the start is a stop, whatever the start was waiting for: also
// for something that does not give way.
func TestStopDuringTheStart(t *testing.T) {
	for name, open := range map[string]func(ctx context.Context, release <-chan struct{}) (node, error){
		"a peer that does not answer": func(ctx context.Context, _ <-chan struct{}) (node, error) {
			<-ctx.Done()
			return nil, errors.New("join: no member of the cluster answered: connection refused")
		},
		"a disk that does not answer": func(_ context.Context, release <-chan struct{}) (node, error) {
			<-release
			return newFakeNode(), nil
		},
		"nothing, it is complete": func(ctx context.Context, _ <-chan struct{}) (node, error) {
			<-ctx.Done()
			return newFakeNode(), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, stderr := opens(nil, nil)
				release := make(chan struct{})
				p.open = func(ctx context.Context, _ server.Config) (node, error) { return open(ctx, release) }
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				if code := p.run(ctx, nil); code != exitOK {
					t.Errorf("exit code %d", code)
				}
				close(release)
				if line := last(logLines(t, stderr.String())); !strings.HasPrefix(line["msg"].(string), "stopped") || line["level"] != "INFO" {
					t.Errorf("last line: %v", line)
				}
			})
		})
	}
}

// A stop that hangs is given up.
func TestStopThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &hangingNode{fakeNode: newFakeNode(), release: make(chan struct{})}
		p, stderr := opens(n, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		if code := p.run(ctx, []string{"--shutdown-timeout", "3s"}); code != exitFailure {
			t.Errorf("exit code %d", code)
		}
		if took := time.Since(began); took > 3*time.Second+2*stopSlack {
			t.Errorf("the stop took %v", took)
		}
		close(n.release)
		if line := last(logLines(t, stderr.String())); line["level"] != "ERROR" {
			t.Errorf("last line: %v", line)
		}
	})
}

type hangingNode struct {
	*fakeNode
	release chan struct{}
}

func (n *hangingNode) Close(context.Context) error {
	<-n.release
	return nil
}
