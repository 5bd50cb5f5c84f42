package oracle

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// event is one thing that a history is told.
type event struct {
	what   string
	who    string // subscriber or replica
	m      Message
	page   []Message
	first  uint64
	second uint64
}

// story is a whole history: what happened, and what is stored at the end.
type story struct {
	events   []event
	replicas []Replica
}

func (s *story) tell() *History {
	clock := int64(0)
	h := NewHistory(func() int64 { clock++; return clock })
	posts, reads, subscribers := map[string]*Post{}, map[string]*Read{}, map[string]*Subscriber{}
	for _, e := range s.events {
		switch e.what {
		case "send":
			posts[e.m.Room+e.who] = h.Send(e.m)
		case "acknowledged":
			posts[e.m.Room+e.who].Acknowledged(e.m)
		case "refused":
			posts[e.m.Room+e.who].Refused()
		case "read":
			reads[e.who] = h.Read(e.m.Room)
		case "returned":
			reads[e.who].Returned(e.first, e.page)
		case "follow":
			subscribers[e.who] = h.Subscriber(e.who, strings.Fields(e.m.Room)...)
		case "received":
			subscribers[e.who].Received(e.m)
		case "gap":
			subscribers[e.who].Gap(e.m.Room, e.first, e.second)
		case "closed":
			subscribers[e.who].Closed()
		case "dropped":
			h.Dropped(e.m.Room, e.first)
		case "state":
			h.StateAt(e.who, e.first, e.second)
		default:
			panic(e.what)
		}
	}
	for _, r := range s.replicas {
		h.Replica(r)
	}
	return h
}

// at finds an event. seq 0: any.
func (s *story) at(what, who string, seq uint64) int {
	i := slices.IndexFunc(s.events, func(e event) bool {
		return e.what == what && (who == "" || e.who == who) && (seq == 0 || e.m.Seq == seq)
	})
	if i < 0 {
		panic(fmt.Sprint("no event ", what, " ", who, " ", seq))
	}
	return i
}

func (s *story) remove(i int) { s.events = slices.Delete(s.events, i, i+1) }

func (s *story) insert(i int, e ...event) { s.events = slices.Insert(s.events, i, e...) }

func (s *story) add(e ...event) { s.events = append(s.events, e...) }

// inReplicas changes what every replica stores.
func (s *story) inReplicas(change func(messages []Message) []Message) {
	for i := range s.replicas {
		s.replicas[i].Messages = change(s.replicas[i].Messages)
	}
}

func sent(room, clientID string) Message {
	return Message{Room: room, User: "ann", Body: "body of " + clientID, ClientID: clientID}
}

func stored(room string, seq, id uint64) Message {
	m := sent(room, fmt.Sprint("c", id))
	m.Seq, m.ID, m.PostedUS = seq, id, int64(1000*(1+id/2)) // two at a time have the same
	return m
}

// anonymous is m as /ws tells of it, bare as gRPC does.
func anonymous(m Message) Message { m.ClientID = ""; return m }
func bare(m Message) Message      { m.ID, m.PostedUS = 0, 0; return m }

// good is a history that breaks no rule. Room a has Seq 1 to 4, b has 1 to 2.
func good() *story {
	a1, a2, b1, a3, b2, a4 := stored("a", 1, 1), stored("a", 2, 2), stored("b", 1, 3), stored("a", 3, 4), stored("b", 2, 5), stored("a", 4, 6)
	s := &story{}
	send := func(m Message) event { return event{what: "send", who: m.ClientID, m: sent(m.Room, m.ClientID)} }
	ack := func(m Message) event { return event{what: "acknowledged", who: m.ClientID, m: m} }
	s.add(
		event{what: "follow", who: "all"},
		event{what: "follow", who: "both", m: Message{Room: "a b"}},
		event{what: "follow", who: "ws", m: Message{Room: "a b"}},
		event{what: "follow", who: "grpc", m: Message{Room: "a"}},
		event{what: "follow", who: "leaver", m: Message{Room: "a"}},
		event{what: "follow", who: "bystander", m: Message{Room: "nobody posts here"}},
		send(a1), ack(a1),
		event{what: "read", who: "r1", m: a1}, event{what: "returned", who: "r1", first: 1, page: []Message{a1}},
		send(a2), send(b1), // at the same time
		event{what: "read", who: "r2", m: a2}, event{what: "read", who: "r3", m: a2},
		ack(b1), ack(a2),
		event{what: "returned", who: "r2", first: 1, page: []Message{a1}},
		event{what: "returned", who: "r3", first: 2, page: []Message{a1, a2}},
		event{what: "received", who: "leaver", m: a1}, event{what: "closed", who: "leaver"},
		send(a3), // never answered, but stored
		send(b2), ack(b2), ack(b2),
		event{what: "state", who: "one", first: 7, second: 77}, event{what: "state", who: "two", first: 7, second: 77},
		send(a4), ack(a4),
		event{what: "read", who: "r4", m: a4}, event{what: "returned", who: "r4", first: 4, page: []Message{a3, a4}},
		event{what: "read", who: "r5", m: Message{Room: "nobody posts here"}}, event{what: "returned", who: "r5", first: 0},
		event{what: "read", who: "lost", m: a4},
		event{what: "send", who: "gone", m: sent("a", "gone")}, // never answered, not stored
		event{what: "send", who: "full", m: sent("b", "full")}, event{what: "refused", who: "full", m: b1},
	)
	for _, m := range []Message{a1, a2, b1, a3, b2, a4} {
		s.add(event{what: "received", who: "all", m: m}, event{what: "received", who: "both", m: m}, event{what: "received", who: "ws", m: anonymous(m)})
		if m.Room == "a" {
			s.add(event{what: "received", who: "grpc", m: bare(m)})
		}
	}
	for _, name := range []string{"one", "two", "three"} {
		s.replicas = append(s.replicas, Replica{Name: name, Applied: 9, Hash: 99, Messages: []Message{a1, a2, a3, a4, b1, b2}})
	}
	return s
}

// trimmed is good with the first two messages of a and all of b dropped before
// the end, and a subscriber that came too late for them.
func trimmed() *story {
	s := good()
	s.insert(0, event{what: "dropped", m: Message{Room: "a"}, first: 3}, event{what: "dropped", m: Message{Room: "b"}, first: 3})
	s.add(
		event{what: "follow", who: "late", m: Message{Room: "a b"}},
		event{what: "gap", who: "late", m: Message{Room: "b"}, first: 1, second: 2},
		event{what: "gap", who: "late", m: Message{Room: "a"}, first: 1, second: 2},
		event{what: "received", who: "late", m: stored("a", 3, 4)}, event{what: "received", who: "late", m: stored("a", 4, 6)},
		event{what: "read", who: "r6", m: Message{Room: "b"}}, event{what: "returned", who: "r6", first: 2},
	)
	s.inReplicas(func(m []Message) []Message { return slices.Clone(m[2:4]) })
	return s
}

func TestGoodHistories(t *testing.T) {
	for name, s := range map[string]*story{"good": good(), "trimmed": trimmed()} {
		h := s.tell()
		if found := h.Violations(); len(found) > 0 {
			t.Errorf("%s, while it happened: %v", name, found)
		}
		if found := h.Check(); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
	want := Counts{Sends: 8, Acknowledged: 5, Refused: 1, Unknown: 2, Reads: 5, Subscribers: 6, Received: 23, Replicas: 3, States: 5}
	if got := good().tell().Counts(); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
}
