package server

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/httpapi"
	"github.com/raft-chat/raft-chat/internal/budget"
)

const patience = 30 * time.Second

// serveGuarded serves "ok" behind a gate for some connections.
func serveGuarded(t *testing.T, account *budget.Account, files int64, spare int, cost int64) (address string, hs *http.Server) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(account, files, slog.New(slog.DiscardHandler))
	l := g.guard(inner, cost, httpapi.ConnectionRefusal(), spare)
	hs = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })}
	l.relieve = func() { hs.SetKeepAlivesEnabled(false); hs.SetKeepAlivesEnabled(true) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = hs.Serve(l)
	}()
	t.Cleanup(func() {
		_ = hs.Close()
		<-done
		g.parting.Wait()
	})
	return inner.Addr().String(), hs
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func ask(t *testing.T, conn net.Conn) (status int, code string, header http.Header) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body), response.Header
}

// Connections beyond the budget, or beyond the open files, get an answer; when one
// that is open goes, there is room for another.
func TestConnectionsBeyondTheLimitAreAnswered(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limit  int64 // of the budget
		files  int64
		spare  int
		served int
	}{
		{name: "the budget", limit: 10 << 20, files: 1 << 20, served: 6},
		{name: "open files", limit: 1 << 30, files: 10, served: 5},
		{name: "spare places", limit: 10 << 20, files: 1 << 20, spare: 3, served: 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			account := budget.New(tt.limit).Account(budget.Connections)
			address, _ := serveGuarded(t, account, tt.files, tt.spare, 1<<20)
			var open []net.Conn
			for range tt.served {
				// Without a request a connection is not idle, so it is not closed for others.
				open = append(open, dial(t, address))
			}
			refused := dial(t, address)
			status, body, header := ask(t, refused)
			if status != http.StatusServiceUnavailable || header.Get("Retry-After") != "1" || header.Get("Content-Type") != "application/problem+json" {
				t.Fatalf("the connection beyond %d: %d %v %s", tt.served, status, header, body)
			}
			for _, conn := range open {
				if status, body, _ := ask(t, conn); status != http.StatusOK {
					t.Fatalf("a connection within the limit: %d %s", status, body)
				}
			}
			_ = open[0].Close()
			for deadline := time.Now().Add(patience); ; {
				if status, _, _ := ask(t, dial(t, address)); status == http.StatusOK {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("there is no room though a connection was closed")
				}
			}
		})
	}
}

// Idle connections make room for new ones.
func TestIdleConnectionsGoFirst(t *testing.T) {
	account := budget.New(10 << 20).Account(budget.Connections)
	address, _ := serveGuarded(t, account, 1<<20, 0, 1<<20)
	for range 6 {
		if status, body, _ := ask(t, dial(t, address)); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	for deadline := time.Now().Add(patience); ; {
		if status, _, _ := ask(t, dial(t, address)); status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("idle connections keep others out")
		}
	}
}

// brokenListener fails a few times before it accepts.
type brokenListener struct {
	net.Listener
	failures int
}

func (l *brokenListener) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Err: syscall.ENOBUFS}
	}
	return l.Listener.Accept()
}

// What accept cannot do for a while ends no listener; closing does.
func TestAcceptErrorsPass(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(nil, 1000, slog.New(slog.DiscardHandler))
	l := g.guard(&brokenListener{inner, 3}, 1, nil, 0)
	dial(t, inner.Addr().String())
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conn.(interface{ CloseWrite() error }); !ok {
		t.Error("a TCP connection cannot be closed for writing any more")
	}
	_, _ = conn.Close(), conn.Close()
	if n := g.files.Load(); n != 500 {
		t.Errorf("%d of 500 files are left after the only connection was closed twice", n)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}
