package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// lastOf returns the newest message of a room.
func (n *node) lastOf(room string) (m wire) {
	n.t.Helper()
	got := n.do("GET", "/rooms/"+url.PathEscape(room)+"?limit=1", "")
	var page []wire
	if err := json.Unmarshal([]byte(got.body), &page); err != nil || len(page) != 1 {
		n.t.Fatalf("%s: %d %s", room, got.status, got.body)
	}
	return page[0]
}

// What a body is follows its declared type; headers fill what it leaves out.
func TestDeclaredBodies(t *testing.T) {
	const mark = "\ufeff"
	n := newNode(t, nil)
	for i, test := range []struct {
		kind, header, body string // header lines joined by |
		user, message, id  string
	}{
		{"application/json", "", mark + `{"Message":"a","User":"u"}`, "u", "a", ""},
		{"", "", mark + `{"Message":"a","User":"u"}`, "u", "a", ""},
		{"", "X-User: cron", mark + `{"Message":"a"}`, "cron", "a", ""},
		{formType, "", mark + " \r\n\t" + `{"Message":"a","User":"u"}`, "u", "a", ""},
		{"application/json; charset=UTF-8", "", "\n" + `{"Message":"a","User":"u"}`, "u", "a", ""},
		{"application/vnd.chat+json", "", `{"Message":"a","User":"u"}`, "u", "a", ""},
		{"Application/JSON;", "", `{"Message":"a","User":"u"}`, "u", "a", ""},
		{"text/plain", "X-User: cron", `{{ .Title }} fired`, "cron", `{{ .Title }} fired`, ""},
		{"text/plain", "X-User: cron", `{"level":"info","user":"root","message":"login","ip":"x"}`, "cron", `{"level":"info","user":"root","message":"login","ip":"x"}`, ""},
		{`text/plain; charset="utf-8"`, "X-User: cron", mark + `{"Message":"a","User":"u"}`, "cron", `{"Message":"a","User":"u"}`, ""},
		{"text/plain", "X-User: cron", " [1]\n", "cron", " [1]\n", ""},
		{"", "X-User: cron", mark + "hello {", "cron", "hello {", ""},
		{formType, "X-User: cron", "Message=a&User=u", "cron", "Message=a&User=u", ""},
		{"", "X-User: cron", `[{"Message":"a"}]`, "cron", `[{"Message":"a"}]`, ""},

		{"", "X-User: cron", `{"Message":"x"}`, "cron", "x", ""},
		{"", "X-User: cron", `{"Message":"x","User":""}`, "cron", "x", ""},
		{"", "X-User: cron", `{"Message":"x","User":null}`, "cron", "x", ""},
		{"", "X-User: ann", `{"Message":"x","User":"ann"}`, "ann", "x", ""},
		{"", "X-User: Zo\u00eb", `{"Message":"x","User":"Zoe\u0308"}`, "Zo\u00eb", "x", ""},
		{"", "X-User:", `{"Message":"x","User":"ann"}`, "ann", "x", ""},
		{"", "X-User: =?utf-8?q?Zo=C3=AB?=", "x", "Zo\u00eb", "x", ""},
		{"", "X-User: =?UTF-8?B?Wm/Dqw==?= =?utf-8?q?_B?=", "x", "Zo\u00eb B", "x", ""},
		{"", "X-User: =?iso-8859-1?q?Zo=EB?=", "x", "Zo\u00eb", "x", ""},
		{"", "X-User: Zo\u00eb", "x", "Zo\u00eb", "x", ""},
		{"", "X-User: Zo\xeb", "x", "Zo\u00eb", "x", ""},
		{"", "X-User: a=?b", "x", "a=?b", "x", ""},

		{"", "X-Client-Message-ID: k1", `{"Message":"x","User":"u"}`, "u", "x", "k1"},
		{"", "Idempotency-Key: k2", `{"Message":"x","User":"u"}`, "u", "x", "k2"},
		{"", `Idempotency-Key: "k\"\\3"`, `{"Message":"x","User":"u"}`, "u", "x", `k"\3`},
		{"", `X-User: u|Idempotency-Key: "k4"`, "x", "u", "x", "k4"},
		{"", `X-User: u|Idempotency-Key: "k5"|X-Client-Message-ID: k5`, `{"Message":"x","ClientMessageID":"k5"}`, "u", "x", "k5"},
		{"", "X-Client-Message-ID: k6", `{"Message":"x","User":"u","ClientMessageID":""}`, "u", "x", "k6"},
	} {
		room := fmt.Sprint("r", i)
		var b strings.Builder
		fmt.Fprintf(&b, "POST /rooms/%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %d\r\n", room, n.address, len(test.body))
		if test.kind != "" {
			b.WriteString("Content-Type: " + test.kind + "\r\n")
		}
		for line := range strings.SplitSeq(test.header, "|") {
			if line != "" {
				b.WriteString(line + "\r\n")
			}
		}
		b.WriteString("\r\n" + test.body)
		if got := n.raw(b.String()); got.status != http.StatusCreated {
			t.Errorf("%s, %s, %q: %d %s", test.kind, test.header, test.body, got.status, got.body)
			continue
		}
		m := n.lastOf(room)
		if m.User != test.user || *m.Message != test.message || m.ClientMessageID != test.id {
			t.Errorf("%s, %s, %q: stored %q by %q with id %q", test.kind, test.header, test.body, *m.Message, m.User, m.ClientMessageID)
		}
		if again := n.raw(b.String()); test.id != "" && (again.status != http.StatusOK || !strings.Contains(again.body, `"Seq":1,`)) {
			t.Errorf("%s, %q: the repeat gives %d %s", test.header, test.body, again.status, again.body)
		}
	}
}

