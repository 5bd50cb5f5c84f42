package httpapi

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/chat"
)

// The HTTP forms write chunks (RFC 9112, 7.1) themselves, because their connections are taken from the HTTP server:
// an idle one then holds none of its buffers. A client of HTTP/1.0 gets no chunks, and its body ends with the connection.

// chunkHeader is the length of "00002a\r\n"; leading zeros are allowed, so the room can be reserved before the length
// is known.
const chunkHeader = 8

// finalChunk ends a body whole, so that a client can tell the end from a broken connection.
const finalChunk = "0\r\n\r\n"

// openChunk appends room for the header of a chunk and returns where it is.
func openChunk(b []byte) ([]byte, int) {
	return append(b, "000000\r\n"...), len(b)
}

// closeChunk makes what was appended since openChunk a chunk. Nothing appended is no chunk: an empty one would end the
// body.
func closeChunk(b []byte, start int) []byte {
	length := len(b) - start - chunkHeader
	if length == 0 {
		return b[:start]
	}
	for i := 5; i >= 0; i-- {
		b[start+i] = lowerHex[length&15]
		length >>= 4
	}
	return append(b, "\r\n"...)
}

// bodyEncoding is the part that the HTTP forms share. Their units are whole lines or events.
type bodyEncoding struct {
	one func(b []byte, m *chat.Message) []byte // appends one message
}

func (e bodyEncoding) messages(b []byte, page []*chat.Message) ([]byte, int) {
	return appendWhileFits(b, page, e.one)
}
func (bodyEncoding) gap(b []byte, _ chat.Gap) []byte                    { return b }
func (bodyEncoding) status(b []byte, _ bool, _ string, _ uint64) []byte { return b }
func (bodyEncoding) end(b []byte, _ *ending) []byte                     { return b }

// appendLine appends m as a line of /json.
func appendLine(b []byte, m *chat.Message) []byte { return append(appendMessage(b, m), '\n') }

// appendRaw appends the text of m as one line: each line end in it becomes a space. What is no text is in base64.
func appendRaw(b []byte, m *chat.Message) []byte {
	text := m.Payload
	if !utf8.Valid(text) {
		return append(base64.StdEncoding.AppendEncode(b, text), '\n')
	}
	for {
		i := bytes.IndexAny(text, "\r\n")
		if i < 0 {
			return append(append(b, text...), '\n')
		}
		b = append(append(b, text[:i]...), ' ')
		if text[i] == '\r' && i+1 < len(text) && text[i+1] == '\n' {
			i++
		}
		text = text[i+1:]
	}
}

// appendEvent appends m as a server-sent event. The object has no line end in it, so it is one data line.
func appendEvent(b []byte, m *chat.Message) []byte {
	b = append(b, "id: "...)
	b = strconv.AppendUint(b, m.ID, 10)
	b = append(b, "\ndata: "...)
	b = appendMessage(b, m)
	return append(b, "\n\n"...)
}

// eventEncoding is server-sent events: messages, gap, status and end.
type eventEncoding struct{ bodyEncoding }

func (eventEncoding) gap(b []byte, g chat.Gap) []byte {
	b = append(b, "event: gap\nid: "...)
	b = strconv.AppendUint(b, g.ID, 10)
	b = append(b, "\ndata: {"...)
	b = appendGapFields(b, &g)
	return append(b, "}\n\n"...)
}

func (eventEncoding) status(b []byte, leader bool, _ string, since uint64) []byte {
	b = append(b, "event: status\nid: "...)
	b = strconv.AppendUint(b, since, 10)
	b = append(b, "\ndata: {\"Leader\":"...)
	b = strconv.AppendBool(b, leader)
	return append(b, "}\n\n"...)
}

func (eventEncoding) end(b []byte, e *ending) []byte {
	b = append(b, "event: end\ndata: {"...)
	b = e.appendFields(b)
	return append(b, "}\n\n"...)
}
