package bench

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestReadResponse(t *testing.T) {
	const problem = `{"type":"about:blank","status":503,"code":"no_leader"}`
	for _, tt := range []struct {
		name, in string
		status   int
		kind     string
		closing  bool
	}{
		{"content length", "HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", 201, "201", false},
		{"no reason", "HTTP/1.1 201\r\ncontent-length:0\r\n\r\n", 201, "201", false},
		{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, "200", false},
		{"chunked", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\nA\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n", 201, "201", false},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", 204, "204", false},
		{"interim first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 201, "201", false},
		{"connection close", "HTTP/1.1 201 Created\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", 201, "201", true},
		{"old version", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "200", true},
		{"problem with code", "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 54\r\n\r\n" + problem, 503, "503 no_leader", false},
		{"problem in chunks", "HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + problem[:32] + "\r\n16\r\n" + problem[32:] + "\r\n0\r\n\r\n", 503, "503 no_leader", false},
		{"refusal without code", "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>", 502, "502", false},
		{"long refusal", "HTTP/1.1 500 Oops\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("x", 40000), 500, "500", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const following = "HTTP/1.1 299 The Next\r\nContent-Length: 0\r\n\r\n"
			r := bufio.NewReaderSize(strings.NewReader(tt.in+following), 4096)
			resp, err := readResponse(r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.status != tt.status || resp.kind() != tt.kind || resp.closing != tt.closing {
				t.Errorf("got %d %q closing=%v, want %d %q closing=%v", resp.status, resp.kind(), resp.closing, tt.status, tt.kind, tt.closing)
			}
			if len(resp.body) > maxErrorBody {
				t.Errorf("kept %d bytes of body", len(resp.body))
			}
			if next, err := readResponse(r); err != nil || next.status != 299 {
				t.Errorf("the answer that follows: %d, %v", next.status, err)
			}
		})
	}
}

func TestReadResponseUntilEnd(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("HTTP/1.1 500 Oops\r\n\r\n{\"code\":\"internal\"}"))
	resp, err := readResponse(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.kind() != "500 internal" || !resp.closing {
		t.Errorf("got %q closing=%v", resp.kind(), resp.closing)
	}
}

func TestReadResponseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     error
	}{
		{"nothing", "", io.EOF},
		{"cut in the status line", "HTTP/1.1 20", io.ErrUnexpectedEOF},
		{"cut in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", io.ErrUnexpectedEOF},
		{"cut in a refusal", "HTTP/1.1 400 No\r\nContent-Length: 5\r\n\r\nabc", io.ErrUnexpectedEOF},
		{"cut in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", io.ErrUnexpectedEOF},
		{"not HTTP", "SSH-2.0-OpenSSH_9.9\r\n", errMalformed},
		{"HTTP/2", "HTTP/1.2 200 OK\r\n\r\n", errMalformed},
		{"status not a number", "HTTP/1.1 2x0 OK\r\n\r\n", errMalformed},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", errMalformed},
		{"status too small", "HTTP/1.1 042 OK\r\n\r\n", errMalformed},
		{"switching protocols", "HTTP/1.1 101 Switching Protocols\r\n\r\n", errMalformed},
		{"field without colon", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", errMalformed},
		{"folded field", "HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\n\r\n", errMalformed},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", errMalformed},
		{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx", errMalformed},
		{"negative length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", errMalformed},
		{"huge length", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n", errMalformed},
		{"gzip transfer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", errMalformed},
		{"chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", errMalformed},
		{"chunk size not hex", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", errMalformed},
		{"chunk without end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", errMalformed},
		{"line too long", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", 5000) + "\r\n\r\n", errLineTooLong},
		{"too many fields", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n", errMalformed},
		{"trailer without end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("A: b\r\n", 200), errMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := readResponse(bufio.NewReaderSize(strings.NewReader(tt.in), 4096))
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Where net/http understands an answer too, both must see the same one.
func FuzzReadResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("HTTP/1.0 500 Oops\r\n\r\nuntil the end"))
	f.Fuzz(func(t *testing.T, in []byte) {
		resp, err := readResponse(bufio.NewReaderSize(bytes.NewReader(in), 4096))
		if err != nil {
			return
		}
		if len(resp.body) > maxErrorBody {
			t.Fatalf("kept %d bytes of body", len(resp.body))
		}
		_ = resp.kind()
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			std, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
			if err != nil {
				return
			}
			if std.StatusCode < 200 {
				continue
			}
			body, err := io.ReadAll(std.Body)
			if err != nil {
				return
			}
			if std.StatusCode != resp.status {
				t.Fatalf("status %d, net/http reads %d", resp.status, std.StatusCode)
			}
			if resp.status > 299 && !bytes.Equal(body[:min(len(body), maxErrorBody)], resp.body) {
				t.Fatalf("body %q, net/http reads %q", resp.body, body)
			}
			return
		}
	})
}
