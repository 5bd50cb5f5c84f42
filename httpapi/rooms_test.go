package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/raft-chat/raft-chat/chat/chattest"
)

// wire is a message as clients read it.
type wire struct {
	Room            string
	Seq, ID         uint64
	User            string
	Message         *string
	Payload         []byte
	PostedAt        string
	ClientMessageID string
}

func messageIn(t *testing.T, body string) wire {
	t.Helper()
	var m wire
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return m
}

func TestPostAndRead(t *testing.T) {
	n := newNode(t, nil)
	// As curl -d sends it.
	got := n.do("POST", "/rooms/general", `{"Message": "hello", "User": "username"}`, "Content-Type", "application/x-www-form-urlencoded")
	if got.status != http.StatusCreated || got.header.Get("Location") != "/rooms/general/1" ||
		got.header.Get("Content-Type") != "application/json" || got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("post: %d %v %s", got.status, got.header, got.body)
	}
	stored := messageIn(t, got.body)
	at, err := time.Parse(time.RFC3339Nano, stored.PostedAt)
	if err != nil || !strings.HasSuffix(stored.PostedAt, "Z") || time.Since(at).Abs() > time.Hour {
		t.Errorf("PostedAt is %q", stored.PostedAt)
	}
	text := "hello"
	want := wire{Room: "general", Seq: 1, ID: 1, User: "username", Message: &text, PostedAt: stored.PostedAt}
	if diff := cmp.Diff(want, stored); diff != "" {
		t.Error(diff)
	}
	if keys := `{"Room":"general","Seq":1,"ID":1,"User":"username","Message":"hello","PostedAt":"` + stored.PostedAt + "\"}\n"; got.body != keys {
		t.Errorf("message is %s, want %s", got.body, keys)
	}
	// The one message, the page, and the short URL that curl -L follows.
	if one := n.do("GET", "/rooms/general/1", ""); one.status != 200 || one.body != got.body {
		t.Errorf("message 1: %d %s", one.status, one.body)
	}
	page := n.do("GET", "/rooms/general", "")
	if page.status != 200 || page.body != "["+strings.TrimSpace(got.body)+"]\n" || page.header.Get("Link") != "" {
		t.Errorf("page: %d %v %s", page.status, page.header, page.body)
	}
	if page.header.Get("Vary") != "Accept, Sec-Fetch-Dest" || page.header.Get("Cache-Control") != "no-store" {
		t.Errorf("page: %v", page.header)
	}
	short := n.do("GET", "/general?limit=5", "")
	if short.status != http.StatusFound || short.header.Get("Location") != "/rooms/general?limit=5" {
		t.Errorf("short URL: %d %v", short.status, short.header)
	}
	if none := n.do("GET", "/rooms/other", ""); none.status != 200 || none.body != "[]\n" {
		t.Errorf("unknown room: %d %s", none.status, none.body)
	}
}

func TestBodies(t *testing.T) {
	const limit = 64 << 10
	tests := []struct {
		name, kind, body string
		header           []string
		user, text, id   string
	}{
		{"JSON", "application/json", `{"User":"ann","Message":"hi","ClientMessageID":"c1"}`, nil, "ann", "hi", "c1"},
		{"JSON with a suffix type", "application/vnd.x+json", ` {"User":"ann","Message":"hi"}`, nil, "ann", "hi", ""},
		{"unknown keys", "", `{"User":"ann","Extra":[{"Message":"no"}],"Message":"hi"}`, nil, "ann", "hi", ""},
		{"last of equal keys", "", `{"User":"ann","Message":"one","Message":"two"}`, nil, "ann", "two", ""},
		{"other case", "", `{"user":"ann","message":"hi"}`, nil, "ann", "hi", ""},
		{"space around", "", "{ \"User\" :\t\"ann\" ,\r\n\"Message\":\"hi\" } \n", nil, "ann", "hi", ""},
		{"escapes", "", `{"User":"a\/n","Message":"\"\\\b\f\n\r\t\u0041\ud83d\ude00"}`, nil, "a/n", "\"\\\b\f\n\r\tA😀", ""},
		{"all of Unicode", "", `{"User":"Ünïcödé","Message":"a\u2028b\u0000c 漢 \ufffd"}`, nil, "Ünïcödé", "a\u2028b\x00c 漢 \ufffd", ""},
		{"NFC", "", "{\"User\":\"e\u0301\",\"Message\":\"e\u0301\"}", nil, "é", "e\u0301", ""},
		{"text", "", "hello", []string{"X-User", "ann", "X-Client-Message-ID", "c2"}, "ann", "hello", "c2"},
		{"text as a form", "application/x-www-form-urlencoded", "a=1&b=%20", []string{"X-User", "ann"}, "ann", "a=1&b=%20", ""},
		{"text with a charset", "text/plain; charset=UTF-8", "ü\n", []string{"X-User", "ünn"}, "ünn", "ü\n", ""},
		{"text before a brace", "text/plain", " {}", []string{"X-User", "ann"}, "ann", " {}", ""},
		{"identity", "", "hi", []string{"X-User", "ann", "Content-Encoding", "identity"}, "ann", "hi", ""},
		{"longest text", "", strings.Repeat("x", limit), []string{"X-User", "ann"}, "ann", strings.Repeat("x", limit), ""},
		{"longest JSON", "", `{"User":"ann","Message":"` + strings.Repeat(`\u0078`, limit) + `"}`, nil, "ann", strings.Repeat("x", limit), ""},
	}
	n := newNode(t, nil)
	for i, test := range tests {
		header := test.header
		if test.kind != "" {
			header = append(header, "Content-Type", test.kind)
		}
		got := n.do("POST", "/rooms/bodies", test.body, header...)
		if got.status != http.StatusCreated {
			t.Errorf("%s: %d %s", test.name, got.status, got.body)
			continue
		}
		m := messageIn(t, got.body)
		if m.User != test.user || *m.Message != test.text || m.ClientMessageID != test.id || !strings.HasSuffix(got.header.Get("Location"), fmt.Sprintf("/%d", m.Seq)) {
			t.Errorf("%s: stored %.200s", test.name, got.body)
		}
		if again := n.do("GET", fmt.Sprintf("/rooms/bodies/%d", m.Seq), ""); again.body != got.body {
			t.Errorf("%s: test %d reads back as %.200s", test.name, i, again.body)
		}
	}
}

