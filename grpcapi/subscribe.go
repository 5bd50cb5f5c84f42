package grpcapi

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"google.golang.org/grpc"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
)

// Bounds of a SubscribeChunk. The transport holds a chunk until its client has
// room for it, so this is also what a client that does not read costs.
const (
	maxChunkMessages = 256
	maxChunkBytes    = 64 << 10
)

// Subscribe implements pb.MessengerServer. It ends only with an error: what ends
// a subscription is never that everything was delivered.
func (m *messenger) Subscribe(r *pb.SubscribeRequest, out grpc.ServerStreamingServer[pb.SubscribeChunk]) error {
	if err := m.serves(); err != nil {
		return err
	}
	ctx := out.Context()
	stream, err := m.follow(ctx, r.GetChannelId(), r.GetAfterSequence())
	if err != nil {
		return err
	}
	defer stream.Close()
	// Who asks for all that is stored does not miss what is not.
	fromStart := r.GetAfterSequence() == 0
	for {
		delivery, err := stream.NextDelivery(ctx)
		if err != nil {
			if chat.CodeOf(err) == chat.CodeStopping {
				return errStopping
			}
			return m.server.fail(ctx, pb.Messenger_Subscribe_FullMethodName, err)
		}
		messages, gap := delivery.Messages, (*chat.Gap)(nil)
		if len(delivery.Gaps) > 0 && !fromStart {
			gap = &delivery.Gaps[0]
			// Nothing from behind the gap may come before the client knows of it.
			if i := slices.IndexFunc(messages, func(m *chat.Message) bool { return m.Seq > gap.LastSeq }); i >= 0 {
				messages = messages[:i]
			}
		}
		for len(messages) > 0 {
			var part []*pb.StoredMessage
			part, messages = chunk(messages, maxChunkMessages, maxChunkBytes)
			if err := out.Send(&pb.SubscribeChunk{Messages: part}); err != nil {
				return err
			}
			fromStart = false
		}
		if gap != nil {
			return dropped(gap)
		}
	}
}

// follow opens a stream of a channel that exists, behind after.
func (m *messenger) follow(ctx context.Context, channel string, after uint64) (*chat.Stream, error) {
	const method = pb.Messenger_Subscribe_FullMethodName
	// A linearizable read, so that a channel made before this call is found here
	// whichever node made it.
	page, err := m.chat.Messages(ctx, chat.Actor{}, channel, chat.Page{After: &after, Limit: 1})
	if err != nil {
		return nil, m.server.fail(ctx, method, err)
	}
	if !page.Exists {
		return nil, channelNotFound()
	}
	cursor, err := m.chat.CursorAfterSeq(ctx, chat.Actor{}, channel, after, false)
	if err != nil {
		return nil, m.server.fail(ctx, method, err)
	}
	if beyond := (*chat.Error)(nil); errors.As(cursor.Beyond(), &beyond) {
		return nil, failure{
			code: beyond.Code, detail: beyond.Detail + "; subscribe again behind that",
			metadata: map[string]string{metaLast: strconv.FormatUint(page.LastSeq, 10)},
		}.status()
	}
	stream, err := m.chat.Follow(ctx, chat.Actor{}, []string{channel}, cursor)
	if err != nil {
		return nil, m.server.fail(ctx, method, err)
	}
	return stream, nil
}

// dropped is the end of a subscription whose next messages are not stored any
// more.
func dropped(g *chat.Gap) error {
	return failure{
		code: codeMessagesDropped, detail: "the next messages are not stored any more; subscribe again behind them",
		metadata: map[string]string{
			metaFirst: strconv.FormatUint(g.FirstSeq, 10), metaLast: strconv.FormatUint(g.LastSeq, 10),
		},
	}.status()
}
