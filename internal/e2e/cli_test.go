package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// shell runs a line of bash in the cluster's directory, with the nodes that
// --endpoints would name in the environment, and waits for it.
func (c *cluster) shell(endpoints []string, line string) *process {
	c.t.Helper()
	p := c.background(endpoints, line)
	p.wait()
	return p
}

// background is shell without the wait. The line must be one command that bash
// can become, so that a signal reaches that.
func (c *cluster) background(endpoints []string, line string) *process {
	c.t.Helper()
	p := start(c.t, c.dir, "bash", "-c", "export RAFT_CHAT_ENDPOINTS="+strings.Join(endpoints, ",")+"; "+line)
	p.name = line
	return p
}

// wantRun compares the outcome of a command that has ended; anything may be on
// its standard error that has says in it, nothing if that is "".
func wantRun(t *testing.T, p *process, code int, stdout, says string) {
	t.Helper()
	if got := p.wait(); got != code {
		t.Errorf("%s: exit code %d, want %d", p.name, got, code)
	}
	if diff := cmp.Diff(stdout, p.out.String()); diff != "" {
		t.Errorf("%s: standard output (-want +got):\n%s", p.name, diff)
	}
	if text := p.log.String(); !strings.Contains(text, says) || says == "" && text != "" {
		t.Errorf("%s: standard error is %q, want %q", p.name, text, says)
	}
}

// decoded reads all JSON values that a command has printed.
func decoded[T any](t *testing.T, p *process) []T {
	t.Helper()
	var all []T
	for d := json.NewDecoder(strings.NewReader(p.out.String())); ; {
		var one T
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s prints no JSON: %v\n%s", p.name, err, p.out.String())
		}
		all = append(all, one)
	}
}

// deadURL is the URL of a node that does not run.
func deadURL(t *testing.T) string {
	t.Helper()
	return "http://" + testaddr.Addr(t)
}

