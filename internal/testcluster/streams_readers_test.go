package testcluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/client"
)

// feed is one protocol. Its methods are called by one goroutine, in the order
// connect, next as often as there is no error, close, and then again.
type feed interface {
	// connect returns when the first of the nodes has taken the subscription,
	// or any of them if the protocol chooses by itself. The stream ends with ctx.
	connect(ctx context.Context, nodes []uint64, from place) error
	// next waits for what comes. An error ends the stream; what comes with it
	// counts nevertheless.
	next() ([]event, error)
	// close gives up the stream, or what connect has left of one.
	close()
}

// place is where a stream goes on: behind message id of all rooms, or behind
// message seq of the first one, as the protocol has it.
type place struct{ id, seq uint64 }

// event is a message or, if its Seq is 0, something else.
type event struct {
	Message // without ID and PostedAt if the protocol has none
	gap     *gap
	again   bool // the feed has connected again by itself
}

type gap struct {
	Room              string
	FirstSeq, LastSeq uint64
	ID                uint64 // 0: the protocol has none
}

// errOver is what a server says when it ends a stream.
var errOver = errors.New("the server has ended the stream")

func decodeMessage(data []byte) ([]event, error) {
	var e event
	err := json.Unmarshal(data, &e.Message)
	return []event{e}, err
}

func decodeFirehose(data []byte) ([]event, error) {
	var frame struct {
		RoomName string
		Post     Message
	}
	err := json.Unmarshal(data, &frame)
	if err == nil && frame.RoomName != frame.Post.Room {
		err = fmt.Errorf("a message of two rooms: %s", data)
	}
	return []event{{Message: frame.Post}}, err
}

// bodyFeed is a form that is the body of an HTTP answer.
type bodyFeed struct {
	c         *Cluster
	http      *http.Client
	path      string
	request   func(*http.Request, place)
	delimiter string // ends every unit
	decode    func(unit []byte) ([]event, error)

	body  io.ReadCloser
	units *bufio.Scanner
}

func (f *bodyFeed) connect(ctx context.Context, nodes []uint64, from place) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.c.URL(nodes[0])+f.path, http.NoBody)
	if err != nil {
		return err
	}
	f.request(r, from)
	answer, err := f.http.Do(r)
	if err != nil {
		return err
	}
	f.body = answer.Body
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	f.units = bufio.NewScanner(f.body)
	f.units.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		if i := bytes.Index(data, []byte(f.delimiter)); i >= 0 {
			return i + len(f.delimiter), data[:i], nil
		}
		if atEOF {
			return len(data), nil, nil // half a unit is none
		}
		return 0, nil, nil
	})
	return nil
}

func (f *bodyFeed) next() ([]event, error) {
	for f.units.Scan() {
		if len(f.units.Bytes()) > 0 {
			return f.decode(f.units.Bytes())
		}
	}
	if err := f.units.Err(); err != nil {
		return nil, err
	}
	return nil, errOver
}

func (f *bodyFeed) close() {
	if f.body != nil {
		_ = f.body.Close()
		f.body = nil
	}
}

func sinceQuery(r *http.Request, from place) { r.URL.RawQuery = fmt.Sprint("since=", from.id) }

// lastEventID resumes as a browser does.
func lastEventID(r *http.Request, from place) {
	r.Header.Set("Last-Event-ID", strconv.FormatUint(from.id, 10))
}

// decodeServerEvent reads one server-sent event without the empty line behind
// it.
func decodeServerEvent(unit []byte) ([]event, error) {
	fields := map[string]string{}
	for line := range strings.SplitSeq(string(unit), "\n") {
		name, value, _ := strings.Cut(line, ": ")
		fields[name] = value
	}
	switch fields["event"] {
	case "":
		if fields["data"] == "" {
			return nil, nil // retry, or a comment
		}
		events, err := decodeMessage([]byte(fields["data"]))
		if err == nil && fields["id"] != fmt.Sprint(events[0].ID) {
			err = fmt.Errorf("the id does not belong to the message: %s", unit)
		}
		return events, err
	case "gap":
		g := new(gap)
		id, err := strconv.ParseUint(fields["id"], 10, 64)
		if err == nil {
			err = json.Unmarshal([]byte(fields["data"]), g)
		}
		g.ID = id
		return []event{{gap: g}}, err
	case "status":
		return nil, nil
	case "end":
		return nil, errOver
	}
	return nil, fmt.Errorf("an unknown event: %s", unit)
}

