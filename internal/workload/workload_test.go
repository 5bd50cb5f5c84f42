package workload_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/internal/testcluster"
	"github.com/raft-chat/raft-chat/internal/workload"
)

// run lets clients work on one node, reached at front, until there are some
// messages and reads, and returns what the history and the workload say.
func run(t *testing.T, front, node string, forms ...workload.Form) (*oracle.History, []oracle.Violation, error) {
	t.Helper()
	h := testcluster.NewHistory()
	w := workload.Start(workload.Options{History: h, URLs: []string{front}, Writers: 3, Readers: 2, Forms: forms})
	defer w.Close()
	testcluster.Eventually(t, "some operations", func() error {
		if c := h.Counts(); w.Err() == nil && (c.Acknowledged < 60 || c.Reads < 20) {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	if err := w.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.Settle(t.Context(), []string{node}); err != nil {
		t.Fatal(err)
	}
	return h, h.Check(), w.Err()
}

func TestClientsOfANodeThatIsRight(t *testing.T) {
	c := testcluster.New(t, 1, nil)
	h, found, err := run(t, c.URL(1), c.URL(1), workload.Forms()...)
	if err != nil {
		t.Error(err)
	}
	if len(found) > 0 {
		t.Error(found)
	}
	if n := h.Counts(); n.Subscribers != 6 || n.Received != 6*n.Acknowledged || n.Replicas != 1 {
		t.Errorf("counts %+v", n)
	}
}

// A front that lies for the node behind it is found out.
func TestLiesAreFound(t *testing.T) {
	type handler = func(w http.ResponseWriter, r *http.Request, node http.Handler)
	var posts atomic.Int64
	var mu sync.Mutex
	pages := map[string][]byte{}
	for name, lie := range map[string]struct {
		tell handler
		rule string // "": an error of the workload
		want string
	}{
		"acknowledged, not stored": {func(w http.ResponseWriter, r *http.Request, node http.Handler) {
			if r.Method != http.MethodPost || posts.Add(1)%20 != 0 {
				node.ServeHTTP(w, r)
				return
			}
			var body bytes.Buffer
			_, _ = body.ReadFrom(r.Body)
			w.WriteHeader(http.StatusCreated)
			made := fmt.Sprintf(`{"Room":%q,"Seq":%d,"ID":%d,"PostedAt":"2026-01-02T03:04:05Z",`, r.URL.Path[len("/rooms/"):], 5000+posts.Load(), 9000+posts.Load())
			_, _ = w.Write(append([]byte(made), body.Bytes()[1:]...))
		}, "O1", "does not have a message of which an acknowledgement told"},
		"left out of a stream": {func(w http.ResponseWriter, r *http.Request, node http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/json") {
				w = &withoutFirstLine{ResponseWriter: w}
			}
			node.ServeHTTP(w, r)
		}, "O2", "were not dropped"},
		"stored without what makes retries safe": {func(w http.ResponseWriter, r *http.Request, node http.Handler) {
			if r.Method == http.MethodPost {
				var body bytes.Buffer
				_, _ = body.ReadFrom(r.Body)
				renamed := bytes.Replace(body.Bytes(), []byte("ClientMessageID"), []byte("ClientMessageI_"), 1)
				r.Body = io.NopCloser(bytes.NewReader(renamed))
			}
			node.ServeHTTP(w, r)
		}, "O3", "without its client id"},
		"stale reads": {func(w http.ResponseWriter, r *http.Request, node http.Handler) {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.RawQuery, "limit=10") {
				node.ServeHTTP(w, r)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if pages[r.URL.Path] == nil {
				answer := httptest.NewRecorder()
				r.Header.Del("Accept-Encoding") // only the body is kept
				node.ServeHTTP(answer, r)
				if answer.Code != http.StatusOK {
					w.WriteHeader(answer.Code)
					_, _ = w.Write(answer.Body.Bytes())
					return
				}
				pages[r.URL.Path] = answer.Body.Bytes()
			}
			_, _ = w.Write(pages[r.URL.Path])
		}, "O6", "room \"load-"},
		"an answer that no outage explains": {func(w http.ResponseWriter, r *http.Request, node http.Handler) {
			if r.Method == http.MethodPost && posts.Add(1)%20 == 0 {
				http.Error(w, "no", http.StatusInternalServerError)
				return
			}
			node.ServeHTTP(w, r)
		}, "", "500"},
		"a stream that makes no sense": {func(w http.ResponseWriter, r *http.Request, node http.Handler) {
			if strings.HasSuffix(r.URL.Path, "/json") && posts.Add(1)%2 == 1 {
				_, _ = w.Write([]byte("{\"Room\":\"load-0\"}\n"))
				return
			}
			node.ServeHTTP(w, r)
		}, "", "makes no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			posts.Store(0)
			c := testcluster.New(t, 1, nil)
			at, err := url.Parse(c.URL(1))
			if err != nil {
				t.Fatal(err)
			}
			node := httputil.NewSingleHostReverseProxy(at)
			node.FlushInterval = -1
			transport := new(http.Transport)
			defer transport.CloseIdleConnections()
			node.Transport = transport
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { lie.tell(w, r, node) }))
			defer front.Close()
			_, found, err := run(t, front.URL, c.URL(1), workload.Lines())
			if lie.rule == "" {
				if err == nil || !strings.Contains(err.Error(), lie.want) {
					t.Errorf("the error is %v, want one about %q", err, lie.want)
				}
				return
			}
			if err != nil {
				t.Error(err)
			}
			if !slices.ContainsFunc(found, func(v oracle.Violation) bool { return v.Rule == lie.rule && strings.Contains(v.Detail, lie.want) }) {
				t.Errorf("want %s about %q, found %v", lie.rule, lie.want, found)
			}
		})
	}
}