func TestCLI(t *testing.T) {
	c := startCluster(t, 3, quick...)
	dead := deadURL(t)
	some := append([]string{dead}, c.urls()...) // the first one tried does not answer

	// What is sent.
	wantRun(t, c.shell(some, `raft-chat send --user ann general hello`), 0, "general/1\n", "")
	wantRun(t, c.shell(some, `printf 'two\nlines\n' | raft-chat send --user ann general -`), 0, "general/2\n", "")
	wantRun(t, c.shell(some, `echo piped | raft-chat send --user bo alerts`), 0, "alerts/1\n", "")
	var third testcluster.Message
	for _, form := range []string{"-o json", "-o=json", "--output json"} { // the id makes them one message
		p := c.shell(some, `raft-chat send `+form+` --user bo --client-message-id x-3 general third`)
		sent := decoded[testcluster.Message](t, p)
		if p.wait() != 0 || len(sent) != 1 {
			t.Fatalf("%s: exit code %d: %s", p.name, p.wait(), p.out.String())
		}
		want := testcluster.Message{Room: "general", Seq: 3, ID: 4, User: "bo", Message: "third", PostedAt: sent[0].PostedAt, ClientMessageID: "x-3"}
		if diff := cmp.Diff(want, sent[0]); diff != "" || !third.PostedAt.IsZero() && !sent[0].PostedAt.Equal(third.PostedAt) {
			t.Errorf("%s: %v is not as at first (-want +got):\n%s", p.name, sent[0], diff)
		}
		third = sent[0]
	}

	// What is read, from each node: every answer is as new as the last send.
	for i, url := range c.urls() {
		from := []string{url, dead}
		p := c.shell(from, `raft-chat tail general --since all --poll`)
		var texts []string
		for line := range strings.Lines(p.out.String()) {
			// "2030-01-02 03:04:05  ann: hello"
			if len(line) < 21 || line[10] != ' ' || line[19:21] != "  " {
				t.Fatalf("tail prints the line %q", line)
			}
			texts = append(texts, line[21:])
		}
		if diff := cmp.Diff([]string{"ann: hello\n", `ann: two\nlines` + "\n", "bo: third\n"}, texts); diff != "" || p.wait() != 0 {
			t.Errorf("tail on node %d: exit code %d (-want +got):\n%s", i+1, p.wait(), diff)
		}
		p = c.shell(from, `raft-chat tail general alerts --since 1 --poll -o json`)
		var ids []uint64
		for _, m := range decoded[testcluster.Message](t, p) {
			ids = append(ids, m.ID)
		}
		if !slices.Equal(ids, []uint64{2, 3, 4}) {
			t.Errorf("tail of two rooms on node %d has the IDs %v, want 2, 3, 4", i+1, ids)
		}
		p = c.shell(from, `raft-chat rooms`)
		var rows [][]string
		for line := range strings.Lines(p.out.String()) {
			rows = append(rows, strings.Fields(line))
		}
		if len(rows) != 3 || !slices.Equal(rows[0], []string{"ROOM", "MESSAGES", "FIRST", "LAST", "LAST", "POSTED"}) ||
			!slices.Equal(rows[1][:4], []string{"alerts", "1", "1", "1"}) || !slices.Equal(rows[2][:4], []string{"general", "3", "1", "3"}) {
			t.Errorf("rooms on node %d:\n%s", i+1, p.out.String())
		}
	}
	type room struct {
		Name                        string
		Messages, FirstSeq, LastSeq uint64
	}
	if diff := cmp.Diff([][]room{{{"general", 3, 1, 3}}}, decoded[[]room](t, c.shell(some, `raft-chat rooms gen -o json`))); diff != "" {
		t.Errorf("rooms gen -o json (-want +got):\n%s", diff)
	}
	wantRun(t, c.shell(some, `raft-chat rooms none -o json`), 0, "[]\n", "")
	wantRun(t, c.shell(some, `raft-chat tail none --poll`), 0, "", "cannot reach "+dead)
	wantRun(t, c.shell(some, `raft-chat tail none --poll --quiet`), 0, "", "")

	c.wantMembers(some)
	c.wantStatus(dead)

	// What is refused, and what cannot be done.
	for _, tt := range []struct {
		endpoints  []string
		line, says string
		code       int
	}{
		{some, `raft-chat send --user u "$(printf 'r%.0s' {1..129})" x`, "room_name_invalid", 1},
		{some, `printf '' | raft-chat send --user u general -`, "message_empty", 1},
		{some, `printf '\377' | raft-chat send --user u general -`, "message_invalid_utf8", 1},
		{some, `raft-chat send --user u --client-message-id x-3 general 'not the third'`, "client_message_id_conflict", 1},
		{some, `raft-chat tail --quiet --since yesterday general`, "cursor_invalid", 1},
		{some, `raft-chat send`, "a room and a message", 2},
		{some, `raft-chat rooms -o yaml`, "table or json", 2},
		{some, `raft-chat sned general x`, "sned", 2},
		{[]string{"ftp://127.0.0.1"}, `raft-chat members`, "RAFT_CHAT_ENDPOINTS", 2},
		{[]string{dead}, `raft-chat send --user u --timeout 300ms general x`, "refused", 4},
		{[]string{dead}, `raft-chat rooms --timeout 300ms`, "refused", 4},
		{[]string{dead}, `raft-chat tail --quiet --timeout 300ms general`, "no node could answer (for longer than --timeout); last tried", 4},
	} {
		p := c.shell(tt.endpoints, tt.line)
		wantRun(t, p, tt.code, "", tt.says)
		oneLine(t, p)
	}
	if got, err := c.client.Messages(t.Context(), c.nodes[0].url, "general"); err != nil || len(got) != 3 {
		t.Errorf("after all of it the room has %d messages, want 3 (%v)", len(got), err)
	}
}