// What a refusal says leads to what is right.
func TestRefusalsSayWhy(t *testing.T) {
	n := newNode(t, nil)
	for _, test := range []struct{ path, kind, body, says string }{
		{"/rooms/general%E2%80%8B", "", "x", "U+200B ZERO WIDTH SPACE (character 8)"},
		{"/rooms/%C2%A0", "", "x", "U+00A0 NO-BREAK SPACE (character 1)"},
		{"/rooms/%20general", "", "x", "begin or end with a space"},
		{"/rooms/r", "", `{"Message":"\ud83d"}`, `\ud83d at byte 12, half of a surrogate pair`},
		{"/rooms/r", "", "{{ .Title }} fired", "declare Content-Type: text/plain"},
		{"/rooms/r", "application/json", "\xff\xfe{\x00", "UTF-16"},
		{"/rooms/r", "image/png", "x", "application/json or text/plain"},
		{"/rooms/r", "", strings.Repeat("x", 64<<10+1), "65536 bytes"},
		{"/rooms/r", "", strings.Repeat("x", 1<<20+1), "1048576 bytes"},
		{"/raft/leader", "", `{"ID":1e400}`, "whole number from 1"},
		{"/raft/leader", "text/plain", `{"ID":2}`, `application/json: {"ID":2}`},
	} {
		var header []string
		if test.kind != "" {
			header = []string{"Content-Type", test.kind}
		}
		if _, _, detail := problemIn(t, n.do("POST", test.path, test.body, append(header, "X-User", "u")...)); !strings.Contains(detail, test.says) {
			t.Errorf("%s %.20q: %q does not say %q", test.path, test.body, detail, test.says)
		}
	}
	for _, body := range []string{"x", `{"Message":"x"}`} {
		if _, _, detail := problemIn(t, n.do("POST", "/rooms/r", body)); !strings.Contains(detail, "X-User") {
			t.Errorf("%s: %s", body, detail)
		}
	}
	c := n.talk(0)
	for _, test := range []struct{ frame, says string }{
		{`{"Type":"send","Id":"x","Message":"cut emoji \ud83d"}`, `\ud83d at byte 45, half of a surrogate pair`},
		{`{"Type":"history","Id":"x","After":1.5}`, "After is a whole number from 0 to 18446744073709551615"},
		{`{"Type":"history","Id":"x","After":"1"}`, "After is a number and cannot be a JSON string"},
		{`{"Type":"send","Id":"x","Message":1}`, "Message cannot be a JSON number"},
	} {
		c.say("%s", test.frame)
		if f := c.of("error", "x"); !strings.Contains(f.Detail, test.says) {
			t.Errorf("%s: %q", test.frame, f.Detail)
		}
	}
}

// The same bytes declared differently, on a frame and on the other JSON body.
func TestMarksOfOtherBodies(t *testing.T) {
	n := newNode(t, nil)
	for _, kind := range []string{"", "application/json", formType} {
		if got := n.do("POST", "/raft/leader", "\ufeff {\"ID\":2}\n", "Content-Type", kind); got.status != http.StatusNoContent {
			t.Errorf("leader as %q: %d %s", kind, got.status, got.body)
		}
	}
	if got := n.do("POST", "/raft/9", "\ufeff\r\n http://127.0.0.1:42379\n"); got.status != http.StatusNoContent {
		t.Errorf("member: %d %s", got.status, got.body)
	}
	c := n.talk(0)
	c.say("\ufeff {\"Type\":\"ping\",\"Id\":\"x\"}\n")
	c.of("pong", "x")
}

