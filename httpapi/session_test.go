package httpapi

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
	"github.com/raft-chat/raft-chat/internal/slow"
)

func TestSessionSubscribe(t *testing.T) {
	n := newNode(t, nil)
	n.post("a", "u", "1")
	n.post("b", "u", "1")
	n.post("a", "u", "2")
	c := n.talk(0)
	n.post("a", "u", "3") // nothing is subscribed
	c.say(`{"Type":"subscribe","Id":"1","Rooms":["a"],"Since":"all"}`)
	if f := c.of("subscribed", "1"); f.Cursors["a"] != "0" || len(f.Cursors) != 1 {
		t.Errorf("cursors are %v", f.Cursors)
	}
	c.want("a/1", "a/2", "a/3")
	// Another room, from another place, while the first goes on.
	c.say(`{"Type":"subscribe","Id":"2","Rooms":["b","later"]}`)
	if f := c.of("subscribed", "2"); f.Cursors["b"] != "4" || f.Cursors["later"] != "4" {
		t.Errorf("cursors are %v", f.Cursors)
	}
	n.post("b", "u", "2")
	n.post("later", "u", "1")
	n.post("a", "u", "4")
	c.want("b/2", "later/1", "a/4")
	// A room that is subscribed already goes on at the new place.
	c.say(`{"Type":"subscribe","Id":"3","Rooms":["a"],"After":2}`)
	c.of("subscribed", "3")
	c.want("a/3", "a/4")
	n.post("a", "u", "5")
	n.post("b", "u", "3")
	c.want("a/5", "b/3")
	// A place that the room has not reached.
	c.say(`{"Type":"subscribe","Id":"4","Rooms":["a"],"After":7}`)
	c.of("subscribed", "4")
	if f := c.of("gap", ""); f.Room != "a" || f.LastSeq != 5 || f.Code != "cursor_beyond_head" {
		t.Errorf("gap is %+v", f)
	}
	for range 4 {
		n.post("a", "u", "on")
	}
	c.want("a/6", "a/7", "a/8", "a/9")
	c.say(`{"Type":"unsubscribe","Id":"5","Rooms":["a","never"]}`)
	c.of("unsubscribed", "5")
	n.post("a", "u", "6")
	n.post("b", "u", "4")
	c.want("b/4")
	c.say(`{"Type":"unsubscribe","Id":"6","Rooms":["b","later"]}`)
	c.of("unsubscribed", "6")
	n.post("b", "u", "5")
	c.silent()
	c.say(`{"Type":"subscribe","Id":"7","Rooms":["b"],"Since":"1h"}`)
	c.of("subscribed", "7")
	c.want("b/1", "b/2", "b/3", "b/4", "b/5")
	c.say(`{"Type":"subscribe","Id":"8","Rooms":["b"],"Since":"2000-01-01T00:00:00Z"}`)
	c.of("subscribed", "8")
	c.want("b/1", "b/2", "b/3", "b/4", "b/5")
}

// All that waits is joined.
func TestSessionJoins(t *testing.T) {
	n := newNode(t, nil)
	for i := range 50 {
		n.post("r", "u", fmt.Sprint(i))
	}
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Rooms":["r"],"Since":"all"}`)
	c.of("subscribed", "")
	if f := c.of("messages", ""); len(f.Messages) != 50 {
		t.Errorf("the first of %d messages came alone", len(f.Messages))
	}
}

