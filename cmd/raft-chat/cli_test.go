package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/client"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// cliNode answers what the commands ask of a node.
type cliNode struct {
	url string

	mu     sync.Mutex // guards the rest
	sent   []map[string]string
	answer func(w http.ResponseWriter, r *http.Request) bool // first; true: has answered
}

func startCLINode(t *testing.T) *cliNode {
	t.Helper()
	n := &cliNode{}
	srv := httptest.NewServer(n)
	n.url = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return n
}

func (n *cliNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.answer != nil && n.answer(w, r) {
		return
	}
	switch {
	case r.Method == http.MethodPost:
		body := map[string]string{}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		n.sent = append(n.sent, body)
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"Room":"general","Seq":%d,"ID":9,"User":%q,"Message":%q,"PostedAt":"2030-01-02T03:04:05Z"}`+"\n", len(n.sent), body["User"], body["Message"])
	case strings.HasSuffix(r.URL.Path, "/events"):
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "event: gap\nid: 1\ndata: {\"Room\":\"general\",\"FirstSeq\":1,\"LastSeq\":4}\n\n")
		for i, m := range []string{`"Message":"hello"`, `"Message":"two\nlines \u001b[31mred\u202e\u0000 'x'"`, `"Payload":"/wA="`} {
			fmt.Fprintf(w, "id: %d\ndata: {\"Room\":\"general\",\"Seq\":%d,\"ID\":%d,\"User\":\"ann\",%s,\"PostedAt\":\"2030-01-02T03:04:05Z\"}\n\n", i+5, i+5, i+5, m)
		}
	case r.URL.Path == "/rooms":
		if r.URL.Query().Get("after") == "" {
			w.Header().Set("Link", `</rooms?after=general>; rel="next"`)
			fmt.Fprint(w, `[{"Name":"general","Messages":3,"FirstSeq":5,"LastSeq":7,"LastPostedAt":"2030-01-02T03:04:05Z"}]`)
			return
		}
		fmt.Fprint(w, `[{"Name":"new","Messages":0,"FirstSeq":0,"LastSeq":0}]`)
	case r.URL.Path == "/raft":
		fmt.Fprint(w, `[{"ID":1,"Name":"one","PeerURL":"http://p:1","ClientURL":"http://c:1","Role":"leader","Match":7,"Lag":0,"Active":true}]`)
	case r.URL.Path == "/health":
		fmt.Fprint(w, `{"node_id":"one","role":"leader","is_leader":true,"leader_id":"one"}`)
	case r.URL.Path == "/readyz":
		fmt.Fprint(w, "ok\n")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// noNode is an address at which nobody listens.
func noNode(t *testing.T) string {
	t.Helper()
	return "http://" + testaddr.Addr(t)
}

func TestSendCommand(t *testing.T) {
	n := startCLINode(t)
	got := invoke(t, "", []string{"send", "--user", "bo", "--endpoints", noNode(t) + "," + n.url, "general", "hello"})
	if got.code != exitOK || got.stdout != "general/1\n" || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	// The environment names the nodes and the author, and -o=json the form.
	got = invoke(t, "", []string{"send", "-o=json", "--client-message-id", "mine", "general", "again"}, "RAFT_CHAT_ENDPOINTS="+n.url, "USER=eve", "RAFT_CHAT_USER=mallory")
	if got.code != exitOK || !strings.HasPrefix(got.stdout, `{"Room":"general","Seq":2,`) {
		t.Errorf("%+v", got)
	}
	for i, want := range []map[string]string{{"User": "bo", "Message": "hello"}, {"User": "eve", "Message": "again", "ClientMessageID": "mine"}} {
		for key, value := range want {
			if n.sent[i][key] != value {
				t.Errorf("message %d has the %s %q, want %q", i, key, n.sent[i][key], value)
			}
		}
	}
	if n.sent[0]["ClientMessageID"] == "" {
		t.Error("no client message id")
	}
}

func TestSendCommandReadsStandardInput(t *testing.T) {
	n := startCLINode(t)
	for input, want := range map[string]string{"one\ntwo\n": "one\ntwo", "x": "x", "y\r\n": "y", "z\n\n": "z\n", "": ""} {
		for _, args := range [][]string{{"general", "-"}, {"general"}} {
			p := &program{env: environment{}, stdout: io.Discard, stderr: io.Discard}
			root := p.newRootCommand()
			root.SetArgs(append([]string{"send", "--user", "bo", "--endpoints", n.url}, args...))
			root.SetIn(strings.NewReader(input))
			if err := root.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if last := n.sent[len(n.sent)-1]["Message"]; last != want {
				t.Errorf("input %q became %q", input, last)
			}
		}
	}
	if _, err := readMessage(io.LimitReader(zeros{}, maxStandardInput+5)); err == nil {
		t.Error("input without end is taken")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestCommandExitCodes(t *testing.T) {
	n := startCLINode(t)
	n.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasPrefix(r.URL.Path, "/rooms/refused"):
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"code":"room_name_invalid","detail":"not that"}`)
		case strings.HasPrefix(r.URL.Path, "/rooms/unknown"):
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"code":"outcome_unknown"}`)
		case strings.HasPrefix(r.URL.Path, "/rooms/leaderless"):
			w.Header().Set("Retry-After", "60") // or the time could end within an attempt, whose outcome is unknown
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"code":"no_leader"}`)
		default:
			return false
		}
		return true
	}
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"send --timeout 1m --user u refused x":            {exitFailure, "room_name_invalid: not that"},
		"send --timeout 100ms --user u unknown x":         {exitUnknown, "client message id"},
		"send --timeout 2s --user u leaderless x":         {exitUnavailable, "no_leader"},
		"send --timeout 100ms --user u --endpoints D r x": {exitUnavailable, "refused"},
		"rooms --timeout 100ms --endpoints D":             {exitUnavailable, "refused"},
		"members --timeout 100ms --endpoints D":           {exitUnavailable, "refused"},
		"status --timeout 100ms --endpoints D":            {exitUnavailable, "no node could answer"},
		"status --timeout 1m --endpoints N,D":             {exitFailure, "1 of 2 nodes are not ready"},
		"tail --timeout 100ms --endpoints D general":      {exitUnavailable, "no node could answer (for longer than --timeout); last tried http://"},
		"tail --since yesterday refused":                  {exitFailure, "room_name_invalid"},
		"send":                                            {exitUsage, "a room and a message"},
		"send a b c":                                      {exitUsage, "a room and a message"},
		"send --user u --timeout -1s general x":           {exitUsage, "--timeout"},
		"send --endpoints http:// general x":              {exitUsage, "--endpoints"},
		"tial general":                                    {exitUsage, "did you mean tail?"},
		"ls":                                              {exitUsage, "did you mean rooms?"},
		"publish general x":                               {exitUsage, "did you mean send?"},
		"tail -n 1001 general":                            {exitUsage, "--lines"},
		"tail -n -1 general":                              {exitUsage, "--lines"},
		"tail -n 5 --since all general":                   {exitUsage, "both say where to begin"},
		"tail -f --poll general":                          {exitUsage, "contradict"},
		"tail -n 5 refused":                               {exitFailure, "room_name_invalid"},
		"tail -n 5 --timeout 100ms --endpoints D general": {exitUnavailable, "for longer than --timeout"},
		"tail":                       {exitUsage, "one room or more"},
		"tail --timeout -1s general": {exitUsage, "--timeout"},
		"tail --exec= general":       {exitUsage, "--exec"},
		"rooms -o yaml":              {exitUsage, "table or json"},
		"rooms a b":                  {exitUsage, "at most a prefix"},
		"members x":                  {exitUsage, "neither a command nor a flag"},
		"bench fanout --rate 0":      {exitUsage, "--rate"},
		"bench connections":          {exitUsage, "--pid"},
		"bench connections --pid x":  {exitUsage, "numbers"},
	} {
		line = strings.Replace(line, " D", " "+noNode(t), 1)
		line = strings.Replace(line, "N,D", n.url+","+noNode(t), 1)
		got := invoke(t, "", strings.Fields(line), "RAFT_CHAT_ENDPOINTS="+n.url, "USER=u")
		if got.code != want.code || !strings.Contains(got.stderr, want.says) {
			t.Errorf("%s: exit code %d, %q; want %d, %q", line, got.code, got.stderr, want.code, want.says)
		}
	}
	got := invoke(t, "", []string{"rooms"}, "RAFT_CHAT_ENDPOINTS=a,,b")
	wantUsageError(t, got, "RAFT_CHAT_ENDPOINTS")
}

