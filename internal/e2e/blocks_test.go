package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	markerLine = regexp.MustCompile(`^<!-- test: ([a-z0-9-]+) -->$`)
	startLine  = regexp.MustCompile(`^\s*raft-chat\s.*&\s*(#.*)?$`)
	portFlag   = regexp.MustCompile(`--port[ =](\d+)`)
)

// block is a fenced sh block of a Markdown text, with the name of the marker
// <!-- test: NAME --> before it. Blank lines may stand in between.
type block struct{ name, body string }

// blocks returns the sh blocks of a text in their order. Each needs a marker.
func blocks(markdown string) ([]block, error) {
	var found []block
	name, inside := "", false
	var body strings.Builder
	for i, line := range strings.Split(markdown, "\n") {
		marker := markerLine.FindStringSubmatch(line)
		switch {
		case inside && line == "```":
			found = append(found, block{name, body.String()})
			name, inside = "", false
			body.Reset()
		case inside:
			body.WriteString(line + "\n")
		case name != "" && line == "```sh":
			inside = true
		case line == "```sh":
			return nil, fmt.Errorf("line %d: a sh block without a marker, which no test would run", i+1)
		case name != "" && line != "":
			return nil, fmt.Errorf("line %d: the marker %s is not followed by a sh block", i+1, name)
		case marker != nil:
			name = marker[1]
			if slices.ContainsFunc(found, func(b block) bool { return b.name == name }) {
				return nil, fmt.Errorf("line %d: a second block %s", i+1, name)
			}
		}
	}
	if name != "" {
		return nil, fmt.Errorf("the block %s does not end", name)
	}
	return found, nil
}

// script makes the body of a block into a program: where nodes were started, it
// waits until they are ready before it goes on, as a reader does. The process id
// of each is added to pids.
func script(body string) string {
	var out strings.Builder
	var started []string
	await := func() {
		if len(started) > 0 {
			out.WriteString("await_ready " + strings.Join(started, " ") + "\n")
			started = nil
		}
	}
	for line := range strings.Lines(body) {
		if startLine.MatchString(strings.TrimSuffix(line, "\n")) {
			port := "12380"
			if given := portFlag.FindStringSubmatch(line); given != nil {
				port = given[1]
			}
			started = append(started, port)
			out.WriteString(line + "pids+=($!)\n")
			continue
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
pids+=($!)

# a remark
await_ready 12380
curl -L http://127.0.0.1:12380/rooms
`,
		"several": `raft-chat --id 1 --port 12380 &   # the first
pids+=($!)
raft-chat --id 2 --port=22380 &
pids+=($!)
await_ready 12380 22380
curl -L http://127.0.0.1:12380/rooms
kill -9 %1
raft-chat --id 1 --port 12380 &
pids+=($!)
await_ready 12380
`,
	}
	programs := map[string]string{}
	for _, b := range got {
		programs[b.name] = script(b.body)
	}
	if diff := cmp.Diff(want, programs); diff != "" {
		t.Errorf("blocks of the sample (-want +got):\n%s", diff)
	}

	for _, bad := range []string{
		"<!-- test: a -->\n", "<!-- test: a -->\ntext\n```sh\n```\n", "<!-- test: a -->\n```sh\ntrue\n", "<!-- test: a -->\n```go\n```\n",
		"<!-- test: a -->\n```sh\n```\n<!-- test: a -->\n```sh\n```\n", "```sh\n```\n",
	} {
		if got, err := blocks(bad); err == nil {
			t.Errorf("%q: taken for %q", bad, got)
		}
	}
}
