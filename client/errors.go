package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ErrUnavailable is matched by the error of a call whose context ended before
// any node could answer it. Nothing was changed by the call.
var ErrUnavailable = errors.New("no node could answer")

// Error is a refusal by a node, or by this package on its behalf.
type Error struct {
	// Endpoint is the node that refused; "" when nothing was sent to any.
	Endpoint string
	// Status is the HTTP status; 0 when nothing was sent.
	Status int
	// Code is the stable name of the kind of refusal, such as
	// "room_name_invalid"; "" when the answer had none.
	Code string
	// Detail is for people.
	Detail string
	// RetryAfter is how long the node asked to wait; 0 when it did not.
	RetryAfter time.Duration
	// Seq is that of the message which holds the client message id already, for
	// the code client_message_id_conflict; otherwise 0.
	Seq uint64
}

// Error gives the code and the detail.
func (e *Error) Error() string {
	var parts []string
	if e.Code != "" {
		parts = append(parts, e.Code)
	} else if e.Status != 0 {
		parts = append(parts, strings.TrimSpace(strconv.Itoa(e.Status)+" "+http.StatusText(e.Status)))
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	return strings.Join(parts, ": ")
}

// temporary says that another node, or the same one later, may answer
// otherwise.
func (e *Error) temporary() bool {
	return e.Status == http.StatusTooManyRequests || e.Status >= 500 && e.Status <= 599
}

// OutcomeUnknownError says that a message may or may not have been stored.
// Sending it again with [WithClientMessageID] and the same author and text
// settles that without storing it twice.
type OutcomeUnknownError struct {
	// ClientMessageID is the one that all attempts had.
	ClientMessageID string
	// Err is what ended the attempts.
	Err error
}

func (e *OutcomeUnknownError) Error() string {
	return "the message may or may not be stored (client message id " + e.ClientMessageID + "): " + e.Err.Error()
}

// Unwrap gives what ended the attempts.
func (e *OutcomeUnknownError) Unwrap() error { return e.Err }

// MembershipUnknownError says that a change of the membership may or may not
// have taken effect; [Client.Members] tells. Asking for it again does no harm.
type MembershipUnknownError struct {
	// ID is the member that it is about.
	ID uint64
	// Err is what ended the attempts.
	Err error
}

func (e *MembershipUnknownError) Error() string {
	return "the change of member " + strconv.FormatUint(e.ID, 10) + " may or may not have taken effect: " + e.Err.Error()
}

// Unwrap gives what ended the attempts.
func (e *MembershipUnknownError) Unwrap() error { return e.Err }

// refused makes an Error for what no node needs to be asked.
func refused(code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// maxRetryAfter bounds what a node can make a client wait.
const maxRetryAfter = 30 * time.Second

// problem reads a refusal: an RFC 9457 document, or whatever a proxy answers.
func problem(endpoint string, status int, header http.Header, body []byte) *Error {
	e := &Error{Endpoint: endpoint, Status: status}
	if seconds, err := strconv.ParseUint(header.Get("Retry-After"), 10, 16); err == nil {
		e.RetryAfter = min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	var document struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
		Seq    uint64 `json:"Seq"`
	}
	if json.Unmarshal(body, &document) == nil {
		e.Code, e.Detail, e.Seq = document.Code, document.Detail, document.Seq
	}
	return e
}
