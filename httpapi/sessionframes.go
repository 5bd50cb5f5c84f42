package httpapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/chat"
)

// sessionProtocol is the WebSocket subprotocol that docs/protocol.md specifies. A frame is one JSON object with a Type.
const sessionProtocol = "raft-chat.v1"

// maxRequestID bounds the Id of a request, in bytes: it is repeated in the answer.
const maxRequestID = 128

// request is a frame from a client. Which fields count depends on the type.
type request struct {
	Type            string
	ID              string // "Id" on the wire: JSON names are compared without case
	Rooms           []string
	Since           *string
	After, Before   *uint64
	Limit           *uint64
	Room            string
	User            string
	Message         string
	ClientMessageID string
}

// decodeRequest reads a frame. With a problem the request has nothing but, perhaps, an ID to answer to.
func decodeRequest(frame []byte) (r request, p *problem) {
	frame = withoutMark(frame)
	if !utf8.Valid(frame) {
		p = newProblem(codeBodyInvalidUTF8, encodingDetail("the frame", frame))
	} else if at := loneSurrogate(frame); at >= 0 {
		p = newProblem(codeJSONInvalid, surrogateDetail("frame", frame, at))
	} else if err := json.Unmarshal(frame, &r); err != nil {
		p = newProblem(codeJSONInvalid, jsonDetail("frame", err))
	} else if len(r.ID) > maxRequestID {
		return request{}, newProblem(codeRequestIDInvalid, "an Id has at most 128 bytes")
	}
	if p != nil {
		return request{ID: idOf(frame)}, p
	}
	return r, nil
}

// idOf returns the Id in a frame that cannot be taken, as far as it can be read; "" if there is none to answer to.
func idOf(frame []byte) (id string) {
	d := json.NewDecoder(bytes.NewReader(frame))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return ""
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			break
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			break
		}
		if name, ok := key.(string); !ok || !strings.EqualFold(name, "Id") {
			continue
		}
		if id = ""; json.Unmarshal(value, &id) != nil || len(id) > maxRequestID || strings.ContainsRune(id, utf8.RuneError) {
			id = ""
		}
	}
	return id
}

// sessionEncoding is raft-chat.v1: JSON text frames that each say what they are.
type sessionEncoding struct{}

// messages joins messages into one frame.
func (sessionEncoding) messages(b []byte, page []*chat.Message) ([]byte, int) {
	n := 0
	b = appendText(b, func(b []byte) []byte {
		b = append(b, `{"Type":"messages","Messages":[`...)
		for ; n < len(page); n++ {
			before := len(b)
			if n > 0 {
				b = append(b, ',')
			}
			if b = appendMessage(b, page[n]); n > 0 && len(b) > joinedBytes {
				b = b[:before]
				break
			}
		}
		return append(b, `]}`...)
	})
	return b, n
}

func (sessionEncoding) gap(b []byte, g chat.Gap) []byte {
	return appendText(b, func(b []byte) []byte {
		b = append(b, `{"Type":"gap",`...)
		b = appendGapFields(b, &g)
		b = append(b, `,"ID":`...)
		return append(strconv.AppendUint(b, g.ID, 10), '}')
	})
}

func (sessionEncoding) status(b []byte, leader bool, leaderURL string, _ uint64) []byte {
	return appendText(b, func(b []byte) []byte {
		b = append(b, `{"Type":"status","Leader":`...)
		b = strconv.AppendBool(b, leader)
		if leaderURL != "" {
			b = append(b, `,"LeaderURL":`...)
			b = appendString(b, leaderURL)
		}
		return append(b, '}')
	})
}

func (sessionEncoding) end(b []byte, e *ending) []byte {
	return appendText(b, func(b []byte) []byte {
		b = append(b, `{"Type":"end",`...)
		return append(e.appendFields(b), '}')
	})
}

// appendText appends a frame with the text that write appends.
func appendText(b []byte, write func([]byte) []byte) []byte {
	start := len(b)
	b = write(append(b, make([]byte, maxFrameHeader)...))
	frame := prependFrameHeader(b[start:])
	return append(b[:start], frame...) // moves it left over the rest of the room for the header
}

// answer returns the frame of an answer: its type, the id of the request, and what more appends.
func appendAnswer(b []byte, kind, id string, more func([]byte) []byte) []byte {
	return appendText(b, func(b []byte) []byte {
		b = append(b, `{"Type":"`...)
		b = append(b, kind...)
		b = append(b, '"')
		if id != "" {
			b = append(b, `,"Id":`...)
			b = appendString(b, id)
		}
		if more != nil {
			b = more(b)
		}
		return append(b, '}')
	})
}

// appendError appends the answer to a request that failed.
func appendError(b []byte, id string, p *problem) []byte {
	return appendAnswer(b, "error", id, func(b []byte) []byte {
		b = append(b, `,"Code":`...)
		b = appendString(b, p.code)
		b = append(b, `,"Detail":`...)
		b = appendString(b, p.detail)
		if p.seq != 0 {
			b = append(b, `,"Seq":`...)
			b = strconv.AppendUint(b, p.seq, 10)
		}
		if p.retryAfter > 0 {
			b = append(b, `,"RetryAfter":`...)
			b = strconv.AppendInt(b, max(1, int64((p.retryAfter+time.Second-1)/time.Second)), 10)
		}
		return b
	})
}

// appendCursors appends a JSON object of rooms and cursors, sorted by room.
func appendCursors(b []byte, cursors map[string]uint64) []byte {
	b = append(b, '{')
	for i, room := range slices.Sorted(maps.Keys(cursors)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, room)
		b = append(b, `:"`...)
		b = strconv.AppendUint(b, cursors[room], 10)
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendHistory appends the answer to a history request.
func appendHistory(b []byte, id string, page chat.MessagePage) []byte {
	return appendAnswer(b, "history", id, func(b []byte) []byte {
		b = append(b, `,"Messages":[`...)
		for i, m := range page.Messages {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, messageJSON(m)...)
		}
		b = append(b, `],"Earlier":`...)
		b = strconv.AppendBool(b, page.Earlier)
		b = append(b, `,"Later":`...)
		b = strconv.AppendBool(b, page.Later)
		b = append(b, `,"FirstSeq":`...)
		b = strconv.AppendUint(b, page.FirstSeq, 10)
		b = append(b, `,"LastSeq":`...)
		return strconv.AppendUint(b, page.LastSeq, 10)
	})
}

// appendAck appends the answer to a send.
func appendAck(b []byte, id string, m *chat.Message, deduplicated bool) []byte {
	return appendAnswer(b, "ack", id, func(b []byte) []byte {
		b = append(b, `,"Message":`...)
		b = append(b, messageJSON(m)...)
		b = append(b, `,"Deduplicated":`...)
		return strconv.AppendBool(b, deduplicated)
	})
}
