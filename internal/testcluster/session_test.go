package testcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/internal/server"
	"github.com/raft-chat/raft-chat/internal/slow"
)

// session is a raft-chat.v1 connection that only sends.
type session struct{ conn *websocket.Conn }

func dialSession(ctx context.Context, url string) (*session, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	conn, _, err := websocket.Dial(ctx, url+"/ws", &websocket.DialOptions{
		Subprotocols: []string{"raft-chat.v1"}, HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		return nil, err
	}
	return &session{conn}, nil
}

// outstanding is how many sends of a session may be without an answer.
const outstanding = 64

// sendAll sends n numbered messages, as many at a time as the server takes, and
// returns how many were refused.
func (s *session) sendAll(ctx context.Context, room string, ids bool, n int) (refused int, err error) {
	window := make(chan struct{}, outstanding)
	var writing sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer writing.Wait()
	defer cancel()
	var failed error
	writing.Go(func() {
		for i := range n {
			select {
			case window <- struct{}{}:
			case <-ctx.Done():
				return
			}
			id := ""
			if ids {
				id = fmt.Sprint(room, "-", i)
			}
			frame := fmt.Sprintf(`{"Type":"send","Room":%q,"User":"ann","Message":"%d","ClientMessageID":%q}`, room, i, id)
			if err := s.conn.Write(ctx, websocket.MessageText, []byte(frame)); err != nil {
				failed = err
				cancel()
				return
			}
		}
	})
	for answers := 0; answers < n; {
		_, data, err := s.conn.Read(ctx)
		if err != nil {
			cancel()
			writing.Wait()
			return refused, errors.Join(err, failed)
		}
		var f struct{ Type, Code string }
		if err := json.Unmarshal(data, &f); err != nil {
			return refused, err
		}
		switch f.Type {
		case "ack":
		case "error":
			refused++
		case "status":
			continue
		default:
			return refused, fmt.Errorf("got %s", data)
		}
		answers++
		<-window
	}
	return refused, nil
}

// numbersIn returns what is in a room, as numbers.
func numbersIn(ctx context.Context, c *Cluster, url, room string) (numbers []int, err error) {
	messages, err := c.Client().Messages(ctx, url, room)
	for _, m := range messages {
		var i int
		if _, err := fmt.Sscan(m.Message, &i); err != nil {
			return nil, err
		}
		numbers = append(numbers, i)
	}
	return numbers, err
}

// term is the highest that a node knows.
func term(c *Cluster) (highest uint64) {
	for _, id := range c.Running() {
		highest = max(highest, c.Server(id).Node().Status().Term)
	}
	return highest
}

// The sends of a session are stored in the order sent on whichever node it is,
// with many of them under way at a time and others that send as well. What is
// under way while the leader changes may change places, so that is not judged.
func TestSessionKeepsOrder(t *testing.T) {
	slow.Test(t)
	c := New(t, 3, func(conf *server.Config) { conf.ElectionTicks = 50 })
	c.Leader()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i := range 30 { // so are messages of members before their streams are up
		id := fmt.Sprint(i)
		Eventually(t, "a first message", func() error {
			_, _, err := c.Client().Post(ctx, c.URLs()[i%3], Message{Room: "before", User: "ann", Message: "x", ClientMessageID: id})
			return err
		})
	}
	for round := 0; ; round++ {
		before := term(c)
		orders := sendOnAll(ctx, t, c, round, 200)
		if t.Failed() {
			return
		}
		if term(c) != before {
			t.Logf("round %d: the leader changed", round)
			continue
		}
		for room, numbers := range orders {
			if len(numbers) != 200 || !slices.IsSorted(numbers) {
				t.Errorf("%s: stored %v", room, numbers)
			}
		}
		return
	}
}

// sendOnAll sends in two sessions on each node, with and without ids, and gives
// what their rooms hold.
func sendOnAll(ctx context.Context, t *testing.T, c *Cluster, round, sends int) map[string][]int {
	var mu sync.Mutex
	orders := map[string][]int{}
	var all sync.WaitGroup
	for _, id := range c.Running() {
		for _, ids := range []bool{false, true} {
			all.Go(func() {
				room := fmt.Sprint("round-", round, "-node-", id, "-", ids)
				s, err := dialSession(ctx, c.URL(id))
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = s.conn.CloseNow() }()
				if _, err := s.sendAll(ctx, room, ids, sends); err != nil {
					t.Errorf("%s: %v", room, err)
					return
				}
				numbers, err := numbersIn(ctx, c, c.URL(id), room)
				if err != nil && CodeOf(err) == "" {
					t.Errorf("%s: %v", room, err)
				}
				mu.Lock()
				defer mu.Unlock()
				orders[room] = numbers
			})
		}
	}
	all.Wait()
	return orders
}

// While the leader changes, sends with ids are stored once each.
func TestSessionOverLeaderChange(t *testing.T) {
	c := New(t, 3, nil)
	leader := c.Leader()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := dialSession(ctx, c.URL(others(c, leader)[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.conn.CloseNow() }()
	const sends = 400
	var moving sync.WaitGroup
	moving.Go(func() { transfer(t, c, others(c, leader)[1]) })
	refused, err := s.sendAll(ctx, "moved", true, sends)
	moving.Wait()
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	Eventually(t, "the room", func() (err error) {
		numbers, err = numbersIn(ctx, c, c.URL(leader), "moved")
		return err
	})
	slices.Sort(numbers)
	if once := slices.Compact(slices.Clone(numbers)); len(once) != len(numbers) || len(numbers) < sends-refused {
		t.Errorf("%d of %d sends were refused, and %d are stored, %d different ones", refused, sends, len(numbers), len(once))
	}
	t.Logf("%d refused, %d stored", refused, len(numbers))
}