// escapings are the ways to write one message that is as long as it may be.
func escapings(limit int) map[string][2]string {
	repeat := func(raw, escaped string) [2]string {
		n := limit / len(raw)
		return [2]string{strings.Repeat(raw, n), strings.Repeat(escaped, n)}
	}
	return map[string][2]string{
		"plain":    repeat("x", "x"),
		"accents":  repeat("\u00e9", `\u00e9`),
		"emoji":    repeat("\U0001f600", `\ud83d\ude00`),
		"controls": repeat("\x01", `\u0001`),
		"ASCII":    repeat("<", `\u003c`),
		"quotes":   repeat(`"`, `\"`),
	}
}

// A message that may be stored can be sent however it is written, and is
// delivered.
func TestLongestMessages(t *testing.T) {
	for _, limit := range []int{chat.MaxMessage, 200 << 10} {
		n := newNodeWith(t, chat.ServiceOptions{MaxMessage: limit}, nil)
		for name, text := range escapings(limit) {
			raw, escaped := text[0], text[1]
			r := strings.Repeat
			body := fmt.Sprintf(`{"Message":"%s","User":"%s","ClientMessageID":"%s"}`, escaped, r(`\u0041`, 64), r(`\u0042`, 128))
			if got := n.do("POST", "/rooms/rest-"+name, body); got.status != http.StatusCreated {
				t.Errorf("REST, %s of %d: %d %.200s", name, limit, got.status, got.body)
			} else if m := n.lastOf("rest-" + name); *m.Message != raw {
				t.Errorf("REST, %s of %d: stored %d bytes", name, limit, len(*m.Message))
			}
			if got := n.do("POST", "/rooms/text-"+name, raw, "X-User", "u", "Content-Type", "text/plain"); got.status != http.StatusCreated {
				t.Errorf("text, %s of %d: %d %.200s", name, limit, got.status, got.body)
			}
			c := n.talk(0)
			c.conn.SetReadLimit(8 << 20)
			c.say(`{"Type":"send","Id":"%s","Room":"%s","User":"%s","ClientMessageID":"%s","Message":"%s"}`,
				r(`\u0043`, 128), r(`\u0044`, 100)+name, r(`\u0041`, 64), r(`\u0042`, 128), escaped)
			if f := c.of("ack", r("C", 128)); f.Message == nil || *f.Message.Message != raw {
				t.Errorf("session, %s of %d: %s", name, limit, f.Type)
			}
			c.say(`{"Type":"send","Id":"x","Room":"r","User":"u","Message":"%s"}`, escaped+"yyyy")
			if f := c.of("error", "x"); f.Code != codeMessageTooLarge || !strings.Contains(f.Detail, fmt.Sprint(limit)) {
				t.Errorf("session, more than %d: %+v", limit, f)
			}
		}
	}
}

// All rooms that a connection may have fit into one frame.
func TestLongestSubscription(t *testing.T) {
	n := newNode(t, nil)
	rooms := make([]string, maxStreamRooms)
	for i := range rooms {
		rooms[i] = fmt.Sprintf(`"%s%03d"`, strings.Repeat(`\u0061`, 125), i)
	}
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"x","Rooms":[%s]}`, strings.Join(rooms, ","))
	if f := c.of("subscribed", "x"); len(f.Cursors) != maxStreamRooms {
		t.Errorf("subscribed to %d rooms", len(f.Cursors))
	}
}

// A body that the client is told to keep, one that it sends to its end although
// nobody wants it, and one that it only announces are answered alike.
func TestLongBodyIsAnswered(t *testing.T) {
	n := newNode(t, nil)
	for _, test := range []struct{ name, header, body string }{
		{"announced", "Expect: 100-continue\r\n", ""},
		{"sent", "", strings.Repeat("x", 10<<20)},
		{"in chunks", "Transfer-Encoding: chunked\r\n", strings.Repeat("100000\r\n"+strings.Repeat("x", 1<<20)+"\r\n", 10) + "0\r\n\r\n"},
	} {
		request := "POST /rooms/r HTTP/1.1\r\nHost: " + n.address + "\r\nConnection: close\r\nX-User: u\r\n" + test.header
		if !strings.Contains(test.header, "chunked") {
			request += fmt.Sprintf("Content-Length: %d\r\n", 10<<20)
		}
		if status, code, _ := problemIn(t, n.raw(request+"\r\n"+test.body)); status != http.StatusRequestEntityTooLarge || code != codeMessageTooLarge {
			t.Errorf("%s: %d %s", test.name, status, code)
		}
	}
}

// A node without memory for a long frame says so, and goes on.
func TestLongFramesWithoutMemory(t *testing.T) {
	memory := budget.New(32 << 20)
	n := newNode(t, func(o *Options) { o.Budget = memory })
	requests := memory.Account(budget.Requests)
	all := requests.Limit() - requests.Used()
	if !requests.Take(all) {
		t.Fatal("the budget is not free")
	}
	c := n.talk(0)
	long := strings.Repeat("x", 64<<10)
	c.say(`{"Type":"send","Id":"x","Room":"r","User":"u","Message":"%s"}`, long)
	if f := c.of("error", "x"); f.Code != string(chat.CodeOverloaded) || f.RetryAfter == 0 {
		t.Errorf("without memory: %+v", f)
	}
	c.say(`{"Type":"send","Id":"y","Room":"r","User":"u","Message":"short"}`)
	c.of("ack", "y")
	requests.Give(all)
	c.say(`{"Type":"send","Id":"z","Room":"r","User":"u","Message":"%s"}`, long)
	c.of("ack", "z")
	_ = c.conn.CloseNow()
	n.server.Shutdown()
	if used := requests.Used(); used != 0 {
		t.Errorf("%d bytes are still taken", used)
	}
}

// Rooms of before, whose names would be refused now, can be read.
func TestOldNames(t *testing.T) {
	n := newNode(t, nil)
	for _, path := range []string{"/rooms/general%E2%80%8B", "/rooms/%20general", "/rooms/%C2%A0", "/rooms/general%E2%80%8B/json?poll=1"} {
		if got := n.do("GET", path, ""); got.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Id":"x","Rooms":["general\u200b"]}`)
	c.of("subscribed", "x")
	c.say(`{"Type":"history","Id":"y","Room":"general\u200b"}`)
	c.of("history", "y")
}

