package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// example is a fenced block of docs/protocol.md.
type example struct {
	kind  string
	line  int // of the page
	lines []string
}

func examples(t *testing.T) (all []example) {
	t.Helper()
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for i, line := range strings.Split(string(page), "\n") {
		kind, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !inside:
			all = append(all, example{kind: kind, line: i + 1})
		case !fence && inside:
			last := &all[len(all)-1]
			last.lines = append(last.lines, line)
		}
		inside = inside != fence
	}
	return all
}

var postedAt = regexp.MustCompile(`"PostedAt":"[^"]+"`)

// timeless replaces what differs between two runs.
func timeless(line string) string { return postedAt.ReplaceAllString(line, `"PostedAt":"then"`) }

// player plays one example: say and hear are those of its connection.
type player struct {
	*node
	t    *testing.T
	say  func(line string)
	hear func() string
}

// Every example of the page is true, and every type of frame has one.
func TestProtocolExamples(t *testing.T) {
	seen := make(map[string]bool)
	for _, e := range examples(t) {
		t.Run(fmt.Sprint("line ", e.line), func(t *testing.T) {
			n := newNode(t, nil)
			n.cluster.set(func(c *fakeCluster) {
				c.status.LeaderClientURL, c.members[1].ClientURL = "http://127.0.0.1:22380", "http://127.0.0.1:22380"
			})
			p := &player{node: n, t: t}
			for len(e.lines) > 0 {
				line := e.lines[0]
				switch {
				case strings.HasPrefix(line, "-- "):
					p.happen(line[3:])
				case strings.HasPrefix(line, "> ") && p.hear == nil:
					p.open(e.kind, &e.lines)
				case strings.HasPrefix(line, "> "):
					p.say(line[2:])
				case strings.HasPrefix(line, "<"):
					want := strings.TrimPrefix(strings.TrimPrefix(line, "<"), " ")
					if got := p.hear(); timeless(got) != timeless(want) {
						t.Fatalf("got  %s\nwant %s", got, want)
					}
				default:
					t.Fatalf("line %q", line)
				}
				var f struct{ Type string }
				if body := strings.TrimLeft(line, "<> "); json.Unmarshal([]byte(body), &f) == nil && f.Type != "" {
					seen[line[:1]+f.Type] = true
				}
				e.lines = e.lines[1:]
			}
		})
	}
	for _, kind := range []string{
		">subscribe", ">unsubscribe", ">send", ">history", ">ping", "<subscribed", "<unsubscribed", "<messages", "<ack", "<history",
		"<pong", "<status", "<gap", "<error", "<end",
	} {
		if !seen[kind] {
			t.Errorf("no example of %s", kind)
		}
	}
}

// happen does what happens elsewhere.
func (p *player) happen(what string) {
	p.t.Helper()
	words := strings.SplitN(what, " ", 4)
	switch words[0] {
	case "post":
		text, err := strconv.Unquote(words[3])
		if err != nil {
			p.t.Fatal(err)
		}
		p.post(words[1], words[2], text)
	case "trim":
		below, _ := strconv.ParseUint(words[2], 10, 64)
		if _, err := p.service.Trim(p.t.Context(), chat.Actor{}, words[1], below); err != nil {
			p.t.Fatal(err)
		}
	case "leader":
		leader := uint64(2)
		p.log.Inject(nil)
		if words[1] == "lost" {
			leader = 0
			refusal := &chat.Error{Code: chat.CodeNoLeader, Detail: "no leader is known", RetryAfter: time.Second}
			p.log.Inject(func() chattest.Fault { return chattest.Fault{Refuse: refusal} })
		}
		p.cluster.set(func(c *fakeCluster) { c.status.LeaderID = leader })
		eventually(p.t, "the leader's state is not noticed", func() bool { return p.server.lost.Load() == (leader == 0) })
	case "stop":
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			p.server.Shutdown()
		}()
		p.t.Cleanup(func() { <-stopped })
	default:
		p.t.Fatalf("what is %q", what)
	}
}

// open makes the connection of an example, which for all but sessions takes the request from its lines.
func (p *player) open(kind string, lines *[]string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	p.t.Cleanup(cancel)
	if kind == "raft-chat.v1" {
		p.socket(ctx, "/ws", sessionProtocol)
		p.say((*lines)[0][2:])
		return
	}
	path := strings.TrimPrefix((*lines)[0], "> GET ")
	if kind == "ws" {
		p.socket(ctx, path, "")
		return
	}
	request, err := http.NewRequestWithContext(ctx, "GET", p.url+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for len(*lines) > 1 && strings.HasPrefix((*lines)[1], "> ") {
		name, value, _ := strings.Cut((*lines)[1][2:], ": ")
		request.Header.Set(name, value)
		*lines = (*lines)[1:]
	}
	response, err := dialer(0).Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { response.Body.Close() })
	body := bufio.NewReader(response.Body)
	p.hear = func() string {
		line, err := body.ReadString('\n')
		if err != nil {
			return "(end)"
		}
		return strings.TrimSuffix(line, "\n")
	}
}

func (p *player) socket(ctx context.Context, path, subprotocol string) {
	p.t.Helper()
	options := &websocket.DialOptions{HTTPClient: dialer(0)}
	if subprotocol != "" {
		options.Subprotocols = []string{subprotocol}
	}
	conn, _, err := websocket.Dial(ctx, p.url+path, options)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.CloseNow() })
	p.say = func(line string) {
		if err := conn.Write(ctx, websocket.MessageText, []byte(line)); err != nil {
			p.t.Fatal(err)
		}
	}
	p.hear = func() string {
		_, data, err := conn.Read(ctx)
		var closed websocket.CloseError
		if errors.As(err, &closed) {
			return fmt.Sprintf("(close %d %s)", closed.Code, closed.Reason)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		return string(data)
	}
}

// The page names every code that only streams have.
func TestProtocolCodes(t *testing.T) {
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{codeFrameTypeUnknown, codeRequestIDInvalid, codeJSONInvalid, codeCursorInvalid, "slow", codeStopping, codeNoLeader} {
		if !slices.Contains(regexp.MustCompile(`[a-z_0-9]+`).FindAllString(string(page), -1), code) {
			t.Errorf("%s is not named", code)
		}
	}
}
