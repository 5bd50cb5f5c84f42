package grpcapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/protobuf/proto"

	"google.golang.org/grpc"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// wire is a client that does only what it is told: no library reads for it or
// gives the server room to write.
type wire struct {
	t      *testing.T
	conn   net.Conn
	framer *http2.Framer
	stream uint32
}

// dialWire opens a connection with a stream window of window bytes.
func (n *node) dialWire(t *testing.T, window uint32) *wire {
	t.Helper()
	conn, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, conn: conn, framer: http2.NewFramer(conn, conn), stream: 1}
	if err := w.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}); err != nil {
		t.Fatal(err)
	}
	return w
}

// call begins a call and sends the first bytes of a message that it says has length
// bytes.
func (w *wire) call(method string, length int, sent []byte) {
	w.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"}} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: w.stream, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		w.t.Fatal(err)
	}
	data := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(length)), sent...)
	for len(data) > 0 {
		part := data[:min(len(data), 16<<10)]
		data = data[len(part):]
		if err := w.framer.WriteData(w.stream, len(data) == 0 && length == len(sent), part); err != nil {
			return // refused meanwhile
		}
	}
	w.stream += 2
}

// status reads to the end of a call and gives its status, "" if the connection ends.
func (w *wire) status() string {
	w.t.Helper()
	decoder := hpack.NewDecoder(4096, nil)
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			return ""
		}
		if h, ok := frame.(*http2.HeadersFrame); ok {
			fields, err := decoder.DecodeFull(h.HeaderBlockFragment())
			if err != nil {
				w.t.Fatal(err)
			}
			for _, f := range fields {
				if f.Name == "grpc-status" {
					return f.Value
				}
			}
		}
	}
}

const (
	sendMethod      = "/raftogram.v1.Messenger/SendMessage"
	historyMethod   = "/raftogram.v1.Messenger/ReadHistory"
	subscribeMethod = "/raftogram.v1.Messenger/Subscribe"
)

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(what)
		}
	}
}

// Requests that are never finished hold no more than the budget, and the sends of
// others go through.
func TestUnfinishedRequestsAreBounded(t *testing.T) {
	b := budget.New(40 << 20) // 8 requests of the largest size
	n := newNode(t, func(o *Options) { o.Budget = b })
	n.create("general")
	requests := b.Account(budget.Requests)
	for range 60 {
		w := n.dialWire(t, 64<<10)
		w.call(sendMethod, 900<<10, make([]byte, 32<<10)) // within the first window
	}
	eventually(t, "no request is being received", func() bool { return requests.Used() > requests.Limit()/2 })
	// Some are refused at once, the others give way.
	for range 20 {
		eventually(t, "a send is refused for good", func() bool {
			_, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("hi")})
			if err != nil {
				check(t, err, codes.ResourceExhausted, "overloaded")
			}
			return err == nil
		})
	}
	if used := requests.Used(); used > requests.Limit() {
		t.Errorf("%d of %d bytes used", used, requests.Limit())
	}
}

// Answers that nobody takes hold no more than the budget; what is beyond is refused,
// and when their time is over the connection is closed.
func TestUntakenAnswersAreBounded(t *testing.T) {
	for _, tt := range []struct {
		method  string
		request proto.Message
		use     budget.Use
	}{
		{historyMethod, &pb.ReadHistoryRequest{ChannelId: "general", Limit: 1000}, budget.Pages},
		{subscribeMethod, &pb.SubscribeRequest{ChannelId: "general"}, budget.Streams},
	} {
		t.Run(tt.method, func(t *testing.T) {
			t.Parallel()
			b := budget.New(32 << 20)
			n := newNode(t, func(o *Options) { o.Budget, o.WriteTimeout, o.CloseGrace = b, time.Second, time.Second })
			n.create("general")
			for range 30 {
				n.send("general", strings.Repeat("x", 60<<10))
			}
			account := b.Account(tt.use)
			request := encode(t, tt.request)
			clients := make([]*wire, 200)
			for i := range clients {
				clients[i] = n.dialWire(t, 0)
				clients[i].call(tt.method, len(request), request)
			}
			eventually(t, "nothing is held", func() bool { return account.Used() > account.Limit()/2 })
			if got, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general", Limit: 1000}); err == nil {
				if len(got.GetMessages()) == 0 || !got.GetHasMore() || proto.Size(got) > 2*maxHistoryBytes {
					t.Errorf("%d messages, more: %v", len(got.GetMessages()), got.GetHasMore())
				}
			} else {
				check(t, err, codes.ResourceExhausted, "overloaded")
			}
			if _, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("hi")}); err != nil {
				t.Errorf("a send beside them: %v", err)
			}
			refused, cut := 0, 0
			for _, w := range clients {
				switch w.status() {
				case strconv.Itoa(int(codes.ResourceExhausted)):
					refused++
				case "":
					cut++
				}
			}
			if refused == 0 || cut == 0 {
				t.Errorf("of %d clients %d were refused and %d cut", len(clients), refused, cut)
			}
			eventually(t, "what was cut is still held", func() bool { return account.Used() <= callBytes })
		})
	}
}

