package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/slow"
)

// frame is one frame of /ws.
type frame struct {
	RoomName string
	Post     wire
}

// dial opens /ws. buffer, if not 0, bounds the receive buffer in bytes.
func (n *node) dial(query string, buffer int, options *websocket.DialOptions) *websocket.Conn {
	n.t.Helper()
	if options == nil {
		options = &websocket.DialOptions{}
	}
	options.HTTPClient = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil && buffer > 0 {
				err = conn.(*net.TCPConn).SetReadBuffer(buffer)
			}
			return conn, err
		},
	}}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, n.url+"/ws"+query, options)
	if err != nil {
		n.t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	n.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// next reads one frame.
func next(t testing.TB, conn *websocket.Conn) frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	kind, data, err := conn.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var f frame
	if err := json.Unmarshal(data, &f); err != nil || kind != websocket.MessageText {
		t.Fatalf("%v %q: %v", kind, data, err)
	}
	return f
}

// farewell reads to the end of a connection and returns the close frame and the ID of the last message before it.
func farewell(t testing.TB, conn *websocket.Conn) (closed websocket.CloseError, last uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			if !errors.As(err, &closed) {
				t.Fatalf("after message %d: %v", last, err)
			}
			return closed, last
		}
		var f frame
		if err := json.Unmarshal(data, &f); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if last != 0 && f.Post.ID != last+1 {
			t.Fatalf("message %d follows %d", f.Post.ID, last)
		}
		last = f.Post.ID
	}
}

// eventually waits until done says true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(what)
		}
	}
}

func TestFirehose(t *testing.T) {
	n := newNode(t, nil)
	n.post("a", "u", "before")
	live := n.dial("", 0, nil)
	n.post("a", "ann", "one")
	n.post("b", "bob", "two <&> \u2028")
	for i, want := range []wire{{Room: "a", Seq: 2, ID: 2, User: "ann"}, {Room: "b", Seq: 1, ID: 3, User: "bob"}} {
		got := next(t, live)
		if got.RoomName != want.Room || got.Post.Room != want.Room || got.Post.Seq != want.Seq || got.Post.ID != want.ID ||
			got.Post.User != want.User || got.Post.PostedAt == "" || *got.Post.Message != [...]string{"one", "two <&> \u2028"}[i] {
			t.Errorf("frame %d is %+v", i, got)
		}
	}
	// Words are overlooked, and a new message still comes.
	if err := live.Write(t.Context(), websocket.MessageText, []byte("ping")); err != nil {
		t.Fatal(err)
	}
	n.post("a", "u", "four")
	if got := next(t, live); got.Post.ID != 4 {
		t.Errorf("frame after a word is %+v", got)
	}
	// From the start, from the middle, and from a cursor that nobody has reached.
	for since := range uint64(4) {
		conn := n.dial(fmt.Sprintf("?since=%d", since), 0, nil)
		for id := since + 1; id <= 4; id++ {
			if got := next(t, conn); got.Post.ID != id {
				t.Fatalf("since %d: got %d, want %d", since, got.Post.ID, id)
			}
		}
	}
	ahead := n.dial("?since=5", 0, nil)
	n.post("a", "u", "five")
	n.post("a", "u", "six")
	if got := next(t, ahead); got.Post.ID != 5 {
		t.Errorf("ahead: %+v", got)
	}
}

