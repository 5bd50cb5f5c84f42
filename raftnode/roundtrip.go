package raftnode

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// secretHeader carries a member's secret in requests of rafthttp.
const secretHeader = "X-Raft-Chat-Secret"

// ownRoundTrippers makes the requests of a started transport ours: rafthttp has
// no setting for them. What it makes by itself goes to the proxy that the
// environment names for everybody's web requests, has no time limit (the dialer
// that would set one is never asked), sends nothing that proves who we are, and
// ends the process when a stream holds what it cannot decode.
func ownRoundTrippers(t *rafthttp.Transport, s secret) error {
	for name, dialer := range map[string]*patientDialer{
		"streamRt":   {read: rafthttp.DefaultConnReadTimeout, write: rafthttp.DefaultConnWriteTimeout},
		"pipelineRt": {write: 30 * time.Second}, // a snapshot's receiver reads it through before it answers
	} {
		field := reflect.ValueOf(t).Elem().FieldByName(name)
		if !field.IsValid() || field.Type() != reflect.TypeFor[http.RoundTripper]() {
			return fmt.Errorf("rafthttp has no %s any more", name)
		}
		rt := (*http.RoundTripper)(field.Addr().UnsafePointer())
		base, ok := (*rt).(*http.Transport)
		if !ok {
			return fmt.Errorf("the %s of rafthttp is a %T", name, *rt)
		}
		// The prober of the transport uses the same one.
		// DialContext takes the place of the Dial that rafthttp sets.
		base.Proxy, base.DialContext = nil, dialer.dial
		base.IdleConnTimeout = clientIdleTimeout
		*rt = &memberRoundTripper{base: base, secret: s.String()}
	}
	return nil
}

// memberRoundTripper proves who we are, and checks what comes back on a stream.
type memberRoundTripper struct {
	base   *http.Transport
	secret string
}

// RoundTrip implements http.RoundTripper.
func (t *memberRoundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(secretHeader, t.secret)
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	// What is no version makes rafthttp panic.
	resp.Header.Set("X-Server-Version", version.Version)
	kind, stream := strings.CutPrefix(r.URL.Path, rafthttp.RaftStreamPrefix+"/")
	if stream && resp.StatusCode == http.StatusOK {
		resp.Body = &checkedStream{body: resp.Body, appends: strings.HasPrefix(kind, "msgapp/")}
	} else {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxRefusal), resp.Body}
	}
	return resp, nil
}

// patientDialer gives each read and write of a connection a deadline; zero: none.
type patientDialer struct{ read, write time.Duration }

func (d *patientDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	c, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &patientConn{c, d}, nil
}

type patientConn struct {
	net.Conn
	limits *patientDialer
}