// A small answer that nobody takes keeps its call's place, and no longer than the
// time limit.
func TestUntakenSmallAnswersAreCut(t *testing.T) {
	b := budget.New(32 << 20)
	n := newNode(t, func(o *Options) {
		o.Budget, o.WriteTimeout, o.CloseGrace = b, 100*time.Millisecond, 100*time.Millisecond
	})
	n.create("general")
	requests := b.Account(budget.Requests)
	w := n.dialWire(t, 0)
	request := encode(t, &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("hi")})
	for range 50 {
		w.call(sendMethod, len(request), request)
	}
	if got := w.status(); got != "" {
		t.Errorf("status %q without room for the answer", got)
	}
	eventually(t, "what was cut is still held", func() bool { return requests.Used() == 0 })
}

// Calls that begin and send nothing are refused beyond the budget.
func TestSilentCallsAreBounded(t *testing.T) {
	b := budget.New(40 << 20)
	n := newNode(t, func(o *Options) { o.Budget = b })
	for range 3 {
		w := n.dialWire(t, 64<<10)
		for range 100 {
			w.call(subscribeMethod, 100, nil)
		}
		if got := w.status(); got != strconv.Itoa(int(codes.ResourceExhausted)) && got != "" {
			t.Errorf("status %s", got)
		}
	}
	streams := b.Account(budget.Streams)
	if used := streams.Used(); used > (8+spareReceivers)*callBytes {
		t.Errorf("%d bytes are used", used)
	}
}

// Everything is given back, whatever became of a call, and answers are not
// compressed: what is compressed is not counted.
func TestCallsGiveBack(t *testing.T) {
	b := budget.New(64 << 20)
	n := newNode(t, func(o *Options) { o.Budget = b })
	n.create("general")
	n.send("general", strings.Repeat("x", 60<<10))
	client := pb.NewMessengerClient(n.dial(grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))))
	for _, c := range []pb.MessengerClient{n.client, client} {
		if got, err := c.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general", Limit: 10}); err != nil || len(got.GetMessages()) != 1 {
			t.Fatal(got, err)
		}
		if _, err := c.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "none", AuthorId: "ann", Payload: []byte("x")}); err == nil {
			t.Error("sent to a channel that is not there")
		}
		stream, err := c.Subscribe(n.context(), &pb.SubscribeRequest{ChannelId: "general"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	raw := n.dialWire(t, 64<<10)
	raw.call(sendMethod, 1000, make([]byte, 10))
	_ = raw.conn.Close()
	for use, want := range map[budget.Use]int64{budget.Requests: 0, budget.Pages: 0, budget.Streams: 2 * callBytes} {
		eventually(t, "something is not given back", func() bool { return b.Account(use).Used() == want })
	}
}

// A peer that takes nothing from its socket is disconnected.
func TestDeadSocketIsCut(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	c := &limitedConn{Conn: server, writeTimeout: 10 * time.Millisecond, release: func() {}}
	defer c.Close()
	if _, err := c.Write([]byte("hi")); err == nil || errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to a peer that does not read: %v", err)
	}
}
