package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// prologue is what a block's script begins with. curl fails on a refusal, so
// that the script does. The nodes are killed when the script ends.
const prologue = `
pids=() # bash forgets a job that has ended, but not how its pid did
curl() {
  if [[ " $* " == *" --fail "* ]]; then
    command curl -sS "$@" # it excludes the other
  else
    command curl -sS --fail-with-body "$@"
  fi
}
await_ready() {
  local port deadline=$((SECONDS + 60))
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

// pageTest is what the script says after a block, and what must be in its output.
type pageTest struct {
	name, epilogue string
	want           []string
}

func pageTests() map[string][]pageTest {
	return map[string][]pageTest{
		"README.md": {
			{"one-node", "", []string{`"Message":"hello"`, `"User":"cron"`, `["general"]`, `"ClientMessageID":"a-1"`}},
			{"streams", "", []string{"deployed 1.2", "from a pipe", "general"}},
			{"three-nodes", "", []string{`"Message":"foo"`, `"Message":"bar"`}},
			// The removed node ends by itself and well; the others take messages.
			{"membership", "wait \"${pids[3]}\"\ncurl -L http://127.0.0.1:42380/rooms/general -d '{\"Message\": \"after\", \"User\": \"username\"}'\n",
				[]string{`"ID":3`, `"Message":"after"`}},
		},
		"docs/operations.md": {
			// The command that it prints is the one that the page prints.
			{"replace", "", []string{"member 4 is added, at http://127.0.0.1:32379", "    raft-chat --id 4 --cluster 1=http://127.0.0.1:12379,2=http://127.0.0.1:22379,4=http://127.0.0.1:32379 " +
				"--join --data-dir ./raft-chat-4 --port 32380\n", ": before\n"}},
		},
	}
}

// The blocks of a page run one after the other, in one directory and one shell.
func TestPages(t *testing.T) {
	slow.Test(t)
	// The ports are those that are printed, on an address that nobody else uses.
	addrs := strings.NewReplacer("127.0.0.1", testaddr.Host())
	for page, tests := range pageTests() {
		t.Run(page, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(moduleDir, page))
			if err != nil {
				t.Fatal(err)
			}
			found, err := blocks(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != len(tests) {
				t.Fatalf("%d blocks, and tests of %d", len(found), len(tests))
			}
			commands := "export RAFT_CHAT_HOST=127.0.0.1 RAFT_CHAT_ENDPOINTS=127.0.0.1:12380\n" + prologue
			for i, b := range found {
				if b.name != tests[i].name {
					t.Fatalf("block %d is %s, want %s", i+1, b.name, tests[i].name)
				}
				commands += "echo '" + blockEnd + "'\n" + script(b.body) + tests[i].epilogue
			}
			p := start(t, t.TempDir(), "bash", "-eu", "-o", "pipefail", "-c", addrs.Replace(commands))
			p.name = "the blocks of " + page
			if code := p.wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			outputs := strings.Split(p.out.String(), blockEnd+"\n")[1:]
			for i, output := range outputs {
				for _, want := range tests[i].want {
					if !strings.Contains(output, addrs.Replace(want)) {
						t.Errorf("the output of %s does not have %s", tests[i].name, want)
					}
				}
			}
		})
	}
}

// blockEnd stands between the outputs of blocks.
const blockEnd = "-- the next block --"
