package grpcapi

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
)

// maxHistoryBytes bounds an answer of ReadHistory, which is held until its client
// has taken it.
const maxHistoryBytes = 1 << 20

// messenger implements the calls of raftogram.v1.Messenger.
type messenger struct {
	pb.UnimplementedMessengerServer
	server *Server
	chat   *chat.Service
}

// serves says whether this node answers calls at present: the error is the
// redirection.
func (m *messenger) serves() error {
	if m.server.options.Follower == Forward {
		return nil
	}
	if s := m.server.options.Cluster.Status(); !s.IsLeader {
		return notLeader(s)
	}
	return nil
}

// CreateChannel implements pb.MessengerServer.
func (m *messenger) CreateChannel(ctx context.Context, r *pb.CreateChannelRequest) (*pb.CreateChannelResponse, error) {
	if err := m.serves(); err != nil {
		return nil, err
	}
	info, created, err := m.chat.CreateRoom(ctx, chat.Actor{}, r.GetChannelId(), r.GetName())
	if err != nil {
		return nil, m.server.fail(ctx, pb.Messenger_CreateChannel_FullMethodName, err)
	}
	return &pb.CreateChannelResponse{ChannelId: info.Name, Name: info.DisplayName, Created: &created}, nil
}

// SendMessage implements pb.MessengerServer.
func (m *messenger) SendMessage(ctx context.Context, r *pb.SendMessageRequest) (*pb.SendMessageResponse, error) {
	if err := m.serves(); err != nil {
		return nil, err
	}
	message, repeated, err := m.chat.Post(ctx, chat.Actor{}, chat.PostRequest{
		Room: r.GetChannelId(), User: r.GetAuthorId(), Payload: r.GetPayload(), ClientMessageID: r.GetClientMessageId(),
		MustExist: true, AllowBytes: true,
	})
	var e *chat.Error
	switch {
	case err == nil:
		return &pb.SendMessageResponse{Sequence: message.Seq, Deduplicated: &repeated}, nil
	case errors.As(err, &e) && e.Code == chat.CodeClientMessageIDConflict:
		// raftogram's clients know the id alone as the key of a message.
		return &pb.SendMessageResponse{Sequence: e.Seq, Deduplicated: proto.Bool(true)}, nil
	}
	return nil, m.server.fail(ctx, pb.Messenger_SendMessage_FullMethodName, err)
}

// ReadHistory implements pb.MessengerServer.
func (m *messenger) ReadHistory(ctx context.Context, r *pb.ReadHistoryRequest) (*pb.ReadHistoryResponse, error) {
	if err := m.serves(); err != nil {
		return nil, err
	}
	after := r.GetAfterSequence()
	page, err := m.chat.Messages(ctx, chat.Actor{}, r.GetChannelId(), chat.Page{
		After: &after, Limit: int(min(r.GetLimit(), chat.MaxLimit)), MaxBytes: maxHistoryBytes, Part: maxChunkBytes,
	})
	if err != nil {
		return nil, m.server.fail(ctx, pb.Messenger_ReadHistory_FullMethodName, err)
	}
	if !page.Exists {
		return nil, channelNotFound()
	}
	answer := new(pb.ReadHistoryResponse)
	for later := page.Later; ; {
		messages, rest := chunk(page.Messages, chat.MaxLimit, maxHistoryBytes)
		answer.Messages = append(answer.Messages, messages...)
		answer.HasMore = proto.Bool(later || len(rest) > 0)
		if n := len(page.Messages); n == 0 || len(rest) > 0 || page.Messages[n-1].Seq >= page.Last {
			return answer, nil
		}
		// The rest of a long page is read a few at a time, because it takes several
		// times what is sent in the end. Nothing here waits for a client.
		if page.Messages[0].Seq == page.First {
			select {
			case m.server.reading <- struct{}{}:
				defer func() { <-m.server.reading }()
			case <-ctx.Done():
				return nil, status.FromContextError(ctx.Err()).Err()
			}
		}
		if err := m.chat.NextPart(ctx, chat.Actor{}, &page, maxHistoryBytes); err != nil {
			return nil, m.server.fail(ctx, pb.Messenger_ReadHistory_FullMethodName, err)
		}
	}
}

func channelNotFound() error {
	return failure{code: chat.CodeRoomNotFound, detail: "there is no such channel"}.status()
}

// chunk takes messages off the front of list: at least one, then as many as fit in
// both bounds. rest is what is left of the list.
func chunk(list []*chat.Message, count, bytes int) (out []*pb.StoredMessage, rest []*chat.Message) {
	out = make([]*pb.StoredMessage, 0, min(count, len(list)))
	for i, m := range list {
		stored := &pb.StoredMessage{Sequence: m.Seq, AuthorId: m.User, Payload: m.Payload, ClientMessageId: m.ClientMessageID}
		bytes -= proto.Size(stored)
		if i == count || (i > 0 && bytes < 0) {
			return out, list[i:]
		}
		out = append(out, stored)
	}
	return out, nil
}
