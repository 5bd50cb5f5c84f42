package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/client"
)

// follow ranges over a subscription until visit returns false and fails the
// test for an error.
func follow(t *testing.T, c *client.Client, o client.SubscribeOptions, visit func(client.Event) bool) {
	t.Helper()
	for event, err := range c.Subscribe(limited(t), o) {
		if err != nil {
			t.Fatal(err)
		}
		if !visit(event) {
			return
		}
	}
}

// texts reads n messages.
func texts(t *testing.T, c *client.Client, o client.SubscribeOptions, n int) []string {
	t.Helper()
	var got []string
	follow(t, c, o, func(e client.Event) bool {
		if m, ok := e.(*client.Message); ok {
			got = append(got, m.Text)
		}
		return len(got) < n
	})
	return got
}

func numbers(from, to int) string {
	var words []string
	for i := from; i <= to; i++ {
		words = append(words, fmt.Sprint(i))
	}
	return strings.Join(words, " ")
}

// Streams that break after a few messages, with or without a word, give the
// same sequence as one that does not.
func TestSubscribeGoesOnOverBrokenStreams(t *testing.T) {
	for name, end := range map[string]string{
		"killed":   "",
		"ended":    "event: end\ndata: {\"Code\":\"stopping\",\"Detail\":\"bye\",\"Since\":\"%d\",\"Endpoints\":[]}\n\n",
		"mid-line": "id: 999\ndata: {\"Room\":\"ge",
		"no id":    "event: end\ndata: {}\n\n",
		"nonsense": "data: {\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			cluster, c := start(t, 3)
			for i, n := range cluster.nodes {
				n.cut, n.end = i+2, end
				if strings.Contains(end, "%d") {
					n.end = strings.ReplaceAll(end, "%d", "0") // never back
				}
			}
			for i := range 20 {
				cluster.post("general", "ann", fmt.Sprint(i+1), "")
				cluster.post("other", "ann", "not this", "")
			}
			var connected, lost int
			var got []string
			follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}, func(e client.Event) bool {
				switch e := e.(type) {
				case *client.Message:
					got = append(got, e.Text)
					if len(got) == 20 {
						return false
					}
				case *client.Status:
					switch e.Kind {
					case client.Connected:
						connected++
					case client.Disconnected:
						lost++
						if e.Err == nil {
							t.Error("a loss without a reason")
						}
					}
				case *client.Gap:
					t.Errorf("gap %+v", e)
				}
				return true
			})
			if strings.Join(got, " ") != numbers(1, 20) {
				t.Errorf("got %v", got)
			}
			if connected < 6 || lost != connected-1 {
				t.Errorf("connected %d times, lost %d times", connected, lost)
			}
		})
	}
}

// Nothing that is posted after Connected is missed, even when no message has
// come in before the stream breaks.
func TestSubscribeFromNowOn(t *testing.T) {
	cluster, c := start(t, 2)
	cluster.post("general", "ann", "old", "")
	sinces := make(chan string, 100)
	for _, n := range cluster.nodes {
		n.events = func(q map[string][]string) { sinces <- q["since"][0] }
	}
	var once sync.Once
	var got []string
	follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Status:
			if e.Kind == client.Connected {
				once.Do(func() {
					cluster.nodes[0].server.CloseClientConnections()
					cluster.post("general", "ann", "1", "")
					cluster.post("general", "ann", "2", "")
				})
			}
		case *client.Message:
			got = append(got, e.Text)
		}
		return len(got) < 2
	})
	if strings.Join(got, " ") != "1 2" {
		t.Errorf("got %v", got)
	}
	if since := <-sinces; since != "1" {
		t.Errorf("the first stream began at %s", since)
	}
}

func TestSubscribeSince(t *testing.T) {
	cluster, c := start(t, 1)
	for i := range 4 {
		cluster.post("general", "ann", fmt.Sprint(i+1), "")
	}
	sinces := make(chan string, 1)
	cluster.nodes[0].events = func(q map[string][]string) { sinces <- q["since"][0] }
	for _, tt := range []struct {
		since, sent string
		want        string
	}{
		{"all", "all", numbers(1, 4)},
		{"0", "0", numbers(1, 4)},
		{"2", "2", numbers(3, 4)},
	} {
		got := texts(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: tt.since}, len(strings.Fields(tt.want)))
		since := <-sinces
		if strings.Join(got, " ") != tt.want || since != tt.sent {
			t.Errorf("since %s: got %v, asked for %s", tt.since, got, since)
		}
	}
	got := texts(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "10m"}, 4)
	since := <-sinces
	if strings.Join(got, " ") != numbers(1, 4) || !strings.HasPrefix(since, "10m") {
		t.Errorf("since 10m: got %v, asked for %s", got, since)
	}
	if d, err := time.ParseDuration(since); err != nil || d < 10*time.Minute {
		t.Errorf("10m became %q", since)
	}
}

