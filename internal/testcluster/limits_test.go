package testcluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/server"
)

// The longest body that the configuration allows is committed, through whichever
// node it comes, and read everywhere.
func TestLargestMessage(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 48 MiB through three logs")
	}
	const largest = 16 << 20
	refused := server.Config{ID: 1, Cluster: []server.Peer{{ID: 1, URL: "http://127.0.0.1:1"}}, MaxBodyBytes: largest + 1}
	var problem *server.ConfigError
	if err := refused.Validate(); !errors.As(err, &problem) || problem.Setting != "max-body-bytes" || !strings.Contains(problem.Problem, "16 MiB") {
		t.Errorf("a larger limit: %v", err)
	}
	c := New(t, 3, func(s *server.Config) {
		s.MaxBodyBytes, s.MaxMessageBytes, s.RequestTimeout = largest, largest, 2*time.Minute
	})
	post(t, c, 1, Message{Room: "general", User: "ann", Message: "hello"})
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	do := func(method, url, body string) (int, []byte) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/plain")
		r.Header.Set("X-User", "ann")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	for id := range uint64(3) {
		text := strings.Repeat(fmt.Sprint(id), largest)
		Eventually(t, fmt.Sprint("the largest message through node ", id+1), func() error {
			if status, b := do(http.MethodPost, c.URL(id+1)+"/rooms/large", text); status != http.StatusCreated {
				return fmt.Errorf("%d %s", status, b)
			}
			return nil
		})
		var stored struct{ Message string }
		status, b := do(http.MethodGet, fmt.Sprint(c.URL((id+1)%3+1), "/rooms/large/", id+1), "")
		if err := json.Unmarshal(b, &stored); status != http.StatusOK || err != nil || stored.Message != text {
			t.Errorf("read at the next node: %d, %v, %d bytes", status, err, len(stored.Message))
		}
	}
	c.Agree()
}

// Without a leader a write and a read are each told what is true of them, once.
func TestNoLeaderIsToldInPlainWords(t *testing.T) {
	c := New(t, 3, nil)
	m := Message{Room: "general", User: "ann", Message: "hello"}
	post(t, c, 1, m)
	c.Kill(2)
	c.Kill(3)
	detail := func(what string, f func() error) string {
		var refusal *Refusal
		Eventually(t, what, func() error {
			if err := f(); !errors.As(err, &refusal) || refusal.Code != "no_leader" {
				return fmt.Errorf("answered %w", err)
			}
			return nil
		})
		return refusal.Detail
	}
	write := detail("a refused write", func() error {
		_, _, err := c.Client().Post(t.Context(), c.URL(1), m)
		return err
	})
	read := detail("a refused read", func() error {
		_, err := c.Client().Page(t.Context(), c.URL(1), m.Room, "")
		return err
	})
	if !strings.Contains(write, "nothing was changed") {
		t.Errorf("a write: %q", write)
	}
	if strings.Contains(read, "nothing was") || !strings.Contains(read, "stale read") {
		t.Errorf("a read: %q", read)
	}
	for _, text := range []string{write, read} {
		if strings.Contains(text, "no_leader") || strings.Count(text, "no leader") != 1 {
			t.Errorf("said more than once: %q", text)
		}
	}
}
