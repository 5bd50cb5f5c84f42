package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// serveSocket runs serve with every connection of a server.
func serveSocket(t *testing.T, serve func(ctx context.Context, c *websocket.Conn)) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		serve(r.Context(), c)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestSocketReadsMessagesAndAnswersPings(t *testing.T) {
	big := strings.Repeat("x", 70_000)
	pinged := make(chan error, 1)
	addr := serveSocket(t, func(ctx context.Context, c *websocket.Conn) {
		_ = c.Write(ctx, websocket.MessageText, []byte("small"))
		_ = c.Write(ctx, websocket.MessageText, []byte(strings.Repeat("y", 300)))
		ctx = c.CloseRead(ctx)
		pinged <- c.Ping(ctx)
		_ = c.Write(ctx, websocket.MessageText, []byte(big))
		w, err := c.Writer(ctx, websocket.MessageText)
		if err == nil {
			for range 3 {
				_, _ = io.WriteString(w, big)
			}
			_ = w.Close()
		}
		_ = c.Close(websocket.StatusTryAgainLater, "too slow")
	})
	s, err := openSocket(t.Context(), addr, "/ws", time.Minute, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, want := range []int{5, 300, 1000, 1000} {
		m, err := s.next(1000)
		if err != nil || len(m) != want {
			t.Fatalf("got %d bytes, %v, want %d", len(m), err, want)
		}
	}
	if err := <-pinged; err != nil {
		t.Errorf("ping: %v", err)
	}
	_, err = s.next(1000)
	var closed *closeError
	if !errors.As(err, &closed) || closed.code != 1013 || closed.reason != "too slow" {
		t.Errorf("got %v", err)
	}
}

func TestSocketEndsWithItsContext(t *testing.T) {
	addr := serveSocket(t, func(ctx context.Context, c *websocket.Conn) { <-c.CloseRead(ctx).Done() })
	ctx, cancel := context.WithCancel(t.Context())
	s, err := openSocket(ctx, addr, "/ws", time.Minute, 1000)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.next(10); err == nil {
		t.Error("a message out of nothing")
	}
	s.close()
}

func TestSocketHandshakeFails(t *testing.T) {
	for name, tt := range map[string]struct{ answer, want string }{
		"refused":      {"HTTP/1.1 403 Forbidden\r\nContent-Length: 29\r\n\r\n{\"code\":\"origin_not_allowed\"}", "403 origin_not_allowed"},
		"wrong accept": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n", "handshake is wrong"},
		"cut off":      {"HTTP/1.1 101 Switching Protocols\r\n", "unexpected EOF"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = io.WriteString(c, tt.answer)
				_ = c.Close()
			}
		}))
		_, err := openSocket(t.Context(), strings.TrimPrefix(srv.URL, "http://"), "/ws", time.Minute, 0)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", name, err)
		}
		srv.Close()
	}
}

func TestReadFrameHeaderRefuses(t *testing.T) {
	for name, frame := range map[string]string{
		"mask":               "\x81\x81\x00\x00\x00\x00a",
		"extension":          "\xc1\x01a",
		"unknown opcode":     "\x83\x01a",
		"long ping":          "\x89\x7e\x00\x80",
		"ping in parts":      "\x09\x00",
		"impossible length":  "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
		"continues nothing":  "\x80\x01a",
		"text within a text": "\x01\x01a\x81\x01b",
	} {
		s := &socket{r: bufio.NewReader(strings.NewReader(frame))}
		if _, err := s.next(10); !errors.Is(err, errFrame) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzSocketNext(f *testing.F) {
	f.Add([]byte("\x81\x05hello\x01\x01a\x80\x01b\x88\x02\x03\xe8"))
	f.Add([]byte("\x82\x7e\x01\x00"))
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01x"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		// A ping would have to be answered; there is nobody here.
		if bytes.ContainsAny(stream, "\x89") {
			return
		}
		s := &socket{r: bufio.NewReaderSize(bytes.NewReader(stream), 16)}
		for {
			m, err := s.next(8)
			if len(m) > 8 {
				t.Errorf("%d bytes kept", len(m))
			}
			if err != nil {
				return
			}
		}
	})
}