// A repeat of a message that was dropped meanwhile is a success without text; another message under its id is refused.
func TestRepeatOfTrimmed(t *testing.T) {
	n := newNode(t, nil)
	long := strings.Repeat("x", 3*pagePiece)
	for id, text := range map[string]string{"short": "hello", "long": long} {
		path, body := "/rooms/"+id, `{"Message":"`+text+`","User":"ann","ClientMessageID":"`+id+`"}`
		first := messageIn(t, n.do("POST", path, body).body)
		if _, err := n.service.Trim(t.Context(), actor, id, 2); err != nil {
			t.Fatal(err)
		}
		got := n.do("POST", path, body)
		want := fmt.Sprintf(`{"Room":%q,"Seq":1,"ID":%d,"User":"ann","Trimmed":true,"PostedAt":%q,"ClientMessageID":%q}`+"\n", id, first.ID, first.PostedAt, id)
		if got.status != http.StatusOK || got.body != want || got.header.Get("Location") != "" {
			t.Errorf("%s: %d %s, Location %q; want 200 %s", id, got.status, got.body, got.header.Get("Location"), want)
		}
		other := n.do("POST", path, `{"Message":"other","User":"ann","ClientMessageID":"`+id+`"}`)
		if other.status != http.StatusConflict || !strings.Contains(other.body, `"client_message_id_conflict"`) || !strings.Contains(other.body, `"Seq":1`) {
			t.Errorf("%s, another message: %d %s", id, other.status, other.body)
		}
	}
}

func TestRoomNamesInURLs(t *testing.T) {
	n := newNode(t, nil)
	for path, name := range map[string]string{
		"caf%C3%A9": "café", "cafe%CC%81": "café", "a%20b": "a b", "100%25": "100%", "a%2541": "a%41", "%3Fq%23f": "?q#f",
		"a+b": "a+b", "...": "...", "a%3Cb%3E%22": `a<b>"`, "%5Cx": `\x`, "a:b@c;d": "a:b@c;d", "%E2%80%A6": "\u2026",
	} {
		got := n.do("POST", "/rooms/"+path, `{"Message":"m","User":"u"}`)
		if got.status != http.StatusCreated {
			t.Errorf("%s: %d %s", path, got.status, got.body)
			continue
		}
		m := messageIn(t, got.body)
		if m.Room != name {
			t.Errorf("%s made room %q, want %q", path, m.Room, name)
		}
		if one := n.do("GET", got.header.Get("Location"), ""); one.body != got.body {
			t.Errorf("%s: Location %s answers %s", path, got.header.Get("Location"), one.body)
		}
		short := n.do("GET", "/"+path, "")
		if short.status != http.StatusFound || n.do("GET", short.header.Get("Location"), "").body == "[]\n" {
			t.Errorf("%s: short URL leads to %s", path, short.header.Get("Location"))
		}
	}
	for _, path := range []string{"/rooms/", "/raft/", "/rooms/general/", "/health/?a=b"} {
		got := n.do("GET", path, "")
		if want := strings.Replace(path, "/?", "?", 1); got.status != http.StatusPermanentRedirect ||
			got.header.Get("Location") != strings.TrimSuffix(want, "/") {
			t.Errorf("%s: %d to %q", path, got.status, got.header.Get("Location"))
		}
	}
}