// Everything that many writers post reaches a reader that reconnects all the time, once and in order.
func TestFirehoseResumes(t *testing.T) {
	n := newNode(t, nil)
	const writers, each = 8, 60
	var posting sync.WaitGroup
	for w := range writers {
		posting.Go(func() {
			for i := range each {
				_, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{
					Room: fmt.Sprint("room", w%3), User: "u", Payload: fmt.Append(nil, w, " ", i),
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	var last uint64
	for steps := 1; last < writers*each; steps++ {
		conn := n.dial(fmt.Sprintf("?since=%d", last), 0, nil)
		for range min(steps*7, writers*each-int(last)) {
			got := next(t, conn)
			if got.Post.ID != last+1 {
				t.Fatalf("message %d follows %d", got.Post.ID, last)
			}
			last++
		}
		_ = conn.CloseNow()
	}
	posting.Wait()
	eventually(t, "closed streams stay open", func() bool { return testutil.ToFloat64(n.server.metrics.streams) == 0 })
}

func TestFirehoseShutdown(t *testing.T) {
	n := newNode(t, nil)
	conns := []*websocket.Conn{n.dial("", 0, nil), n.dial("?since=0", 0, nil)}
	for i := range 5 {
		n.post("r", "u", fmt.Sprint(i))
	}
	for _, conn := range conns {
		for range 5 {
			next(t, conn)
		}
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n.server.Shutdown()
	}()
	for _, conn := range conns {
		closed, _ := farewell(t, conn)
		if closed.Code != websocket.StatusGoingAway || !strings.Contains(closed.Reason, "since=5") {
			t.Errorf("closed with %v", closed)
		}
	}
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Fatal("Shutdown does not return")
	}
	got := n.raw("GET /ws HTTP/1.1\r\nHost: " + n.address + "\r\n" + strings.ReplaceAll(handshake, "|", "\r\n") + "\r\n\r\n")
	if status, code, _ := problemIn(t, got); status != http.StatusServiceUnavailable || code != "stopping" {
		t.Errorf("stream after Shutdown: %d %s", status, code)
	}
}

// A shutdown does not wait for a reader that does not read.
func TestFirehoseShutdownWithStalledReader(t *testing.T) {
	slow.Test(t)
	n := newNode(t, func(o *Options) { o.WriteTimeout, o.CloseGrace = time.Hour, time.Hour })
	conn := n.dial("?since=0", 4<<10, nil)
	posted := n.flood(n.server.metrics.messages)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n.server.Shutdown()
	}()
	select {
	case <-stopped:
	case <-time.After(patience):
		t.Fatalf("after %d messages Shutdown waits for a reader that does not read", posted)
	}
	_ = conn.CloseNow()
}

// flood posts large messages until counter, which counts what was written to streams, has stood still for some of them:
// then a reader that does not read has filled every buffer. It returns the number of messages.
func (n *node) flood(counter prometheus.Counter) (posted int) {
	n.t.Helper()
	payload := []byte(strings.Repeat("x", 60<<10))
	written, still := -1.0, 0
	pace := time.NewTicker(time.Millisecond) // or the stream would stand still only because it had no turn
	defer pace.Stop()
	for still < 40 {
		<-pace.C
		if posted > 4000 {
			n.t.Fatal("the buffers of the system have no end")
		}
		if _, _, err := n.service.Post(n.t.Context(), actor, chat.PostRequest{Room: "flood", User: "u", Payload: payload}); err != nil {
			n.t.Fatal(err)
		}
		posted++
		if now := testutil.ToFloat64(counter); now == written {
			still++
		} else {
			written, still = now, 0
		}
	}
	return posted
}

// A reader that stalls is cut with 1013 and can resume, while another reader gets everything.
func TestFirehoseSlowReader(t *testing.T) {
	n := newNode(t, func(o *Options) { o.WriteTimeout, o.CloseGrace = 200*time.Millisecond, time.Hour })
	slow := n.dial("?since=0", 64<<10, nil)
	fast := n.dial("?since=0", 0, nil)
	// The cursor of the slow stream goes when its write has taken too long; the fast stream is never held up.
	stalled := func() bool {
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		for f := range n.server.streams {
			if errors.Is(f.wait.ended(), errSlow) {
				return true
			}
		}
		return false
	}
	payload := []byte(strings.Repeat("x", 60<<10))
	var posted uint64
	for !stalled() {
		if posted > 4000 {
			t.Fatal("the slow reader is not cut")
		}
		if _, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: "r", User: "u", Payload: payload}); err != nil {
			t.Fatal(err)
		}
		posted++
		if got := next(t, fast); got.Post.ID != posted {
			t.Fatalf("the fast reader got %d, want %d", got.Post.ID, posted)
		}
	}
	n.post("r", "u", "last")
	// Now the slow reader reads on.
	closed, last := farewell(t, slow)
	if closed.Code != websocket.StatusTryAgainLater || !strings.HasSuffix(closed.Reason, fmt.Sprintf("since=%d", last)) {
		t.Errorf("after message %d closed with %v", last, closed)
	}
	if last == 0 || last > posted {
		t.Errorf("the slow reader was sent %d of %d messages", last, posted)
	}
	if got := next(t, n.dial(fmt.Sprintf("?since=%d", last), 0, nil)); got.Post.ID != last+1 {
		t.Errorf("resumed with %d after %d", got.Post.ID, last)
	}
	if got := next(t, fast); got.Post.ID != posted+1 {
		t.Errorf("the fast reader got %d, want %d", got.Post.ID, posted+1)
	}
	if got := testutil.ToFloat64(n.server.metrics.ended.WithLabelValues("slow")); got != 1 {
		t.Errorf("%v streams were cut", got)
	}
}

// A reader that never comes back loses its connection after the grace.
func TestFirehoseDeadReader(t *testing.T) {
	n := newNode(t, func(o *Options) { o.WriteTimeout, o.CloseGrace = 50*time.Millisecond, 50*time.Millisecond })
	dead := n.dial("?since=0", 4<<10, nil)
	n.flood(n.server.metrics.messages)
	payload := strings.Repeat("x", 60<<10)
	eventually(t, "the connection of a dead reader stays", func() bool {
		n.post("flood", "u", payload) // in case the stream was only late, and the flood ended before the buffers were full
		return testutil.ToFloat64(n.server.metrics.ended.WithLabelValues("slow")) == 1 && testutil.ToFloat64(n.server.metrics.streams) == 0
	})
	_ = dead.CloseNow()
}

func TestFirehosePings(t *testing.T) {
	n := newNode(t, func(o *Options) { o.PingInterval, o.PongTimeout = 10*time.Millisecond, patience })
	pinged := make(chan struct{}, 100)
	answering := n.dial("", 0, &websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		select {
		case pinged <- struct{}{}:
		default:
		}
		return true
	}})
	// The third ping comes only if the second was answered in time.
	go func() {
		for range 3 {
			<-pinged
		}
		if _, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: "r", User: "u", Payload: []byte("m")}); err != nil {
			t.Error(err)
		}
	}()
	if got := next(t, answering); got.Post.ID != 1 {
		t.Errorf("got %+v", got)
	}
}

