package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/raft-chat/raft-chat/internal/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode is a running server as the command line sees it.
type fakeNode struct {
	done     chan struct{}
	err      error
	closeErr error

	mu       sync.Mutex
	closed   int
	deadline time.Time
}

func newFakeNode() *fakeNode { return &fakeNode{done: make(chan struct{})} }

func (n *fakeNode) URL() string           { return "http://127.0.0.1:12380" }
func (n *fakeNode) GRPCAddr() string      { return "127.0.0.1:9000" }
func (n *fakeNode) Done() <-chan struct{} { return n.done }
func (n *fakeNode) Err() error            { return n.err }

func (n *fakeNode) Close(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed++
	n.deadline, _ = ctx.Deadline()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return n.closeErr
}

// outcome is what a run of the command line left behind.
type outcome struct {
	code           int
	stdout, stderr string
	config         *server.Config // what a node was opened with, or nil
}

// invoke runs args in dir, an empty directory by default, with a node that is
// removed from its cluster as soon as it runs, so that serve ends.
func invoke(t *testing.T, dir string, args []string, env ...string) outcome {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	t.Chdir(dir)
	n := newFakeNode()
	close(n.done)
	var out outcome
	var stdout, stderr bytes.Buffer
	p := &program{
		env: parseEnvironment(env), stdout: &stdout, stderr: &stderr,
		open: func(_ context.Context, c server.Config) (node, error) {
			out.config = &c
			return n, nil
		},
	}
	out.code = p.run(t.Context(), args)
	out.stdout, out.stderr = stdout.String(), stderr.String()
	return out
}

// write puts a file into dir.
func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantUsageError checks that a run ended with one plain line and opened nothing.
func wantUsageError(t *testing.T, got outcome, want string) {
	t.Helper()
	if got.code != exitUsage {
		t.Errorf("exit code %d, want %d", got.code, exitUsage)
	}
	if got.config != nil {
		t.Error("a node was opened all the same")
	}
	if got.stdout != "" {
		t.Errorf("standard output: %q", got.stdout)
	}
	if strings.Count(got.stderr, "\n") != 1 || !strings.HasSuffix(got.stderr, "\n") || !strings.HasPrefix(got.stderr, "raft-chat: ") {
		t.Errorf("not one line from raft-chat: %q", got.stderr)
	}
	if !strings.Contains(got.stderr, want) {
		t.Errorf("error %q does not say %q", got.stderr, want)
	}
}
