package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// grpcurlCall is how every call of the page begins.
const grpcurlCall = `grpcurl -plaintext -import-path api/proto -proto raftogram/v1/messaging.proto \
  `

// notLeaderExit is grpcurl's exit code for FailedPrecondition: 64 and the code.
const notLeaderExit = 64 + 9

// raftogramPage follows the page of raftogram in a folder that has what its
// reader finds there: the binary under that name, the template of the
// configuration and the proto file. Commands are run as they are printed, except
// for the address.
type raftogramPage struct {
	t     *testing.T
	dir   string
	addrs *strings.Replacer // printed to real
	names map[string]string // node by the real address of its gRPC
	nodes map[string]*process
	check *testcluster.Client
}

func newRaftogramPage(t *testing.T) *raftogramPage {
	t.Helper()
	for _, program := range []string{"curl", "bash"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the page's commands need %s, which is not installed", program)
		}
	}
	p := &raftogramPage{t: t, dir: t.TempDir(), names: map[string]string{}, nodes: map[string]*process{}, check: testcluster.NewClient(t)}
	if err := os.Symlink(binary, filepath.Join(p.dir, "raftogram")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(p.dir, "api", "proto"), os.DirFS(filepath.Join(moduleDir, "api", "proto"))); err != nil {
		t.Fatal(err)
	}
	// Beside the binary it is on the PATH of whatever is started.
	build := exec.Command("go", "build", "-modfile=tools/go.mod", "-o", filepath.Join(filepath.Dir(binary), "grpcurl"),
		"github.com/fullstorydev/grpcurl/cmd/grpcurl")
	build.Dir = moduleDir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build grpcurl: %v\n%s", err, out)
	}

	p.addrs = strings.NewReplacer("127.0.0.1", testaddr.Host())
	for i := range 3 {
		p.names[p.addrs.Replace(fmt.Sprint("127.0.0.1:", 9000+i))] = fmt.Sprint("node", i+1)
	}
	return p
}

