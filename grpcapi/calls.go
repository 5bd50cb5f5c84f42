package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// ending is why the server ends a stream before its client does.
type ending struct {
	code   chat.Code
	detail string
}

// Error implements error, so that an ending can be the cause of a context.
func (e *ending) Error() string { return string(e.code) + ": " + e.detail }

// codeSlow is the reason of a stream whose client does not read.
const codeSlow chat.Code = "slow"

var (
	errStopping   = &ending{chat.CodeStopping, "this node is shutting down; go on at another one"}
	errLeaderLost = &ending{chat.CodeNoLeader, "this node has lost its leader; go on at another one"}
	errSlow       = &ending{codeSlow, "the messages were not read in time; go on when there is time to read them"}
	errTalkOver   = &ending{chat.CodeOverloaded, "this call has been open for a minute; make another one"}
	errOverload   = &ending{chat.CodeOverloaded, "this node is short of memory; go on later, here or at another one"}
)

// openStream is a streaming call under way. gRPC's own stream waits in SendMsg and
// RecvMsg for as long as its client likes; these also end with ctx, so that the
// handler can return a status that says why. That releases what still waits below.
type openStream struct {
	grpc.ServerStream
	server       *Server
	charge       *charge
	ctx          context.Context
	cancel       context.CancelCauseFunc
	subscription bool
	// after is how far a subscription is known to have come; one chunk more may
	// have gone out at the moment it ended. Only the goroutine of the call uses it.
	after   uint64
	holding holding
}

// Context implements grpc.ServerStream.
func (st *openStream) Context() context.Context { return st.ctx }

// RecvMsg implements grpc.ServerStream.
func (st *openStream) RecvMsg(m any) error {
	in := incoming{message: m}
	if err := st.await(func() error { return st.ServerStream.RecvMsg(&in) }); err != nil {
		return err
	}
	st.charge.received()
	if r, ok := m.(*pb.SubscribeRequest); ok {
		st.after = r.GetAfterSequence()
	}
	return in.refusal()
}

// SendMsg implements grpc.ServerStream.
func (st *openStream) SendMsg(m any) error {
	if c, ok := m.(*pb.SubscribeChunk); ok {
		if !st.hold(proto.Size(c)) {
			return errOverload
		}
		defer st.release()
	}
	out, ok := st.answer(m)
	if !ok {
		return errOverload
	}
	slow := time.AfterFunc(st.server.options.WriteTimeout, func() { st.cancel(errSlow) })
	defer slow.Stop()
	if err := st.await(func() error { return st.ServerStream.SendMsg(out) }); err != nil {
		return err
	}
	if c, ok := m.(*pb.SubscribeChunk); ok {
		st.after = c.GetMessages()[len(c.GetMessages())-1].GetSequence()
	}
	return nil
}

// await runs f until ctx ends. After an error from here the handler has to
// return: f may go on until then.
func (st *openStream) await(f func() error) error {
	done := make(chan error, 1)
	st.server.transfers.Go(func() { done <- f() })
	select {
	case err := <-done:
		return err
	case <-st.ctx.Done():
	}
	select {
	case err := <-done: // at the same moment
		return err
	default:
		return st.over()
	}
}

// over says why ctx has ended: an *ending, or a status.
func (st *openStream) over() error {
	var why *ending
	if errors.As(context.Cause(st.ctx), &why) {
		return why
	}
	return status.FromContextError(st.ctx.Err()).Err()
}

// unary is around every unary call.
func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			answer, err = nil, s.panicked(info.FullMethod, cause)
		}
	}()
	if answer, err = handle(ctx, request); err != nil {
		return nil, err
	}
	out, ok := chargeOf(ctx).answer(s.options.Budget.Account(budget.Pages), answer)
	if !ok {
		return nil, overloaded()
	}
	return out, nil
}

// stream is around every streaming call: of the Messenger, of health and of
// reflection. All of them have to end when the server does.
func (s *Server) stream(srv any, inner grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = s.panicked(info.FullMethod, cause)
		}
	}()
	st := &openStream{ServerStream: inner, server: s, subscription: info.FullMethod == pb.Messenger_Subscribe_FullMethodName}
	ctx, c, err := s.begin(inner.Context(), budget.Streams)
	if err != nil {
		return err
	}
	defer c.end()
	st.charge = c
	st.ctx, st.cancel = context.WithCancelCause(ctx)
	defer st.cancel(nil)
	if info.IsClientStream {
		// Only reflection has such calls. Its client may go on to send.
		c.received()
		select {
		case s.talks <- struct{}{}:
			defer func() { <-s.talks }()
		default:
			return overloaded()
		}
		over := time.AfterFunc(talkTime, func() { st.cancel(errTalkOver) })
		defer over.Stop()
	}
	st.holding.lease = s.options.Budget.Account(budget.Streams).Lease()
	st.holding.gone = make(chan struct{})
	defer close(st.holding.gone)
	if !s.enter(st) {
		return st.ended(errStopping)
	}
	defer s.leave(st)
	err = handle(srv, st)
	var why *ending
	if errors.As(err, &why) {
		return st.ended(why)
	}
	// What a handler makes of the end of its context does not tell the reason.
	if status.Code(err) == codes.Canceled && errors.As(st.over(), &why) {
		return st.ended(why)
	}
	return err
}

// enter counts st among the streams to end; false if the server is stopping.
func (s *Server) enter(st *openStream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.streams[st] = struct{}{}
	return true
}

func (s *Server) leave(st *openStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
}

// endSubscriptions ends all subscriptions for the same reason.
func (s *Server) endSubscriptions(why *ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		if st.subscription {
			st.cancel(why)
		}
	}
}

// ended is the status of a stream that the server ends.
func (st *openStream) ended(why *ending) error {
	f := failure{code: why.code, detail: why.detail}
	if st.subscription {
		f.metadata = map[string]string{metaAfter: strconv.FormatUint(st.after, 10)}
	}
	return f.status()
}

// panicked logs a panic of a handler and gives its status.
func (s *Server) panicked(method string, cause any) error {
	return s.internal(method, fmt.Errorf("panic: %v", cause), slog.String("stack", string(debug.Stack())))
}

// internal logs what only the server's operator can do something about, and gives
// a status that tells the client the id of the log line and nothing else.
func (s *Server) internal(method string, err error, attrs ...any) error {
	id := s.idPrefix + strconv.FormatUint(s.ids.Add(1), 10)
	attrs = append([]any{slog.String("method", method), slog.String("request_id", id), slog.Any("error", err)}, attrs...)
	s.options.Logger.Error("call failed", attrs...)
	return failure{code: chat.CodeInternal, detail: "the server could not do this; its log says why", requestID: id}.status()
}
