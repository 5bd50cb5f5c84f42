package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/client"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// start starts a fake cluster for a test and a client of it.
func start(t *testing.T, n int) (*fakeCluster, *client.Client) {
	t.Helper()
	cluster := startFake(n)
	t.Cleanup(cluster.close)
	c := cluster.client()
	t.Cleanup(c.Close)
	return cluster, c
}

// limited returns a context that ends long after a test should have.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// briefly returns a context for what must not succeed.
func briefly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// deadEndpoint is an address at which nobody listens.
func deadEndpoint(t *testing.T) string {
	t.Helper()
	return "http://" + testaddr.Addr(t)
}

func newClient(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	if o.User == "" {
		o.User = "ann"
	}
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestSendReturnsTheStoredMessage(t *testing.T) {
	cluster, c := start(t, 1)
	m, err := c.Send(limited(t), "ein Raum?%2C", "hej \u2028 <b>&</b>", client.WithUser("bo"), client.WithClientMessageID("id-1"))
	if err != nil {
		t.Fatal(err)
	}
	if m.Room != "ein Raum?%2C" || m.Seq != 1 || m.ID != 1 || m.User != "bo" || m.Text != "hej \u2028 <b>&</b>" || m.ClientMessageID != "id-1" || m.PostedAt.IsZero() {
		t.Errorf("message: %+v", m)
	}
	if !strings.Contains(string(m.Raw), `"ClientMessageID":"id-1"`) {
		t.Errorf("raw: %s", m.Raw)
	}
	if len(cluster.messages) != 1 {
		t.Errorf("%d messages stored", len(cluster.messages))
	}
}

// Whatever a node does with a message, it is stored once in the end.
func TestSendOverFailures(t *testing.T) {
	for name, fault := range map[string]func(n *fakeNode, w http.ResponseWriter, r *http.Request){
		"no leader":  func(_ *fakeNode, w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "no_leader", "") },
		"stopping":   func(_ *fakeNode, w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "stopping", "") },
		"broken":     func(_ *fakeNode, w http.ResponseWriter, _ *http.Request) { refuse(w, 500, "internal", "") },
		"too many":   func(_ *fakeNode, w http.ResponseWriter, _ *http.Request) { refuse(w, 429, "rate_limited", "") },
		"not a node": func(_ *fakeNode, w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>welcome</html>") },
		"unknown, stored": func(n *fakeNode, w http.ResponseWriter, r *http.Request) {
			n.send(discarded{}, r, "general")
			refuse(w, 503, "outcome_unknown", "")
		},
		"killed after storing": func(n *fakeNode, _ http.ResponseWriter, r *http.Request) {
			n.send(discarded{}, r, "general")
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, c := start(t, 3)
			var asked atomic.Int64
			for _, n := range cluster.nodes[:2] {
				n.fault = func(w http.ResponseWriter, r *http.Request) bool {
					asked.Add(1)
					fault(n, w, r)
					return true
				}
			}
			m, err := c.Send(limited(t), "general", "hello")
			if err != nil {
				t.Fatal(err)
			}
			if got := cluster.texts("general"); len(got) != 1 || m.Seq != 1 || m.ClientMessageID == "" {
				t.Errorf("stored %q, answered %+v", got, m)
			}
			if asked.Load() != 2 {
				t.Errorf("the failing nodes were asked %d times", asked.Load())
			}
			// The node that has answered is the first to be asked next.
			if _, err := c.Send(limited(t), "general", "again"); err != nil || asked.Load() != 2 {
				t.Errorf("second message: %v, failing nodes asked %d times", err, asked.Load())
			}
		})
	}
}

// discarded is where an answer that never arrives goes.
type discarded struct{}

func (discarded) Header() http.Header         { return http.Header{} }
func (discarded) Write(b []byte) (int, error) { return len(b), nil }
func (discarded) WriteHeader(int)             {}

func TestSendComesBackToTheOnlyNode(t *testing.T) {
	cluster, c := start(t, 1)
	var attempts atomic.Int64
	cluster.nodes[0].fault = func(w http.ResponseWriter, _ *http.Request) bool {
		if attempts.Add(1) >= 3 {
			return false
		}
		refuse(w, 503, "no_leader", "")
		return true
	}
	if _, err := c.Send(limited(t), "general", "hello"); err != nil || attempts.Load() != 3 {
		t.Errorf("after %d attempts: %v", attempts.Load(), err)
	}
}

