package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/raft-chat/raft-chat/internal/testaddr"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// tour follows a printed page in one folder: its commands are run as they are
// printed, except for the address.
type tour struct {
	t     *testing.T
	dir   string
	addrs *strings.Replacer // printed to real
	nodes map[string]*process
	check *testcluster.Client
}

// newTour needs curl and bash, as its reader does.
func newTour(t *testing.T) *tour {
	t.Helper()
	for _, program := range []string{"curl", "bash"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the documentation's commands need %s, which is not installed", program)
		}
	}
	addrs := strings.NewReplacer("127.0.0.1", testaddr.Host())
	return &tour{t: t, dir: t.TempDir(), addrs: addrs, nodes: map[string]*process{}, check: testcluster.NewClient(t)}
}

// raftChat starts a node by its printed command.
func (r *tour) raftChat(id, command string) {
	r.t.Helper()
	words := strings.Fields(r.addrs.Replace(command))
	if words[0] != "raft-chat" || words[1] != "--id" || words[2] != id {
		r.t.Fatalf("not a command that starts node %s: %s", id, command)
	}
	r.nodes[id] = start(r.t, r.dir, binary, append(words[1:], "--host", testaddr.Host())...)
}

// awaitReady is the moment a reader takes before going on.
func (r *tour) awaitReady(printedPorts ...string) {
	r.t.Helper()
	for _, port := range printedPorts {
		testcluster.Eventually(r.t, "the node on "+port+" to be ready", func() error {
			return r.check.Ready(r.t.Context(), r.addrs.Replace("http://127.0.0.1:"+port))
		})
	}
}

// curl runs a printed command and returns what it prints. A refusal fails the
// test: the page promises success.
func (r *tour) curl(command string) string {
	r.t.Helper()
	p := start(r.t, r.dir, "bash", "-c", r.addrs.Replace(command))
	if code := p.wait(); code != 0 {
		r.t.Fatalf("%s: exit code %d", command, code)
	}
	var refusal testcluster.Refusal
	if json.Unmarshal([]byte(p.out.String()), &refusal) == nil && refusal.Code != "" {
		r.t.Fatalf("%s: refused: %v", command, &refusal)
	}
	return p.out.String()
}

// texts runs a printed command that reads a room and returns its messages.
func (r *tour) texts(command string) []string {
	r.t.Helper()
	answer := r.curl(command)
	var messages []testcluster.Message
	if err := json.Unmarshal([]byte(answer), &messages); err != nil {
		r.t.Fatalf("%s: %v: %s", command, err, answer)
	}
	var texts []string
	for _, m := range messages {
		texts = append(texts, m.Message)
	}
	return texts
}

func (r *tour) wantTexts(command string, want ...string) {
	r.t.Helper()
	if got := r.texts(command); !slices.Equal(got, want) {
		r.t.Errorf("%s: %q, want %q", command, got, want)
	}
}

func TestSeedOneNode(t *testing.T) {
	r := newTour(t)
	r.raftChat("1", `raft-chat --id 1 --cluster http://127.0.0.1:12379 --port 12380`)
	r.awaitReady("12380")
	stored := r.curl(`curl -L http://127.0.0.1:12380/rooms/general -d '{"Message": "hello", "User": "username"}'`)
	var m testcluster.Message
	if err := json.Unmarshal([]byte(stored), &m); err != nil || m.Room != "general" || m.Seq != 1 || m.ID != 1 || m.User != "username" || m.Message != "hello" || m.PostedAt.IsZero() {
		t.Errorf("the post is answered with %s (%v)", stored, err)
	}
	r.wantTexts(`curl -L http://127.0.0.1:12380/rooms/general`, "hello")
	if rooms := r.curl(`curl -L http://127.0.0.1:12380/rooms`); rooms != "[\"general\"]\n" {
		t.Errorf("the rooms are %q", rooms)
	}
	if dirs, err := filepath.Glob(filepath.Join(r.dir, "*")); err != nil || len(dirs) != 1 || filepath.Base(dirs[0]) != "raft-chat-1" {
		t.Errorf("the folder holds %v, %v, want raft-chat-1 alone", dirs, err)
	}
	r.nodes["1"].stop(syscall.SIGINT)
}

func TestSeedCluster(t *testing.T) {
	r := newTour(t)
	const (
		start1 = `raft-chat --id 1 --cluster http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379 --port 12380`
		start2 = `raft-chat --id 2 --cluster http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379 --port 22380`
		start3 = `raft-chat --id 3 --cluster http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379 --port 32380`
	)
	r.raftChat("1", start1)
	r.raftChat("2", start2)
	r.raftChat("3", start3)
	r.awaitReady("12380", "22380", "32380")

	// "send messages to any member of the cluster and likewise retrieve it from any member"
	ports := []string{"12380", "22380", "32380"}
	for _, to := range ports {
		r.curl(`curl -L http://127.0.0.1:` + to + `/rooms/lobby -d '{"Message": "to ` + to + `", "User": "username"}'`)
		for _, from := range ports {
			if from == to {
				continue
			}
			want := "to " + to
			if texts := r.texts(`curl -L http://127.0.0.1:` + from + `/rooms/lobby`); len(texts) == 0 || texts[len(texts)-1] != want {
				t.Errorf("what was posted to %s is not read from %s at once: %q", to, from, texts)
			}
		}
	}

	// Fault tolerance.
	r.curl(`curl -L http://127.0.0.1:12380/rooms/general -d '{"Message": "foo", "User": "username"}'`)
	r.nodes["1"].stop(syscall.SIGINT)
	r.curl(`curl -L http://127.0.0.1:22380/rooms/general -d '{"Message": "bar", "User": "username"}'`)
	r.raftChat("1", start1)
	r.awaitReady("12380")
	r.wantTexts(`curl -L http://127.0.0.1:12380/general`, "foo", "bar")

	// Dynamic cluster reconfiguration.
	r.curl(`curl -L http://127.0.0.1:12380/raft/4 -d http://127.0.0.1:42379`)
	r.raftChat("4", `raft-chat --id 4 --cluster http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379,http://127.0.0.1:42379 --port 42380 --join`)
	r.awaitReady("42380")
	r.wantTexts(`curl -L http://127.0.0.1:42380/rooms/general`, "foo", "bar")
	r.curl(`curl -L http://127.0.0.1:42380/rooms/general -d '{"Message": "from four", "User": "username"}'`)
	r.wantTexts(`curl -L http://127.0.0.1:12380/rooms/general`, "foo", "bar", "from four")
	// Only a voter that has caught up can take part in the majority that follows.
	testcluster.Eventually(t, "node 4 to vote", func() error {
		members, err := r.check.Members(t.Context(), r.addrs.Replace("http://127.0.0.1:12380"))
		for _, m := range members {
			if m.ID == 4 && m.Role == "follower" {
				return nil
			}
		}
		return fmt.Errorf("members: %+v, %w", members, err)
	})

	r.curl(`curl -L http://127.0.0.1:12380/raft/3 -X DELETE`)
	gone := r.nodes["3"]
	if code := gone.wait(); code != 0 {
		t.Errorf("the removed node ends with exit code %d", code)
	}
	if last := testcluster.Tail(gone.log.String(), 1); !strings.Contains(last, "removed from the cluster") {
		t.Errorf("the last words of the removed node: %s", last)
	}
	r.wantTexts(`curl -L http://127.0.0.1:22380/rooms/general`, "foo", "bar", "from four")
}