// Whoever waits for a command is told once why, and that only if it takes long.
func TestWaitingIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // the notice comes from a timer's goroutine
		var out strings.Builder
		told := func() string {
			mu.Lock()
			defer mu.Unlock()
			return out.String()
		}
		log, done := wait(writerFunc(func(p []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return out.Write(p)
		}), 30*time.Second)
		fail := func() { log.Debug("attempt failed", "endpoint", "http://a:1", "error", errors.New("refused")) }
		fail()
		synctest.Wait()
		if got := told(); got != "" {
			t.Errorf("told at once: %q", got)
		}
		time.Sleep(2 * noticeAfter) // of the test's own clock
		synctest.Wait()
		fail()
		done()
		if want := "raft-chat: http://a:1 does not answer: refused; trying again for 30s (--timeout)\n"; told() != want {
			t.Errorf("told %q, want %q", told(), want)
		}
	})
}

// The last messages of several rooms are the last of all of them.
func TestTailBeginsWithTheLastMessages(t *testing.T) {
	n := startCLINode(t)
	var asked []string
	n.answer = func(w http.ResponseWriter, r *http.Request) bool {
		message := func(room string, id int) string {
			return fmt.Sprintf(`{"Room":%q,"Seq":%d,"ID":%d,"User":"u","Message":"m","PostedAt":"2030-01-02T03:04:05Z"}`, room, id, id)
		}
		switch r.URL.Path {
		case "/rooms/a":
			fmt.Fprintf(w, "[%s,%s]", message("a", 3), message("a", 9))
		case "/rooms/b":
			fmt.Fprintf(w, "[%s,%s]", message("b", 4), message("b", 7))
		case "/rooms/empty":
			fmt.Fprint(w, "[]")
		default:
			asked = append(asked, r.URL.Query().Get("since"))
			return false
		}
		return true
	}
	for _, args := range []string{"a b -n 2 --poll", "a b -n3 --poll", "a b --lines 100 --poll", "empty -n 2 --poll", "a -n 0 --poll"} {
		if got := invoke(t, "", strings.Fields("tail "+args), "RAFT_CHAT_ENDPOINTS="+strings.TrimPrefix(n.url, "http://")); got.code != exitOK {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if want := "6 3 2 all 9"; strings.Join(asked, " ") != want {
		t.Errorf("streams were asked for since %q, want %q", strings.Join(asked, " "), want)
	}
}

func TestQueryCommands(t *testing.T) {
	n := startCLINode(t)
	posted := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).Local().Format(time.DateTime)
	for command, want := range map[string]string{
		"rooms": "ROOM     MESSAGES  FIRST  LAST  LAST POSTED\n" +
			"general  3         5      7     " + posted + "\n" +
			"new      0         0      0     -\n",
		"members": "ID  NAME  ROLE    ACTIVE  LAG  PEER URL    CLIENT URL  GRPC\n" +
			"1   one   leader  yes     0    http://p:1  http://c:1  -\n",
	} {
		got := invoke(t, "", []string{command, "--endpoints", n.url})
		if got.code != exitOK || got.stdout != want {
			t.Errorf("%s: %+v", command, got)
		}
	}
	got := invoke(t, "", []string{"status", "--endpoints", n.url})
	if got.code != exitOK || !strings.Contains(got.stdout, n.url) || !strings.Contains(got.stdout, "leader  one     yes") {
		t.Errorf("status: %+v", got)
	}
	for _, command := range []string{"rooms", "members", "status"} {
		got := invoke(t, "", []string{command, "-o", "json", "--endpoints", n.url})
		var list []map[string]any
		if err := json.Unmarshal([]byte(got.stdout), &list); err != nil || len(list) == 0 {
			t.Errorf("%s: %v in %q", command, err, got.stdout)
		}
		if command == "rooms" && list[0]["LastPostedAt"] != "2030-01-02T03:04:05.000000Z" {
			t.Errorf("rooms: last posted at %v", list[0]["LastPostedAt"])
		}
	}
}

func TestTailCommand(t *testing.T) {
	n := startCLINode(t)
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).Local().Format(time.DateTime)
	got := invoke(t, "", []string{"tail", "--poll", "--endpoints", n.url, "general"})
	want := at + "  ann: hello\n" + at + `  ann: two\nlines \x1b[31mred\u202e\x00 'x'` + "\n" + at + `  ann: \xff\x00` + "\n"
	if got.code != exitOK || got.stdout != want {
		t.Errorf("code %d, %q, want %q", got.code, got.stdout, want)
	}
	if got.stderr != "raft-chat: messages 1 to 4 of general were dropped before they could be read\n" {
		t.Errorf("standard error: %q", got.stderr)
	}
	got = invoke(t, "", []string{"tail", "--poll", "--endpoints", n.url, "general", "other"})
	if !strings.HasPrefix(got.stdout, at+"  general  ann: hello\n") {
		t.Errorf("several rooms: %q", got.stdout)
	}
	for _, form := range []string{"--json", "-o=json"} {
		got = invoke(t, "", []string{"tail", "--poll", form, "--endpoints", n.url, "general"})
		lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
		var m map[string]any
		if len(lines) != 3 || json.Unmarshal([]byte(lines[1]), &m) != nil || m["Message"] != "two\nlines \x1b[31mred\u202e\x00 'x'" {
			t.Errorf("%s: %q", form, got.stdout)
		}
	}
}