// withoutFirstLine leaves out the first line of an answer.
type withoutFirstLine struct {
	http.ResponseWriter
	passed bool
}

func (w *withoutFirstLine) Write(b []byte) (int, error) {
	rest := b
	if !w.passed {
		_, rest, w.passed = bytes.Cut(b, []byte("\n"))
	}
	if _, err := w.ResponseWriter.Write(rest); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Unwrap lets the answer be flushed.
func (w *withoutFirstLine) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// answers is a transport that answers by itself.
type answers func(attempt int64) (status int, body io.Reader, err error)

// scripted counts the attempts that answers gets.
type scripted struct {
	answers  answers
	attempts atomic.Int64
}

func (s *scripted) RoundTrip(*http.Request) (*http.Response, error) {
	status, body, err := s.answers(s.attempts.Add(1))
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(body)}, nil
}

// What is known of a message that nobody acknowledged is what the answers say.
func TestOutcomes(t *testing.T) {
	refusal := func(code string) (int, io.Reader, error) {
		return http.StatusServiceUnavailable, strings.NewReader(fmt.Sprintf(`{"status":503,"code":%q}`, code)), nil
	}
	for name, tt := range map[string]struct {
		answers answers
		want    oracle.Counts
	}{
		"nothing was written": {
			func(int64) (int, io.Reader, error) { return refusal("no_leader") },
			oracle.Counts{Sends: 1, Refused: 1},
		},
		"nobody was there": {
			func(int64) (int, io.Reader, error) {
				return 0, nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			},
			oracle.Counts{Sends: 1, Refused: 1},
		},
		"one attempt may have been written": {
			func(attempt int64) (int, io.Reader, error) {
				if attempt == 1 {
					return refusal("outcome_unknown")
				}
				return refusal("no_leader")
			},
			oracle.Counts{Sends: 1, Unknown: 1},
		},
		"a connection that broke": {
			func(int64) (int, io.Reader, error) {
				return 0, nil, &net.OpError{Op: "read", Err: syscall.ECONNRESET}
			},
			oracle.Counts{Sends: 1, Unknown: 1},
		},
		"an answer that broke off": {
			func(int64) (int, io.Reader, error) {
				return http.StatusCreated, io.MultiReader(strings.NewReader(`{"Room":`), iotest.ErrReader(io.ErrUnexpectedEOF)), nil
			},
			oracle.Counts{Sends: 1, Unknown: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			transport := &scripted{answers: tt.answers}
			h := testcluster.NewHistory()
			w := workload.Start(workload.Options{History: h, URLs: []string{"http://one", "http://two"}, Transport: transport, Writers: 1})
			defer w.Close()
			testcluster.Eventually(t, "attempts", func() error {
				if n := transport.attempts.Load(); n < 4 {
					return fmt.Errorf("only %d", n)
				}
				return nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := w.Stop(ctx); err == nil {
				t.Error("a writer that was abandoned counts as one that was answered")
			}
			if got := h.Counts(); got != tt.want {
				t.Errorf("counts %+v, want %+v", got, tt.want)
			}
			if err := w.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}