func TestSubscribeRefusals(t *testing.T) {
	_, c := start(t, 2)
	for code, o := range map[string]client.SubscribeOptions{
		"cursor_invalid":    {Rooms: []string{"general"}, Since: "yesterday"},
		"room_name_invalid": {Rooms: nil},
	} {
		var last error
		for event, err := range c.Subscribe(limited(t), o) {
			if err == nil {
				t.Fatalf("%+v", event)
			}
			last = err
		}
		var refusal *client.Error
		if !errors.As(last, &refusal) || refusal.Code != code {
			t.Errorf("got %v, want %s", last, code)
		}
	}
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	_, c := start(t, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var last error
	for event, err := range c.Subscribe(ctx, client.SubscribeOptions{Rooms: []string{"general"}}) {
		if err != nil {
			last = err
			continue
		}
		if s, ok := event.(*client.Status); ok && s.Kind == client.Connected {
			cancel(errEnough)
		}
	}
	if !errors.Is(last, context.Canceled) || !errors.Is(last, errEnough) {
		t.Errorf("got %v", last)
	}
	// Nobody there: the failures are told while it is tried on.
	c = newClient(t, client.Options{Endpoints: []string{deadEndpoint(t)}})
	told := 0
	for event, err := range c.Subscribe(briefly(t), client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}) {
		if err != nil {
			last = err
		} else if s, ok := event.(*client.Status); ok && s.Kind == client.Disconnected {
			told++
		}
	}
	if told == 0 || !errors.Is(last, client.ErrUnavailable) || !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("told %d times, then %v", told, last)
	}
}

var errEnough = errors.New("enough")

func TestSubscribeSeveralRoomsInOrder(t *testing.T) {
	cluster, c := start(t, 2)
	cluster.nodes[0].cut = 1
	cluster.nodes[1].cut = 3
	for i := range 12 {
		cluster.post([]string{"a", "b", "c"}[i%3], "ann", fmt.Sprint(i+1), "")
	}
	got := texts(t, c, client.SubscribeOptions{Rooms: []string{"a", "b", "c"}, Since: "all"}, 12)
	if strings.Join(got, " ") != numbers(1, 12) {
		t.Errorf("got %v", got)
	}
}

func TestSubscribeTellsGapsOnce(t *testing.T) {
	cluster, c := start(t, 2)
	cluster.nodes[0].cut, cluster.nodes[1].cut = 2, 2
	for i := range 12 {
		cluster.post("general", "ann", fmt.Sprint(i+1), "")
	}
	cluster.trim("general", 3)
	var got []string
	follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Message:
			got = append(got, e.Text)
			if e.Text == "6" {
				// The cursor is overtaken while the stream is down.
				cluster.trim("general", 10)
			}
			return e.Text != "12"
		case *client.Gap:
			got = append(got, fmt.Sprintf("%s:%d-%d", e.Room, e.FirstSeq, e.LastSeq))
		}
		return true
	})
	want := "general:1-2 3 4 5 6 general:7-9 10 11 12"
	if strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestSubscribeTellsAHoleThatTheNodeDoesNot(t *testing.T) {
	cluster, c := start(t, 1)
	cluster.nodes[0].fault = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "text/event-stream")
		for i, seq := range []int{1, 2, 5, 5, 4} {
			fmt.Fprintf(w, "id: %[1]d\ndata: {\"Room\":\"r\",\"Seq\":%[2]d,\"ID\":%[1]d,\"User\":\"u\",\"Message\":\"%[2]d\"}\n\n", min(i+1, 3), seq)
		}
		return true
	}
	var got []string
	follow(t, c, client.SubscribeOptions{Rooms: []string{"r"}, Since: "all", Poll: true}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Message:
			got = append(got, e.Text)
		case *client.Gap:
			got = append(got, fmt.Sprintf("gap %d-%d", e.FirstSeq, e.LastSeq))
		}
		return true
	})
	if s := strings.Join(got, " "); s != "1 2 gap 3-4 5" {
		t.Errorf("got %s", s)
	}
}

func TestSubscribePollEnds(t *testing.T) {
	cluster, c := start(t, 2)
	cluster.nodes[0].cut = 2
	for i := range 5 {
		cluster.post("general", "ann", fmt.Sprint(i+1), "")
	}
	if got := texts(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all", Poll: true}, 100); strings.Join(got, " ") != numbers(1, 5) {
		t.Errorf("got %v", got)
	}
}

func TestSubscribeTellsLeaderAndSkipsTheUnknown(t *testing.T) {
	cluster, c := start(t, 1)
	cluster.post("general", "ann", "1", "")
	cluster.nodes[0].begin = "event: status\ndata: {\"Leader\":false}\n\nevent: status\ndata: {\"Leader\":true}\n\n" +
		"event: reaction\ndata: {\"Emoji\":\"x\"}\n\n"
	var got []string
	follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Status:
			got = append(got, e.Kind.String())
		case *client.Message:
			got = append(got, e.Text)
			return false
		}
		return true
	})
	if s := strings.Join(got, ", "); s != "connected, leader lost, leader back, 1" {
		t.Errorf("got %s", s)
	}
}

