package raftnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
)

// openLone runs a cluster of one that can reach nobody else but a member 2.
func openLone(tb testing.TB) *Node {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	n, err := Open(context.Background(), Config{
		ID: 1, Cluster: []Peer{{ID: 1, URL: "http://" + l.Addr().String()}}, Dir: dir, Listener: l, MinFreeBytes: -1,
		TickInterval: 20 * time.Millisecond, ListenFirst: time.Millisecond,
		StateMachine: func() (StateMachine, error) { return openLedger(dir) },
		Reachable:    func(_, to uint64) bool { return to <= 2 },
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for n.Status().Leader != 1 || n.Members()[0].Incarnation.IsZero() {
		select {
		case <-poll.C:
		case <-n.Failed():
			tb.Fatal(n.Err())
		}
	}
	return n
}

// fakeMember is a learner that the records know at an address of the test's, where
// it answers call backs and accepts hellos, and nothing else.
type fakeMember struct {
	caller
	url       string
	callBacks atomic.Int64
	greetings atomic.Int64
}

// addMember makes a fake member 2 of a lone node's cluster.
func addMember(tb testing.TB, n *Node) *fakeMember {
	tb.Helper()
	m := &fakeMember{caller: caller{ClusterID: n.identity.ClusterID, From: 2, Incarnation: Incarnation{2}, To: 1, Secret: newSecret()}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+confirmPath, func(w http.ResponseWriter, r *http.Request) {
		m.callBacks.Add(1)
		var q confirmRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.From != 1 || q.To != 2 {
			tb.Errorf("a call back of %+v, %v", q, err)
		}
		answer(w, confirmReply{Version: helloVersion, ClusterID: m.ClusterID, ID: 2, Answer: m.Secret.answer(q.Challenge)})
	})
	mux.HandleFunc("POST "+helloPath, func(w http.ResponseWriter, _ *http.Request) {
		m.greetings.Add(1)
		answer(w, helloReply{Version: helloVersion, ClusterID: m.ClusterID, ID: 2, Incarnation: m.Incarnation})
	})
	s := httptest.NewServer(mux)
	tb.Cleanup(s.Close)
	m.url = s.URL
	if err := n.AddMember(context.Background(), 2, m.url, true); err != nil {
		tb.Fatal(err)
	}
	if w := postTo(n, helloPath, mustJSON(tb, m.hello())); w.Code != http.StatusOK {
		tb.Fatalf("hello of the new member: %d %s", w.Code, w.Body)
	}
	return m
}

func (m *fakeMember) hello() helloRequest {
	return helloRequest{Version: helloVersion, caller: m.caller, PeerURL: m.url}
}

// postTo gives a body to the peer listener's handler.
func postTo(n *Node, path string, body []byte) *httptest.ResponseRecorder {
	return postWith(n, path, body, "Content-Type", "application/json")
}

func postWith(n *Node, path string, body []byte, header, value string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(header, value)
	w := httptest.NewRecorder()
	n.peers.server.Handler.ServeHTTP(w, r)
	return w
}

// checkAnswer: a body from outside is answered with an outcome or a refusal
// that says why, never with a failure of the server.
func checkAnswer(t *testing.T, body []byte, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code >= 500 && w.Code != http.StatusServiceUnavailable {
		t.Fatalf("%s: %d %s", body, w.Code, w.Body)
	}
	if !json.Valid(w.Body.Bytes()) {
		t.Fatalf("%s: %d, not JSON: %s", body, w.Code, w.Body)
	}
	var refusal callError
	if w.Code != http.StatusOK && (json.Unmarshal(w.Body.Bytes(), &refusal) != nil || refusal.Code == "") {
		t.Fatalf("%s: %d without a code: %s", body, w.Code, w.Body)
	}
}

func mustJSON(tb testing.TB, v any) []byte {
	tb.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestHelloIsRefusedToStrangers(t *testing.T) {
	n := openLone(t)
	good := addMember(t, n).hello()
	if w := postTo(n, helloPath, mustJSON(t, good)); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for name, tt := range map[string]struct {
		code string
		edit func(*helloRequest)
	}{
		"later version":   {"bad_request", func(q *helloRequest) { q.Version++ }},
		"for another":     {codeOtherCluster, func(q *helloRequest) { q.To = 2 }},
		"other cluster":   {codeOtherCluster, func(q *helloRequest) { q.ClusterID++ }},
		"other directory": {codeIdentity, func(q *helloRequest) { q.Incarnation[0]++ }},
		"no directory":    {codeIdentity, func(q *helloRequest) { q.Incarnation = Incarnation{} }},
		"another secret":  {codeUnconfirmed, func(q *helloRequest) { q.Secret = newSecret() }},
		"no secret":       {codeUnconfirmed, func(q *helloRequest) { q.Secret = secret{} }},
		"this node":       {codeUnconfirmed, func(q *helloRequest) { q.caller, q.PeerURL = n.peers.self(1), n.cfg.ownURL() }},
		"unknown member":  {codeNotMember, func(q *helloRequest) { q.From = 7 }},
		"joining from elsewhere": {codeIdentity, func(q *helloRequest) {
			q.Joining, q.PeerURL = true, "http://127.0.0.1:1"
		}},
	} {
		q := good
		tt.edit(&q)
		w := postTo(n, helloPath, mustJSON(t, q))
		var refusal callError
		if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil || w.Code == http.StatusOK || refusal.Code != tt.code {
			t.Errorf("%s: %d %s, want %s", name, w.Code, w.Body, tt.code)
		}
	}
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	if len(n.peers.known) != 1 || len(n.peers.seen) != 1 {
		t.Errorf("strangers are remembered: %d peers, %d hellos", len(n.peers.known), len(n.peers.seen))
	}
}

func TestCallIsRefusedToStrangers(t *testing.T) {
	n := openLone(t)
	good := callRequest{caller: addMember(t, n).caller, Op: opStatus}
	if w := postTo(n, callPath, mustJSON(t, good)); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for name, edit := range map[string]func(*callRequest){
		"for another":     func(q *callRequest) { q.To = 2 },
		"other cluster":   func(q *callRequest) { q.ClusterID++ },
		"other directory": func(q *callRequest) { q.Incarnation[0]++ },
		"no directory":    func(q *callRequest) { q.Incarnation = Incarnation{} },
		"unknown member":  func(q *callRequest) { q.From = 7 },
		"another secret":  func(q *callRequest) { q.Secret = newSecret() },
		"no secret":       func(q *callRequest) { q.Secret = secret{} },
		"this node":       func(q *callRequest) { q.caller = n.peers.self(1) },
		"unknown, none":   func(q *callRequest) { q.From, q.Incarnation = 7, Incarnation{} },
	} {
		q := good
		edit(&q)
		if w := postTo(n, callPath, mustJSON(t, q)); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if w := postTo(n, callPath, make([]byte, maxRequestBytes+1)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("too large: %d", w.Code)
	}
}

// What AddMember refuses must be refused to a member that calls the leader as
// well: the leader is the one that writes it into the records of all.
func TestCallChecksWhatItAdds(t *testing.T) {
	n := openLone(t)
	m := addMember(t, n)
	for name, tt := range map[string]struct {
		code string
		q    callRequest
	}{
		"id 0":                  {CodeMemberID, callRequest{ID: 0, PeerURL: "http://127.0.0.1:1"}},
		"id of the append step": {CodeMemberID, callRequest{ID: raft.LocalAppendThread, PeerURL: "http://127.0.0.1:1"}},
		"id of the apply step":  {CodeMemberID, callRequest{ID: raft.LocalApplyThread, PeerURL: "http://127.0.0.1:1"}},
		"no URL":                {CodeMemberURL, callRequest{ID: 3}},
		"bad URL":               {CodeMemberURL, callRequest{ID: 3, PeerURL: "file:///etc"}},
		"not the form":          {CodeMemberURL, callRequest{ID: 4, PeerURL: "HTTP://LOCALHOST:1/"}},
		"https":                 {CodeMemberURL, callRequest{ID: 4, PeerURL: "https://127.0.0.1:1"}},
		"elsewhere":             {CodeMemberURL, callRequest{ID: 4, PeerURL: "http://evil.invalid:1"}},
	} {
		tt.q.caller, tt.q.Op, tt.q.Learner = m.caller, opAdd, true
		body := mustJSON(t, tt.q)
		w := postTo(n, callPath, body)
		checkAnswer(t, body, w)
		var refusal callError
		if err := json.Unmarshal(w.Body.Bytes(), &refusal); err != nil || w.Code == http.StatusOK || refusal.Code != tt.code {
			t.Errorf("%s: %d %s, want %s", name, w.Code, w.Body, tt.code)
		}
	}
	for _, m := range n.Members() {
		if normal, err := ParsePeerURL(m.PeerURL); m.ID == 0 || err != nil || normal != m.PeerURL {
			t.Errorf("the records hold member %d at %q", m.ID, m.PeerURL)
		}
	}
}

// Raft messages of a stranger do not reach rafthttp.
func TestRaftIsClosedToStrangers(t *testing.T) {
	n := openLone(t)
	for _, path := range []string{"/raft", "/raft/stream/message/7", "/raft/snapshot"} {
		for _, from := range []string{"", "x", "7", "1"} {
			r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader([]byte("x")))
			r.Header.Set("X-Server-From", from)
			r.Header.Set("X-PeerURLs", "http://127.0.0.1:1")
			w := httptest.NewRecorder()
			n.peers.server.Handler.ServeHTTP(w, r)
			if w.Code != http.StatusBadRequest && w.Code != http.StatusServiceUnavailable {
				t.Errorf("%s from %q: %d", path, from, w.Code)
			}
		}
	}
}

func FuzzHelloBody(f *testing.F) {
	n := openLone(f)
	for _, s := range []string{"", "{}", "null", "[]", `{"version":1}`, `{"from":-1}`, `{"incarnation":"zz"}`, `{"from":1e400}`, "{\"version\":1,\"peer_url\":\"\xff\"}"} {
		f.Add([]byte(s))
	}
	m := addMember(f, n)
	wrong := m.hello()
	wrong.Secret, wrong.Expected = newSecret(), Incarnation{9}
	f.Add(mustJSON(f, wrong))
	f.Fuzz(func(t *testing.T, body []byte) {
		checkAnswer(t, body, postTo(n, helloPath, body))
		if err := n.Err(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzHello gets past the parsing more often.
func FuzzHello(f *testing.F) {
	n := openLone(f)
	f.Add(1, true, true, uint64(1), uint64(1), "http://127.0.0.1:1", false)
	f.Add(1, true, false, uint64(2), uint64(1), "", true)
	f.Add(1, false, true, uint64(0), uint64(0), "\x00", false)
	f.Fuzz(func(t *testing.T, version int, cluster, incarnation bool, from, to uint64, peerURL string, joining bool) {
		q := helloRequest{Version: version, caller: caller{From: from, To: to}, PeerURL: peerURL, Joining: joining}
		if cluster {
			q.ClusterID = n.identity.ClusterID
		}
		if incarnation {
			q.Incarnation = n.identity.Incarnation
		}
		body := mustJSON(t, q)
		w := postTo(n, helloPath, body)
		checkAnswer(t, body, w)
		if w.Code == http.StatusOK && (from != 1 || to != 1 || !joining) {
			t.Fatalf("%s: accepted", body)
		}
	})
}

func FuzzCallBody(f *testing.F) {
	n := openLone(f)
	for _, s := range []string{"", "{}", "null", "[]", `{"op":"add"}`, `{"from":-1}`, `{"op":7}`} {
		f.Add([]byte(s))
	}
	f.Add(mustJSON(f, callRequest{Op: opStatus, caller: addMember(f, n).caller}))
	f.Fuzz(func(t *testing.T, body []byte) {
		checkAnswer(t, body, postTo(n, callPath, body))
		if err := n.Err(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzCall makes the calls of a member.
func FuzzCall(f *testing.F) {
	n := openLone(f)
	m := addMember(f, n)
	for _, op := range []string{opStatus, opAdd, opPromote, opRemove, opTransfer, opMembers, "", "unknown"} {
		f.Add(op, uint64(1), "http://127.0.0.1:1", true)
		f.Add(op, uint64(5), "http://127.0.0.1:5", true)
		f.Add(op, uint64(5), "http://127.0.0.1:6", false)
	}
	f.Fuzz(func(t *testing.T, op string, id uint64, peerURL string, learner bool) {
		if op == opAdd && len(n.Members()) > 20 || op == opRemove && id == 2 {
			return // the first would never end, the second would end the caller
		}
		body := mustJSON(t, callRequest{caller: m.caller, Op: op, ID: id, PeerURL: peerURL, Learner: learner})
		checkAnswer(t, body, postTo(n, callPath, body))
		if err := n.Err(); err != nil {
			t.Fatal(err)
		}
		if m := n.applier.members.Load(); !slices.Equal(m.Voters, []uint64{1}) {
			t.Fatalf("%s: voters %v", body, m.Voters)
		}
	})
}

// A refusal keeps its meaning on the way through HTTP.
func TestRefusalsTravel(t *testing.T) {
	n := openLone(t)
	for code, check := range map[string]func(error) bool{
		codeIdentity: func(err error) bool { var e *IdentityError; return errors.As(err, &e) && e.Reason == "why" },
		codeRemoved:  func(err error) bool { return errors.Is(err, ErrRemoved) },
		CodeMemberExists: func(err error) bool {
			var e *Error
			return errors.As(err, &e) && e.Code == CodeMemberExists && e.Detail == "why"
		},
		CodeOutcomeUnknown: func(err error) bool { var e *Error; return errors.As(err, &e) && e.Code == CodeOutcomeUnknown },
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			answerError(w, http.StatusConflict, errorf(code, "why"))
		}))
		err := n.peers.post(context.Background(), s.URL, struct{}{}, &struct{}{})
		s.Close()
		if !check(err) {
			t.Errorf("%s came back as %v", code, err)
		}
	}
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	if err := n.peers.post(context.Background(), s.URL, struct{}{}, &struct{}{}); err == nil {
		t.Error("an answer that is none of ours: no error")
	}
}