// socketFeed is a form of WebSocket frames.
type socketFeed struct {
	c      *Cluster
	http   *http.Client
	path   string
	decode func(frame []byte) ([]event, error)

	ctx  context.Context // of the stream
	conn *websocket.Conn
}

func (f *socketFeed) connect(ctx context.Context, nodes []uint64, from place) error {
	return f.dial(ctx, nodes[0], fmt.Sprint("?since=", from.id))
}

func (f *socketFeed) dial(ctx context.Context, node uint64, query string, subprotocols ...string) error {
	// An answer that is no upgrade has a body that the library closes.
	conn, _, err := websocket.Dial(ctx, f.c.URL(node)+f.path+query, //nolint:bodyclose // see above
		&websocket.DialOptions{HTTPClient: f.http, Subprotocols: subprotocols})
	if err != nil {
		return err
	}
	conn.SetReadLimit(1 << 20)
	f.ctx, f.conn = ctx, conn
	return nil
}

func (f *socketFeed) next() ([]event, error) {
	_, frame, err := f.conn.Read(f.ctx)
	if err != nil {
		return nil, err
	}
	return f.decode(frame)
}

func (f *socketFeed) close() {
	if f.conn != nil {
		_ = f.conn.CloseNow()
		f.conn = nil
	}
}

// sessionFeed is raft-chat.v1.
type sessionFeed struct {
	socketFeed
	rooms []string
}

type sessionFrame struct {
	Type, Code, Detail string
	Id                 string // or it would be taken for ID
	Messages           []Message
	gap
}

func (f *sessionFeed) connect(ctx context.Context, nodes []uint64, from place) error {
	if err := f.dial(ctx, nodes[0], "", "raft-chat.v1"); err != nil {
		return err
	}
	subscribe, err := json.Marshal(map[string]any{"Type": "subscribe", "Id": "1", "Rooms": f.rooms, "Since": fmt.Sprint(from.id)})
	if err != nil {
		return err
	}
	if err := f.conn.Write(ctx, websocket.MessageText, subscribe); err != nil {
		return err
	}
	for {
		frame, err := f.hear()
		if err != nil || frame.Type == "subscribed" {
			return err
		}
		if frame.Type != "status" {
			return fmt.Errorf("the answer is %+v", frame)
		}
	}
}

func (f *sessionFeed) hear() (frame sessionFrame, err error) {
	_, data, err := f.conn.Read(f.ctx)
	if err == nil {
		err = json.Unmarshal(data, &frame)
	}
	return frame, err
}

func (f *sessionFeed) next() (events []event, err error) {
	frame, err := f.hear()
	switch {
	case err != nil:
	case frame.Type == "messages":
		for _, m := range frame.Messages {
			events = append(events, event{Message: m})
		}
	case frame.Type == "gap":
		events = []event{{gap: &frame.gap}}
	case frame.Type == "end":
		err = errOver
	case frame.Type != "status":
		err = fmt.Errorf("an unexpected frame: %+v", frame)
	}
	return events, err
}

// grpcFeed is Subscribe of raftogram.v1.Messenger.
type grpcFeed struct {
	c    *Cluster
	room string

	conn   *grpc.ClientConn
	stream grpc.ServerStreamingClient[pb.SubscribeChunk]
	missed []event // the gap that connect has run into
}