func TestDeduplication(t *testing.T) {
	n := newNode(t, nil)
	body := `{"Message":"m","User":"u","ClientMessageID":"c"}`
	first := n.do("POST", "/rooms/r", body)
	n.post("r", "u", "other")
	again := n.do("POST", "/rooms/r", body)
	if first.status != http.StatusCreated || again.status != http.StatusOK || again.body != first.body ||
		again.header.Get("Location") != "/rooms/r/1" {
		t.Errorf("first %d %s, again %d %s", first.status, first.body, again.status, again.body)
	}
	other := n.do("POST", "/rooms/r", strings.Replace(body, `"m"`, `"n"`, 1))
	if status, code, _ := problemIn(t, other); status != http.StatusConflict || code != "client_message_id_conflict" ||
		!strings.Contains(other.body, `"Seq":1`) {
		t.Errorf("conflict: %s", other.body)
	}
}

// walk follows a link relation from path and returns the Seq of every message on the way.
func (n *node) walk(path, rel string) (seqs []uint64) {
	n.t.Helper()
	for steps := 0; path != ""; steps++ {
		if steps > 100 {
			n.t.Fatal("links go round in circles")
		}
		got := n.do("GET", path, "")
		var page []wire
		if err := json.Unmarshal([]byte(got.body), &page); err != nil {
			n.t.Fatalf("%s: %q: %v", path, got.body, err)
		}
		var fresh []uint64
		for _, m := range page {
			fresh = append(fresh, m.Seq)
		}
		if rel == "prev" {
			seqs = append(fresh, seqs...)
		} else {
			seqs = append(seqs, fresh...)
		}
		path = linkIn(got.header, rel)
	}
	return seqs
}

// linkIn returns the target of a link relation.
func linkIn(h http.Header, rel string) string {
	for _, link := range h["Link"] {
		if target, ok := strings.CutSuffix(link, `>; rel="`+rel+`"`); ok {
			return strings.TrimPrefix(target, "<")
		}
	}
	return ""
}

func TestPages(t *testing.T) {
	n := newNode(t, nil)
	const room, count = "a b<", 25
	escaped := url.PathEscape(room)
	all := make([]uint64, count)
	for i := range all {
		all[i] = uint64(i + 1)
		n.post(escaped, "u", fmt.Sprint(i))
	}
	base := "/rooms/" + escaped
	for _, test := range []struct {
		query, rel string
		want       []uint64
	}{
		{"", "next", all},
		{"?limit=7", "prev", all},
		{"?limit=7", "next", all[18:]},
		{"?limit=25", "prev", all},
		{"?after=0&limit=4&consistency=stale", "next", all},
		{"?after=20&limit=4", "next", all[20:]},
		{"?before=21&limit=4", "prev", all[:20]},
		{"?before=3", "prev", all[:2]},
		{"?after=5&before=15&limit=3", "next", all[5:14]},
		{"?after=25", "next", nil},
		{"?after=18446744073709551615", "next", nil},
		{"?before=0", "prev", nil},
	} {
		if diff := cmp.Diff(test.want, n.walk(base+test.query, test.rel)); diff != "" {
			t.Errorf("%s by %s:\n%s", test.query, test.rel, diff)
		}
	}
	middle := n.do("GET", base+"?after=10&limit=5&consistency=stale", "")
	if next, prev := linkIn(middle.header, "next"), linkIn(middle.header, "prev"); next != "/rooms/a%20b%3C?after=15&consistency=stale&limit=5" ||
		prev != "/rooms/a%20b%3C?before=11&consistency=stale&limit=5" {
		t.Errorf("links are %q", middle.header["Link"])
	}
}

