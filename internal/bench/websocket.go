package bench

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// socketBuffer is the size of a socket's read buffer in bytes. There may be
// 10,000 of them.
const socketBuffer = 2 << 10

// Opcodes of RFC 6455, 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

var errFrame = errors.New("malformed WebSocket frame")

// closeError is a close frame from the server.
type closeError struct {
	code   int
	reason string
}

func (e *closeError) Error() string { return fmt.Sprintf("closed by the server with %d", e.code) }

// socket is a WebSocket connection from which messages are read. It answers
// pings. It belongs to the goroutine that reads; close may be called by any.
type socket struct {
	nc      net.Conn
	r       *bufio.Reader
	message []byte // the present message, as far as it is kept
	ended   sync.Once
	unhook  func() bool
}

// openSocket connects to path (with query) at addr. When ctx ends, whatever
// waits on the socket fails. A receiveBuffer over 0 is asked of the kernel, in
// bytes.
func openSocket(ctx context.Context, addr, path string, timeout time.Duration, receiveBuffer int) (*socket, error) {
	nc, err := (&net.Dialer{Timeout: timeout}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := nc.(*net.TCPConn); ok && receiveBuffer > 0 {
		if err := tcp.SetReadBuffer(receiveBuffer); err != nil {
			nc.Close()
			return nil, err
		}
	}
	s := &socket{nc: nc, r: bufio.NewReaderSize(nc, socketBuffer)}
	s.unhook = context.AfterFunc(ctx, func() { nc.Close() })
	if err := s.handshake(addr, path, timeout); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// handshake is RFC 6455, 4.1.
func (s *socket) handshake(addr, path string, timeout time.Duration) error {
	if err := s.nc.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	key := base64.StdEncoding.EncodeToString(nonce[:])
	if _, err := io.WriteString(s.nc, "GET "+path+" HTTP/1.1\r\nHost: "+addr+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(s.r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return unexpected(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		// What is missing of a refusal is only its explanation.
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return errors.New(response{status: resp.StatusCode, body: body}.kind())
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]) ||
		!strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		return errors.New("the answer to the WebSocket handshake is wrong")
	}
	return s.nc.SetDeadline(time.Time{})
}

// next returns the next message, cut at keep bytes, and answers control frames
// on the way. The slice is valid until the next call. The error is a
// *closeError when the server has closed.
func (s *socket) next(keep int) ([]byte, error) {
	s.message = s.message[:0]
	for begun := false; ; {
		h, err := readFrameHeader(s.r)
		if err != nil {
			return nil, err
		}
		if h.opcode >= opClose {
			if err := s.control(h); err != nil {
				return nil, err
			}
			continue
		}
		if begun != (h.opcode == opContinuation) {
			return nil, errFrame
		}
		begun = true
		kept := int(min(h.length, uint64(max(keep-len(s.message), 0))))
		s.message, err = appendFrom(s.message, s.r, kept)
		if err != nil {
			return nil, err
		}
		if _, err := io.CopyN(io.Discard, s.r, int64(h.length)-int64(kept)); err != nil {
			return nil, unexpected(err)
		}
		if h.final {
			return s.message, nil
		}
	}
}

// control deals with a control frame.
func (s *socket) control(h frameHeader) error {
	payload, err := appendFrom(nil, s.r, int(h.length)) // at most 125
	if err != nil {
		return err
	}
	switch h.opcode {
	case opPing:
		return s.write(opPong, payload)
	case opClose:
		e := &closeError{code: 1005} // no code given
		if len(payload) >= 2 {
			e.code, e.reason = int(binary.BigEndian.Uint16(payload)), string(payload[2:])
		}
		return e
	}
	return nil
}

// write sends a small frame. Its mask is zero: masks protect proxies from
// scripts, and there is neither here.
func (s *socket) write(opcode byte, payload []byte) error {
	frame := append([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	if err := s.nc.SetWriteDeadline(time.Now().Add(defaultRequestTimeout)); err != nil {
		return err
	}
	_, err := s.nc.Write(frame)
	return err
}

// close ends the connection. It may be called more than once.
func (s *socket) close() {
	s.ended.Do(func() {
		s.unhook()
		s.nc.Close()
	})
}

// frameHeader is the head of a frame from a server.
type frameHeader struct {
	final  bool
	opcode byte
	length uint64 // less than 2^63; at most 125 for a control frame
}

// readFrameHeader reads RFC 6455, 5.2, as far as a server may send it: without
// a mask and without extensions.
func readFrameHeader(r *bufio.Reader) (frameHeader, error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:2]); err != nil {
		return frameHeader{}, err
	}
	h := frameHeader{final: b[0]&0x80 != 0, opcode: b[0] & 0x0f, length: uint64(b[1])}
	known := h.opcode <= opBinary || h.opcode >= opClose && h.opcode <= opPong
	if b[0]&0x70 != 0 || b[1]&0x80 != 0 || !known || h.opcode >= opClose && (!h.final || h.length > 125) {
		return frameHeader{}, errFrame
	}
	switch h.length {
	case 126:
		if _, err := io.ReadFull(r, b[:2]); err != nil {
			return frameHeader{}, unexpected(err)
		}
		h.length = uint64(binary.BigEndian.Uint16(b[:2]))
	case 127:
		if _, err := io.ReadFull(r, b[:8]); err != nil {
			return frameHeader{}, unexpected(err)
		}
		if h.length = binary.BigEndian.Uint64(b[:8]); h.length>>63 != 0 {
			return frameHeader{}, errFrame
		}
	}
	return h, nil
}

// appendFrom appends the next n bytes of r to b.
func appendFrom(b []byte, r *bufio.Reader, n int) ([]byte, error) {
	start := len(b)
	if need := start + n; need > cap(b) {
		b = append(make([]byte, 0, need), b...)
	}
	b = b[:start+n]
	_, err := io.ReadFull(r, b[start:])
	return b, unexpected(err)
}
