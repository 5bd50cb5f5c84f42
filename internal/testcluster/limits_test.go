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

// The longest message that the configuration allows is committed, through whichever
// node it comes, and read everywhere.
func TestLargestMessage(t *testing.T) {
	if testing.Short() || raced {
		t.Skip("moves 32 MiB through three nodes; raftnode tries what can race")
	}
	const largest = 16 << 20
	refused := server.Config{ID: 1, Cluster: []server.Peer{{ID: 1, URL: "http://127.0.0.1:1"}}, MaxMessageBytes: largest + 1}
	var problem *server.ConfigError
	if err := refused.Validate(); !errors.As(err, &problem) || problem.Setting != "max-message-bytes" || !strings.Contains(problem.Problem, "16 MiB") {
		t.Errorf("a larger limit: %v", err)
	}
	c := New(t, 3, func(s *server.Config) {
		s.MaxMessageBytes, s.RequestTimeout = largest, 2*time.Minute
		s.TickInterval = 250 * time.Millisecond // three nodes share this process, and perhaps one core
	})
	post(t, c, 1, Message{Room: "general", User: "ann", Message: "hello"})
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	do := func(method, url, id, body string) (int, []byte) {
		r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/plain")
		r.Header.Set("X-User", "ann")
		r.Header.Set("X-Client-Message-ID", id) // a busy machine may take a second attempt
		resp, err := client.Do(r)
		if err != nil {
			return 0, []byte(err.Error())
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	leader := c.Leader()
	for i, id := range []uint64{leader, leader%3 + 1} {
		text := strings.Repeat(fmt.Sprint(id), largest)
		Eventually(t, fmt.Sprint("the largest message through node ", id), func() error {
			if status, b := do(http.MethodPost, c.URL(id)+"/rooms/large", fmt.Sprint(id), text); status != http.StatusCreated && status != http.StatusOK {
				return fmt.Errorf("%d %.200s", status, b)
			}
			return nil
		})
		Eventually(t, "a read of it at the next node", func() error {
			var stored struct{ Message string }
			status, b := do(http.MethodGet, fmt.Sprint(c.URL(id%3+1), "/rooms/large/", i+1), "", "")
			if err := json.Unmarshal(b, &stored); status != http.StatusOK || err != nil || stored.Message != text {
				return fmt.Errorf("%d, %d bytes: %w", status, len(stored.Message), err)
			}
			return nil
		})
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
