package grpcapi

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// same fails the test unless two answers are equal.
func same(t *testing.T, got, want proto.Message) {
	t.Helper()
	if !proto.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestCreateChannel(t *testing.T) {
	n := newNode(t, nil)
	for _, c := range []struct{ request, want proto.Message }{
		{&pb.CreateChannelRequest{ChannelId: "general", Name: "General"}, &pb.CreateChannelResponse{ChannelId: "general", Name: "General", Created: proto.Bool(true)}},
		{&pb.CreateChannelRequest{ChannelId: "general", Name: "Other"}, &pb.CreateChannelResponse{ChannelId: "general", Name: "General", Created: proto.Bool(false)}},
		// The third entry of the log.
		{&pb.CreateChannelRequest{Name: "general"}, &pb.CreateChannelResponse{ChannelId: "channel-3", Name: "general", Created: proto.Bool(true)}},
		{&pb.CreateChannelRequest{}, &pb.CreateChannelResponse{ChannelId: "channel-4", Created: proto.Bool(true)}},
	} {
		got, err := n.client.CreateChannel(n.context(), c.request.(*pb.CreateChannelRequest))
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, c.want)
	}
}

func TestSendMessage(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	bytes := []byte{0xff, 0x00, 0xfe}
	for _, c := range []struct {
		author, payload, id string
		want                *pb.SendMessageResponse
	}{
		{"ann", "hello", "m-1", &pb.SendMessageResponse{Sequence: 1, Deduplicated: proto.Bool(false)}},
		{"ann", string(bytes), "", &pb.SendMessageResponse{Sequence: 2, Deduplicated: proto.Bool(false)}},
		{"ann", string(bytes), "", &pb.SendMessageResponse{Sequence: 3, Deduplicated: proto.Bool(false)}},
		{"ann", "hello", "m-1", &pb.SendMessageResponse{Sequence: 1, Deduplicated: proto.Bool(true)}},
		{"bob", "hello", "m-1", &pb.SendMessageResponse{Sequence: 1, Deduplicated: proto.Bool(true)}},
		{"ann", "other", "m-1", &pb.SendMessageResponse{Sequence: 1, Deduplicated: proto.Bool(true)}},
		{"ann", "other", "m-2", &pb.SendMessageResponse{Sequence: 4, Deduplicated: proto.Bool(false)}},
	} {
		got, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{
			ChannelId: "general", AuthorId: c.author, Payload: []byte(c.payload), ClientMessageId: c.id,
		})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, c.want)
	}
	got, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, &pb.ReadHistoryResponse{Messages: []*pb.StoredMessage{
		{Sequence: 1, AuthorId: "ann", Payload: []byte("hello"), ClientMessageId: "m-1"},
		{Sequence: 2, AuthorId: "ann", Payload: bytes},
		{Sequence: 3, AuthorId: "ann", Payload: bytes},
		{Sequence: 4, AuthorId: "ann", Payload: []byte("other"), ClientMessageId: "m-2"},
	}, HasMore: proto.Bool(false)})
	// The same message as every other API sees it.
	m, err := n.chat.Message(n.context(), chat.Actor{}, "general", 1, false)
	if err != nil || m.User != "ann" || string(m.Payload) != "hello" {
		t.Errorf("stored: %+v, %v", m, err)
	}
	// What is known of a message that was dropped answers the same.
	if _, err := n.chat.Trim(n.context(), chat.Actor{}, "general", 2); err != nil {
		t.Fatal(err)
	}
	for _, author := range []string{"ann", "bob"} {
		got, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: author, Payload: []byte("hello"), ClientMessageId: "m-1"})
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, &pb.SendMessageResponse{Sequence: 1, Deduplicated: proto.Bool(true)})
	}
}

func TestReadHistoryPages(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	const stored = 1010
	for range stored {
		n.send("general", "x")
	}
	for _, c := range []struct {
		after, first, last uint64
		limit              uint32
		more               bool
	}{
		{0, 1, 100, 0, true},
		{0, 1, 2, 2, true},
		{5, 6, 1005, 1000, true},
		{5, 6, 1005, 1001, true},
		{5, 6, 1005, 1<<32 - 1, true},
		{10, 11, stored, 1000, false},
		{stored - 1, stored, stored, 1, false},
		{stored, 0, 0, 10, false},
		{1<<64 - 1, 0, 0, 10, false},
	} {
		got, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general", AfterSequence: c.after, Limit: c.limit})
		if err != nil {
			t.Fatal(err)
		}
		var first, last uint64
		for i, m := range got.Messages {
			if i == 0 {
				first = m.Sequence
			}
			if m.Sequence != first+uint64(i) {
				t.Fatalf("message %d has sequence %d", i, m.Sequence)
			}
			last = m.Sequence
		}
		if first != c.first || last != c.last || got.GetHasMore() != c.more {
			t.Errorf("after %d, limit %d: %d to %d, more %v", c.after, c.limit, first, last, got.GetHasMore())
		}
	}
}