// wantMembers compares what members prints with the cluster.
func (c *cluster) wantMembers(endpoints []string) {
	c.t.Helper()
	type member struct {
		ID                 uint64
		PeerURL, ClientURL string
		Role               string
		Active             bool
	}
	var want []member
	for _, n := range c.nodes {
		want = append(want, member{ID: uint64(n.id), PeerURL: n.peerURL, ClientURL: n.url, Role: "follower", Active: true})
	}
	testcluster.Eventually(c.t, "members to list all three", func() error {
		p := c.shell(endpoints, `raft-chat members -o json`)
		lists := decoded[[]member](c.t, p)
		if code := p.wait(); code != 0 || len(lists) != 1 {
			return fmt.Errorf("exit code %d: %s", code, p.out.String()+p.log.String())
		}
		leaders := 0
		for i, m := range lists[0] {
			if m.Role == "leader" {
				leaders++
				lists[0][i].Role = "follower"
			}
		}
		if diff := cmp.Diff(want, lists[0]); diff != "" || leaders != 1 {
			return fmt.Errorf("%d leaders (-want +got):\n%s", leaders, diff)
		}
		return nil
	})
	table := c.shell(endpoints, `raft-chat members`).out.String()
	for _, n := range c.nodes {
		if !strings.Contains(table, n.peerURL) || !strings.Contains(table, n.url) {
			c.t.Errorf("members does not show node %d:\n%s", n.id, table)
		}
	}
}

// wantStatus compares what status prints of all nodes, of all and a dead one,
// and of that alone.
func (c *cluster) wantStatus(dead string) {
	c.t.Helper()
	type line struct {
		Endpoint         string
		Reachable, Ready bool
		IsLeader         bool
		Error            string
	}
	for _, tt := range []struct {
		endpoints []string
		code      int
		says      string
	}{
		{c.urls(), 0, ""},
		{append(c.urls(), dead), 1, "1 of 4 nodes are not ready"},
		{[]string{dead}, 4, "no node could answer"},
	} {
		// A leader may be elected just now, and until then no node is ready.
		testcluster.Eventually(c.t, "the status", func() error {
			p := c.shell(tt.endpoints, `raft-chat status -o json`)
			lists := decoded[[]line](c.t, p)
			if code := p.wait(); code != tt.code || !strings.Contains(p.log.String(), tt.says) || len(lists) != 1 || len(lists[0]) != len(tt.endpoints) {
				return fmt.Errorf("exit code %d, want %d:\n%s", code, tt.code, p.out.String()+p.log.String())
			}
			leaders := 0
			for i, l := range lists[0] {
				alive := tt.endpoints[i] != dead
				if l.Endpoint != tt.endpoints[i] || l.Reachable != alive || l.Ready != alive || (l.Error == "") != alive {
					return fmt.Errorf("%s has the line %+v", tt.endpoints[i], l)
				}
				if l.IsLeader {
					leaders++
				}
			}
			if len(tt.endpoints) > 1 && leaders != 1 {
				return fmt.Errorf("%d nodes lead:\n%s", leaders, p.out.String())
			}
			return nil
		})
	}
	table := c.shell(append(c.urls(), dead), `raft-chat status`).out.String()
	if !strings.HasPrefix(table, "ENDPOINT ") || strings.Count(table, "\n") != 5 || !strings.Contains(table, "connection refused") {
		c.t.Errorf("status prints\n%s", table)
	}
}

// The tail's node is killed twice while messages are being sent; each of them is
// a line once, in order.
func TestCLITailGoesOnWhenItsNodeIsKilled(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	tail := c.background(c.urls(), `exec raft-chat tail numbers --since all`)
	const third = 80
	for sent := 0; ; {
		on := c.tailsNode(tail)
		for range third {
			sent++
			text := fmt.Sprint("number ", sent)
			// Another node takes it, whose leader may be the one that is killed.
			c.post(c.nodes[on.id%3], testcluster.Message{Room: "numbers", User: "ann", Message: text, ClientMessageID: text})
			if sent%third == third/2 && sent < 3*third {
				awaitOut(tail, "number ") // it has begun
				on = c.tailsNode(tail)
				on.kill()
			}
		}
		awaitOut(tail, fmt.Sprintf("number %d\n", sent))
		if sent == 3*third {
			break
		}
		c.start(on.id)
		c.awaitReady()
	}
	tail.signal(syscall.SIGINT)
	if code := tail.wait(); code != 0 {
		t.Errorf("the interrupted tail has the exit code %d", code)
	}
	var got, want []string
	for line := range strings.Lines(tail.out.String()) {
		_, text, _ := strings.Cut(line, "  ")
		got = append(got, text)
	}
	for i := range 3 * third {
		want = append(want, fmt.Sprintf("ann: number %d\n", i+1))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the lines of the tail (-want +got):\n%s", diff)
	}
	if said := tail.log.String(); strings.Count(said, "raft-chat: lost ") < 2 || strings.Count(said, "raft-chat: going on at ") < 2 {
		t.Errorf("two nodes were lost; standard error:\n%s", said)
	}
}

