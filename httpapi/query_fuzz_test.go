package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/raft-chat/raft-chat/chat"
)

// serveInProcess answers a request without a socket in between.
func (n *node) serveInProcess(method, path, query, body string, header ...string) *httptest.ResponseRecorder {
	r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody, Host: "127.0.0.1", RemoteAddr: "127.0.0.1:1", RequestURI: path}
	if body != "" {
		r.Body, r.ContentLength = readCloser{strings.NewReader(body)}, int64(len(body))
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = []string{header[i+1]}
	}
	w := httptest.NewRecorder()
	n.server.ServeHTTP(w, r)
	return w
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// checkRefusal says what is wrong with an answer that is no success: every one
// is the client's mistake and says which.
func checkRefusal(w *httptest.ResponseRecorder) error {
	var p struct {
		Status int
		Code   string
		Detail string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		return fmt.Errorf("status %d with %q", w.Code, w.Body)
	}
	if w.Code < 400 || w.Code >= 500 || p.Status != w.Code || p.Detail == "" || statusOf(p.Code) != w.Code {
		return fmt.Errorf("status %d with %+v", w.Code, p)
	}
	return nil
}

// fullNode is a node with ten messages in general and some other rooms.
func fullNode(f *testing.F) *node {
	n := newNode(f, nil)
	for i := range 10 {
		for _, room := range []string{"general", fmt.Sprint("room ", i)} {
			if _, _, err := n.service.Post(f.Context(), chat.Actor{}, chat.PostRequest{Room: room, User: "ann", Payload: []byte(fmt.Sprint(i))}); err != nil {
				f.Fatal(err)
			}
		}
	}
	return n
}

// stream reads a stream to its end; false if the request cannot be sent.
func (n *node) stream(path, query, lastEventID string) (*httptest.ResponseRecorder, bool) {
	r, err := http.NewRequest(http.MethodGet, n.url+path, nil)
	if err != nil || strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' }) { // net/http sends spaces as they are
		return nil, false
	}
	r.URL.RawQuery, r.Header["Last-Event-Id"] = query, []string{lastEventID}
	answer, err := n.client.Do(r)
	if err != nil {
		return nil, false
	}
	defer answer.Body.Close()
	w := httptest.NewRecorder()
	w.Code = answer.StatusCode
	if _, err := w.Body.ReadFrom(answer.Body); err != nil {
		return nil, false
	}
	return w, true
}

// FuzzQuery: whatever the query of a page, of a list or of a stream says, and
// whatever Last-Event-ID is, the answer is what was asked for or names the
// mistake. The links of a page lead to pages.
func FuzzQuery(f *testing.F) {
	for _, q := range []string{"", "after=1&limit=3", "before=5&limit=2", "after=2&before=7", "limit=0", "limit=1001", "after=-1", "after=18446744073709551615",
		"consistency=stale", "consistency=x", "details=true&prefix=room&after=room+3", "prefix=%ff", "a=%zz", "since=3", "since=10m", "since=2026-01-02T14:00:00Z", "since=all&after=1", "since=", ";"} {
		f.Add(q, "")
		f.Add(q, "7")
	}
	f.Add("since=all", "-1")
	f.Add("after=1", "\x00")
	n := fullNode(f)
	f.Fuzz(func(t *testing.T, query, lastEventID string) {
		for _, path := range []string{"/rooms/general", "/rooms"} {
			w := n.serveInProcess(http.MethodGet, path, query, "", "Accept", "application/json")
			if w.Code != http.StatusOK {
				if err := checkRefusal(w); err != nil {
					t.Fatalf("%s?%s: %v", path, query, err)
				}
				continue
			}
			var list []json.RawMessage
			if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) > 20 {
				t.Fatalf("%s?%s: %d entries, %v", path, query, len(list), err)
			}
			for _, link := range w.Result().Header["Link"] {
				target, _, _ := strings.Cut(strings.TrimPrefix(link, "<"), ">")
				u, err := url.Parse(target)
				if err != nil {
					t.Fatalf("%s?%s: link %q: %v", path, query, link, err)
				}
				if w := n.serveInProcess(http.MethodGet, u.Path, u.RawQuery, "", "Accept", "application/json"); w.Code != http.StatusOK {
					t.Fatalf("%s?%s: the link %q is answered with %d", path, query, link, w.Code)
				}
			}
		}
		// A stream that ends at the newest message; it needs a connection.
		for _, path := range []string{"/rooms/general/events", "/rooms/general,room%201/json", "/rooms/general/raw"} {
			w, ok := n.stream(path, "poll=1&"+query, lastEventID)
			if !ok {
				continue // no HTTP client sends that
			}
			if w.Code != http.StatusOK {
				if err := checkRefusal(w); err != nil {
					t.Fatalf("%s?%s, Last-Event-ID %q: %v", path, query, lastEventID, err)
				}
				continue
			}
			if !strings.HasSuffix(path, "json") {
				continue
			}
			last := uint64(0)
			for line := range strings.Lines(w.Body.String()) {
				var m struct{ ID uint64 }
				if err := json.Unmarshal([]byte(line), &m); err != nil || m.ID <= last {
					t.Fatalf("%s?%s, Last-Event-ID %q: after %d comes %s (%v)", path, query, lastEventID, last, line, err)
				}
				last = m.ID
			}
		}
	})
}

// FuzzMembership: whatever id and body a membership call has, the cluster is
// asked for something sensible, or the call is refused.
func FuzzMembership(f *testing.F) {
	f.Add("leader", `{"ID":2}`)
	f.Add("leader", `{"ID":"2"}`)
	f.Add("leader", `{"ID":0}`)
	f.Add("leader", "\xff")
	f.Add("4", "http://127.0.0.1:42379")
	f.Add("4", "http://127.0.0.1")
	f.Add("4", "ftp://a:1")
	f.Add("0", "http://a:1")
	f.Add("18446744073709551616", "http://a:1")
	f.Add("4/promote", "")
	n := newNode(f, nil)
	f.Fuzz(func(t *testing.T, id, body string) {
		if id == "" || strings.ContainsAny(id, "?#%") || strings.Contains(id, "//") || strings.HasSuffix(id, "/") {
			t.Skip("another URL")
		}
		w := n.serveInProcess(http.MethodPost, "/raft/"+id, "", body)
		if w.Code == http.StatusNoContent {
			return
		}
		if err := checkRefusal(w); err != nil {
			t.Fatalf("POST /raft/%s with %q: %v", id, body, err)
		}
	})
}