// An answer stays below what clients take, and says that there is more.
func TestReadHistoryOfLongMessages(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	payload := strings.Repeat("x", chat.MaxMessage)
	const stored = 100
	for range stored {
		n.send("general", payload)
	}
	var after uint64
	for more := true; more; {
		got, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general", AfterSequence: after, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got.Messages {
			if after++; m.Sequence != after || string(m.Payload) != payload {
				t.Fatalf("sequence %d with %d bytes after %d", m.Sequence, len(m.Payload), after-1)
			}
		}
		if more = got.GetHasMore(); more && len(got.Messages) == 0 {
			t.Fatal("an empty answer that goes on")
		}
	}
	if after != stored {
		t.Errorf("read %d of %d", after, stored)
	}
}

// Each bad input gets its status, and the next request is served as ever.
func TestBadInput(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	create := func(id, name string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := n.client.CreateChannel(ctx, &pb.CreateChannelRequest{ChannelId: id, Name: name})
			return err
		}
	}
	send := func(channel, author, payload, id string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := n.client.SendMessage(ctx, &pb.SendMessageRequest{
				ChannelId: channel, AuthorId: author, Payload: []byte(payload), ClientMessageId: id,
			})
			return err
		}
	}
	history := func(channel string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := n.client.ReadHistory(ctx, &pb.ReadHistoryRequest{ChannelId: channel})
			return err
		}
	}
	subscribe := func(channel string) func(context.Context) error {
		return func(ctx context.Context) error {
			stream, err := n.client.Subscribe(ctx, &pb.SubscribeRequest{ChannelId: channel})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}
	}
	raw := func(method string, request []byte) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := call(ctx, n.conn, method, request)
			return err
		}
	}
	rawStream := func(request []byte) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := subscribeRaw(ctx, n.conn, request)
			return err
		}
	}
	long := func(n int) string { return strings.Repeat("n", n) }
	for _, c := range []struct {
		name   string
		call   func(context.Context) error
		code   codes.Code
		reason string
	}{
		{"create: slash", create("a/b", ""), codes.InvalidArgument, "room_name_invalid"},
		{"create: comma", create("a,b", ""), codes.InvalidArgument, "room_name_invalid"},
		{"create: dots", create("..", ""), codes.InvalidArgument, "room_name_invalid"},
		{"create: control", create("a\nb", ""), codes.InvalidArgument, "room_name_invalid"},
		{"create: long id", create(long(129), ""), codes.InvalidArgument, "room_name_invalid"},
		{"create: long name", create("a", long(129)), codes.InvalidArgument, "room_name_invalid"},
		{"create: control in name", create("a", "\x00"), codes.InvalidArgument, "room_name_invalid"},
		{"create: space in front", create(" a", ""), codes.InvalidArgument, "room_name_invalid"},
		{"create: zero width space", create("a\u200b", ""), codes.InvalidArgument, "room_name_invalid"},
		{"create: blank name", create("a", "\u00a0"), codes.InvalidArgument, "room_name_invalid"},
		{"send: zero width space in channel", send("general\u200b", "ann", "x", ""), codes.InvalidArgument, "room_name_invalid"},
		{"send: author that does not show", send("general", "\u2800", "x", ""), codes.InvalidArgument, "user_name_invalid"},
		{"send: blank payload", send("general", "ann", " \n\u200b", ""), codes.InvalidArgument, "message_empty"},
		{"send: client id that does not show", send("general", "ann", "x", "\ufeff"), codes.InvalidArgument, "client_message_id_invalid"},
		{"send: no channel", send("", "ann", "x", ""), codes.InvalidArgument, "room_name_invalid"},
		{"send: unknown channel", send("nowhere", "ann", "x", ""), codes.NotFound, "room_not_found"},
		{"send: bad channel", send("a/b", "ann", "x", ""), codes.InvalidArgument, "room_name_invalid"},
		{"send: no author", send("general", "", "x", ""), codes.InvalidArgument, "user_name_invalid"},
		{"send: long author", send("general", long(65), "x", ""), codes.InvalidArgument, "user_name_invalid"},
		{"send: control in author", send("general", "a\tb", "x", ""), codes.InvalidArgument, "user_name_invalid"},
		{"send: no payload", send("general", "ann", "", ""), codes.InvalidArgument, "message_empty"},
		{"send: long payload", send("general", "ann", long(chat.MaxMessage+1), ""), codes.InvalidArgument, "message_too_large"},
		{"send: long client id", send("general", "ann", "x", long(129)), codes.InvalidArgument, "client_message_id_invalid"},
		{"send: control in client id", send("general", "ann", "x", "a\x7f"), codes.InvalidArgument, "client_message_id_invalid"},
		{"history: no channel", history(""), codes.InvalidArgument, "room_name_invalid"},
		{"history: bad channel", history("a/b"), codes.InvalidArgument, "room_name_invalid"},
		{"history: unknown channel", history("nowhere"), codes.NotFound, "room_not_found"},
		{"subscribe: no channel", subscribe(""), codes.InvalidArgument, "room_name_invalid"},
		{"subscribe: bad channel", subscribe("a,b"), codes.InvalidArgument, "room_name_invalid"},
		{"subscribe: unknown channel", subscribe("nowhere"), codes.NotFound, "room_not_found"},
		{"create: not a message", raw("CreateChannel", []byte{0xff}), codes.InvalidArgument, "request_invalid"},
		{"create: id not UTF-8", raw("CreateChannel", []byte("\x0a\x01\xff")), codes.InvalidArgument, "request_invalid"},
		{"send: cut off", raw("SendMessage", []byte("\x0a\x05ab")), codes.InvalidArgument, "request_invalid"},
		{"send: author not UTF-8", raw("SendMessage", []byte("\x0a\x07general\x12\x01\xff\x1a\x01x")), codes.InvalidArgument, "request_invalid"},
		{"history: not a message", raw("ReadHistory", []byte{0x0a}), codes.InvalidArgument, "request_invalid"},
		{"subscribe: beyond every sequence", rawStream(count(text(nil, 1, "general"), 2, 1<<64-1)), codes.InvalidArgument, "cursor_invalid"},
		{"subscribe: not a message", rawStream([]byte{0xff}), codes.InvalidArgument, "request_invalid"},
		{"subscribe: id not UTF-8", rawStream([]byte("\x0a\x01\xff")), codes.InvalidArgument, "request_invalid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			check(t, c.call(n.context()), c.code, c.reason)
			if logged := n.logged.String(); logged != "" {
				t.Errorf("logged: %s", logged)
			}
			if _, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("x")}); err != nil {
				t.Errorf("a good request after it: %v", err)
			}
		})
	}
	// gRPC itself refuses these.
	if err := raw("SendMessage", bytes.Repeat([]byte{0}, 1<<20+1))(n.context()); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request over the limit: %v", err)
	}
	if err := raw("DeleteChannel", nil)(n.context()); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: %v", err)
	}
}

