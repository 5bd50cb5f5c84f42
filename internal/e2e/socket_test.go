package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// dial opens /ws with a query such as "?since=5". It tries again while the
// node cannot serve.
func dial(t *testing.T, url, query string, client *http.Client) *websocket.Conn {
	t.Helper()
	var conn *websocket.Conn
	testcluster.Eventually(t, "a socket to "+url, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, _, err := websocket.Dial(ctx, strings.Replace(url, "http", "ws", 1)+"/ws"+query, &websocket.DialOptions{HTTPClient: client})
		conn = c
		return err
	})
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// next reads one message.
func next(t *testing.T, conn *websocket.Conn) (testcluster.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, data, err := conn.Read(ctx)
	if err != nil {
		return testcluster.Message{}, err
	}
	var frame struct {
		RoomName string
		Post     testcluster.Message
	}
	if err := json.Unmarshal(data, &frame); err != nil || frame.RoomName != frame.Post.Room {
		t.Fatalf("frame %s: %v", data, err)
	}
	return frame.Post, nil
}

// socketReader follows all rooms over one socket after the other.
type socketReader struct {
	subscriber *oracle.Subscriber // judges what came
	last       uint64             // ID
}

// follow reads messages until enough of them have come, counted from the first
// socket on, or the socket ends, and returns why it ended.
func (r *socketReader) follow(t *testing.T, conn *websocket.Conn, enough uint64) error {
	t.Helper()
	for r.last < enough {
		m, err := next(t, conn)
		if err != nil {
			return err
		}
		r.subscriber.Received(m.Oracle())
		r.last = m.ID
	}
	return nil
}

func TestSocketResumesAfterARestart(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	load := testcluster.StartLoad(t, 4, c.urls())
	reader := socketReader{subscriber: load.History.Subscriber("the socket")}
	const never = math.MaxUint64
	since := func() string { return fmt.Sprint("?since=", reader.last) }

	// 1 is stopped, 2 is killed, then 3 is asked for what follows.
	conn := dial(t, c.nodes[0].url, since(), nil)
	if err := reader.follow(t, conn, reader.last+100); err != nil {
		t.Fatal(err)
	}
	c.nodes[0].signal(syscall.SIGTERM)
	if err := reader.follow(t, conn, never); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the socket of a node that is stopped ends with %v, want 1001", err)
	}
	c.nodes[0].wait()
	c.start(1)
	conn = dial(t, c.nodes[0].url, since(), nil)
	if err := reader.follow(t, conn, reader.last+100); err != nil {
		t.Fatal(err)
	}
	_ = conn.CloseNow()

	conn = dial(t, c.nodes[1].url, since(), nil)
	if err := reader.follow(t, conn, reader.last+100); err != nil {
		t.Fatal(err)
	}
	c.nodes[1].signal(syscall.SIGKILL)
	if err := reader.follow(t, conn, never); err == nil {
		t.Error("the socket of a killed node goes on")
	}
	conn = dial(t, c.nodes[2].url, since(), nil)
	if err := reader.follow(t, conn, reader.last+100); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	load.Stop()
	// Every message was acknowledged, and IDs count them.
	if err := reader.follow(t, conn, uint64(load.History.Counts().Acknowledged)); err != nil {
		t.Fatal(err)
	}
	load.Check(c.urls())
}

func TestGracefulStopClosesSocketsWithGoingAway(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 3, quick...)
	var conns []*websocket.Conn
	for _, n := range c.nodes {
		conns = append(conns, dial(t, n.url, "", nil))
	}
	for i, n := range c.nodes {
		closed := make(chan error, 1)
		go func() {
			_, _, err := conns[i].Read(t.Context())
			closed <- err
		}()
		n.stop(syscall.SIGTERM)
		var end websocket.CloseError
		err := <-closed
		if status := websocket.CloseStatus(err); status != websocket.StatusGoingAway {
			t.Errorf("node %d: the socket ends with %v, want 1001", n.id, err)
		} else if !errors.As(err, &end) || !strings.Contains(end.Reason, "since=0") {
			t.Errorf("node %d: the reason %q does not tell how to resume", n.id, end.Reason)
		}
	}
}

func TestClientThatNeverReadsStopsNobody(t *testing.T) {
	slow.Test(t)
	c := startCluster(t, 1, append([]string{"--write-timeout", "1s"}, quick...)...)
	// A small window, so that little gets stuck on the way.
	deaf := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			err = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
		}
		return conn, err
	}}}
	dial(t, c.nodes[0].url, "", deaf)
	listening := dial(t, c.nodes[0].url, "", nil)

	const messages = 300
	body := strings.Repeat("x", 60<<10)
	history := testcluster.NewHistory()
	reader := socketReader{subscriber: history.Subscriber("the socket that is read")}
	posted := make(chan error, 1)
	go func() {
		for i := range messages {
			m := testcluster.Message{Room: "general", User: "ann", Message: body, ClientMessageID: fmt.Sprint(i)}
			sent := history.Send(m.Oracle())
			stored, _, err := c.client.Post(t.Context(), c.nodes[0].url, m)
			if err != nil {
				posted <- fmt.Errorf("message %d: %w", i, err)
				return
			}
			sent.Acknowledged(stored.Oracle())
		}
		posted <- nil
	}()
	err := reader.follow(t, listening, messages)
	if err := <-posted; err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	replicas, err := c.client.Collect(t.Context(), c.urls())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range replicas {
		history.Replica(r)
	}
	for _, v := range history.Check() {
		t.Error(v)
	}
	_, metrics, err := c.client.Do(t.Context(), http.MethodGet, c.nodes[0].url+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	sent := regexp.MustCompile(`(?m)^raft_chat_http_stream_messages_total (\d+)$`).FindSubmatch(metrics)
	if sent == nil {
		t.Fatalf("no count of messages sent to streams:\n%s", metrics)
	}
	if n, err := strconv.Atoi(string(sent[1])); err != nil || n >= 2*messages {
		t.Errorf("%d messages were sent, so the client that does not read was never behind (%v)", n, err)
	}
	// A stalled socket does not keep the node from stopping well either.
	c.nodes[0].stop(syscall.SIGTERM)
}
