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

// Whatever asks for a page or a subscription gets messages behind the one it
// names, in order, or is refused as the client's mistake.
func FuzzReading(f *testing.F) {
	for _, after := range []uint64{0, 1, 3, 1 << 63, 1<<64 - 1} {
		history, err := proto.Marshal(&pb.ReadHistoryRequest{ChannelId: "general", AfterSequence: after, Limit: 2})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(history)
		subscribe, err := proto.Marshal(&pb.SubscribeRequest{ChannelId: "general", AfterSequence: after})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(subscribe)
	}
	f.Add([]byte{0xff})
	f.Add([]byte("\x0a\x03a/b"))
	f.Add([]byte("\x0a\x07nowhere\x18\xff\xff\xff\xff\x0f"))
	n := newNode(f, nil)
	n.create("general")
	const stored = 4
	for range stored {
		if _, err := n.client.SendMessage(f.Context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("x")}); err != nil {
			f.Fatal(err)
		}
	}
	ordered := func(t *testing.T, messages []*pb.StoredMessage, after uint64) {
		for i, m := range messages {
			if want := after + 1 + uint64(i); m.Sequence != want {
				t.Fatalf("message %d of those after %d is %d", i, after, m.Sequence)
			}
		}
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		clientsMistake := func(err error) {
			t.Helper()
			code := status.Code(err)
			if code != codes.InvalidArgument && code != codes.NotFound && (code != codes.ResourceExhausted || len(request) <= 1<<20) {
				t.Fatal(err)
			}
		}
		var history pb.ReadHistoryRequest
		var page pb.ReadHistoryResponse
		answer, err := call(t.Context(), n.conn, "ReadHistory", request)
		if err != nil {
			clientsMistake(err)
		} else if proto.Unmarshal(request, &history) != nil || proto.Unmarshal(answer, &page) != nil {
			t.Fatalf("%x is answered with %x", request, answer)
		} else {
			ordered(t, page.Messages, history.AfterSequence)
		}

		var subscribe pb.SubscribeRequest
		if err := proto.Unmarshal(request, &subscribe); err == nil && subscribe.AfterSequence >= stored && subscribe.AfterSequence+1 != 0 {
			return // it waits for messages to come
		}
		var chunk pb.SubscribeChunk
		first, err := subscribeRaw(t.Context(), n.conn, request)
		if err != nil {
			clientsMistake(err)
		} else if err := proto.Unmarshal(first, &chunk); err != nil || len(chunk.Messages) == 0 {
			t.Fatalf("%x gets the chunk %x, %v", request, first, err)
		} else {
			ordered(t, chunk.Messages, subscribe.AfterSequence)
		}
	})
}