// calls makes one good call of each kind.
func (n *node) calls() map[string]error {
	errs := map[string]error{}
	_, errs["CreateChannel"] = n.client.CreateChannel(n.context(), &pb.CreateChannelRequest{ChannelId: "general"})
	_, errs["SendMessage"] = n.client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("x")})
	_, errs["ReadHistory"] = n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"})
	ctx, cancel := context.WithCancel(n.context())
	defer cancel()
	stream, err := n.client.Subscribe(ctx, &pb.SubscribeRequest{ChannelId: "general"})
	if err == nil {
		_, err = stream.Recv()
	}
	errs["Subscribe"] = err
	return errs
}

func TestFollowerRedirects(t *testing.T) {
	n := newNode(t, nil)
	for _, view := range []Status{following, electing} {
		n.cluster.set(view)
		for name, err := range n.calls() {
			st := status.Convert(err)
			if st.Code() != codes.FailedPrecondition || st.Message() != "not leader: retry on suggested leader client endpoint" {
				t.Errorf("%s: %v", name, err)
			}
			if hint := detail[pb.NotLeader](err); len(st.Details()) != 1 || hint == nil ||
				hint.LeaderGrpcTarget != view.LeaderGRPCAddr || hint.RaftLeaderId != view.LeaderName {
				t.Errorf("%s: details %v", name, st.Details())
			}
		}
	}
	n.cluster.set(leading)
	for name, err := range n.calls() {
		if err != nil {
			t.Errorf("leading: %s: %v", name, err)
		}
	}
}

