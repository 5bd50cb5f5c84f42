package bench

import (
	"strconv"
	"strings"
)

// requestWriter builds the requests of one worker. The parts that never change
// are made once.
type requestWriter struct {
	host    string // of the node in use, for the Host field
	rooms   int
	text    string // of every message
	run     string // distinguishes this run's client message ids from earlier ones
	worker  int
	withID  bool
	scratch []byte
	id      []byte
}

// The body's constant parts around the text and the client message id.
const (
	bodyHead = `{"User":"bench","Message":"`
	bodyTail = `"}`
	bodyID   = `","ClientMessageID":"`
)

// messageText returns n bytes of text that JSON carries unchanged.
func messageText(n int) string {
	const phrase = "the quick brown fox jumps over the lazy dog; "
	return strings.Repeat(phrase, n/len(phrase)+1)[:n]
}

// request returns the n-th request of the worker. The same n gives the same
// room and the same client message id. The slice is valid until the next call.
func (w *requestWriter) request(n uint64) []byte {
	room := (n + uint64(w.worker)) % uint64(w.rooms)
	length := len(bodyHead) + len(w.text) + len(bodyTail)
	if w.withID {
		w.id = append(w.id[:0], w.run...)
		w.id = append(w.id, '-')
		w.id = strconv.AppendInt(w.id, int64(w.worker), 10)
		w.id = append(w.id, '-')
		w.id = strconv.AppendUint(w.id, n, 10)
		length += len(bodyID) + len(w.id)
	}
	b := append(w.scratch[:0], "POST /rooms/bench-"...)
	b = strconv.AppendUint(b, room, 10)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, w.host...)
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(length), 10)
	b = append(b, "\r\n\r\n"...)
	b = append(b, bodyHead...)
	b = append(b, w.text...)
	if w.withID {
		b = append(b, bodyID...)
		b = append(b, w.id...)
	}
	b = append(b, bodyTail...)
	w.scratch = b
	return b
}
