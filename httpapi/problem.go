package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/webguard"
)

// Codes that arise in this package.
const (
	codeNotFound           = "not_found"
	codeMethodNotAllowed   = "method_not_allowed"
	codeJSONInvalid        = "json_invalid"
	codeBodyInvalidUTF8    = "body_invalid_utf8"
	codeBodyTooLarge       = "body_too_large"
	codeBodyUnreadable     = "body_unreadable"
	codeMediaType          = "media_type_unsupported"
	codeContentEncoding    = "content_encoding_unsupported"
	codeQueryInvalid       = "query_invalid"
	codeConsistencyInvalid = "consistency_invalid"
	codeUpgradeRequired    = "upgrade_required"
	codeHandshakeInvalid   = "handshake_invalid"
	codeOriginNotAllowed   = webguard.CodeOriginNotAllowed
	codeMisdirected        = webguard.CodeMisdirected
	codeMemberIDInvalid    = "member_id_invalid"
	codeMemberURLInvalid   = "member_url_invalid"
	codeNotReady           = "not_ready"
	codeFrameTypeUnknown   = "frame_type_unknown" // of raft-chat.v1 only, as the next
	codeRequestIDInvalid   = "request_id_invalid"
)

// Codes of chat that arise here as well, and have to be strings here.
const (
	codeRoomNameInvalid        = string(chat.CodeRoomNameInvalid)
	codeUserNameInvalid        = string(chat.CodeUserNameInvalid)
	codeClientMessageIDInvalid = string(chat.CodeClientMessageIDInvalid)
	codeMessageTooLarge        = string(chat.CodeMessageTooLarge)
	codeMessageInvalidUTF8     = string(chat.CodeMessageInvalidUTF8)
	codeMessageNotFound        = string(chat.CodeMessageNotFound)
	codeCursorInvalid          = string(chat.CodeCursorInvalid)
	codeLimitInvalid           = string(chat.CodeLimitInvalid)
	codeOverloaded             = string(chat.CodeOverloaded)
	codeNoLeader               = string(chat.CodeNoLeader)
	codeOutcomeUnknown         = string(chat.CodeOutcomeUnknown)
	codeStopping               = string(chat.CodeStopping)
	codeInternal               = string(chat.CodeInternal)
)

// statusOf is the one table from error code to HTTP status. 0 means that the code is not in it.
func statusOf(code string) int {
	switch code {
	case codeRoomNameInvalid, codeUserNameInvalid, string(chat.CodeClientMessageIDInvalid), string(chat.CodeMessageEmpty), codeMessageInvalidUTF8,
		codeCursorInvalid, string(chat.CodeCursorBeyondHead), codeLimitInvalid, codeConsistencyInvalid, codeQueryInvalid, codeJSONInvalid,
		codeBodyInvalidUTF8, codeBodyUnreadable, codeHandshakeInvalid, codeMemberIDInvalid, codeFrameTypeUnknown, codeRequestIDInvalid, codeMemberURLInvalid:
		return http.StatusBadRequest
	case codeOriginNotAllowed:
		return http.StatusForbidden
	case codeNotFound, string(chat.CodeRoomNotFound), codeMessageNotFound, "member_not_found":
		return http.StatusNotFound
	case codeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case string(chat.CodeClientMessageIDConflict), "member_exists", "member_id_used", "member_limit_reached", "learner_not_ready", "quorum_at_risk":
		return http.StatusConflict
	case codeMessageTooLarge, codeBodyTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeMediaType, codeContentEncoding:
		return http.StatusUnsupportedMediaType
	case codeMisdirected:
		return http.StatusMisdirectedRequest
	case codeUpgradeRequired:
		return http.StatusUpgradeRequired
	case "rate_limited":
		return http.StatusTooManyRequests
	case codeNoLeader, codeOutcomeUnknown, codeStopping, codeNotReady, string(chat.CodeOverloaded),
		string(chat.CodeClockSkew), string(chat.CodeTimeoutNotSent), string(chat.CodeDiskFull), "leader_transfer_failed":
		return http.StatusServiceUnavailable
	case string(chat.CodeCommandFailed):
		return http.StatusUnprocessableEntity // no 5xx: the same again fails again, on every node
	case codeInternal:
		return http.StatusInternalServerError
	}
	return 0
}

// problem is an RFC 9457 document. Its type is always about:blank, so the title is the phrase of the status and clients
// tell problems apart by the code.
type problem struct {
	status     int
	code       string
	detail     string
	seq        uint64        // of the message that holds the client message id, for a conflict; otherwise 0
	retryAfter time.Duration // Retry-After for 429 and 503, at least one second; other statuses send none
}

// newProblem returns the problem of a code from statusOf.
func newProblem(code, detail string) *problem {
	return &problem{status: statusOf(code), code: code, detail: detail}
}

// problemOf translates an error of the service or of the cluster. An error without a known code is logged and becomes a
// 500 that tells the client nothing of its text.
func (s *Server) problemOf(err error) *problem {
	code := string(chat.CodeOf(err))
	status := statusOf(code)
	if status == 0 || status == http.StatusInternalServerError {
		s.options.Logger.Error("request failed", slog.String("code", code), slog.Any("error", err))
		return newProblem(codeInternal, "the server could not do this; its log says why")
	}
	p := &problem{status: status, code: code, detail: err.Error()}
	var known *chat.Error
	if errors.As(err, &known) {
		if known.Detail != "" {
			p.detail = known.Detail
		}
		p.retryAfter, p.seq = known.RetryAfter, known.Seq
	}
	return p
}

// nameProblem is the problem of a room name that chat.NormalizeRoomName refused.
func nameProblem(err error) *problem {
	p := newProblem(codeRoomNameInvalid, err.Error())
	var known *chat.Error
	if errors.As(err, &known) && known.Detail != "" {
		p.detail = known.Detail
	}
	return p
}

// write answers with p. Nothing may have been written before.
func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Etag")
	if p.status == http.StatusTooManyRequests || p.status == http.StatusServiceUnavailable {
		seconds := max(1, int64((p.retryAfter+time.Second-1)/time.Second))
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	b := p.document()
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(p.status)
	// The only possible error is a client that has gone; nobody is left to tell.
	_, _ = w.Write(b)
}

// document is p as JSON.
func (p *problem) document() []byte {
	b := make([]byte, 0, 256)
	b = append(b, `{"type":"about:blank","title":`...)
	b = appendString(b, http.StatusText(p.status))
	b = append(b, `,"status":`...)
	b = strconv.AppendInt(b, int64(p.status), 10)
	b = append(b, `,"detail":`...)
	b = appendString(b, p.detail)
	b = append(b, `,"code":`...)
	b = appendString(b, p.code)
	if p.seq != 0 {
		b = append(b, `,"Seq":`...)
		b = strconv.AppendUint(b, p.seq, 10)
	}
	b = append(b, "}\n"...)
	return b
}

// ConnectionRefusal is a whole answer for a client whose connection there is no room for, whatever it asks.
func ConnectionRefusal() []byte {
	p := overloaded("too many connections are open")
	document := p.document()
	b := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"+
		"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", p.status, http.StatusText(p.status), len(document))
	return append(b, document...)
}
