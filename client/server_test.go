package client_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/client"
	"github.com/raft-chat/raft-chat/internal/server"
	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// listenAgain listens on an address that was in use until a moment ago.
func listenAgain(t *testing.T, addr string) net.Listener {
	t.Helper()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for deadline := time.After(time.Minute); ; {
		l, err := net.Listen("tcp", addr)
		if err == nil {
			return l
		}
		select {
		case <-retry.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// openNode starts a cluster of one that listens on the two sockets.
func openNode(t *testing.T, dir string, api, peer net.Listener) *server.Server {
	t.Helper()
	s, err := server.Open(t.Context(), server.Config{
		ID: 1, Cluster: []server.Peer{{ID: 1, URL: "http://" + peer.Addr().String()}}, DataDir: dir,
		APIListener: api, PeerListener: peer, MinFreeBytes: -1, TickInterval: 20 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeNode(t *testing.T, s *server.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// What the other tests assume of a node holds for a real one: a subscription
// goes over its restart, and every call gives what was stored.
func TestAgainstARealNode(t *testing.T) {
	slow.Test(t)
	dir := t.TempDir()
	api, peer := testaddr.Listen(t), testaddr.Listen(t)
	apiAddr, peerAddr := api.Addr().String(), peer.Addr().String()
	node := openNode(t, dir, api, peer)
	defer func() { closeNode(t, node) }()
	c := newClient(t, client.Options{Endpoints: []string{"http://" + apiAddr}})
	const room = "Räume & \"more\"?"
	send := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			if _, err := c.Send(limited(t), room, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
	}

	send(1, 5)
	connected := 0
	var got []string
	follow(t, c, client.SubscribeOptions{Rooms: []string{room, "other"}}, func(e client.Event) bool {
		switch e := e.(type) {
		case *client.Status:
			if e.Kind != client.Connected {
				return true
			}
			switch connected++; connected {
			case 1:
				// Nothing has come in when the node goes down.
				closeNode(t, node)
				node = openNode(t, dir, listenAgain(t, apiAddr), listenAgain(t, peerAddr))
				send(6, 10)
			case 2:
				send(11, 15)
			}
		case *client.Message:
			got = append(got, e.Text)
		case *client.Gap:
			t.Errorf("gap %+v", e)
		}
		return len(got) < 10
	})
	if strings.Join(got, " ") != numbers(6, 15) {
		t.Errorf("from now on: %v", got)
	}
	for since, want := range map[string]string{"all": numbers(1, 15), "12": numbers(13, 15), "10m": numbers(1, 15)} {
		if got := texts(t, c, client.SubscribeOptions{Rooms: []string{room}, Since: since, Poll: true}, 100); strings.Join(got, " ") != want {
			t.Errorf("since %s: %v", since, got)
		}
	}

	h, err := c.History(limited(t), room, client.Page{After: new(uint64(2)), Limit: 3})
	if err != nil || len(h.Messages) != 3 || h.Messages[0].Text != "3" || !h.Earlier || !h.Later {
		t.Errorf("history: %+v, %v", h, err)
	}
	rooms, more, err := c.Rooms(limited(t), client.RoomsQuery{})
	if err != nil || more || len(rooms) != 1 || rooms[0].Name != room || rooms[0].LastSeq != 15 || rooms[0].LastPostedAt.IsZero() {
		t.Errorf("rooms: %+v, %v, %v", rooms, more, err)
	}
	members, err := c.Members(limited(t))
	if err != nil || len(members) != 1 || members[0].Role != "leader" {
		t.Errorf("members: %+v, %v", members, err)
	}
	if s := c.Status(limited(t)); s[0].Err != nil || !s[0].Ready || !s[0].IsLeader {
		t.Errorf("status: %+v", s)
	}
	m, err := c.Send(limited(t), room, "again", client.WithClientMessageID("same"))
	if err != nil {
		t.Fatal(err)
	}
	if repeated, err := c.Send(limited(t), room, "again", client.WithClientMessageID("same")); err != nil || repeated.ID != m.ID {
		t.Errorf("sent again: %+v, %v", repeated, err)
	}
}
