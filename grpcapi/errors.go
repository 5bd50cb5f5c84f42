package grpcapi

import (
	"context"
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/raft-chat/raft-chat/api/raftogrampb"
	"github.com/raft-chat/raft-chat/chat"
)

// Codes that arise in this package, besides codeSlow.
const (
	codeRequestInvalid  chat.Code = "request_invalid"
	codeMessagesDropped chat.Code = "messages_dropped"
)

// codeDiskFull is one of the log's.
const codeDiskFull chat.Code = "disk_full"

// Parts of every ErrorInfo.
const (
	errorDomain = "raft-chat"
	metaAfter   = "after_sequence"
	metaFirst   = "first_sequence"
	metaLast    = "last_sequence"
)

// statusOf is the one table from error code to gRPC status; false for a code that
// is not in it.
func statusOf(code chat.Code) (codes.Code, bool) {
	switch code {
	case chat.CodeRoomNameInvalid, chat.CodeUserNameInvalid, chat.CodeClientMessageIDInvalid,
		chat.CodeMessageEmpty, chat.CodeMessageTooLarge, chat.CodeMessageInvalidUTF8,
		chat.CodeCursorInvalid, chat.CodeLimitInvalid, codeRequestInvalid:
		return codes.InvalidArgument, true
	case chat.CodeRoomNotFound, chat.CodeMessageNotFound:
		return codes.NotFound, true
	case chat.CodeClientMessageIDConflict:
		return codes.AlreadyExists, true
	case codeMessagesDropped, chat.CodeCursorBeyondHead:
		return codes.OutOfRange, true
	case chat.CodeOverloaded, codeDiskFull, codeSlow:
		return codes.ResourceExhausted, true
	case chat.CodeNoLeader, chat.CodeOutcomeUnknown, chat.CodeStopping, chat.CodeClockSkew, chat.CodeTimeoutNotSent:
		return codes.Unavailable, true
	case chat.CodeCommandFailed, chat.CodeInternal:
		return codes.Internal, true
	}
	return codes.Internal, false
}

// failure is what a status tells.
type failure struct {
	code   chat.Code
	detail string
	// instead replaces the status of the table, unless it is OK.
	instead    codes.Code
	retryAfter time.Duration
	metadata   map[string]string
	requestID  string
}

// status gives the error that gRPC sends.
func (f failure) status() error {
	code, _ := statusOf(f.code)
	details := []protoadapt.MessageV1{
		&errdetails.ErrorInfo{Reason: string(f.code), Domain: errorDomain, Metadata: f.metadata},
	}
	if code == codes.Unavailable || code == codes.ResourceExhausted {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(max(f.retryAfter, time.Second))})
	}
	if f.requestID != "" {
		details = append(details, &errdetails.RequestInfo{RequestId: f.requestID})
	}
	if f.instead != codes.OK {
		code = f.instead
	}
	return withDetails(status.New(code, f.detail), details...)
}

// withDetails adds details. They are messages of our own, so that cannot fail, but
// a status without them is better than none.
func withDetails(st *status.Status, details ...protoadapt.MessageV1) error {
	if detailed, err := st.WithDetails(details...); err == nil {
		st = detailed
	}
	return st.Err()
}

// fail translates an error of the service for a call with context ctx.
func (s *Server) fail(ctx context.Context, method string, err error) error {
	code := chat.CodeOf(err)
	_, ok := statusOf(code)
	var e *chat.Error
	f := failure{code: code, detail: err.Error()}
	if errors.As(err, &e) {
		f.retryAfter = e.RetryAfter
		if e.Detail != "" {
			f.detail = e.Detail
		}
	}
	switch ended := ctx.Err(); {
	case ended != nil:
		// The client's deadline or its going is what this status is about, and
		// the reason still tells what became of the request.
		f.instead = status.FromContextError(ended).Code()
	case !ok || code == chat.CodeInternal:
		return s.internal(method, err)
	}
	return f.status()
}

// notLeader is the answer of a node that redirects. NotLeader is its only detail,
// as clients of raftogram know it.
func notLeader(s Status) error {
	return withDetails(
		status.New(codes.FailedPrecondition, "not leader: retry on suggested leader client endpoint"),
		&pb.NotLeader{LeaderGrpcTarget: s.LeaderGRPCAddr, RaftLeaderId: s.LeaderName},
	)
}