func TestFollowerForwards(t *testing.T) {
	n := newNode(t, func(o *Options) { o.Follower = Forward })
	n.cluster.set(following)
	for name, err := range n.calls() {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.log.Inject(func() chattest.Fault { return chattest.Fault{Refuse: chattest.Error("no_leader")} })
	n.log.FailReads(chattest.Error("no_leader"))
	n.cluster.set(electing)
	for name, err := range n.calls() {
		t.Run(name, func(t *testing.T) { check(t, err, codes.Unavailable, "no_leader") })
	}
}

// What the log reports reaches the client by its code.
func TestErrorsOfTheLog(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	for code, want := range map[string]codes.Code{
		"no_leader": codes.Unavailable, "stopping": codes.Unavailable, "clock_skew": codes.Unavailable,
		"overloaded": codes.ResourceExhausted,
	} {
		n.log.Inject(func() chattest.Fault { return chattest.Fault{Refuse: chattest.Error(code)} })
		_, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("x")})
		check(t, err, want, code)
	}
	n.log.Inject(func() chattest.Fault { return chattest.Fault{Hide: chattest.Error("outcome_unknown")} })
	_, err := n.client.SendMessage(n.context(), &pb.SendMessageRequest{ChannelId: "general", AuthorId: "ann", Payload: []byte("x")})
	check(t, err, codes.Unavailable, "outcome_unknown")
	n.log.FailReads(chattest.Error("disk_full"))
	_, err = n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"})
	check(t, err, codes.ResourceExhausted, "disk_full")
}

// What nobody foresaw is logged under an id, and that id is all the client sees.
func TestInternalErrors(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	n.log.FailReads(chattest.Error("secret"))
	_, err := n.client.ReadHistory(n.context(), &pb.ReadHistoryRequest{ChannelId: "general"})
	check(t, err, codes.Internal, "internal")
	id := detail[errdetails.RequestInfo](err)
	if id == nil || id.RequestId == "" || strings.Contains(fmt.Sprint(status.Convert(err).Proto()), "secret") {
		t.Fatalf("status %v", status.Convert(err).Proto())
	}
	if log := n.logged.String(); !strings.Contains(log, id.RequestId) || !strings.Contains(log, "secret") {
		t.Errorf("log %q lacks id %q or the error", log, id.RequestId)
	}
}

// Every code of the service has its place in the table.
func TestTableIsComplete(t *testing.T) {
	for _, code := range []chat.Code{
		chat.CodeRoomNameInvalid, chat.CodeUserNameInvalid, chat.CodeClientMessageIDInvalid, chat.CodeMessageEmpty,
		chat.CodeMessageTooLarge, chat.CodeMessageInvalidUTF8, chat.CodeRoomNotFound, chat.CodeMessageNotFound,
		chat.CodeClientMessageIDConflict, chat.CodeCursorInvalid, chat.CodeLimitInvalid, chat.CodeNoLeader,
		chat.CodeOutcomeUnknown, chat.CodeOverloaded, chat.CodeStopping, chat.CodeClockSkew, chat.CodeTimeoutNotSent,
		chat.CodeCommandFailed, chat.CodeInternal,
	} {
		if got, ok := statusOf(code); !ok || (got == codes.Internal) != (code == chat.CodeInternal || code == chat.CodeCommandFailed) {
			t.Errorf("%s: %v, %v", code, got, ok)
		}
	}
}

// A command that the servers cannot carry out is told as such, not as something
// that the log of one server explains.
func TestFailedCommandKeepsItsReason(t *testing.T) {
	n := newNode(t, nil)
	err := n.server.fail(n.context(), "method", &chat.Error{Code: chat.CodeCommandFailed, Detail: "a defect"})
	check(t, err, codes.Internal, "command_failed")
	if status.Convert(err).Message() != "a defect" {
		t.Errorf("%v", status.Convert(err).Proto())
	}
}

// A deadline of the client gives its own status, whose reason still tells what
// became of the request.
func TestClientDeadline(t *testing.T) {
	n := newNode(t, nil)
	n.create("general")
	ctx, cancel := context.WithCancel(n.context())
	cancel()
	err := n.server.fail(ctx, "method", &chat.Error{Code: chat.CodeOutcomeUnknown, Detail: "not known"})
	if status.Code(err) != codes.Canceled || detail[errdetails.ErrorInfo](err).GetReason() != "outcome_unknown" {
		t.Errorf("%v", status.Convert(err).Proto())
	}
}