// tailsNode is the node that a tail has said last it goes on at; before it has
// said anything that is the first.
func (c *cluster) tailsNode(tail *process) *node {
	c.t.Helper()
	const words = "going on at "
	said := tail.log.String()
	at := strings.LastIndex(said, words)
	if at < 0 {
		return c.nodes[0]
	}
	url, _, _ := strings.Cut(said[at+len(words):], "\n")
	i := slices.Index(c.urls(), url)
	if i < 0 {
		c.t.Fatalf("the tail goes on at %q:\n%s", url, said)
	}
	return c.nodes[i]
}

// awaitOut waits until a process has printed text.
func awaitOut(p *process, text string) {
	p.t.Helper()
	testcluster.Eventually(p.t, p.name+" to print "+text, func() error {
		if p.ended() && !strings.Contains(p.out.String(), text) {
			p.t.Fatalf("%s has ended: %v", p.name, p.cmd.ProcessState)
		}
		if !strings.Contains(p.out.String(), text) {
			return fmt.Errorf("%d lines so far", strings.Count(p.out.String(), "\n"))
		}
		return nil
	})
}

// A command that answers in another room, in its own name and not in that of
// whom it answers.
func TestCLITailExec(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	bot := c.background(c.urls(), `exec raft-chat tail questions --since all --exec '
		cat >> objects
		test "$RAFT_CHAT_SEQ" != 2 || exit 7
		USER=bot raft-chat send answers "$RAFT_CHAT_ROOM/$RAFT_CHAT_SEQ: $RAFT_CHAT_USER says $RAFT_CHAT_MESSAGE"'`)
	const hostile = `"; touch hit; $(touch hit) ` + "`touch hit`" + ` ' \`
	for i, text := range []string{"why?", "a command fails at this", hostile} {
		c.post(c.nodes[i], testcluster.Message{Room: "questions", User: "ann", Message: text, ClientMessageID: fmt.Sprint(i)})
	}
	awaitOut(bot, "answers/2\n")
	bot.signal(syscall.SIGTERM)
	wantRun(t, bot, 0, "answers/1\nanswers/2\n", "raft-chat: command for questions/2: exit status 7\n")

	answers, err := c.client.Messages(t.Context(), c.nodes[2].url, "answers")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range answers {
		got = append(got, m.User+": "+m.Message)
	}
	if diff := cmp.Diff([]string{"bot: questions/1: ann says why?", "bot: questions/3: ann says " + hostile}, got); diff != "" {
		t.Errorf("the answers (-want +got):\n%s", diff)
	}
	objects := c.shell(nil, "cat objects; ! test -e hit")
	if seen := decoded[testcluster.Message](t, objects); len(seen) != 3 || seen[2].Message != hostile || objects.wait() != 0 {
		t.Errorf("the commands were given %s, and what is in a message was run: %t", objects.out.String(), objects.wait() != 0)
	}

	// With --poll it ends by itself when the last command has.
	poll := c.shell(c.urls(), `raft-chat tail questions --poll --exec 'printf "%s %s\n" "$RAFT_CHAT_SEQ" "$RAFT_CHAT_ID"; printenv RAFT_CHAT_RAW | head -c 8; echo'`)
	if lines := strings.Split(poll.out.String(), "\n"); poll.wait() != 0 || len(lines) != 7 || !strings.HasPrefix(lines[0], "1 ") || lines[1] != `{"Room":` || !strings.HasPrefix(lines[4], "3 ") {
		t.Errorf("exit code %d, %q", poll.wait(), lines)
	}
}
