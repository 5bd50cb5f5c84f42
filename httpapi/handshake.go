package httpapi

import (
	"bufio"
	"encoding/base64"
	"net"
	"net/http"
	"strings"
)

// handshakeBuffer is the size of the WebSocket library's buffers, in bytes. The writer must hold the longest control
// frame, which is all that the library writes; the reader sees little else.
const handshakeBuffer = 256

// checkHandshake refuses what cannot become a WebSocket (RFC 6455, 4.2.1) with a problem document; the library would
// answer in plain text.
func (s *Server) checkHandshake(w http.ResponseWriter, r *http.Request) *problem {
	h := w.Header()
	if r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || !hasToken(r.Header["Connection"], "upgrade") ||
		!hasToken(r.Header["Upgrade"], "websocket") {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
		return newProblem(codeUpgradeRequired, "this URL speaks WebSocket")
	}
	if r.Header.Get("Sec-Websocket-Version") != "13" {
		h.Set("Sec-WebSocket-Version", "13")
		return newProblem(codeHandshakeInvalid, "Sec-WebSocket-Version is not 13")
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return newProblem(codeHandshakeInvalid, "a handshake has one Sec-WebSocket-Key")
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(keys[0])); err != nil || len(key) != 16 {
		return newProblem(codeHandshakeInvalid, "Sec-WebSocket-Key is not 16 bytes in base64")
	}
	return nil
}

// hasToken reports whether a comma-separated header has a token. token is in lower case.
func hasToken(header []string, token string) bool {
	for _, line := range header {
		for item := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// upgrade hands the hijacked connection to the WebSocket library as a frameConn, with small buffers.
type upgrade struct {
	http.ResponseWriter
	stream *stream
}

// Hijack implements http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := u.ResponseWriter.(http.Hijacker).Hijack()
	if err != nil {
		return nil, nil, err
	}
	// The 101 itself may sit in the server's buffer.
	if err := buffers.Flush(); err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	// Copied, so that the server's buffer can go.
	ahead, err := buffers.Peek(buffers.Reader.Buffered())
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	frames := u.stream.attach(conn, append([]byte(nil), ahead...))
	return frames, bufio.NewReadWriter(
		bufio.NewReaderSize(frames, handshakeBuffer), bufio.NewWriterSize(frames, handshakeBuffer)), nil
}