func TestTailExec(t *testing.T) {
	n := startCLINode(t)
	command := `printf '%s|' "$RAFT_CHAT_ROOM" "$RAFT_CHAT_USER" "$RAFT_CHAT_MESSAGE" "$RAFT_CHAT_ID" "$RAFT_CHAT_SEQ" "$RAFT_CHAT_TIME" "$OTHER"; cat; echo; test "$RAFT_CHAT_ID" != 6`
	got := invoke(t, "", []string{"tail", "--poll", "--endpoints", n.url, "--exec", command, "general"},
		"OTHER=kept", "RAFT_CHAT_ID=1", "PATH=/usr/local/bin:/usr/bin:/bin")
	lines := strings.SplitN(got.stdout, "\n", 2)
	want := `general|ann|hello|5|5|2030-01-02T03:04:05.000000Z|kept|{"Room":"general","Seq":5,"ID":5,"User":"ann","Message":"hello","PostedAt":"2030-01-02T03:04:05Z"}`
	if got.code != exitOK || lines[0] != want {
		t.Errorf("code %d, %q", got.code, lines[0])
	}
	if !strings.Contains(got.stdout, "red\u202e\ufffd 'x'|6|") || !strings.Contains(got.stdout, "\xff\ufffd|7|") {
		t.Errorf("odd messages: %q", got.stdout)
	}
	if !strings.Contains(got.stderr, "raft-chat: command for general/6: exit status 1\n") {
		t.Errorf("standard error: %q", got.stderr)
	}
}

