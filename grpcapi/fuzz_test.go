package grpcapi

import (
	"bytes"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
)

// Whatever is sent is refused as the client's mistake, or stored as it is.
func FuzzSendMessage(f *testing.F) {
	for _, r := range []*pb.SendMessageRequest{
		{ChannelId: "general", AuthorId: "ann", Payload: []byte("hello"), ClientMessageId: "m-1"},
		{ChannelId: "general", AuthorId: "ann", Payload: []byte{0xff, 0}},
		{ChannelId: "nowhere", AuthorId: "ann", Payload: []byte("x")},
		{},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff})
	f.Add([]byte("\x0a\x07general\x12\x01\xff\x1a\x01x"))
	n := newNode(f, nil)
	n.create("general")
	f.Fuzz(func(t *testing.T, request []byte) {
		answer, err := call(t.Context(), n.conn, "SendMessage", request)
		if err != nil {
			switch status.Code(err) {
			case codes.InvalidArgument, codes.NotFound:
			case codes.ResourceExhausted: // longer than a request may be
				if len(request) <= 1<<20 {
					t.Fatal(err)
				}
			default:
				t.Fatal(err)
			}
			return
		}
		var sent pb.SendMessageRequest
		var got pb.SendMessageResponse
		if err := proto.Unmarshal(request, &sent); err != nil {
			t.Fatalf("stored what is no message: %v", err)
		}
		if err := proto.Unmarshal(answer, &got); err != nil {
			t.Fatal(err)
		}
		page, err := n.client.ReadHistory(t.Context(), &pb.ReadHistoryRequest{ChannelId: sent.ChannelId, AfterSequence: got.Sequence - 1, Limit: 1})
		if err != nil || len(page.Messages) != 1 {
			t.Fatalf("sequence %d is not stored: %v, %v", got.Sequence, page, err)
		}
		m := page.Messages[0]
		if !got.GetDeduplicated() && (!bytes.Equal(m.Payload, sent.Payload) || m.ClientMessageId != sent.ClientMessageId) {
			t.Fatalf("sent %v, stored %v", &sent, m)
		}
		if m.Sequence != got.Sequence || !utf8.ValidString(m.AuthorId) {
			t.Fatalf("stored %v", m)
		}
	})
}
