package grpcapi

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for something that should happen at once.
const patience = 30 * time.Second

// node is a Server with a real service over a log in memory.
type node struct {
	t       testing.TB
	address string
	server  *Server
	cluster *fakeCluster
	chat    *chat.Service
	log     *chattest.Log
	logged  *logBuffer
	conn    *grpc.ClientConn
	client  pb.MessengerClient
}

// newNode starts a node that leads; configure may change its options.
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
	n := &node{t: t, log: log, logged: &logBuffer{}, cluster: &fakeCluster{}, chat: chat.NewService(log, store, of)}
	n.cluster.set(leading)
	o := Options{Chat: n.chat, Cluster: n.cluster, Logger: slog.New(slog.NewTextHandler(n.logged, nil))}
	if configure != nil {
		configure(&o)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.server, n.address = New(o), listener.Addr().String()
	served := make(chan error, 1)
	go func() { served <- n.server.Serve(listener) }()
	n.conn = n.dial()
	n.client = pb.NewMessengerClient(n.conn)
	t.Cleanup(func() {
		n.server.Shutdown(t.Context()) // that context has ended: what is left is cut
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		n.chat.Close()
		log.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// dial gives a connection of its own, closed with the test.
func (n *node) dial(options ...grpc.DialOption) *grpc.ClientConn {
	n.t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///"+n.address, options...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return conn
}

// context bounds a call.
func (n *node) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	n.t.Cleanup(cancel)
	return ctx
}

func (n *node) create(channel string) {
	n.t.Helper()
	if _, err := n.client.CreateChannel(n.context(), &pb.CreateChannelRequest{ChannelId: channel}); err != nil {
		n.t.Fatal(err)
	}
}

// send posts a message past the API.
func (n *node) send(channel, payload string) {
	n.t.Helper()
	r := chat.PostRequest{Room: channel, User: "ann", Payload: []byte(payload)}
	if _, _, err := n.chat.Post(n.context(), chat.Actor{}, r); err != nil {
		n.t.Fatal(err)
	}
}

// Views of a cluster.
var (
	leading   = Status{IsLeader: true, LeaderName: "node1", LeaderGRPCAddr: "127.0.0.1:9000"}
	following = Status{LeaderName: "node2", LeaderGRPCAddr: "127.0.0.1:9001"}
	electing  = Status{}
)

// fakeCluster says what it is told to say.
type fakeCluster struct {
	mu     sync.Mutex
	status Status
	panics bool
}

// panicOnce lets the next call that asks who leads panic. The server's own watch
// of the leader does not: its goroutine would take the test with it.
func (c *fakeCluster) panicOnce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.panics = true
}

func (c *fakeCluster) set(s Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = s
}

func (c *fakeCluster) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.panics && calledBy("(*messenger).serves") {
		c.panics = false
		panic("a planted panic")
	}
	return c.status
}

// calledBy reports whether a function is among the callers.
func calledBy(function string) bool {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, function) {
			return true
		}
		if !more {
			return false
		}
	}
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// detail gives the first detail of a type, or nil.
func detail[T any](err error) *T {
	for _, d := range status.Convert(err).Details() {
		if found, ok := d.(*T); ok {
			return found
		}
	}
	return nil
}

// check fails the test unless err has a status and, in its ErrorInfo, a reason.
func check(t testing.TB, err error, code codes.Code, reason string) {
	t.Helper()
	info := detail[errdetails.ErrorInfo](err)
	if info == nil {
		info = &errdetails.ErrorInfo{}
	}
	if status.Code(err) != code || info.Reason != reason {
		t.Errorf("got %v with reason %q; want %v, %q", err, info.Reason, code, reason)
		return
	}
	if info.Domain != errorDomain || status.Convert(err).Message() == "" {
		t.Errorf("%v: domain %q", err, info.Domain)
	}
	retry := detail[errdetails.RetryInfo](err) != nil
	if want := code == codes.Unavailable || code == codes.ResourceExhausted; retry != want {
		t.Errorf("%v: RetryInfo given: %v", err, retry)
	}
}
