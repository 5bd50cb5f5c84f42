package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that should happen at once.
const patience = 30 * time.Second

// node is a server with a real service over a log in memory.
type node struct {
	t       testing.TB
	url     string
	address string
	server  *Server
	cluster *fakeCluster
	service *chat.Service
	log     *chattest.Log
	client  *http.Client
}

// newNode starts a node; configure may change its options.
func newNode(t testing.TB, configure func(*Options)) *node {
	t.Helper()
	return newNodeWith(t, chat.ServiceOptions{}, configure)
}

// newNodeWith is newNode with a service that is not like the others.
func newNodeWith(t testing.TB, of chat.ServiceOptions, configure func(*Options)) *node {
	t.Helper()
	store, err := chat.OpenStore(t.TempDir(), chat.StoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	log := chattest.NewLog(store)
	service := chat.NewService(log, store, of)
	n := &node{t: t, cluster: newFakeCluster(), service: service, log: log, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
		Timeout: patience,
	}}
	o := Options{Chat: service, Cluster: n.cluster, NodeName: "node1", Registry: prometheus.NewRegistry()}
	if configure != nil {
		configure(&o)
	}
	n.server = New(o)
	listener := httptest.NewUnstartedServer(n.server)
	ConfigureServer(listener.Config)
	listener.Start()
	n.url, n.address = listener.URL, listener.Listener.Addr().String()
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		n.server.Shutdown()
		listener.Close()
		service.Close()
		log.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// answer is a response that has been read.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a request; header holds pairs of name and value.
func (n *node) do(method, path, body string, header ...string) answer {
	n.t.Helper()
	request, err := http.NewRequest(method, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := n.client.Do(request)
	if err != nil {
		n.t.Fatal(err)
	}
	return n.read(response)
}

// raw sends a request line and headers as they stand, past every cleaning that net/http does.
func (n *node) raw(request string) answer {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		n.t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		n.t.Fatalf("%q: %v", request, err)
	}
	return n.read(response)
}

// handshake sends a raw request, drops the connection and returns the status of the answer.
func (n *node) handshake(request string) int {
	n.t.Helper()
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		n.t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		n.t.Fatal(err)
	}
	var status int
	if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &status); err != nil {
		n.t.Fatalf("%q: %v", line, err)
	}
	return status
}

func (n *node) read(response *http.Response) answer {
	n.t.Helper()
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(body)}
}

// post sends a message and fails the test unless it is stored.
func (n *node) post(room, user, text string) {
	n.t.Helper()
	body, err := json.Marshal(map[string]string{"Message": text, "User": user})
	if err != nil {
		n.t.Fatal(err)
	}
	if got := n.do("POST", "/rooms/"+room, string(body)); got.status != http.StatusCreated {
		n.t.Fatalf("post to %s: %d %s", room, got.status, got.body)
	}
}

// problemIn decodes a problem document.
func problemIn(t testing.TB, a answer) (status int, code, detail string) {
	t.Helper()
	if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
		t.Fatalf("status %d, Content-Type %q, body %q: not a problem document", a.status, kind, a.body)
	}
	var p struct {
		Type, Title, Detail, Code string
		Status                    int
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%q: %v", a.body, err)
	}
	if p.Type == "" || p.Title == "" || p.Detail == "" || p.Status != a.status {
		t.Fatalf("status %d with incomplete problem %s", a.status, a.body)
	}
	return p.Status, p.Code, p.Detail
}

// codedError is an error as the cluster returns them.
type codedError string

func (e codedError) Error() string     { return "cluster: " + string(e) }
func (e codedError) ErrorCode() string { return string(e) }

// fakeCluster is a cluster whose members are a list and whose log is somebody else's business.
type fakeCluster struct {
	mu      sync.Mutex
	status  Status
	members []Member
	calls   []string
	failure error // returned by every call that changes something
	ready   error
	sync    error
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{
		status: Status{
			NodeID: 1, Name: "node1", Role: "follower", LeaderID: 2, LeaderName: "node2",
			LeaderPeerAddr: "127.0.0.1:7001", LeaderGRPCAddr: "127.0.0.1:9001",
		},
		members: []Member{
			{ID: 1, Name: "node1", PeerURL: "http://127.0.0.1:7000", Role: "follower", Match: 9, Lag: 1, Active: true},
			{ID: 2, Name: "node2", PeerURL: "http://127.0.0.1:7001", Role: "leader", Match: 10, Active: true},
		},
	}
}

func (c *fakeCluster) set(change func(*fakeCluster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

func (c *fakeCluster) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *fakeCluster) Members(context.Context) ([]Member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members, nil
}

// note records a call and returns the failure that is set.
func (c *fakeCluster) note(format string, args ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, fmt.Sprintf(format, args...))
	return c.failure
}

func (c *fakeCluster) AddMember(_ context.Context, id uint64, peerURL string, learner bool) error {
	return c.note("add %d %s %v", id, peerURL, learner)
}
func (c *fakeCluster) PromoteMember(_ context.Context, id uint64) error {
	return c.note("promote %d", id)
}
func (c *fakeCluster) RemoveMember(_ context.Context, id uint64) error {
	return c.note("remove %d", id)
}
func (c *fakeCluster) TransferLeadership(_ context.Context, to uint64) error {
	return c.note("transfer %d", to)
}

func (c *fakeCluster) Ready(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

func (c *fakeCluster) Sync(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sync
}
