package chat

import (
	"context"
	"errors"
	"time"
)

// Code names a kind of failure for programs. Codes are part of every API
// (problem documents, gRPC details) and never change their meaning.
type Code string

// The codes of this package. Errors of the log carry codes of their own; those
// listed in the second group are the ones the service knows how to treat.
const (
	CodeRoomNameInvalid         Code = "room_name_invalid"
	CodeUserNameInvalid         Code = "user_name_invalid"
	CodeClientMessageIDInvalid  Code = "client_message_id_invalid"
	CodeMessageEmpty            Code = "message_empty"
	CodeMessageTooLarge         Code = "message_too_large"
	CodeMessageInvalidUTF8      Code = "message_invalid_utf8"
	CodeRoomNotFound            Code = "room_not_found"
	CodeMessageNotFound         Code = "message_not_found"
	CodeClientMessageIDConflict Code = "client_message_id_conflict"
	CodeCursorInvalid           Code = "cursor_invalid"
	CodeLimitInvalid            Code = "limit_invalid"
	// CodeCursorBeyondHead: a cursor names a message that nobody has posted yet,
	// anywhere in the cluster.
	CodeCursorBeyondHead Code = "cursor_beyond_head"

	// CodeNoLeader: nothing was proposed, because no leader is known.
	CodeNoLeader Code = "no_leader"
	// CodeOutcomeUnknown: the command may or may not take effect.
	CodeOutcomeUnknown Code = "outcome_unknown"
	// CodeOverloaded: nothing was proposed, because too much is pending.
	CodeOverloaded Code = "overloaded"
	// CodeStopping: this node is shutting down; nothing was proposed.
	CodeStopping Code = "stopping"
	// CodeClockSkew: this node's clock is too far off to propose.
	CodeClockSkew Code = "clock_skew"
	// CodeDiskFull: the node keeps the rest of its disk for the log; nothing was
	// proposed.
	CodeDiskFull Code = "disk_full"
	// CodeTimeoutNotSent: the request ended before anything was proposed, or a
	// read could not be confirmed in time. Repeating it is safe.
	CodeTimeoutNotSent Code = "timeout_not_sent"
	// CodeCommandFailed: the command made this code panic, at its place in the
	// log and so on every node. It was rejected and has changed nothing; the same
	// again will fail again.
	CodeCommandFailed Code = "command_failed"
	// CodeInternal: a defect or a broken store.
	CodeInternal Code = "internal"
)

// retryAfter is what a client should wait before it tries an unavailable node
// again: about the length of an election.
const retryAfter = time.Second

// Error is what every method of Service returns for a failure.
type Error struct {
	// Code is what programs look at.
	Code Code
	// Detail is for people: what was wrong with this request. It never repeats
	// unbounded input.
	Detail string
	// RetryAfter is how long to wait before trying again; 0: trying the same
	// again does not help.
	RetryAfter time.Duration
	// Seq is the Seq of the message that holds the client message id, for
	// CodeClientMessageIDConflict only.
	Seq uint64
	// Err is the cause, if there is one.
	Err error
}

// Error gives the code, the detail and the cause, which may be the detail.
func (e *Error) Error() string {
	s := string(e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Err != nil && e.Err.Error() != e.Detail {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorCode gives the code as a string; it is how packages that do not import
// each other recognise codes.
func (e *Error) ErrorCode() string { return string(e.Code) }

// CodeOf gives the code of the outermost error in err's chain that has one. An
// ended context without a code counts as outcome_unknown, since a command may
// have been proposed before it ended. Anything else is internal; nil gives "".
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) {
		return Code(coded.ErrorCode())
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return CodeOutcomeUnknown
	}
	return CodeInternal
}

// fail makes an Error without a cause.
func fail(code Code, detail string) *Error {
	return &Error{Code: code, Detail: detail, RetryAfter: code.retryAfter()}
}

// retryAfter is 0 for what the client has to change first.
func (c Code) retryAfter() time.Duration {
	switch c {
	case CodeNoLeader, CodeOutcomeUnknown, CodeOverloaded, CodeStopping, CodeClockSkew, CodeDiskFull, CodeTimeoutNotSent:
		return retryAfter
	}
	return 0
}

// wrap makes an Error of one that came from the log or the store.
func wrap(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	code := CodeOf(err)
	if errors.Is(err, ErrClosed) {
		code = CodeStopping
	}
	e = &Error{Code: code, Err: err, RetryAfter: code.retryAfter()}
	if code != CodeInternal {
		e.Detail = err.Error() // the log's words for whoever asked
	}
	return e
}
