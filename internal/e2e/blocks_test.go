package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	markerLine = regexp.MustCompile(`^<!-- test: ([a-z0-9-]+) -->$`)
	startLine  = regexp.MustCompile(`^\s*raft-chat\s.*&\s*(#.*)?$`)
	portFlag   = regexp.MustCompile(`--port[ =](\d+)`)
)

// blocks returns the fenced sh blocks of a Markdown text that have a marker
// <!-- test: NAME --> before them, by name. Blank lines may stand in between.
func blocks(markdown string) (map[string]string, error) {
	found := map[string]string{}
	name, inside := "", false
	var body strings.Builder
	for i, line := range strings.Split(markdown, "\n") {
		marker := markerLine.FindStringSubmatch(line)
		switch {
		case inside && line == "```":
			found[name] = body.String()
			name, inside = "", false
			body.Reset()
		case inside:
			body.WriteString(line + "\n")
		case name != "" && line == "```sh":
			inside = true
		case name != "" && line != "":
			return nil, fmt.Errorf("line %d: the marker %s is not followed by a sh block", i+1, name)
		case marker != nil:
			name = marker[1]
			if _, twice := found[name]; twice {
				return nil, fmt.Errorf("line %d: a second block %s", i+1, name)
			}
		}
	}
	if name != "" {
		return nil, fmt.Errorf("the block %s does not end", name)
	}
	return found, nil
}

// script makes a block into a program: where nodes were started, it waits
// until they are ready before it goes on, as a reader does.
func script(block string) string {
	var out strings.Builder
	var started []string
	await := func() {
		if len(started) > 0 {
			out.WriteString("await_ready " + strings.Join(started, " ") + "\n")
			started = nil
		}
	}
	for line := range strings.Lines(block) {
		if startLine.MatchString(strings.TrimSuffix(line, "\n")) {
			port := "12380"
			if given := portFlag.FindStringSubmatch(line); given != nil {
				port = given[1]
			}
			started = append(started, port)
		} else if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "#") {
			await()
		}
		out.WriteString(line)
	}
	await()
	return out.String()
}

func TestBlocks(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.md")
	if err != nil {
		t.Fatal(err)
	}
	got, err := blocks(string(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"simple": `raft-chat --id 1 --cluster http://127.0.0.1:12379 --port 12380 &

# a remark
await_ready 12380
curl -L http://127.0.0.1:12380/rooms
`,
		"several": `raft-chat --id 1 --port 12380 &   # the first
raft-chat --id 2 --port=22380 &
await_ready 12380 22380
curl -L http://127.0.0.1:12380/rooms
kill -9 %1
raft-chat --id 1 --port 12380 &
await_ready 12380
`,
	}
	for name, block := range got {
		got[name] = script(block)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("blocks of the sample (-want +got):\n%s", diff)
	}

	for _, bad := range []string{
		"<!-- test: a -->\n", "<!-- test: a -->\ntext\n```sh\n```\n", "<!-- test: a -->\n```sh\ntrue\n", "<!-- test: a -->\n```go\n```\n",
		"<!-- test: a -->\n```sh\n```\n<!-- test: a -->\n```sh\n```\n",
	} {
		if got, err := blocks(bad); err == nil {
			t.Errorf("%q: taken for %q", bad, got)
		}
	}
}
