package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// prologue is what a block's script begins with. curl fails on a refusal, so
// that the script does. The nodes are killed when the script ends.
const prologue = `
curl() {
  if [[ " $* " == *" --fail "* ]]; then
    command curl -sS "$@" # it excludes the other
  else
    command curl -sS --fail-with-body "$@"
  fi
}
await_ready() {
  local port deadline=$((SECONDS + 60))
  running=($(jobs -p)) # bash forgets a job that has ended, but not how its pid did
  for port in "$@"; do
    until command curl -s --fail --max-time 10 --output /dev/null "http://127.0.0.1:$port/readyz"; do
      if ((SECONDS > deadline)); then
        echo "the node on port $port does not get ready" >&2
        return 1
      fi
      sleep 0.05
    done
  done
}
cleanup() {
  local pids
  pids=$(jobs -p)
  [[ -z $pids ]] || kill -9 $pids 2>/dev/null || true
}
trap cleanup EXIT
`

func TestReadme(t *testing.T) {
	found := map[string]string{}
	for _, page := range []string{"README.md", "docs/operations.md"} {
		text, err := os.ReadFile(filepath.Join(moduleDir, page))
		if err != nil {
			t.Fatal(err)
		}
		in, err := blocks(string(text))
		if err != nil {
			t.Fatalf("%s: %v", page, err)
		}
		for name, block := range in {
			if found[name] != "" {
				t.Errorf("%s has a second block %s", page, name)
			}
			found[name] = block
		}
	}
	tested := map[string]bool{}
	// The ports are those that are printed, on an address that nobody else uses.
	addrs := strings.NewReplacer("127.0.0.1", testaddr.Host())
	// What the script says at last, after the block, and what must be in its output.
	for _, tt := range []struct {
		name, epilogue string
		want           []string
	}{
		{"one-node", "", []string{`"Message":"hello"`, `"User":"cron"`, `["general"]`, `"ClientMessageID":"a-1"`}},
		{"streams", "", []string{"deployed 1.2", "from a pipe", "general"}},
		{"three-nodes", "", []string{`"Message":"foo"`, `"Message":"bar"`}},
		// The removed node ends by itself and well; the others take messages.
		{"membership", "wait \"${running[2]}\"\ncurl -L http://127.0.0.1:42380/rooms/general -d '{\"Message\": \"after\", \"User\": \"username\"}'\n",
			[]string{`"ID":3`, `"Message":"after"`}},
		// The command that it prints is the one that the page prints.
		{"replace", "", []string{"member 4 is added, at http://127.0.0.1:32379", "    raft-chat --id 4 --cluster 1=http://127.0.0.1:12379,2=http://127.0.0.1:22379,4=http://127.0.0.1:32379 " +
			"--join --data-dir ./raft-chat-4 --port 32380\n", ": before\n"}},
	} {
		tested[tt.name] = true
		t.Run(tt.name, func(t *testing.T) {
			block, ok := found[tt.name]
			if !ok {
				t.Fatalf("no page has a sh block marked <!-- test: %s -->", tt.name)
			}
			commands := "export RAFT_CHAT_HOST=127.0.0.1 RAFT_CHAT_ENDPOINTS=http://127.0.0.1:12380\n" + prologue + script(block) + tt.epilogue
			p := start(t, t.TempDir(), "bash", "-eu", "-o", "pipefail", "-c", addrs.Replace(commands))
			p.name = "the block " + tt.name
			if code := p.wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			for _, want := range tt.want {
				if !strings.Contains(p.out.String(), addrs.Replace(want)) {
					t.Errorf("the output does not have %s", want)
				}
			}
		})
	}
	for name := range found {
		if !tested[name] {
			t.Errorf("the block %s is run by no test", name)
		}
	}
}