func (c *patientConn) Read(b []byte) (int, error) {
	if d := c.limits.read; d > 0 {
		if err := c.SetReadDeadline(time.Now().Add(d)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *patientConn) Write(b []byte) (int, error) {
	if d := c.limits.write; d > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(d)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

const (
	// maxFrame bounds one message or entry on a stream. An entry holds at most one
	// batch of commands, and those are bounded far below.
	maxFrame = 128 << 20
	// maxEntries bounds the entries of one message: raft sends a megabyte at a
	// time, and an entry has a term and an index.
	maxEntries = 1 << 20
	// judgedPiece is how much of an entry is held back until it is judged. What
	// follows is the rest of its data, which may be anything.
	judgedPiece = 64 << 10
	keptPiece   = 1 << 20 // a larger buffer is let go
	// maxRefusal bounds what is read of a refusal.
	maxRefusal = 64 << 10
)

// checkedStream passes on what rafthttp can decode, and ends with an error before
// anything else: its decoder of appends panics, and allocates what a number says.
type checkedStream struct {
	body    io.ReadCloser
	appends bool   // a stream of MsgApp; else of all other messages
	piece   []byte // that was read and judged
	rest    []byte // of it, not yet passed on
	raw     int    // bytes behind the piece that need no judgement
	entries uint64 // of the current MsgApp, that are still to come
	within  bool   // a MsgApp whose entries come one by one
	err     error
}

// Read implements io.Reader.
func (s *checkedStream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 && s.raw == 0 {
		if s.err != nil {
			return 0, s.err
		}
		if cap(s.piece) > keptPiece {
			s.piece = nil
		}
		s.piece = s.piece[:0]
		if s.err = s.next(); s.err == nil { // half a piece is none
			s.rest = s.piece
		}
	}
	if len(s.rest) > 0 {
		n := copy(p, s.rest)
		s.rest = s.rest[n:]
		return n, nil
	}
	n, err := s.body.Read(p[:min(len(p), s.raw)])
	if s.raw -= n; err != nil && s.raw > 0 {
		s.err, s.raw = noEnd(err), 0
	}
	if n == 0 {
		return 0, s.err
	}
	return n, nil
}

// Close implements io.Closer.
func (s *checkedStream) Close() error { return s.body.Close() }

// next reads the next piece that can be judged by itself.
func (s *checkedStream) next() (err error) {
	switch {
	case !s.appends:
		s.raw, err = s.length() // its decoder looks at the content itself
		return err
	case s.within && s.entries > 0:
		s.entries--
		return s.entry()
	case s.within:
		s.within = false
		_, err := s.number() // the commit index
		return err
	}
	kind, err := s.take(1)
	if err != nil {
		return err
	}
	switch kind[0] {
	case 0: // a sign of life
	case 1: // entries that follow the last ones
		if s.entries, err = s.number(); err == nil && s.entries > maxEntries {
			err = fmt.Errorf("stream: a message of %d entries", s.entries)
		}
		s.within = true
	case 2: // a whole message
		return s.message()
	default:
		err = fmt.Errorf("stream: a frame of type %d", kind[0])
	}
	return err
}

func (s *checkedStream) message() error {
	n, err := s.length()
	if err != nil {
		return err
	}
	b, err := s.take(n)
	if err == nil && !decodableMessage(b) {
		err = fmt.Errorf("stream: %d bytes that are no message", n)
	}
	return err
}

// entry judges an entry. The data of a long one comes last.
func (s *checkedStream) entry() error {
	n, err := s.length()
	if err != nil {
		return err
	}
	b, err := s.take(min(n, judgedPiece))
	if err != nil {
		return err
	}
	if s.raw = n - len(b); !decodable(b, s.raw) {
		s.raw = 0
		return fmt.Errorf("stream: %d bytes that are no entry", n)
	}
	return nil
}

// length reads how long what follows is.
func (s *checkedStream) length() (int, error) {
	n, err := s.number()
	if err == nil && n > maxFrame {
		err = fmt.Errorf("stream: a frame of %d bytes", n)
	}
	if err != nil {
		return 0, err
	}
	return int(n), nil
}

func (s *checkedStream) number() (uint64, error) {
	b, err := s.take(8)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// take adds n bytes to the piece and returns them.
func (s *checkedStream) take(n int) ([]byte, error) {
	from := len(s.piece)
	s.piece = slices.Grow(s.piece, n)[:from+n]
	if _, err := io.ReadFull(s.body, s.piece[from:]); err != nil {
		if from > 0 || s.within {
			err = noEnd(err)
		}
		return nil, err
	}
	return s.piece[from:], nil
}

// noEnd makes an end one that was not expected.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// decodable reports whether b and the more bytes that follow can be unmarshalled
// as a message that has no others in it, without doing it: the data would be
// copied once more. What follows has to be of the last field that begins in b.
func decodable(b []byte, more int) bool {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || field > protowire.MaxValidNumber {
			return false
		}
		if more > 0 && kind == protowire.BytesType {
			size, m := protowire.ConsumeVarint(b[n:])
			if rest := len(b) - n - m; m > 0 && size > uint64(rest) {
				return size == uint64(rest+more)
			}
		}
		m := protowire.ConsumeFieldValue(field, kind, b[n:])
		if m < 0 {
			return false
		}
		b = b[n+m:]
	}
	return more == 0
}

// entriesField is that of the entries in a raft message.
const entriesField = 7

// decodableMessage reports the same of a raft message.
func decodableMessage(b []byte) bool {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 || field > protowire.MaxValidNumber {
			return false
		}
		m := protowire.ConsumeFieldValue(field, kind, b[n:])
		if m < 0 {
			return false
		}
		if kind == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b[n:])
			if field == entriesField && !decodable(v, 0) || field != entriesField && proto.Unmarshal(b[:n+m], &raftpb.Message{}) != nil {
				return false
			}
		}
		b = b[n+m:]
	}
	return true
}