// A peer that does not answer a ping is dropped.
func TestFirehoseNoPong(t *testing.T) {
	n := newNode(t, func(o *Options) { o.PingInterval, o.PongTimeout = 10*time.Millisecond, 50*time.Millisecond })
	silent := n.dial("", 0, &websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool { return false }})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := silent.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("read ended with %v", err)
	}
	eventually(t, "the stream does not end", func() bool {
		return testutil.ToFloat64(n.server.metrics.ended.WithLabelValues("no_pong")) == 1
	})
}

func TestFirehoseOnlySends(t *testing.T) {
	n := newNode(t, nil)
	for _, size := range []int{ignoredBytes + 1, readLimit, readLimit * 4} {
		conn := n.dial("", 0, nil)
		if err := conn.Write(t.Context(), websocket.MessageBinary, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if closed, _ := farewell(t, conn); closed.Code != websocket.StatusPolicyViolation || !strings.Contains(closed.Reason, "only sends") {
			t.Errorf("%d bytes: closed with %v", size, closed)
		}
	}
}

// A node that has lost its leader sends its readers away and takes no new ones.
func TestFirehoseWithoutLeader(t *testing.T) {
	n := newNode(t, func(o *Options) { o.LeaderGrace = 20 * time.Millisecond })
	n.post("r", "u", "m")
	conn := n.dial("?since=0", 0, nil)
	next(t, conn)
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 0 })
	if closed, _ := farewell(t, conn); closed.Code != websocket.StatusTryAgainLater || !strings.HasSuffix(closed.Reason, "since=1") {
		t.Errorf("closed with %v", closed)
	}
	request := "GET /ws HTTP/1.1\r\nHost: " + n.address + "\r\n" + strings.ReplaceAll(handshake, "|", "\r\n") + "\r\n\r\n"
	if status, code, _ := problemIn(t, n.raw(request)); status != http.StatusServiceUnavailable || code != "no_leader" {
		t.Errorf("stream without a leader: %d %s", status, code)
	}
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 2 })
	eventually(t, "streams stay refused with a leader", func() bool {
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		return !n.server.leaderless
	})
	if got := next(t, n.dial("?since=0", 0, nil)); got.Post.ID != 1 {
		t.Errorf("got %+v", got)
	}
}