func TestRoomList(t *testing.T) {
	n := newNode(t, nil)
	if got := n.do("GET", "/rooms", ""); got.status != 200 || got.body != "[]\n" {
		t.Errorf("no rooms: %d %s", got.status, got.body)
	}
	for _, name := range []string{"b2", "a", "b1", "%C3%A9", "b1"} {
		n.post(name, "u", "m")
	}
	for query, want := range map[string]string{
		"":                         `["a","b1","b2","é"]`,
		"?prefix=b":                `["b1","b2"]`,
		"?prefix=%C3%A9":           `["é"]`,
		"?after=b1":                `["b2","é"]`,
		"?after=b&limit=1":         `["b1"]`,
		"?prefix=x":                `[]`,
		"?details=false":           `["a","b1","b2","é"]`,
		"?consistency=stale":       `["a","b1","b2","é"]`,
		"?limit=1000&prefix=&x=%2": ``,
	} {
		got := n.do("GET", "/rooms"+query, "")
		if want == "" {
			if status, code, _ := problemIn(t, got); status != 400 || code != "query_invalid" {
				t.Errorf("%s: %d %s", query, status, code)
			}
			continue
		}
		if got.status != 200 || got.body != want+"\n" {
			t.Errorf("%s: %d %s", query, got.status, got.body)
		}
	}
	var names []string
	for path := "/rooms?limit=1&prefix="; path != ""; {
		got := n.do("GET", path, "")
		var page []string
		if err := json.Unmarshal([]byte(got.body), &page); err != nil || len(page) != 1 || len(names) > 9 {
			t.Fatalf("%s: %s", path, got.body)
		}
		names = append(names, page...)
		path = linkIn(got.header, "next")
	}
	if diff := cmp.Diff([]string{"a", "b1", "b2", "é"}, names); diff != "" {
		t.Error(diff)
	}
	var details []struct {
		Name                        string
		Messages, FirstSeq, LastSeq uint64
		CreatedAt, LastPostedAt     time.Time
	}
	got := n.do("GET", "/rooms?details=true&prefix=b1", "")
	if err := json.Unmarshal([]byte(got.body), &details); err != nil || len(details) != 1 {
		t.Fatalf("%s: %v", got.body, err)
	}
	d := details[0]
	if d.Name != "b1" || d.Messages != 2 || d.FirstSeq != 1 || d.LastSeq != 2 || d.CreatedAt.IsZero() || d.LastPostedAt.Before(d.CreatedAt) {
		t.Errorf("details are %s", got.body)
	}
}

// A payload that is not text goes as base64, and Message is left out.
func TestBinaryPayload(t *testing.T) {
	n := newNode(t, nil)
	payload := []byte{0xff, 0, 'x'}
	if _, _, err := n.service.Post(t.Context(), actor, binaryPost("r", payload)); err != nil {
		t.Fatal(err)
	}
	m := messageIn(t, n.do("GET", "/rooms/r/1", "").body)
	if m.Message != nil || string(m.Payload) != string(payload) {
		t.Errorf("message is %+v", m)
	}
}

func TestHeadAndOptions(t *testing.T) {
	n := newNode(t, nil)
	n.post("r", "u", "m")
	for _, path := range []string{"/", "/rooms", "/rooms/r", "/rooms/r/1", "/r", "/health", "/livez", "/readyz", "/metrics", "/raft", "/_/app.js"} {
		get, head := n.do("GET", path, ""), n.do("HEAD", path, "")
		if head.status != get.status || head.body != "" || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
			t.Errorf("HEAD %s: %d %v, GET %d %v", path, head.status, head.header, get.status, get.header)
		}
		options := n.do("OPTIONS", path, "")
		if options.status != http.StatusNoContent || !strings.HasPrefix(options.header.Get("Allow"), "GET, HEAD") {
			t.Errorf("OPTIONS %s: %d %v", path, options.status, options.header)
		}
	}
	if got := n.do("OPTIONS", "/rooms/r", "").header.Get("Allow"); got != "GET, HEAD, POST, OPTIONS" {
		t.Errorf("a room allows %s", got)
	}
}

// What the log says reaches the client with its own status and code.
func TestLogErrors(t *testing.T) {
	n := newNode(t, nil)
	n.post("r", "u", "m")
	for _, code := range []string{"no_leader", "outcome_unknown", "overloaded", "stopping", "clock_skew"} {
		n.log.Inject(func() chattest.Fault { return chattest.Fault{Refuse: chattest.Error(code)} })
		got := n.do("POST", "/rooms/r", `{"Message":"m","User":"u"}`)
		if status, is, _ := problemIn(t, got); status != http.StatusServiceUnavailable || is != code || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s, Retry-After %q", code, status, got.body, got.header.Get("Retry-After"))
		}
	}
	n.log.Inject(nil)
	n.log.FailReads(chattest.Error("no_leader"))
	for _, path := range []string{"/rooms", "/rooms/r", "/rooms/r/1"} {
		if status, code, _ := problemIn(t, n.do("GET", path, "")); status != http.StatusServiceUnavailable || code != "no_leader" {
			t.Errorf("%s: %d %s", path, status, code)
		}
		if stale := n.do("GET", path+"?consistency=stale", ""); stale.status != http.StatusOK {
			t.Errorf("%s, stale: %d %s", path, stale.status, stale.body)
		}
	}
	// An error that nobody knows tells the client nothing of itself.
	n.log.FailReads(fmt.Errorf("secret of the house"))
	got := n.do("GET", "/rooms/r", "")
	if status, code, detail := problemIn(t, got); status != http.StatusInternalServerError || code != "internal" || strings.Contains(detail, "secret") {
		t.Errorf("unknown error: %s", got.body)
	}
}