// A room that begins far behind the others catches up beside them: nothing waits for it, and nothing comes twice.
func TestSessionCatchesUp(t *testing.T) {
	n := newNode(t, nil)
	const old = 4 * 256
	var posting sync.WaitGroup
	for range 8 {
		posting.Go(func() {
			for range old / 8 {
				if _, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: "old", User: "u", Payload: []byte("m")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	posting.Wait()
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Rooms":["live"]}`)
	c.of("subscribed", "")
	c.say(`{"Type":"subscribe","Rooms":["old"],"Since":"all"}`)
	c.of("subscribed", "")
	const live = 50
	seqs := map[string]uint64{}
	for i := 0; i < old+live; i++ {
		if i < live {
			n.post("live", "u", "m")
		}
		m := c.message()
		if seqs[m.Room]++; m.Seq != seqs[m.Room] {
			t.Fatalf("%s/%d follows %d", m.Room, m.Seq, seqs[m.Room]-1)
		}
	}
	c.silent()
}

// Rooms come and go in any order while many write: each room's messages come once and in order.
func TestSessionManyRooms(t *testing.T) {
	n := newNode(t, nil)
	const rooms, each = 12, 40
	var posting sync.WaitGroup
	for room := range rooms {
		posting.Go(func() {
			for i := range each {
				if _, _, err := n.service.Post(t.Context(), actor, chat.PostRequest{Room: fmt.Sprint("r", room), User: "u", Payload: fmt.Append(nil, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	c := n.talk(0)
	for room := range rooms {
		c.say(`{"Type":"subscribe","Id":"%d","Rooms":["r%d"],"Since":"all"}`, room, room)
		if room%3 == 2 {
			c.say(`{"Type":"subscribe","Rooms":["gone%d"],"Since":"all"}`, room)
			c.say(`{"Type":"unsubscribe","Rooms":["gone%d"]}`, room)
		}
	}
	seqs := map[string]uint64{}
	for got := 0; got < rooms*each; {
		f := c.hear()
		if f.Type != "messages" {
			continue
		}
		for _, m := range f.Messages {
			if m.Seq != seqs[m.Room]+1 {
				t.Fatalf("%s/%d follows %d", m.Room, m.Seq, seqs[m.Room])
			}
			seqs[m.Room] = m.Seq
			got++
		}
	}
	posting.Wait()
}

func TestSessionGaps(t *testing.T) {
	n := newNode(t, nil)
	for range 6 {
		n.post("a", "u", "m") // IDs 1, 3 … 11
		n.post("b", "u", "m")
	}
	n.trim("a", 4)
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Rooms":["a"],"After":1}`)
	c.of("subscribed", "")
	if f := c.of("gap", ""); f.Room != "a" || f.FirstSeq != 2 || f.LastSeq != 3 || f.ID != 5 {
		t.Errorf("gap is %+v", f)
	}
	c.want("a/4", "a/5", "a/6")
	c.say(`{"Type":"subscribe","Rooms":["b"],"Since":"latest"}`)
	c.of("subscribed", "")
	n.trim("a", 7) // all of it was delivered
	n.post("a", "u", "m")
	n.post("b", "u", "m")
	c.want("a/7", "b/7")
	c.silent()
}

func TestSessionSend(t *testing.T) {
	n := newNode(t, nil)
	c := n.talk(0)
	for i, dedup := range []bool{false, true} {
		c.say(`{"Type":"send","Id":"s%d","Room":"r","User":"ann","Message":"hi","ClientMessageID":"c1"}`, i)
		f := c.of("ack", fmt.Sprint("s", i))
		if f.Message == nil || f.Message.Seq != 1 || *f.Message.Message != "hi" || f.Message.ClientMessageID != "c1" || *f.Deduplicated != dedup {
			t.Errorf("ack is %+v", f)
		}
	}
	c.say(`{"Type":"send","Id":"s3","Room":"r","User":"ann","Message":"other","ClientMessageID":"c1"}`)
	if f := c.of("error", "s3"); f.Code != "client_message_id_conflict" || f.Seq != 1 {
		t.Errorf("conflict is %+v", f)
	}
	for range 4 {
		n.post("r", "u", "m")
	}
	for query, want := range map[string]string{
		``:                      "[1 2 3 4 5] false false",
		`,"Limit":2`:            "[4 5] true false",
		`,"After":1,"Limit":2`:  "[2 3] true true",
		`,"Before":3`:           "[1 2] false true",
		`,"After":1,"Before":3`: "[2] true true",
		`,"After":99`:           "[] true false",
	} {
		c.say(`{"Type":"history","Id":"h","Room":"r"%s}`, query)
		f := c.of("history", "h")
		seqs := []uint64{}
		for _, m := range f.Messages {
			seqs = append(seqs, m.Seq)
		}
		if got := fmt.Sprint(seqs, *f.Earlier, *f.Later); got != want {
			t.Errorf("history %s is %s, want %s", query, got, want)
		}
	}
	c.say(`{"Type":"history","Id":"h","Room":"none"}`)
	if f := c.of("history", "h"); len(f.Messages) != 0 || f.Messages == nil {
		t.Errorf("history of no room is %+v", f)
	}
}

// A send that takes long holds up neither delivery nor other requests, and there is a limit to such sends.
func TestSessionOutstanding(t *testing.T) {
	n := newNode(t, nil)
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Rooms":["live"]}`)
	c.of("subscribed", "")
	hold := make(chan struct{})
	release := sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release)
	n.log.Inject(func() chattest.Fault { return chattest.Fault{Wait: hold} })
	for i := range maxOutstanding {
		c.say(`{"Type":"send","Id":"%d","Room":"r","User":"u","Message":"m"}`, i)
	}
	c.silent()
	c.say(`{"Type":"send","Id":"over","Room":"r","User":"u","Message":"m"}`)
	if f := c.of("error", "over"); f.Code != "overloaded" || f.RetryAfter < 1 {
		t.Errorf("refusal is %+v", f)
	}
	c.say(`{"Type":"history","Id":"over","Room":"r"}`)
	c.of("error", "over")
	n.log.Inject(nil)
	release()
	acks := map[string]bool{}
	for range maxOutstanding {
		f := c.hear()
		if f.Type != "ack" || acks[f.Id] {
			t.Fatalf("got %+v", f)
		}
		acks[f.Id] = true
	}
	c.say(`{"Type":"send","Id":"again","Room":"live","User":"u","Message":"m"}`)
	kinds := []string{c.hear().Type, c.hear().Type}
	slices.Sort(kinds)
	if !slices.Equal(kinds, []string{"ack", "messages"}) {
		t.Errorf("got %v", kinds)
	}
}

// The end of a session says where to go on in each room, after the outcome of what was under way.
func TestSessionShutdown(t *testing.T) {
	n := newNode(t, nil)
	n.cluster.set(func(c *fakeCluster) { c.members[1].ClientURL = "http://127.0.0.1:22380" })
	n.post("a", "u", "1")
	n.post("b", "u", "1")
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Rooms":["a","none"],"Since":"all"}`)
	c.of("subscribed", "")
	c.want("a/1")
	hold := make(chan struct{})
	n.log.Inject(func() chattest.Fault { return chattest.Fault{Wait: hold} })
	c.say(`{"Type":"send","Id":"s","Room":"x","User":"u","Message":"m"}`)
	c.silent()
	go n.server.Shutdown()
	eventually(t, "the server does not stop", func() bool {
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		return n.server.stopping
	})
	close(hold)
	c.of("ack", "s")
	f := c.of("end", "")
	if f.Code != "stopping" || f.Detail == "" || f.Since == "" || len(f.Cursors) != 2 || !slices.Equal(f.Endpoints, []string{"http://127.0.0.1:22380"}) {
		t.Errorf("end is %+v", f)
	}
	if f := c.of("closed", ""); f.closed.Code != websocket.StatusGoingAway {
		t.Errorf("closed with %v", f.closed)
	}
}

func TestSessionLeader(t *testing.T) {
	slow.Test(t)
	n := newNode(t, func(o *Options) { o.LeaderGrace = 2 * time.Second })
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderClientURL = "http://127.0.0.1:22380" })
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Rooms":["a"]}`)
	c.of("subscribed", "")
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 0 })
	if f := c.of("status", ""); *f.Leader || f.LeaderURL != "" {
		t.Errorf("status is %+v", f)
	}
	n.log.Inject(func() chattest.Fault { return chattest.Fault{Refuse: chattest.Error("no_leader")} })
	c.say(`{"Type":"send","Id":"s","Room":"a","User":"u","Message":"m"}`)
	if f := c.of("error", "s"); f.Code != "no_leader" || f.RetryAfter < 1 {
		t.Errorf("error is %+v", f)
	}
	n.log.Inject(nil)
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 2 })
	if f := c.of("status", ""); !*f.Leader || f.LeaderURL != "http://127.0.0.1:22380" {
		t.Errorf("status is %+v", f)
	}
	n.post("a", "u", "1")
	c.want("a/1")
	n.cluster.set(func(c *fakeCluster) { c.status.LeaderID = 0 })
	c.of("status", "")
	if f := c.of("end", ""); f.Code != "no_leader" || f.Cursors["a"] != "1" {
		t.Errorf("end is %+v", f)
	}
	if f := c.of("closed", ""); f.closed.Code != websocket.StatusTryAgainLater {
		t.Errorf("closed with %v", f.closed)
	}
}

// A client that asks and does not read makes the server neither collect answers nor lose the others.
func TestSessionDoesNotCollect(t *testing.T) {
	n := newNode(t, func(o *Options) { o.WriteTimeout, o.CloseGrace = 200*time.Millisecond, 50*time.Millisecond })
	text := strings.Repeat("x", 60<<10)
	for range 20 {
		n.post("r", "u", text)
	}
	neighbour := n.talk(0)
	neighbour.say(`{"Type":"subscribe","Rooms":["r"]}`)
	neighbour.of("subscribed", "")
	greedy := n.talk(4 << 10)
	var asking sync.WaitGroup
	asking.Go(func() {
		for greedy.conn.Write(t.Context(), websocket.MessageText, []byte(`{"Type":"history","Room":"r"}`)) == nil {
		}
	})
	eventually(t, "the greedy client is not cut", func() bool {
		n.server.mu.Lock()
		defer n.server.mu.Unlock()
		for f := range n.server.streams {
			f.session.mu.Lock()
			if size := len(f.session.answers); size > maxAnswers+20*61<<10 {
				t.Errorf("%d bytes of answers were collected", size)
			}
			f.session.mu.Unlock()
		}
		return len(n.server.streams) == 1
	})
	_ = greedy.conn.CloseNow()
	asking.Wait()
	n.post("r", "u", "on")
	neighbour.want("r/21")
}

// The cursor behind a gap can be the one that the room began at: when a message
// of another room comes next.
func TestSessionGapBeforeAnotherRoomsMessage(t *testing.T) {
	n := newNode(t, nil)
	for _, room := range []string{"a", "b", "a", "a"} {
		n.post(room, "u", "m")
	}
	n.trim("a", 4)
	c := n.talk(0)
	c.say(`{"Type":"subscribe","Rooms":["a","b"],"Since":"1"}`)
	c.of("subscribed", "")
	if f := c.of("gap", ""); f.Room != "a" || f.FirstSeq > 2 || f.LastSeq != 3 || f.ID != 1 {
		t.Errorf("gap is %+v", f)
	}
	c.want("b/1")
}