func (f *grpcFeed) connect(ctx context.Context, nodes []uint64, from place) (err error) {
	f.conn, err = grpc.NewClient("passthrough:///"+f.c.grpcAddr(nodes[0]), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	if err != nil {
		return err
	}
	f.stream, err = pb.NewMessengerClient(f.conn).Subscribe(ctx, &pb.SubscribeRequest{ChannelId: f.room, AfterSequence: from.seq})
	if err != nil {
		return err
	}
	// It comes with the first message; without one there is only a status.
	header, err := f.stream.Header()
	if header != nil || err != nil {
		return err
	}
	if f.missed, err = f.next(); len(f.missed) > 0 {
		return nil
	}
	return err
}

func (f *grpcFeed) next() (events []event, err error) {
	if events, f.missed = f.missed, nil; len(events) > 0 {
		return events, errOver
	}
	chunk, err := f.stream.Recv()
	if status.Code(err) == codes.OutOfRange {
		g, gapErr := droppedOf(err)
		g.Room = f.room
		return []event{{gap: &g}}, errors.Join(err, gapErr)
	}
	for _, m := range chunk.GetMessages() {
		events = append(events, event{Message: Message{
			Room: f.room, Seq: m.GetSequence(), User: m.GetAuthorId(), Message: string(m.GetPayload()), ClientMessageID: m.GetClientMessageId(),
		}})
	}
	return events, err
}

// droppedOf reads which messages a status says are missing.
func droppedOf(err error) (g gap, _ error) {
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetReason() != "messages_dropped" {
			continue
		}
		if g.FirstSeq, err = strconv.ParseUint(info.GetMetadata()["first_sequence"], 10, 64); err != nil {
			return g, err
		}
		g.LastSeq, err = strconv.ParseUint(info.GetMetadata()["last_sequence"], 10, 64)
		return g, err
	}
	return g, fmt.Errorf("%w without what was dropped", err)
}

func (f *grpcFeed) close() {
	if f.conn != nil {
		_ = f.conn.Close()
		f.conn = nil
	}
}

// grpcAddr is where a node serves gRPC, or a place where nobody does if it does
// not run: the port is another one after each start. It may be called
// concurrently.
func (c *Cluster) grpcAddr(id uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.nodes[id].server; s != nil {
		return s.GRPCAddr()
	}
	return "127.0.0.1:0"
}

// clientFeed is the Go client, which goes from node to node by itself.
type clientFeed struct {
	c     *Cluster
	http  *http.Client
	rooms []string

	client *client.Client
	pull   func() (client.Event, error, bool)
	stop   func()
}

func (f *clientFeed) connect(ctx context.Context, nodes []uint64, from place) (err error) {
	var urls []string
	for _, id := range nodes {
		urls = append(urls, f.c.URL(id))
	}
	if f.client, err = client.New(client.Options{Endpoints: urls, HTTPClient: f.http}); err != nil {
		return err
	}
	f.pull, f.stop = iter.Pull2(f.client.Subscribe(ctx, client.SubscribeOptions{Rooms: f.rooms, Since: fmt.Sprint(from.id)}))
	for {
		events, err := f.next()
		if err != nil || len(events) == 1 && events[0].again {
			return err
		}
		if len(events) > 0 {
			return fmt.Errorf("%+v came before the client said that it is connected", events)
		}
	}
}

func (f *clientFeed) next() ([]event, error) {
	e, err, ok := f.pull()
	switch e := e.(type) {
	case client.Message:
		return []event{{Message: Message{
			Room: e.Room, Seq: e.Seq, ID: e.ID, User: e.User, Message: e.Text, PostedAt: e.PostedAt, ClientMessageID: e.ClientMessageID,
		}}}, nil
	case client.Gap:
		return []event{{gap: &gap{e.Room, e.FirstSeq, e.LastSeq, e.ID}}}, nil
	case client.Status:
		if e.Kind == client.Connected {
			return []event{{again: true}}, nil
		}
	}
	if !ok {
		err = errors.New("the sequence has ended without an error")
	}
	return nil, err
}

func (f *clientFeed) close() {
	if f.stop != nil {
		f.stop()
		f.client.Close()
		f.stop = nil
	}
}

// newStreamClient returns an HTTP client for streams. What the system buffers at
// its end is left alone: that grows only for those who read a lot.
func newStreamClient(t testing.TB) *http.Client {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// tightListener gives a node connections that hold little of what it has sent,
// so that its streams get to wait for a reader that does not read.
type tightListener struct{ net.Listener }

func (l tightListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		_ = conn.(*net.TCPConn).SetWriteBuffer(64 << 10) // it may have ended already
	}
	return conn, err
}
