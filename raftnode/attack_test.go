package raftnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/internal/budget"
	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/strangers"
)

// against makes one stranger for each node, who pretends to be the next one and
// knows all about it but its secret.
func against(t *testing.T, c *testCluster) (all []*strangers.Stranger) {
	for _, p := range c.peers {
		as := p.ID%uint64(len(c.peers)) + 1
		starts, err := c.nodes[as].identity.Starts.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		s := &strangers.Stranger{Addr: strings.TrimPrefix(p.URL, "http://"), Cluster: c.nodes[p.ID].identity.ClusterID, To: p.ID, As: as,
			AsURL: c.nodes[as].cfg.ownURL(), AsWho: c.nodes[as].identity.Incarnation.String(), AsStarts: string(starts)}
		t.Cleanup(s.Close)
		all = append(all, s)
	}
	return all
}

// Whatever a stranger sends, no node stops, nothing grows, no message gets to raft
// and no member is changed; the cluster goes on.
func TestStrangersChangeNothing(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	c.tune = func(cfg *Config) { cfg.TickInterval = 100 * time.Millisecond }
	c.startAll()
	c.mustPropose(c.leader(), "before")
	c.agree(1)
	eventually(t, "all members to be registered", func() bool {
		for _, n := range c.nodes {
			for _, m := range n.Members() {
				if m.Incarnation.IsZero() {
					return false
				}
			}
		}
		return true
	})
	all := against(t, c)
	members, goroutines := fmt.Sprint(c.nodes[1].Members()), runtime.NumGoroutine()
	lines := 1
	for _, kind := range strangers.Kinds() {
		var sending sync.WaitGroup
		for w := range 6 {
			sending.Go(func() {
				for i := w; i < 18; i += 6 {
					if err := kind.Send(all[i%3], i); err != nil {
						t.Errorf("%s: %v", kind.Name, err)
					}
				}
			})
		}
		c.mustPropose(c.leader(), "during "+kind.Name)
		lines++
		sending.Wait()
		for id, n := range c.nodes {
			if err := n.Err(); err != nil {
				t.Fatalf("%s: node %d stops: %v", kind.Name, id, err)
			}
			// A busy machine may hold elections; strangers name terms from 100 on.
			if s := n.Status(); s.Term >= 100 {
				t.Fatalf("%s: node %d is in term %d", kind.Name, id, s.Term)
			}
			if got := fmt.Sprint(n.Members()); got != members {
				t.Fatalf("%s: members are %s", kind.Name, got)
			}
			if got := n.PeerCounts().DroppedMessages; len(got) > 0 {
				t.Fatalf("%s: a message got through to node %d: %v", kind.Name, id, got)
			}
		}
		for _, s := range all {
			s.Close()
		}
	}
	c.agree(lines)
	eventually(t, "the strangers' goroutines to end", func() bool { return runtime.NumGoroutine() < goroutines+20 })
	for id, n := range c.nodes {
		refused := n.PeerCounts().RefusedRequests
		for _, reason := range []string{"hello_unconfirmed", "hello_not_a_member", "hello_identity_refused", "hello_older_copy", "call_not_a_member", "unverified", "media_type", "web_page", "body_too_large", "bad_request"} {
			if refused[reason] == 0 {
				t.Errorf("node %d has refused nothing as %s: %v", id, reason, refused)
			}
		}
	}
}

