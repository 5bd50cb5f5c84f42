package httpapi

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/chat"
)

// Forms of a message that are encoded once and shared, see [chat.Message.Encoded].
const (
	formJSON     = 0 // the message object
	formFirehose = 1 // a whole WebSocket text frame: header and {"RoomName","Post"}
)

const lowerHex = "0123456789abcdef"

// appendString appends s as a JSON string. What JavaScript would once take for a line end (U+2028, U+2029) is escaped,
// bytes that are not UTF-8 become U+FFFD.
func appendString[T string | []byte](b []byte, s T) []byte {
	return append(appendEscaped(append(b, '"'), s), '"')
}

// appendEscaped appends what stands between the quotes of the JSON string s.
func appendEscaped[T string | []byte](b []byte, s T) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, lowerHex[r&15])
		default:
			i += size
			continue
		}
		i += size
		start = i
	}
	return append(b, s[start:]...)
}

// timeLayout is RFC 3339 in UTC with always six digits: text sorts as time does, and parsers that take nothing but
// microseconds can read it.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// appendTime appends t as a JSON string.
func appendTime(b []byte, t time.Time) []byte {
	b = append(b, '"')
	b = t.UTC().AppendFormat(b, timeLayout)
	return append(b, '"')
}

// appendContent appends the member that holds m's payload: Message, or Payload in base64 when it is not UTF-8. A
// message that was dropped has none, and says so.
func appendContent(b []byte, m *chat.Message) []byte {
	if m.Trimmed {
		return append(b, `"Trimmed":true`...)
	}
	if utf8.Valid(m.Payload) {
		b = append(b, `"Message":`...)
		return appendString(b, m.Payload)
	}
	b = append(b, `"Payload":"`...)
	b = base64.StdEncoding.AppendEncode(b, m.Payload)
	return append(b, '"')
}

// messageSize is a guess at the encoded length of m that is right for text without escapes.
func messageSize(m *chat.Message) int {
	return len(m.Payload) + 2*len(m.Room) + len(m.User) + len(m.ClientMessageID) + 200
}

// encodeMessage is formJSON.
func encodeMessage(m *chat.Message) []byte {
	b := appendMessageHead(make([]byte, 0, messageSize(m)), m)
	return appendMessageTail(appendContent(b, m), m)
}

// appendMessageHead appends what formJSON has before the content.
func appendMessageHead(b []byte, m *chat.Message) []byte {
	b = append(b, `{"Room":`...)
	b = appendString(b, m.Room)
	b = append(b, `,"Seq":`...)
	b = strconv.AppendUint(b, m.Seq, 10)
	b = append(b, `,"ID":`...)
	b = strconv.AppendUint(b, m.ID, 10)
	b = append(b, `,"User":`...)
	b = appendString(b, m.User)
	return append(b, ',')
}

// appendMessageTail appends what formJSON has behind the content.
func appendMessageTail(b []byte, m *chat.Message) []byte {
	b = append(b, `,"PostedAt":`...)
	b = appendTime(b, m.PostedAt)
	if m.ClientMessageID != "" {
		b = append(b, `,"ClientMessageID":`...)
		b = appendString(b, m.ClientMessageID)
	}
	return append(b, '}')
}

// maxFrameHeader is the longest header of a frame that a server sends.
const maxFrameHeader = 10

// encodeFirehose is formFirehose. The text is written behind room for the longest header, whose length is known only
// afterwards; the returned slice starts where the header does.
func encodeFirehose(m *chat.Message) []byte {
	b := make([]byte, maxFrameHeader, maxFrameHeader+messageSize(m))
	b = append(b, `{"RoomName":`...)
	b = appendString(b, m.Room)
	b = append(b, `,"Post":{"User":`...)
	b = appendString(b, m.User)
	b = append(b, ',')
	b = appendContent(b, m)
	b = append(b, `,"PostedAt":`...)
	b = appendTime(b, m.PostedAt)
	b = append(b, `,"Room":`...)
	b = appendString(b, m.Room)
	b = append(b, `,"Seq":`...)
	b = strconv.AppendUint(b, m.Seq, 10)
	b = append(b, `,"ID":`...)
	b = strconv.AppendUint(b, m.ID, 10)
	b = append(b, '}', '}')
	return prependFrameHeader(b)
}

// appendMessage appends formJSON of m, shared while m is a recent message that others may want, too.
func appendMessage(b []byte, m *chat.Message) []byte {
	if m.Recent() {
		return append(b, messageJSON(m)...)
	}
	return appendMessageTail(appendContent(appendMessageHead(b, m), m), m)
}

// messageJSON returns m as a JSON object. The bytes are shared: they must not be changed.
func messageJSON(m *chat.Message) []byte { return m.Encoded(formJSON, encodeMessage) }

// firehoseFrame returns m as a frame of /ws. The bytes are shared: they must not be changed.
func firehoseFrame(m *chat.Message) []byte { return m.Encoded(formFirehose, encodeFirehose) }

// appendRoom appends a line of GET /rooms?details=true.
func appendRoom(b []byte, r *chat.RoomInfo) []byte {
	b = append(b, `{"Name":`...)
	b = appendString(b, r.Name)
	if r.DisplayName != "" {
		b = append(b, `,"DisplayName":`...)
		b = appendString(b, r.DisplayName)
	}
	b = append(b, `,"Messages":`...)
	b = strconv.AppendUint(b, r.Messages, 10)
	b = append(b, `,"FirstSeq":`...)
	b = strconv.AppendUint(b, r.FirstSeq, 10)
	b = append(b, `,"LastSeq":`...)
	b = strconv.AppendUint(b, r.LastSeq, 10)
	if !r.CreatedAt.IsZero() {
		b = append(b, `,"CreatedAt":`...)
		b = appendTime(b, r.CreatedAt)
	}
	if !r.LastPostedAt.IsZero() {
		b = append(b, `,"LastPostedAt":`...)
		b = appendTime(b, r.LastPostedAt)
	}
	return append(b, '}')
}