// configure writes the file of one node: a copy of the template in which the
// values of the page's table are edited, each of which stands there once.
func (p *raftogramPage) configure(id int) {
	p.t.Helper()
	template, err := os.ReadFile(filepath.Join(moduleDir, "config.yaml.dist"))
	if err != nil {
		p.t.Fatal(err)
	}
	text := string(template)
	for key, value := range map[string]string{
		"node_id":          fmt.Sprint("node", id),
		"raft_bind_addr":   fmt.Sprint("127.0.0.1:", 7000+id-1),
		"grpc_bind_addr":   fmt.Sprint("127.0.0.1:", 9000+id-1),
		"health_bind_addr": fmt.Sprint("127.0.0.1:", 8080+id-1),
		"data_dir":         fmt.Sprint("./data/node", id),
	} {
		line := regexp.MustCompile(`(?m)^  ` + key + `: .*$`)
		if n := len(line.FindAllString(text, -1)); n != 1 {
			p.t.Fatalf("config.yaml.dist has %d lines to edit for %s", n, key)
		}
		text = line.ReplaceAllLiteralString(text, fmt.Sprintf("  %s: %q", key, value))
	}
	if err := os.WriteFile(filepath.Join(p.dir, fmt.Sprintf("config.node%d.yaml", id)), []byte(p.addrs.Replace(text)), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// start starts a node by a command of the page, which bash becomes.
func (p *raftogramPage) start(name, command string) {
	p.t.Helper()
	p.nodes[name] = start(p.t, p.dir, "bash", "-c", command)
}

// run runs a command and waits for it.
func (p *raftogramPage) run(command string) (stdout, stderr string, code int) {
	p.t.Helper()
	c := start(p.t, p.dir, "bash", "-c", p.addrs.Replace(command))
	code = c.wait()
	return c.out.String(), c.log.String(), code
}

// must runs a command that the page promises success for.
func (p *raftogramPage) must(command string) string {
	p.t.Helper()
	stdout, stderr, code := p.run(command)
	if code != 0 {
		p.t.Fatalf("%s: exit code %d: %s", command, code, stderr)
	}
	return stdout
}

// health is what curl prints for a node's /health, without the state, which the
// page does not have.
func (p *raftogramPage) health(printedPort int) map[string]any {
	p.t.Helper()
	var fields map[string]any
	answer := p.must(fmt.Sprintf("curl -s http://127.0.0.1:%d/health", printedPort))
	if err := json.Unmarshal([]byte(answer), &fields); err != nil {
		p.t.Fatalf("/health answers %s: %v", answer, err)
	}
	delete(fields, "applied_index")
	delete(fields, "state_hash")
	return fields
}

// awaitLeader waits until all nodes name the same leader, checks each field of
// their answers, and returns the leader's gRPC address and a follower's.
func (p *raftogramPage) awaitLeader() (leader, follower string) {
	p.t.Helper()
	testcluster.Eventually(p.t, "one leader of all three", func() error {
		var all []map[string]any
		for i := range 3 {
			if name := fmt.Sprint("node", i+1); p.nodes[name].ended() {
				p.t.Fatalf("%s has ended: %s", name, testcluster.Tail(p.nodes[name].log.String(), 20))
			}
			if _, _, err := p.check.Do(p.t.Context(), "GET", p.addrs.Replace(fmt.Sprint("http://127.0.0.1:", 8080+i))+"/readyz", ""); err != nil {
				return err
			}
			all = append(all, p.health(8080+i))
		}
		id, _ := all[0]["leader_id"].(string)
		leader, follower = "", ""
		var leaderRaft string
		for i := range 3 {
			if addr := p.addrs.Replace(fmt.Sprint("127.0.0.1:", 9000+i)); p.names[addr] == id {
				leader, leaderRaft = addr, p.addrs.Replace(fmt.Sprint("127.0.0.1:", 7000+i))
			} else {
				follower = addr
			}
		}
		var want []map[string]any
		for i := range 3 {
			fields := map[string]any{
				"node_id": fmt.Sprint("node", i+1), "role": "follower", "is_leader": false,
				"leader_id": id, "leader_raft_addr": leaderRaft, "leader_grpc_addr": leader,
			}
			if fields["node_id"] == id {
				fields["role"], fields["is_leader"] = "leader", true
			}
			want = append(want, fields)
		}
		if diff := cmp.Diff(want, all); diff != "" {
			return fmt.Errorf("/health of the three (-want +got):\n%s", diff)
		}
		return nil
	})
	return leader, follower
}

// onLeader runs a call that is printed with 127.0.0.1:9000 for the leader, and
// returns what it prints. A leader that is none any more is told so before it does
// anything; then the page says to ask /health again.
func (p *raftogramPage) onLeader(command string) string {
	p.t.Helper()
	var stdout string
	testcluster.Eventually(p.t, "a leader to answer", func() error {
		leader, _ := p.awaitLeader()
		var stderr string
		var code int
		stdout, stderr, code = p.run(strings.ReplaceAll(command, "127.0.0.1:9000", leader))
		if code == notLeaderExit {
			return errors.New(stderr)
		}
		if code != 0 {
			p.t.Fatalf("%s: exit code %d: %s", command, code, stderr)
		}
		return nil
	})
	return stdout
}

// wantAnswer runs a call on the leader and compares its answer with the printed
// one.
func (p *raftogramPage) wantAnswer(command, want string) {
	p.t.Helper()
	if got := p.onLeader(command); squeezed(got) != squeezed(want) {
		p.t.Errorf("%s\nanswers\n%s\nwant\n%s", command, got, want)
	}
}

// squeezed makes every run of white space one space, as a reader does.
func squeezed(s string) string { return strings.Join(strings.Fields(s), " ") }

// wantNotLeader runs a call on a follower that is printed with 127.0.0.1:9001,
// and compares its refusal with the printed one, where the leader is node1.
func (p *raftogramPage) wantNotLeader(command string) {
	p.t.Helper()
	const printed = `Code: FailedPrecondition
Message: not leader: retry on suggested leader client endpoint
Details:
1)	{
      "@type": "type.googleapis.com/raftogram.v1.NotLeader",
      "leaderGrpcTarget": "127.0.0.1:9000",
      "raftLeaderId": "node1"
    }
`
	testcluster.Eventually(p.t, "the refusal of a follower", func() error {
		leader, follower := p.awaitLeader()
		want := strings.NewReplacer("127.0.0.1:9000", leader, "node1", p.names[leader]).Replace(printed)
		stdout, stderr, code := p.run(strings.ReplaceAll(command, "127.0.0.1:9001", follower))
		if after, _ := p.awaitLeader(); after != leader {
			return fmt.Errorf("the leader was %s and is %s", leader, after)
		}
		if code != notLeaderExit || stdout != "" || squeezed(stderr) != squeezed("ERROR: "+want) {
			p.t.Fatalf("%s: exit code %d, %s\n%s\nwant\n%s", command, code, stdout, stderr, want)
		}
		return nil
	})
}

// wantLogsForPeople expects that the nodes do not log JSON.
func (p *raftogramPage) wantLogsForPeople() {
	p.t.Helper()
	for name, n := range p.nodes {
		if log := n.log.String(); log == "" || strings.HasPrefix(log, "{") {
			p.t.Errorf("%s: the log is not one for people: %s", name, testcluster.Tail(log, 5))
		}
	}
}

// stopAll is Ctrl-C in every terminal.
func (p *raftogramPage) stopAll() {
	p.t.Helper()
	for _, n := range p.nodes {
		n.signal(syscall.SIGINT)
	}
	for name, n := range p.nodes {
		if code := n.wait(); code != 0 {
			p.t.Errorf("%s: exit code %d after Ctrl-C", name, code)
		}
	}
}

const (
	createGeneral = grpcurlCall + `-d '{"channel_id":"general","name":"General"}' \
  127.0.0.1:9000 raftogram.v1.Messenger/CreateChannel`
	sendHello = grpcurlCall + `-d "{
    \"channel_id\": \"general\",
    \"author_id\": \"alice\",
    \"payload\": \"$(echo -n 'Hello' | base64)\",
    \"client_message_id\": \"msg-1\"
  }" \
  127.0.0.1:9000 raftogram.v1.Messenger/SendMessage`
	readGeneral = grpcurlCall + `-d '{"channel_id":"general","after_sequence":"0","limit":50}' \
  127.0.0.1:9000 raftogram.v1.Messenger/ReadHistory`
	subscribeGeneral = grpcurlCall + `-d '{"channel_id":"general","after_sequence":"0"}' \
  127.0.0.1:9000 raftogram.v1.Messenger/Subscribe`
	generalIsNew  = `{ "channelId": "general", "name": "General", "created": true }`
	helloIsStored = `{ "sequence": "1", "deduplicated": false }`
	generalHolds  = `{ "messages": [ { "sequence": "1", "authorId": "alice", "payload": "SGVsbG8=", "clientMessageId": "msg-1" } ], "hasMore": false }`
)

func TestRaftogramPage(t *testing.T) {
	slow.Test(t)
	p := newRaftogramPage(t)
	for id := range 3 {
		p.configure(id + 1)
	}

	// "Startup order does not matter": the last one is alone for a while, and
	// names no leader then.
	p.start("node3", "./raftogram -config config.node3.yaml -dev")
	testcluster.Eventually(t, "/health of a node alone", func() error {
		_, err := p.check.Health(t.Context(), p.addrs.Replace("http://127.0.0.1:8082"))
		return err
	})
	alone := p.health(8082)
	if role := alone["role"]; role != "follower" && role != "candidate" {
		t.Errorf("a node alone is %q", role)
	}
	delete(alone, "role")
	if diff := cmp.Diff(map[string]any{"node_id": "node3", "is_leader": false}, alone); diff != "" {
		t.Errorf("/health of a node alone (-want +got):\n%s", diff)
	}
	p.start("node1", "./raftogram -config config.node1.yaml -dev")
	p.start("node2", "./raftogram -config config.node2.yaml -dev")
	p.awaitLeader()
	p.wantLogsForPeople()

	// Client API with grpcurl.
	methods := p.onLeader(grpcurlCall + "127.0.0.1:9000 list raftogram.v1.Messenger")
	if want := "raftogram.v1.Messenger.CreateChannel\nraftogram.v1.Messenger.ReadHistory\nraftogram.v1.Messenger.SendMessage\nraftogram.v1.Messenger.Subscribe\n"; methods != want {
		t.Errorf("the methods are\n%swant\n%s", methods, want)
	}
	var assigned struct {
		ChannelID string `json:"channelId"`
		Name      string `json:"name"`
		Created   bool   `json:"created"`
	}
	answer := p.onLeader(grpcurlCall + `-d '{"name":"general"}' \
  127.0.0.1:9000 raftogram.v1.Messenger/CreateChannel`)
	if err := json.Unmarshal([]byte(answer), &assigned); err != nil {
		t.Fatalf("CreateChannel: %v: %s", err, answer)
	}
	if !regexp.MustCompile(`^channel-[1-9][0-9]*$`).MatchString(assigned.ChannelID) || assigned.Name != "general" || !assigned.Created {
		t.Errorf("a channel without an id: %s", answer)
	}
	p.wantAnswer(createGeneral, generalIsNew)
	p.wantAnswer(createGeneral, strings.Replace(generalIsNew, "true", "false", 1))
	p.wantAnswer(sendHello, helloIsStored)
	p.wantAnswer(sendHello, strings.Replace(helloIsStored, "false", "true", 1))
	p.wantAnswer(readGeneral, generalHolds)
	p.subscribe()

	// Calling a follower.
	p.wantNotLeader(grpcurlCall + `-d '{"name":"general"}' \
  127.0.0.1:9001 raftogram.v1.Messenger/CreateChannel`)
	// Beyond the page: the same without the proto file.
	p.wantNotLeader(`grpcurl -plaintext -d '{"name":"general"}' 127.0.0.1:9001 raftogram.v1.Messenger/CreateChannel`)
	if services := p.onLeader(`grpcurl -plaintext 127.0.0.1:9000 list`); !strings.Contains(services, "raftogram.v1.Messenger\n") {
		t.Errorf("by reflection the services are\n%s", services)
	}

	// A channel is a room, on every node.
	for port := 8080; port <= 8082; port++ {
		api := fmt.Sprint("curl -s --fail-with-body http://127.0.0.1:", port)
		if got, want := p.must(api+"/rooms"), fmt.Sprintf("[%q,\"general\"]\n", assigned.ChannelID); got != want {
			t.Errorf("the rooms on %d are %s, want %s", port, got, want)
		}
		var got []testcluster.Message
		answer := p.must(api + "/rooms/general")
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Fatalf("room general on %d: %v: %s", port, err, answer)
		}
		for i := range got {
			if got[i].PostedAt.IsZero() {
				t.Errorf("message %d on %d has no time", i+1, port)
			}
			got[i].PostedAt = got[0].PostedAt
		}
		if len(got) == 0 {
			t.Fatalf("room general on %d is empty", port)
		}
		want := []testcluster.Message{
			{Room: "general", Seq: 1, ID: 1, User: "alice", Message: "Hello", ClientMessageID: "msg-1", PostedAt: got[0].PostedAt},
			{Room: "general", Seq: 2, ID: 2, User: "bob", Message: "Hi", ClientMessageID: "msg-2", PostedAt: got[0].PostedAt},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("room general on %d (-want +got):\n%s", port, diff)
		}
	}

	// Clean restart, this time by the variables.
	p.stopAll()
	p.must("test -d ./data/node1 -a -d ./data/node2 -a -d ./data/node3")
	p.must("rm -rf ./data/node1 ./data/node2 ./data/node3")
	for i := range 3 {
		p.start(fmt.Sprint("node", i+1), fmt.Sprintf("RAFTOGRAM_CONFIG=config.node%d.yaml RAFTOGRAM_DEV=1 exec ./raftogram", i+1))
	}
	p.awaitLeader()
	p.wantLogsForPeople()
	if rooms := p.must("curl -s --fail-with-body http://127.0.0.1:8080/rooms"); rooms != "[]\n" {
		t.Errorf("after the clean restart the rooms are %s", rooms)
	}
	p.wantAnswer(createGeneral, generalIsNew)
	p.wantAnswer(sendHello, helloIsStored)
	p.wantAnswer(readGeneral, generalHolds)
	p.stopAll()
}

// subscribe keeps the printed subscription running, sends one more message "from
// another terminal", and ends it with Ctrl-C.
func (p *raftogramPage) subscribe() {
	p.t.Helper()
	var s *process
	testcluster.Eventually(p.t, "the stored message", func() error {
		if s == nil || s.ended() { // it was opened where nobody leads any more
			leader, _ := p.awaitLeader()
			s = start(p.t, p.dir, "bash", "-c", strings.ReplaceAll(subscribeGeneral, "127.0.0.1:9000", leader))
		}
		return has(s, `"msg-1"`)
	})
	p.wantAnswer(strings.NewReplacer("alice", "bob", "'Hello'", "'Hi'", "msg-1", "msg-2").Replace(sendHello), `{ "sequence": "2", "deduplicated": false }`)
	testcluster.Eventually(p.t, "the live message", func() error { return has(s, `"msg-2"`, "\n}\n") })

	type stored struct{ Sequence, AuthorID, Payload, ClientMessageID string }
	var got []stored
	chunks := json.NewDecoder(strings.NewReader(s.out.String()))
	for {
		var chunk struct{ Messages []stored }
		if err := chunks.Decode(&chunk); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			p.t.Fatalf("Subscribe prints %s: %v", s.out.String(), err)
		}
		got = append(got, chunk.Messages...)
	}
	if diff := cmp.Diff([]stored{{"1", "alice", "SGVsbG8=", "msg-1"}, {"2", "bob", "SGk=", "msg-2"}}, got); diff != "" {
		p.t.Errorf("the subscription (-want +got):\n%s", diff)
	}
	// A terminal's Ctrl-C reaches all programs in it.
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT); err != nil {
		p.t.Fatal(err)
	}
	s.wait()
}

// has says which of words, in this order, a process has not printed yet.
func has(p *process, words ...string) error {
	text := p.out.String()
	for _, w := range words {
		_, rest, found := strings.Cut(text, w)
		if !found {
			return fmt.Errorf("no %q in %q", w, text)
		}
		text = rest
	}
	return nil
}