func TestExecEnvironmentLeavesOutWhatIsTooLong(t *testing.T) {
	c := &messageCommand{env: environment{"RAFT_CHAT_MESSAGE": "old", "A": "b"}}
	list := c.environ(client.Message{Room: "r", Text: strings.Repeat("x", maxVariable+1), Raw: []byte("{}")})
	all := "\n" + strings.Join(list, "\n") + "\n"
	if strings.Contains(all, "\nRAFT_CHAT_MESSAGE=") || !strings.Contains(all, "\nRAFT_CHAT_RAW={}\n") || !strings.Contains(all, "\nA=b\n") {
		t.Errorf("environment: %.200q", all)
	}
}

// A tail that is interrupted ends well, and says on the way what it lost.
func TestTailGoesOnAndIsInterrupted(t *testing.T) {
	n := startCLINode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	streams := 0
	n.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/events") {
			return false
		}
		if streams++; streams == 2 && r.URL.Query().Get("since") != "7" {
			t.Errorf("went on at %s", r.URL.RawQuery)
		}
		if streams == 3 {
			cancel()
		}
		return false
	}
	var stdout, stderr bytes.Buffer
	p := &program{env: environment{}, stdout: &stdout, stderr: &stderr}
	if code := p.run(ctx, []string{"tail", "--since", "all", "--endpoints", n.url, "general"}); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if strings.Count(stdout.String(), "\n") != 3 {
		t.Errorf("output: %q", stdout.String())
	}
	if !strings.Contains(stderr.String(), "raft-chat: lost "+n.url+": ") || !strings.Contains(stderr.String(), "raft-chat: going on at "+n.url) {
		t.Errorf("standard error: %q", stderr.String())
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain — ☃ 👩‍👩‍👧": "plain — ☃ 👩‍👩‍👧", `back\slash "quoted"`: `back\slash "quoted"`,
		"a\tb\r\n": `a\tb\r\n`, "\x1b]0;x\a": `\x1b]0;x\a`, "\u009b31m": `\u009b31m`, "\x7f": `\x7f`,
		"\u2028\u2029": `\u2028\u2029`, "\u202eabc\u2066\u200f": `\u202eabc\u2066\u200f`, "\xff\xfe": `\xff\xfe`, "\ufffd": "\ufffd",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestPrintableName(t *testing.T) {
	for in, want := range map[string]string{
		"general": "general", "a b": "a b", "👩‍👩‍👧 ❤️": "👩‍👩‍👧 ❤️", "می\u200cخواهم": "می\u200cخواهم", "": "",
		"general\u200b": `general\u200b`, " general ": `\x20general\x20`, "a  b": `a \x20b`, "   ": `\x20\x20\x20`, "\u00a0": `\u00a0`, "\u3000a": `\u3000a`,
		"a\u202eb\n\xff": `a\u202eb\n\xff`, "a\u200db": `a\u200db`, "\u2800": `\u2800`, "a\U000e0041": `a\U000e0041`, "a\ufe0f": `a\ufe0f`, "\u3164": `\u3164`,
	} {
		if got := printableName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2Jb\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for range chat.Unfit(printableName(s)) {
			t.Errorf("%q gives %q", s, printableName(s))
		}
		for _, r := range printable(s) {
			if !harmlessRune(r) {
				t.Errorf("%q gives %q", s, printable(s))
			}
		}
	})
}

func TestPalette(t *testing.T) {
	if got := palette(false).bold("x"); got != "x" {
		t.Errorf("no colours: %q", got)
	}
	if got := palette(true).dim("x"); got != "\x1b[2mx\x1b[0m" {
		t.Errorf("colours: %q", got)
	}
	if colours(io.Discard, nil) {
		t.Error("what is no terminal gets colours")
	}
}
