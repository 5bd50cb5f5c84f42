package httpapi

import (
	"context"
	"net/http"
)

const (
	// ignoredBytes is the largest data frame from a client without a subprotocol that is overlooked: some send a word
	// now and then to keep proxies from closing the connection.
	ignoredBytes = 16
	// readLimit bounds a message from such a client, in bytes. It is more than ignoredBytes so that a client that talks
	// gets the close code for that and not "message too big".
	readLimit = 512
)

// getSocket is GET /ws: a session for a client that speaks raft-chat.v1, the firehose for any other. It checks
// everything that can be refused, registers the cursor, and only then upgrades.
func (s *Server) getSocket(w http.ResponseWriter, r *http.Request) *problem {
	if p := s.checkHandshake(w, r); p != nil {
		return p
	}
	q, p := queryOf(r)
	if p != nil {
		return p
	}
	if hasToken(r.Header["Sec-Websocket-Protocol"], sessionProtocol) {
		return s.openSession(w, r, q)
	}
	f, p := s.followFrom(w, r, &s.forms.firehose, nil, "")
	if f == nil {
		return p
	}
	s.startSocket(w, r, f, nil)
	return nil
}

// readIdle takes what a client without a subprotocol sends: control frames, which the library answers, and data, of
// which there should be none. It returns why reading ended.
func (f *stream) readIdle() error {
	for {
		_, message, err := f.conn.Reader(context.Background())
		if err != nil {
			return errGone
		}
		var data [ignoredBytes + 1]byte
		size := 0
		for err == nil && size < len(data) {
			var n int
			n, err = message.Read(data[size:])
			size += n
		}
		if size > ignoredBytes {
			return errTalks
		}
	}
}