// Sends of a session are stored as they were sent, also while others send.
func TestSessionKeepsOrder(t *testing.T) {
	n := newNode(t, nil)
	c, other := n.talk(0), n.talk(0)
	const rounds = 8
	for round := range rounds {
		for i := range 40 {
			for _, c := range []*talk{c, other} {
				c.say(`{"Type":"send","Id":"%d","Room":"r%p","User":"u","Message":"%d"}`, i, c, round*40+i)
			}
		}
		for _, c := range []*talk{c, other} {
			for range 40 {
				if f := c.hear(); f.Type != "ack" {
					t.Fatalf("%+v", f)
				}
			}
		}
	}
	for _, c := range []*talk{c, other} {
		got := n.do("GET", fmt.Sprintf("/rooms/r%p?after=0&limit=1000", c), "")
		var page []wire
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || len(page) != rounds*40 {
			t.Fatalf("%d messages: %v", len(page), err)
		}
		for i, m := range page {
			if *m.Message != fmt.Sprint(i) {
				t.Fatalf("message %d is %s", i, *m.Message)
			}
		}
	}
}

// FuzzRequestFrame: every frame is a request, or refused for a reason, and one that can be read has its Id answered.
func FuzzRequestFrame(f *testing.F) {
	for _, test := range sessionRefusals {
		f.Add([]byte(test.frame))
	}
	f.Add([]byte("\ufeff{\"type\":\"send\",\"ID\":\"x\"}"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, p := decodeRequest(frame)
		if len(r.ID) > maxRequestID {
			t.Fatalf("an Id of %d bytes", len(r.ID))
		}
		if p == nil {
			return
		}
		if p.status != http.StatusBadRequest || p.detail == "" || len(p.detail) > 300 {
			t.Fatalf("%q: %+v", frame, p)
		}
		var sent struct{ Id string }
		if json.Unmarshal(frame, &sent) == nil && len(sent.Id) <= maxRequestID && !strings.ContainsRune(sent.Id, '\ufffd') && r.ID != sent.Id {
			t.Fatalf("%q: answered to %q", frame, r.ID)
		}
	})
}

// FuzzPostHeaders: no headers make a post of what is not a valid text, or lose what they say.
func FuzzPostHeaders(f *testing.F) {
	f.Add("ann", "k", "k", `{"Message":"m"}`)
	f.Add("=?utf-8?q?=C1?=", "", `"k"`, "text")
	f.Add("Zo\xeb", "=?x?q?a?=", `"\"`, `{"User":"Zo\u00eb"}`)
	f.Fuzz(func(t *testing.T, user, id, key, body string) {
		h := http.Header{"X-User": {user}, "X-Client-Message-Id": {id}, "Idempotency-Key": {key}}
		m, p := decodePost(h, []byte(body))
		switch {
		case p != nil && (p.status < 400 || p.status > 499 || p.detail == ""):
			t.Fatalf("problem %+v", p)
		case p == nil && (user != "" && m.user == "" || id != "" && m.clientMessageID == ""):
			// An encoded word can stand for nothing.
			if !strings.Contains(user+id, "=?") {
				t.Fatalf("%q %q became %q %q", user, id, m.user, m.clientMessageID)
			}
		}
	})
}
