package httpapi

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// discard is a ResponseWriter without a connection.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkPost is a send without the cost of a connection: routing, decoding, the service over a log in memory, and the
// answer. One send at a time shows the cost of the front, many at once also how they share log entries.
func BenchmarkPost(b *testing.B) {
	body := []byte(`{"Message":"` + strings.Repeat("x", 100) + `","User":"ann"}`)
	send := func(b *testing.B, n *node, reader *bytes.Reader) {
		reader.Reset(body)
		request := httptest.NewRequest("POST", "http://127.0.0.1/rooms/general", reader)
		answer := &discard{header: make(http.Header)}
		n.server.ServeHTTP(answer, request)
		if answer.status != http.StatusCreated {
			b.Fatal(answer.status)
		}
	}
	b.Run("alone", func(b *testing.B) {
		n := newNode(b, nil)
		b.ReportAllocs()
		reader := new(bytes.Reader)
		for b.Loop() {
			send(b, n, reader)
		}
	})
	b.Run("together", func(b *testing.B) {
		n := newNode(b, nil)
		b.SetParallelism(64)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			reader := new(bytes.Reader)
			for pb.Next() {
				send(b, n, reader)
			}
		})
	})
}

// BenchmarkPage is a page of 50 messages whose encodings are shared.
func BenchmarkPage(b *testing.B) {
	n := newNode(b, nil)
	for i := range 50 {
		n.post("general", "ann", fmt.Sprint(i, strings.Repeat("x", 100)))
	}
	b.ReportAllocs()
	for b.Loop() {
		answer := &discard{header: make(http.Header)}
		n.server.ServeHTTP(answer, httptest.NewRequest("GET", "http://127.0.0.1/rooms/general?limit=50&consistency=stale", nil))
		if answer.status != http.StatusOK {
			b.Fatal(answer.status)
		}
	}
}

// BenchmarkFirehose delivers one message to 100 readers.
func BenchmarkFirehose(b *testing.B) {
	n := newNode(b, nil)
	const readers = 100
	conns := make([]*websocket.Conn, readers)
	for i := range conns {
		conns[i] = n.dial("", 0, nil)
	}
	payload := strings.Repeat("x", 100)
	for b.Loop() {
		n.post("general", "ann", payload)
		for _, conn := range conns {
			if _, _, err := conn.Read(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*readers), "ns/delivery")
}
