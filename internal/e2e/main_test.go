package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// binary is the raft-chat that TestMain has built; moduleDir is the directory
// of go.mod.
var binary, moduleDir string

func TestMain(m *testing.M) {
	dir, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, "build raft-chat:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// build makes the binary in a directory of its own and returns that.
func build() (dir string, err error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	moduleDir = strings.TrimSpace(string(out))
	if dir, err = os.MkdirTemp("", "raft-chat-e2e-"); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "raft-chat")
	cmd := exec.Command("go", "build", "-o", binary, "./cmd/raft-chat")
	cmd.Dir = moduleDir
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
}