// Connections that strangers hold keep no member out, not even one that comes
// anew, and the node keeps few of them.
func TestHeldConnectionsKeepNobodyOut(t *testing.T) {
	c := newTestCluster(t, 3)
	b := budget.New(64 << 20)
	c.tune = func(cfg *Config) {
		if cfg.ID == 1 {
			cfg.Budget = b
		}
	}
	c.startAll()
	c.mustPropose(c.leader(), "before")
	s := against(t, c)[0]
	hold := func() {
		for _, kind := range strangers.Kinds() {
			if kind.Name != "nothing" && kind.Name != "half a header" && kind.Name != "a declared megabyte that never comes" {
				continue
			}
			for i := range maxUnverified {
				if err := kind.Send(s, i); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	hold()
	c.stop(3)
	c.start(3)
	hold()
	c.mustPropose(3, "after")
	c.agree(2)
	n := c.nodes[1]
	eventually(t, "the oldest connections to be closed", func() bool {
		// Members have some of their own.
		return n.PeerCounts().Connections <= maxUnverified+30 && n.PeerCounts().ClosedConnections[crowded] >= 4*maxUnverified
	})
	if used, open := b.Account(budget.Peers).Used(), n.PeerCounts().Connections; used == 0 || used > (maxUnverified+50)*budget.PerConnection {
		t.Errorf("%d bytes are charged for %d connections", used, open)
	}
	s.Close()
	c.stop(1)
	if used := b.Account(budget.Peers).Used(); used != 0 {
		t.Errorf("%d bytes are charged after the end", used)
	}
}

// A budget that is spent refuses strangers, and makes room for members.
func TestSpentBudgetLetsTheOldestGo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var closed counts
	b := budget.New(10*3*budget.PerConnection + 1000) // the account has a tenth
	d := &door{Listener: l, account: b.Account(budget.Peers), closed: &closed}
	defer d.Close()
	var accepted []*doorConn
	for range 5 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := d.Accept()
		if err != nil {
			t.Fatal(err)
		}
		accepted = append(accepted, got.(*doorConn))
	}
	for i, c := range accepted {
		_, err := c.Write([]byte("x"))
		if gone := errors.Is(err, net.ErrClosed); gone != (i < 2) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	for _, c := range accepted {
		c.verified()
	}
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		if c, err := d.Accept(); err == nil {
			t.Errorf("accepted %v beyond the budget", c.RemoteAddr())
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("served beyond the budget")
	}
	_ = d.Close()
	<-refused
	for _, c := range accepted {
		_ = c.Close()
		_ = c.Close()
	}
	if used := b.Account(budget.Peers).Used(); used != 0 || closed.all()[overspent] != 1 || closed.all()[crowded] != 2 {
		t.Errorf("%d bytes used, closed %v", used, closed.all())
	}
}

// Ten thousand hellos are answered by few calls to the member that they name, and
// by none to an address that they name.
func TestHellosBringAboutFewCalls(t *testing.T) {
	n := openLone(t)
	m := addMember(t, n)
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialled := make(chan struct{})
	go func() {
		defer close(dialled)
		if c, err := elsewhere.Accept(); err == nil {
			_ = c.Close()
			t.Error("a stranger's address was dialled")
		}
	}()
	m.callBacks.Store(0)
	began := time.Now()
	for i := range 2000 {
		q := m.hello()
		q.Secret = newSecret()
		if i%2 == 0 {
			q.From, q.PeerURL = uint64(100+i), "http://"+elsewhere.Addr().String()
		}
		if w := postTo(n, helloPath, mustJSON(t, q)); w.Code == http.StatusOK {
			t.Fatal(w.Body)
		}
	}
	most := int64(time.Since(began)/(callBackInterval*n.cfg.TickInterval)) + 1
	if got := m.callBacks.Load(); got > most {
		t.Errorf("%d call backs, want %d at most", got, most)
	}
	// Of the member itself the first one counts again.
	if w := postTo(n, helloPath, mustJSON(t, m.hello())); w.Code != http.StatusOK {
		t.Errorf("the member itself: %d %s", w.Code, w.Body)
	}
	_ = elsewhere.Close()
	<-dialled
}

// A member that was started anew has another secret. The first hello with it
// brings about a call back, and the old one is not good any more.
func TestSecretIsOfOneProcess(t *testing.T) {
	n := openLone(t)
	m := addMember(t, n)
	old := m.hello()
	m.Secret = newSecret()
	eventually(t, "the new secret to be taken", func() bool { return postTo(n, helloPath, mustJSON(t, m.hello())).Code == http.StatusOK })
	if w := postTo(n, helloPath, mustJSON(t, old)); w.Code == http.StatusOK {
		t.Error("the old secret is still good")
	}
}

// What reaches the peer port from a web page is refused, whatever it says.
func TestPagesAreRefused(t *testing.T) {
	n := openLone(t)
	m := addMember(t, n)
	for _, path := range []string{helloPath, confirmPath, callPath} {
		for header, value := range map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain;charset=UTF-8"} {
			w := postWith(n, path, mustJSON(t, m.hello()), header, value)
			if want := map[bool]int{true: http.StatusUnsupportedMediaType, false: http.StatusForbidden}[header == "Content-Type"]; w.Code != want {
				t.Errorf("%s with %s: %d %s, want %d", path, header, w.Code, w.Body, want)
			}
		}
	}
}

// A body has to come within its time; what was announced is not allocated.
func TestHalfABodyIsNotWaitedForLong(t *testing.T) {
	n := openLone(t)
	var deadlines []time.Duration
	w := deadlineRecorder{set: func(at time.Time) { deadlines = append(deadlines, time.Until(at)) }}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, helloPath, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	n.peers.server.Handler.ServeHTTP(w, r)
	if len(deadlines) == 0 || deadlines[0] > bodyTimeout {
		t.Errorf("read deadlines of a request: %v", deadlines)
	}
	if s := n.peers.server; s.ReadHeaderTimeout == 0 || s.IdleTimeout == 0 || s.IdleTimeout <= clientIdleTimeout || s.MaxHeaderBytes == 0 {
		t.Errorf("the listener's limits: %+v", s)
	}
}

type deadlineRecorder struct{ set func(time.Time) }

func (deadlineRecorder) Header() http.Header                  { return http.Header{} }
func (deadlineRecorder) Write(b []byte) (int, error)          { return len(b), nil }
func (deadlineRecorder) WriteHeader(int)                      {}
func (d deadlineRecorder) SetReadDeadline(at time.Time) error { d.set(at); return nil }

// Peer traffic goes to the peers: not to a proxy that the environment names for
// the web, and a redirect leads nowhere.
func TestPeerTrafficGoesToThePeers(t *testing.T) {
	own := &rafthttp.Transport{Logger: quietZap()}
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	defer own.Stop()
	if err := ownRoundTrippers(own, newSecret()); err != nil {
		t.Fatal(err)
	}
	n := newDiskNode(t, &recordingDisk{}, 1, nil)
	transports := []*http.Transport{n.peers.client.Transport.(*http.Transport)}
	for _, name := range []string{"streamRt", "pipelineRt"} {
		field := reflect.ValueOf(own).Elem().FieldByName(name)
		rt := *(*http.RoundTripper)(field.Addr().UnsafePointer())
		transports = append(transports, rt.(*memberRoundTripper).base)
	}
	for _, tr := range transports {
		if tr.Proxy != nil {
			t.Errorf("%+v asks the environment for a proxy", tr)
		}
	}
	if n.peers.client.CheckRedirect(nil, nil) != http.ErrUseLastResponse {
		t.Error("redirects are followed")
	}
	if err := n.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// Raft keeps some ids for itself; a member must have none of them.
func TestReservedIDs(t *testing.T) {
	m := bootstrapMembership([]Peer{{1, "http://a:1"}})
	for _, id := range []uint64{raft.None, raft.LocalAppendThread, raft.LocalApplyThread} {
		var refused *Error
		if err := checkMemberID(id); !errors.As(err, &refused) || refused.Code != CodeMemberID {
			t.Errorf("%d: %v", id, err)
		}
		// In the log, whatever proposed it.
		if next, err := m.change(raftpb.ConfChangeAddLearnerNode, id, confContext{PeerURL: "http://b:1"}); next != nil || err == nil || err.Code != CodeMemberID {
			t.Errorf("%d is applied: %v", id, err)
		}
		// In the records of a build that let it in: the start is refused.
		old := fmt.Sprintf(`{"version":1,"voters":[1],"learners":[%d],"members":[{"id":1,"peer_url":"http://a:1"},{"id":%d,"peer_url":"http://b:1"}]}`, id, id)
		var identity *IdentityError
		if _, err := decodeMembership([]byte(old)); !errors.As(err, &identity) || !strings.Contains(err.Error(), fmt.Sprint("raft-chat members remove ", id)) {
			t.Errorf("records with %d: %v", id, err)
		}
		// One that was removed again is no matter.
		if _, err := decodeMembership(fmt.Appendf(nil, `{"version":1,"voters":[1],"members":[{"id":1,"peer_url":"http://a:1"}],"removed":[%d]}`, id)); err != nil {
			t.Errorf("records with %d removed: %v", id, err)
		}
	}
	if err := checkMemberID(raft.LocalApplyThread - 1); err != nil {
		t.Error(err)
	}
}

// The log of a build that let such an id in is refused as well, as long as it is
// not applied.
func TestReservedIDInTheLogIsRefused(t *testing.T) {
	payload, err := json.Marshal(confContext{PeerURL: "http://b:1"})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(typ raftpb.ConfChangeType, id uint64) []*raftpb.Entry {
		cc := &raftpb.ConfChange{Type: typ.Enum(), NodeId: new(id), Context: appendEntry(nil, kindConfChange, requestID{}, payload)}
		data, err := proto.Marshal(cc)
		if err != nil {
			t.Fatal(err)
		}
		return []*raftpb.Entry{{Index: new(uint64(5)), Term: new(uint64(1)), Type: raftpb.EntryConfChange.Enum(), Data: data}}
	}
	for _, tt := range []struct {
		what    string
		entries []*raftpb.Entry
		applied uint64
		refused bool
	}{
		{"an added member", entry(raftpb.ConfChangeAddLearnerNode, 9), 1, false},
		{"the apply step", entry(raftpb.ConfChangeAddLearnerNode, raft.LocalApplyThread), 1, true},
		{"the append step, promoted", entry(raftpb.ConfChangeAddNode, raft.LocalAppendThread), 1, true},
		{"the apply step, removed", entry(raftpb.ConfChangeRemoveNode, raft.LocalApplyThread), 1, false},
		{"the apply step, applied long ago", entry(raftpb.ConfChangeAddLearnerNode, raft.LocalApplyThread), 5, false},
	} {
		var identity *IdentityError
		if err := checkLog(tt.entries, tt.applied); errors.As(err, &identity) != tt.refused {
			t.Errorf("%s: %v", tt.what, err)
		}
	}
}

func TestMembersAreBoundedInNumber(t *testing.T) {
	m := bootstrapMembership([]Peer{{1, "http://127.0.0.1:1"}})
	for id := uint64(2); ; id++ {
		url := fmt.Sprint("http://127.0.0.1:", id)
		if refused := m.addable(id, url, false); refused != nil {
			if refused.Code != CodeMemberLimit || len(m.Members) != MaxMembers {
				t.Errorf("with %d members: %v", len(m.Members), refused)
			}
			return
		}
		m = mustChange(t, m, raftpb.ConfChangeAddLearnerNode, id, confContext{PeerURL: url})
	}
}
