//go:build linux

package faults

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// steppedClock is the source of time of a build whose wall clock can be set.
// It is not a Go file here, so no other build can hold it.
//
//go:embed steppedclock.go.txt
var steppedClock string

// clockVariable names the file with the offset, as steppedclock.go.txt reads it.
const clockVariable = "FAULTS_CLOCK_OFFSET_FILE"

// clockPackage exists in that build only.
const clockPackage = "internal/faults/steppedclock"

// seam is a place where the program looks at the wall clock for something that
// is replicated or compared between members.
type seam struct{ dir, now, stepped string }

func seams() []seam {
	return []seam{
		{"raftnode", "func (systemClock) Now() time.Time { return time.Now() }", "func (systemClock) Now() time.Time { return steppedclock.Now() }"},
		{"chat", "o.Now = time.Now\n", "o.Now = steppedclock.Now\n"},
		{"httpapi", "o.Now = time.Now\n", "o.Now = steppedclock.Now\n"},
	}
}

// replaceClock gives, for each file of the module at source that has a seam,
// its changed text. It refuses a source in which a seam is not exactly once:
// the program then gets its time from elsewhere, and the run would be a lie.
func replaceClock(source string) (map[string]string, error) {
	replaced := map[string]string{filepath.Join(source, clockPackage, "steppedclock.go"): steppedClock}
	for _, s := range seams() {
		paths, err := filepath.Glob(filepath.Join(source, s.dir, "*.go"))
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", s.dir, err)
		}
		found := 0
		for _, path := range paths {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("read source: %w", err)
			}
			text := string(b)
			n := strings.Count(text, s.now)
			if n == 0 {
				continue
			}
			found += n
			text = strings.Replace(text, s.now, s.stepped, 1)
			// Its last use in the file may be gone.
			if !strings.Contains(text, "time.") {
				text = strings.Replace(text, "\t\"time\"\n", "", 1)
			}
			_, after, ok := strings.Cut(text, "\nimport (\n")
			if !ok {
				return nil, fmt.Errorf("%s has no import block to extend", path)
			}
			before := strings.TrimSuffix(text, after)
			replaced[path] = before + "\t\"github.com/raft-chat/raft-chat/" + clockPackage + "\"\n" + after
		}
		if found != 1 {
			return nil, fmt.Errorf("package %s has %q %d times, once was expected: seams in overlay.go is out of date", s.dir, s.now, found)
		}
	}
	return replaced, nil
}

// buildStepped builds the program with the stepped clock into dir.
func buildStepped(ctx context.Context, source, dir string) (binary string, err error) {
	texts, err := replaceClock(source)
	if err != nil {
		return "", fmt.Errorf("replace the clock: %w", err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	n := 0
	for path, text := range texts {
		n++
		file := filepath.Join(dir, fmt.Sprintf("overlay%d.go", n))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write overlay: %w", err)
		}
		overlay.Replace[path] = file
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	listFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(listFile, list, 0o600); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	binary = filepath.Join(dir, "raft-chat-stepped")
	_, err = command(ctx, "go", "build", "-C", source, "-overlay", listFile, "-o", binary, "./cmd/raft-chat")
	return binary, err
}