// A node that is about to end names others, which the client did not know.
func TestSubscribeLearnsEndpoints(t *testing.T) {
	cluster, _ := start(t, 2)
	first := cluster.nodes[0]
	first.cut = 1
	first.end = fmt.Sprintf("event: end\ndata: {\"Code\":\"no_leader\",\"Detail\":\"try another node\",\"Since\":\"1\",\"Endpoints\":[\"junk\",%q]}\n\n", cluster.nodes[1].server.URL)
	for i := range 6 {
		cluster.post("general", "ann", fmt.Sprint(i+1), "")
	}
	c := newClient(t, client.Options{Endpoints: []string{first.server.URL}})
	var told string
	var got []string
	follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Message:
			got = append(got, e.Text)
		case *client.Status:
			told += fmt.Sprintf("%s %v; ", e.Kind, e.Err)
		}
		return len(got) < 6
	})
	if strings.Join(got, " ") != numbers(1, 6) || told != "connected <nil>; disconnected no_leader: try another node; connected <nil>; " {
		t.Errorf("got %v, told %s", got, told)
	}
}

func TestSubscribeLeavesASilentStream(t *testing.T) {
	cluster, _ := start(t, 2)
	cluster.nodes[0].fault = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-cluster.stopping:
		}
		return true
	}
	cluster.post("general", "ann", "1", "")
	c := newClient(t, client.Options{Endpoints: cluster.endpoints(), IdleTimeout: 100 * time.Millisecond})
	var reason error
	follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}, func(e client.Event) bool {
		if s, ok := e.(*client.Status); ok && s.Kind == client.Disconnected && reason == nil {
			reason = s.Err
		}
		_, ok := e.(*client.Message)
		return !ok
	})
	if reason == nil || !strings.Contains(reason.Error(), "nothing came in") {
		t.Errorf("left because of %v", reason)
	}
}

// A cursor that nobody has posted yet is told of, and the subscription goes on from
// where the cluster is: also when the stream breaks, and although it was further.
func TestSubscribeBeyondTheHead(t *testing.T) {
	cluster, c := start(t, 1)
	cluster.post("general", "ann", "1", "")
	var sinces []string
	node := cluster.nodes[0]
	node.events = func(q map[string][]string) {
		if sinces = append(sinces, q["since"][0]); len(sinces) > 1 {
			node.begin = ""
		}
	}
	node.begin = "event: status\nid: 1700000000\ndata: {\"Leader\":true}\n\n" +
		"event: gap\nid: 1\ndata: {\"Room\":\"general\",\"FirstSeq\":1,\"LastSeq\":1,\"Code\":\"cursor_beyond_head\",\"Detail\":\"not yet\"}\n\n" +
		"event: end\ndata: {\"Code\":\"slow\",\"Detail\":\"slow\",\"Since\":\"1\",\"Endpoints\":[]}\n\n"
	gaps := 0
	follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "1700000000"}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Gap:
			if gaps++; e.Room != "general" || e.LastSeq != 1 || e.ID != 1 || e.Beyond != "not yet" {
				t.Errorf("gap %+v", e)
			}
			cluster.post("general", "ann", "2", "")
		case *client.Status:
			if e.Kind == client.LeaderBack {
				t.Error("a leader is back that was not lost")
			}
		case *client.Message:
			if e.Text != "2" {
				t.Errorf("message %+v", e)
			}
			return false
		}
		return true
	})
	if got := strings.Join(sinces, " "); got != "1700000000 1" || gaps != 1 {
		t.Errorf("asked for %s, told %d gaps", got, gaps)
	}
}

// A stream that only sends the client away is no connection.
func TestSubscribeSentAway(t *testing.T) {
	cluster, c := start(t, 2)
	cluster.post("general", "ann", "1", "")
	cluster.nodes[0].fault = func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Retry-After", "1")
		fmt.Fprint(w, "retry: 1000\nevent: status\nid: 0\ndata: {\"Leader\":false}\n\n"+
			"event: end\ndata: {\"Code\":\"no_leader\",\"Detail\":\"no leader\",\"Endpoints\":[]}\n\n")
		return true
	}
	var got []string
	follow(t, c, client.SubscribeOptions{Rooms: []string{"general"}, Since: "all"}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Status:
			got = append(got, e.Kind.String())
			if e.Kind == client.Disconnected && !strings.Contains(e.Err.Error(), "no_leader") {
				t.Errorf("sent away with %v", e.Err)
			}
		case *client.Message:
			got = append(got, e.Text)
			return false
		}
		return true
	})
	if s := strings.Join(got, ", "); s != "disconnected, connected, 1" {
		t.Errorf("got %s", s)
	}
}