func TestSendRefusals(t *testing.T) {
	cluster, c := start(t, 2)
	cluster.post("general", "bo", "first", "taken")
	for name, tt := range map[string]struct {
		room, text, user, id string
		code                 string
		status               int
		seq                  uint64
	}{
		"room":        {room: ".", text: "x", user: "u", code: "room_name_invalid", status: 400},
		"empty room":  {room: "", text: "x", user: "u", code: "room_name_invalid"},
		"no author":   {room: "r", text: "x", user: "", code: "user_name_invalid"},
		"not text":    {room: "r", text: "\xff", user: "u", code: "message_invalid_utf8"},
		"id no UTF-8": {room: "r", text: "x", user: "u", id: "\xff", code: "client_message_id_invalid"},
		"conflict":    {room: "general", text: "other", user: "bo", id: "taken", code: "client_message_id_conflict", status: 409, seq: 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Send(limited(t), tt.room, tt.text, client.WithUser(tt.user), client.WithClientMessageID(tt.id))
			var refusal *client.Error
			if !errors.As(err, &refusal) || refusal.Code != tt.code || refusal.Status != tt.status || refusal.Seq != tt.seq {
				t.Errorf("got %#v (%v)", err, err)
			}
			if errors.Is(err, client.ErrUnavailable) {
				t.Error("a refusal counts as unavailable")
			}
		})
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	t.Run("unavailable", func(t *testing.T) {
		c := newClient(t, client.Options{Endpoints: []string{deadEndpoint(t), deadEndpoint(t)}})
		_, err := c.Send(briefly(t), "general", "hello")
		var unknown *client.OutcomeUnknownError
		if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &unknown) {
			t.Errorf("got %v", err)
		}
		if !strings.Contains(err.Error(), "refused") {
			t.Errorf("%v does not say why", err)
		}
	})
	t.Run("no leader", func(t *testing.T) {
		cluster, c := start(t, 1)
		cluster.nodes[0].fault = func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, 503, "no_leader", "no leader is known")
			return true
		}
		_, err := c.Send(briefly(t), "general", "hello")
		var refusal *client.Error
		if !errors.Is(err, client.ErrUnavailable) || !errors.As(err, &refusal) || refusal.Code != "no_leader" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		cluster, c := start(t, 1)
		var attempts atomic.Int64
		var healed atomic.Bool
		cluster.nodes[0].fault = func(w http.ResponseWriter, r *http.Request) bool {
			if healed.Load() {
				return false
			}
			if attempts.Add(1) == 1 {
				cluster.nodes[0].send(discarded{}, r, "general")
				panic(http.ErrAbortHandler)
			}
			refuse(w, 503, "no_leader", "")
			return true
		}
		_, err := c.Send(briefly(t), "general", "hello")
		var unknown *client.OutcomeUnknownError
		if !errors.As(err, &unknown) || unknown.ClientMessageID == "" || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		// The id in the error settles it.
		healed.Store(true)
		m, err := c.Send(limited(t), "general", "hello", client.WithClientMessageID(unknown.ClientMessageID))
		if err != nil || m.Seq != 1 || len(cluster.texts("general")) != 1 {
			t.Errorf("sent again: %+v, %v", m, err)
		}
	})
	t.Run("ended before", func(t *testing.T) {
		cluster, c := start(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := c.Send(ctx, "general", "hello")
		if !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, context.Canceled) || len(cluster.messages) != 0 {
			t.Errorf("got %v", err)
		}
	})
}

func TestSilentNodeIsPassedOver(t *testing.T) {
	cluster, _ := start(t, 2)
	cluster.nodes[0].fault = func(_ http.ResponseWriter, r *http.Request) bool {
		<-cluster.stopping // longer than the attempt
		return true
	}
	c := newClient(t, client.Options{Endpoints: cluster.endpoints(), AttemptTimeout: 50 * time.Millisecond})
	if _, err := c.Send(limited(t), "general", "hello"); err != nil {
		t.Error(err)
	}
	for event, err := range c.Subscribe(limited(t), client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}) {
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := event.(*client.Message); ok && m.Text == "hello" {
			break
		}
	}
}

