package httpapi

import (
	"strconv"

	"github.com/raft-chat/raft-chat/chat"
)

// encoding is how one form of stream writes what it has to say. Every method appends whole units of the connection
// (frames, chunks), or nothing where the form has no word for it. Encodings have no state and are shared.
type encoding interface {
	// messages appends the first messages of a page, at least one and as many as fit into joinedBytes together with
	// what is in b, and returns how many.
	messages(b []byte, page []*chat.Message) ([]byte, int)
	// gap tells of messages that were dropped before this stream came to them.
	gap(b []byte, g chat.Gap) []byte
	// status tells that the leader is lost or back; leaderURL may be empty. since is where the stream goes on.
	status(b []byte, leader bool, leaderURL string, since uint64) []byte
	// end tells why the server ends the stream.
	end(b []byte, e *ending) []byte
}

// Names of the forms, as metrics label them.
const (
	formNameFirehose = "firehose"
	formNameSession  = "v1"
	formNameFrames   = "ws"
	formNameEvents   = "events"
	formNameLines    = "json"
	formNameRaw      = "raw"
)

// ending is what a client is told when the server ends its stream.
type ending struct {
	code, detail string
	since        uint64            // goes on after this
	unplaced     bool              // since is not known
	cursors      map[string]uint64 // the same for each room; raft-chat.v1 only
	endpoints    []string          // client URLs of the other members
}

// appendFields appends the members of the JSON object that tells of e, without braces.
func (e *ending) appendFields(b []byte) []byte {
	b = append(b, `"Code":`...)
	b = appendString(b, e.code)
	b = append(b, `,"Detail":`...)
	b = appendString(b, e.detail)
	if !e.unplaced {
		b = append(b, `,"Since":"`...)
		b = strconv.AppendUint(b, e.since, 10)
		b = append(b, '"')
	}
	if e.cursors != nil {
		b = append(b, `,"Cursors":`...)
		b = appendCursors(b, e.cursors)
	}
	b = append(b, `,"Endpoints":[`...)
	for i, url := range e.endpoints {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, url)
	}
	return append(b, ']')
}

// appendGapFields appends the members of the JSON object that tells of g, without braces.
func appendGapFields(b []byte, g *chat.Gap) []byte {
	b = append(b, `"Room":`...)
	b = appendString(b, g.Room)
	b = append(b, `,"FirstSeq":`...)
	b = strconv.AppendUint(b, g.FirstSeq, 10)
	b = append(b, `,"LastSeq":`...)
	b = strconv.AppendUint(b, g.LastSeq, 10)
	if g.Beyond != nil {
		b = append(b, `,"Code":`...)
		b = appendString(b, string(g.Beyond.Code))
		b = append(b, `,"Detail":`...)
		b = appendString(b, g.Beyond.Detail)
	}
	return b
}

// frameEncoding is WebSocket without a subprotocol: a text frame for each message and nothing else.
type frameEncoding struct {
	one func(b []byte, m *chat.Message) []byte // appends the whole frame
}

// appendFirehoseFrame appends m as a frame of /ws.
func appendFirehoseFrame(b []byte, m *chat.Message) []byte { return append(b, firehoseFrame(m)...) }

// appendMessageFrame appends m as a frame of /rooms/{room}/ws.
func appendMessageFrame(b []byte, m *chat.Message) []byte {
	return appendText(b, func(b []byte) []byte { return appendMessage(b, m) })
}

func (e frameEncoding) messages(b []byte, page []*chat.Message) ([]byte, int) {
	return appendWhileFits(b, page, e.one)
}
func (frameEncoding) gap(b []byte, _ chat.Gap) []byte                    { return b }
func (frameEncoding) status(b []byte, _ bool, _ string, _ uint64) []byte { return b }
func (frameEncoding) end(b []byte, _ *ending) []byte                     { return b }

// appendWhileFits appends one message after the other until the next would exceed joinedBytes.
func appendWhileFits(b []byte, page []*chat.Message, one func([]byte, *chat.Message) []byte) ([]byte, int) {
	for i, m := range page {
		before := len(b)
		b = one(b, m)
		if len(b) > joinedBytes && i > 0 {
			return b[:before], i
		}
	}
	return b, len(page)
}
