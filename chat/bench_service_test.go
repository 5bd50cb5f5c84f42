package chat_test

import (
	"context"
	"testing"

	"github.com/raft-chat/raft-chat/chat"
)

// BenchmarkPost measures a post of one of many concurrent clients through the
// service and a log in memory.
func BenchmarkPost(b *testing.B) {
	w := newWorld(b, chat.ServiceOptions{})
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		r := chat.PostRequest{Room: "general", User: "ann", Payload: []byte("hello, this is a message")}
		for pb.Next() {
			if _, _, err := w.Post(context.Background(), nobody, r); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