func TestHistoryPages(t *testing.T) {
	cluster, c := start(t, 1)
	for i := range 5 {
		cluster.post("general", "ann", fmt.Sprint(i+1), "")
	}
	for name, tt := range map[string]struct {
		page           client.Page
		want           string
		earlier, later bool
	}{
		"newest": {client.Page{Limit: 2}, "4 5", true, false},
		"all":    {client.Page{}, "1 2 3 4 5", false, false},
		"oldest": {client.Page{After: new(uint64(0)), Limit: 2}, "1 2", false, true},
		"after":  {client.Page{After: new(uint64(2)), Limit: 2}, "3 4", true, true},
		"before": {client.Page{Before: new(uint64(3)), Limit: 1, Stale: true}, "2", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := c.History(limited(t), "general", tt.page)
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, m := range h.Messages {
				texts = append(texts, m.Text)
			}
			if got := strings.Join(texts, " "); got != tt.want || h.Earlier != tt.earlier || h.Later != tt.later {
				t.Errorf("got %q, earlier %v, later %v", got, h.Earlier, h.Later)
			}
		})
	}
	if h, err := c.History(limited(t), "nobody", client.Page{}); err != nil || len(h.Messages) != 0 {
		t.Errorf("unknown room: %+v, %v", h, err)
	}
}

func TestRoomsMembersStatus(t *testing.T) {
	cluster, _ := start(t, 2)
	for _, room := range []string{"b", "a", "ab", "a"} {
		cluster.post(room, "ann", "x", "")
	}
	cluster.nodes[1].fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/readyz" {
			refuse(w, 503, "not_ready", "no leader is known")
			return true
		}
		return false
	}
	dead := deadEndpoint(t)
	c := newClient(t, client.Options{Endpoints: append(cluster.endpoints(), dead)})
	rooms, more, err := c.Rooms(limited(t), client.RoomsQuery{Prefix: "a", Limit: 1})
	if err != nil || !more || len(rooms) != 1 || rooms[0].Name != "a" || rooms[0].Messages != 2 || rooms[0].LastSeq != 2 {
		t.Errorf("rooms: %+v, more %v, %v", rooms, more, err)
	}
	rooms, more, err = c.Rooms(limited(t), client.RoomsQuery{After: "a"})
	if err != nil || more || len(rooms) != 2 || rooms[1].Name != "b" {
		t.Errorf("rooms: %+v, more %v, %v", rooms, more, err)
	}
	members, err := c.Members(limited(t))
	if err != nil || len(members) != 2 || members[0].Role != "leader" || members[1].Lag != 2 || members[1].Active {
		t.Errorf("members: %+v, %v", members, err)
	}
	all := c.Status(limited(t))
	if len(all) != 3 || !all[0].Ready || !all[0].IsLeader || all[0].NodeID != "one" || all[0].Endpoint != cluster.endpoints()[0] {
		t.Fatalf("status: %+v", all)
	}
	if all[1].Ready || !strings.Contains(all[1].NotReady, "no leader is known") || all[1].Err != nil {
		t.Errorf("node that is not ready: %+v", all[1])
	}
	if all[2].Err == nil || all[2].Endpoint != dead || all[2].Ready {
		t.Errorf("node that is down: %+v", all[2])
	}
}

func TestNewRefusesBadEndpoints(t *testing.T) {
	for _, list := range [][]string{nil, {"127.0.0.1:12380"}, {"ftp://a"}, {"http://"}, {"http://a?x"}, {"http://a#f"}, {"http://a", ""}, {"http:a"}} {
		if _, err := client.New(client.Options{Endpoints: list}); err == nil {
			t.Errorf("%q is taken", list)
		}
	}
	if _, err := client.New(client.Options{Endpoints: []string{"http://a/"}, IdleTimeout: -1}); err == nil {
		t.Error("a timeout below 0 is taken")
	}
}

func TestConcurrentCalls(t *testing.T) {
	cluster, c := start(t, 3)
	cluster.nodes[1].fault = func(w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, 503, "outcome_unknown", "")
		return true
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 5 {
				if _, err := c.Send(limited(t), "general", fmt.Sprintf("%d-%d", i, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	texts := cluster.texts("general")
	slices.Sort(texts)
	if len(slices.Compact(texts)) != 40 {
		t.Errorf("%d different messages stored", len(texts))
	}
}
