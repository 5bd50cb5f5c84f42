package grpcapi

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
)

// What a client that does not read makes this node hold is the length of its answers,
// and not that of the next larger buffer of gRPC's.
func TestLongAnswersTakeTheirLength(t *testing.T) {
	for _, n := range []int{100, pooledAnswer + 1, 60 << 10} {
		want := &pb.SubscribeChunk{Messages: []*pb.StoredMessage{{Sequence: 1, Payload: bytes.Repeat([]byte("x"), n)}}}
		data, err := newCodec().Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		b := data.Materialize()
		got := &pb.SubscribeChunk{}
		if err := proto.Unmarshal(b, got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if n > pooledAnswer {
			if held := data[0].ReadOnlyData(); len(data) != 1 || cap(held) > len(held)+len(held)/4 {
				t.Errorf("%d bytes are held in %d", len(held), cap(held))
			}
		}
		data.Free()
	}
}
