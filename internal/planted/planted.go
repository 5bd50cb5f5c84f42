package planted

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/raft-chat/raft-chat/internal/sim"
)

// Bug is one planted bug.
type Bug struct {
	Name string
	What string // what the code does then
	File string // below the module's root
	// Old is in File exactly once; New takes its place.
	Old, New string
	// Test, if set, is the arguments of go test that notice the bug, in place of
	// the simulator.
	Test []string
}

// Outcome says how a bug was noticed.
type Outcome struct {
	Bug    Bug
	Caught bool
	Check  string // the rule that was broken, or the test that failed
	Detail string
	Seeds  int // that were run, the failing one included; 0 for a test
}

// Try plants the bug into a build of the module at root and runs at most seeds
// seeds, or the bug's test. An error says that it could not be tried.
func Try(ctx context.Context, root string, b Bug, seeds int) (o Outcome, err error) {
	o.Bug = b
	dir, err := os.MkdirTemp("", "planted-")
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := plant(root, dir, b)
	if err != nil {
		return o, err
	}
	if b.Test != nil {
		return o.test(ctx, root, overlay)
	}
	binary := filepath.Join(dir, "sim")
	build := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", binary, "./internal/sim/cmd")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return o, fmt.Errorf("build with %s: %w\n%s", b.Name, err, out)
	}
	return o.simulate(ctx, binary, seeds)
}

// plant writes the changed file and the overlay that names it.
func plant(root, dir string, b Bug) (overlay string, err error) {
	// A relative path would be taken from the directory of the build, and an
	// overlay of a file that nobody asks for is passed over in silence.
	path, err := filepath.Abs(filepath.Join(root, filepath.FromSlash(b.File)))
	if err != nil {
		return "", err
	}
	code, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(code, []byte(b.Old)); n != 1 {
		return "", fmt.Errorf("the lines that %s replaces are %d times in %s: plant it anew", b.Name, n, b.File)
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, bytes.Replace(code, []byte(b.Old), []byte(b.New), 1), 0o600); err != nil {
		return "", err
	}
	content, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, content, 0o600)
}

func (o Outcome) simulate(ctx context.Context, binary string, seeds int) (Outcome, error) {
	var stderr bytes.Buffer
	run := exec.CommandContext(ctx, binary, "-worker", "-first", "-from", "1", "-seeds", fmt.Sprint(seeds))
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		// The bug took the whole process down, which nobody can overlook.
		o.Caught, o.Check, o.Detail = true, "crash", firstLine(stderr.String())
	}
	lines := json.NewDecoder(bytes.NewReader(out))
	for {
		var r sim.Result
		if lines.Decode(&r) != nil {
			break
		}
		o.Seeds++
		if len(r.Violations) > 0 {
			o.Caught, o.Check, o.Detail = true, r.Violations[0].Rule, firstLine(r.Violations[0].Detail)
		}
	}
	return o, nil
}

func (o Outcome) test(ctx context.Context, root, overlay string) (Outcome, error) {
	args := append([]string{"test", "-overlay", overlay, "-count", "1"}, o.Bug.Test...)
	run := exec.CommandContext(ctx, "go", args...)
	run.Dir = root
	out, err := run.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && bytes.Contains(out, []byte("--- FAIL")):
		o.Caught, o.Check = true, "go test "+strings.Join(o.Bug.Test, " ")
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "--- FAIL") {
				o.Detail = strings.TrimSpace(line)
				break
			}
		}
	case err != nil:
		return o, fmt.Errorf("test with %s: %w\n%s", o.Bug.Name, err, out)
	}
	return o, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
