package testcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/internal/workload"
)

// grpcStream is Subscribe of raftogram.v1.Messenger.
type grpcStream struct {
	c    *Cluster
	room string

	conn   *grpc.ClientConn
	stream grpc.ServerStreamingClient[pb.SubscribeChunk]
	missed []workload.Event // the gap that connect has run into
}

func (f *grpcStream) Connect(ctx context.Context, urls []string, from workload.Place) (err error) {
	f.conn, err = grpc.NewClient("passthrough:///"+f.c.grpcAddr(urls[0]), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(64<<10))
	if err != nil {
		return err
	}
	f.stream, err = pb.NewMessengerClient(f.conn).Subscribe(ctx, &pb.SubscribeRequest{ChannelId: f.room, AfterSequence: from.Seq})
	if err != nil {
		return err
	}
	// It comes with the first message; without one there is only a status.
	header, err := f.stream.Header()
	if header != nil || err != nil {
		return err
	}
	if f.missed, err = f.Next(); len(f.missed) > 0 {
		return nil
	}
	return err
}

func (f *grpcStream) Next() (events []workload.Event, err error) {
	if events, f.missed = f.missed, nil; len(events) > 0 {
		return events, workload.ErrOver
	}
	chunk, err := f.stream.Recv()
	if status.Code(err) == codes.OutOfRange {
		g, gapErr := droppedOf(err)
		g.Room = f.room
		return []workload.Event{{Gap: &g}}, errors.Join(err, gapErr)
	}
	for _, m := range chunk.GetMessages() {
		events = append(events, workload.Event{Message: Message{
			Room: f.room, Seq: m.GetSequence(), User: m.GetAuthorId(), Message: string(m.GetPayload()), ClientMessageID: m.GetClientMessageId(),
		}})
	}
	return events, err
}

// droppedOf reads which messages a status says are missing.
func droppedOf(err error) (g workload.Gap, _ error) {
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

func (f *grpcStream) Close() {
	if f.conn != nil {
		_ = f.conn.Close()
		f.conn = nil
	}
}

// grpcAddr is where the node at url serves gRPC, or a place where nobody does if
// it does not run: the port is another one after each start. It may be called
// concurrently.
func (c *Cluster) grpcAddr(url string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.nodes {
		if m.server != nil && "http://"+m.apiAddr == url {
			return m.server.GRPCAddr()
		}
	}
	return "127.0.0.1:0"
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
