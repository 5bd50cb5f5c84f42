package grpcapi

import (
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
)

// A client that compresses is served like every other, and what it sends is as
// long as it is after decompression.
func TestCompressedRequests(t *testing.T) {
	n := newNode(t, nil)
	client := pb.NewMessengerClient(n.dial(grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))))
	if _, err := client.CreateChannel(n.context(), &pb.CreateChannelRequest{ChannelId: "general"}); err != nil {
		t.Fatal(err)
	}
	longest := strings.Repeat("x", chat.MaxMessage)
	send := func(payload string) error {
		_, err := client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte(payload)})
		return err
	}
	if err := send(longest); err != nil {
		t.Fatal(err)
	}
	page, err := client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"})
	if err != nil || len(page.GetMessages()) != 1 || string(page.GetMessages()[0].GetPayload()) != longest {
		t.Fatalf("history: %v", err)
	}
	ctx := n.context()
	stream, err := client.Subscribe(ctx, &pb.SubscribeRequest{ChannelId: "general"})
	if err != nil {
		t.Fatal(err)
	}
	if chunk, err := stream.Recv(); err != nil || len(chunk.GetMessages()) != 1 {
		t.Fatalf("subscription: %v", err)
	}
	check(t, send(longest+"x"), codes.InvalidArgument, "message_too_large")
	// A few KiB on the wire.
	if err := send(strings.Repeat("x", 4<<20)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("4 MiB: %v", err)
	}
	if err := send("after it"); err != nil {
		t.Error(err)
	}
}

// The longest message fits whatever it is set to, with the longest names around.
func TestReceiveFollowsMessages(t *testing.T) {
	const limit = 5 << 20
	n := newNodeWith(t, chat.ServiceOptions{MaxMessage: limit}, func(o *Options) { o.MaxReceive = 1 << 10 })
	room, name, id := strings.Repeat("r", chat.MaxRoomName), strings.Repeat("u", chat.MaxUserName), strings.Repeat("i", chat.MaxClientMessageID)
	n.create(room)
	send := func(size int) error {
		_, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{
			ChannelId: room, AuthorId: name, ClientMessageId: id, Payload: []byte(strings.Repeat("x", size)),
		})
		return err
	}
	if err := send(limit); err != nil {
		t.Error(err)
	}
	check(t, send(limit+1), codes.InvalidArgument, "message_too_large")
	if err := send(2 * limit); status.Code(err) != codes.ResourceExhausted && !errors.Is(err, io.EOF) {
		t.Errorf("twice the limit: %v", err)
	}
}
