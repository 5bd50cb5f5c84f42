package oracle

import (
	"slices"
	"strings"
	"testing"
)

// change is one thing that goes wrong in a good history.
type change struct {
	name string
	do   func(s *story)
	rule string
	want string // part of the detail
}

func page(messages ...Message) []Message { return messages }

func changesOfGood() []change {
	a1, a2, a4, b1, b2 := stored("a", 1, 1), stored("a", 2, 2), stored("a", 4, 6), stored("b", 1, 3), stored("b", 2, 5)
	set := func(what, who string, seq uint64, f func(m *Message)) func(*story) {
		return func(s *story) { f(&s.events[s.at(what, who, seq)].m) }
	}
	everywhere := func(seq uint64, f func(m *Message)) func(*story) { // of room a
		return func(s *story) {
			s.inReplicas(func(messages []Message) []Message {
				messages = slices.Clone(messages)
				f(&messages[seq-1])
				return messages
			})
		}
	}
	onOne := func(f func(m []Message) []Message) func(*story) {
		return func(s *story) {
			s.replicas[2].Messages = f(slices.Clone(s.replicas[2].Messages))
			s.replicas[2].Applied, s.replicas[2].Hash = 10, 100 // no matter for O5
		}
	}
	return []change{
		{"lost everywhere", func(s *story) {
			s.inReplicas(func(m []Message) []Message { return slices.Clone(m[:5]) })
		}, "O1", "two does not have a message of which an acknowledgement told: b/2"},
		{"lost in the middle", onOne(func(m []Message) []Message { return slices.Delete(m, 1, 2) }), "O1", "three has Seq 3 in room \"a\" where 2"},
		{"lost at the beginning", onOne(func(m []Message) []Message { return m[1:] }), "O1", "three begins room \"a\" with Seq 2"},
		{"lost on a replica", onOne(func(m []Message) []Message { return m[:5] }), "O1", "three does not have"},
		{"lost, known from another replica", onOne(func(m []Message) []Message { return slices.Delete(m, 2, 3) }), "O1", "three"},
		{"stored body changed", onOne(func(m []Message) []Message { m[0].Body = "body of c2"; return m }), "O3", "what was sent is"},
		{"stored at another ID", onOne(func(m []Message) []Message { m[0].ID, m[1].ID = 2, 1; return m }), "O1", "three tells of a/1"},
		{"ID out of the count", everywhere(4, func(m *Message) { m.ID = 9 }), "O1", "lacks 3 of the IDs up to 9"},
		{"ID twice", everywhere(4, func(m *Message) { m.ID = 5 }), "O1", "has ID 5 twice"},
		{"stored at another time", everywhere(1, func(m *Message) { m.PostedUS++ }), "O1", "tells of a/1"},
		{"time goes back", everywhere(3, func(m *Message) { m.PostedUS = 1 }), "O1", "behind b/1"},
		{"answer at another time", set("acknowledged", "c2", 2, func(m *Message) { m.PostedUS++ }), "O1", "tells of a/2"},
		{"answer of another message", set("acknowledged", "c2", 2, func(m *Message) { *m = a1 }), "O1", "was posted, the answer is"},
		{"answer without Seq", set("acknowledged", "c2", 2, func(m *Message) { m.Seq = 0 }), "O1", "no message can have"},
		{"answer with an impossible ID", set("acknowledged", "c2", 2, func(m *Message) { m.ID = 1 }), "O1", "no message can have"},
		{"nothing noted of the end", func(s *story) { s.replicas = nil }, "O1", "was not noted"},

		{"delivery left out", func(s *story) { s.remove(s.at("received", "grpc", 2)) }, "O2", "grpc got a/3"},
		{"delivery left out at the end", func(s *story) { s.remove(s.at("received", "all", 4)) }, "O2", "all has seen room \"a\" up to 3, which goes on to 4"},
		{"follower that got nothing", func(s *story) { s.add(event{what: "follow", who: "deaf", m: Message{Room: "b"}}) }, "O2", "deaf has seen room \"b\" up to 0"},
		{"follower of all that got nothing", func(s *story) { s.add(event{what: "follow", who: "deaf"}) }, "O2", "deaf has seen room \"b\" up to 0"},
		{"delivered twice", func(s *story) { i := s.at("received", "ws", 2); s.insert(i, s.events[i]) }, "O2", "when Seq 3 was next"},
		{"delivered in another order", func(s *story) {
			i, j := s.at("received", "grpc", 1), s.at("received", "grpc", 2)
			s.events[i], s.events[j] = s.events[j], s.events[i]
		}, "O2", "when Seq 1 was next"},
		{"rooms in another order", func(s *story) {
			i := s.at("received", "both", 3)
			j := slices.IndexFunc(s.events, func(e event) bool { return e.who == "both" && e.m.ID == 5 })
			s.events[i], s.events[j] = s.events[j], s.events[i]
		}, "O2", "behind ID 5"},
		{"delivered with another content", set("received", "ws", 2, func(m *Message) { m.Body = a1.Body }), "O2", "ws tells of a/2"},
		{"delivered with another ID", set("received", "all", 4, func(m *Message) { m.ID = 7 }), "O2", "all tells of a/4"},
		{"delivered at another time", set("received", "ws", 4, func(m *Message) { m.PostedUS++ }), "O2", "ws tells of a/4"},
		{"delivered from elsewhere", func(s *story) { s.add(event{what: "received", who: "grpc", m: b1}) }, "O2", "does not follow"},
		{"delivered without Seq", set("received", "grpc", 4, func(m *Message) { m.Seq = 0 }), "O2", "without Seq"},
		{"delivered and not stored", func(s *story) {
			s.add(event{what: "received", who: "grpc", m: Message{Room: "a", Seq: 5, User: "ann", Body: "body of gone", ClientID: "gone"}})
		}, "O2", "one does not have a message of which a delivery told"},
		{"gap where nothing was dropped", func(s *story) {
			s.events[s.at("received", "grpc", 2)] = event{what: "gap", who: "grpc", m: Message{Room: "a"}, first: 2, second: 2}
		}, "O2", "which were not dropped"},

		{"delivered and never sent", func(s *story) {
			s.add(event{what: "received", who: "grpc", m: Message{Room: "a", Seq: 5, User: "ann", Body: "x", ClientID: "x"}})
		}, "O3", "grpc tells of a message that was never sent"},
		{"delivered without client id and never sent", func(s *story) {
			s.add(event{what: "received", who: "ws", m: Message{Room: "a", Seq: 5, ID: 7, User: "ann", Body: "x"}})
		}, "O3", "ws tells of a message that was never sent"},
		{"delivered by another author", set("received", "all", 4, func(m *Message) { m.User = "bob" }), "O3", "what was sent is"},
		{"read and never sent", func(s *story) { s.events[s.at("returned", "r4", 0)].page[1].ClientID = "x" }, "O3", "a read tells of a message that was never sent"},
		{"stored and never sent", func(s *story) {
			s.inReplicas(func(m []Message) []Message {
				x := stored("b", 3, 7)
				return append(slices.Clone(m), x)
			})
		}, "O3", "one tells of a message that was never sent"},
		{"stored in another room", func(s *story) {
			s.inReplicas(func(m []Message) []Message {
				x := sent("b", "gone")
				x.Seq, x.ID, x.PostedUS = 3, 7, 9000
				return append(slices.Clone(m), x)
			})
		}, "O3", "one tells of a message that was never sent"},
		{"stored without the client id", everywhere(4, func(m *Message) { m.ClientID = "" }), "O3", "one has a message without its client id"},
		{"refused and stored", func(s *story) {
			s.inReplicas(func(m []Message) []Message {
				x := sent("b", "full")
				x.Seq, x.ID, x.PostedUS = 3, 7, 9000
				return append(slices.Clone(m), x)
			})
		}, "O3", "every attempt was refused, and a replica tells of Seq 3"},

		{"stored twice", func(s *story) {
			s.inReplicas(func(m []Message) []Message {
				x := b2
				x.Seq, x.ID = 3, 7
				x.PostedUS = 9000
				return append(slices.Clone(m), x)
			})
		}, "O4", "others say that it has Seq 2"},
		{"acknowledged at two places", func(s *story) {
			x := b2
			x.Seq, x.ID = 3, 7
			s.insert(s.at("acknowledged", "c5", 2)+1, event{what: "acknowledged", who: "c5", m: x})
		}, "O4", "others say that it has Seq 2"},
		{"read at another place", func(s *story) {
			e := &s.events[s.at("returned", "r3", 0)]
			x := a1
			x.Seq, x.ID = 2, 2
			e.page = page(a1, x)
		}, "O4", "a read tells of a/2"},
		{"delivered at another place", set("received", "grpc", 4, func(m *Message) { m.Seq = 5 }), "O4", "grpc tells of a/5"},

		{"other hash along the way", func(s *story) { s.events[s.at("state", "two", 0)].second = 78 }, "O5", "at applied index 7"},
		{"other hash at the end", func(s *story) { s.replicas[1].Hash = 98 }, "O5", "at applied index 9"},
		{"other messages at the same index", func(s *story) { s.replicas[1].Messages = s.replicas[1].Messages[:5] }, "O5", "one and two have applied the same 9 entries"},

		{"stale read", func(s *story) {
			s.events[s.at("returned", "r4", 0)].first, s.events[s.at("returned", "r4", 0)].page = 2, page(a1, a2)
		}, "O6", "a read that saw Seq 2 must come before the post of Seq 4, which had ended when that began"},
		{"read beyond the end", func(s *story) {
			s.add(event{what: "read", who: "r9", m: a1}, event{what: "returned", who: "r9", first: 9, page: nil})
		}, "O6", "a read that saw Seq 9 cannot come when the newest is 4"},
		{"read of what was not sent yet", func(s *story) {
			e := &s.events[s.at("returned", "r1", 0)]
			e.first, e.page = 2, page(a1, a2)
		}, "O6", "no order explains"},
		{"reads that see the message come and go", func(s *story) {
			// Both in the time of the post of a2, one after the other.
			i := s.at("returned", "r3", 0)
			moved := s.events[i]
			s.remove(i)
			s.insert(s.at("read", "r3", 0)+1, moved,
				event{what: "read", who: "r7", m: a1}, event{what: "returned", who: "r7", first: 1, page: page(a1)})
		}, "O6", "no order explains"},
		{"message of unknown outcome that vanishes from reads", func(s *story) {
			// Seq 3 was read, the post of it has not ended.
			a3 := stored("a", 3, 4)
			s.insert(s.at("send", "c4", 0)+1,
				event{what: "read", who: "r7", m: a1}, event{what: "returned", who: "r7", first: 3, page: page(a3)},
				event{what: "read", who: "r8", m: a1}, event{what: "returned", who: "r8", first: 2, page: page(a2)})
		}, "O6", "no order explains"},
		{"later post that came first", func(s *story) {
			// As if c1 had been sent only when c6 was acknowledged.
			e := s.events[s.at("send", "c6", 0)]
			s.remove(s.at("send", "c6", 0))
			ack := s.events[s.at("acknowledged", "c6", 0)]
			s.remove(s.at("acknowledged", "c6", 0))
			s.insert(s.at("send", "c1", 0), e, ack)
		}, "O6", "no order explains"},
		{"read of nothing", func(s *story) { s.events[s.at("returned", "r4", 0)].page = nil }, "O6", "got nothing"},
		{"read of a page with a hole", func(s *story) { s.events[s.at("returned", "r4", 0)].page = page(a2, a4) }, "O6", "has Seq 2 where 3 should be"},
		{"read of a page that ends early", func(s *story) { s.events[s.at("returned", "r3", 0)].page = page(a1) }, "O6", "has Seq 1 where 2 should be"},
		{"read of another room", func(s *story) { s.events[s.at("returned", "r3", 0)].page = page(a1, b2) }, "O6", "a message of another"},
		{"read with another ID", func(s *story) { s.events[s.at("returned", "r4", 0)].page[1].ID = 7 }, "O6", "a read tells of a/4"},
		{"read and not stored", func(s *story) {
			x := sent("a", "gone")
			x.Seq, x.ID, x.PostedUS = 5, 7, 9000
			s.add(event{what: "read", who: "r9", m: a1}, event{what: "returned", who: "r9", first: 5, page: page(x)})
		}, "O6", "one does not have a message of which a read told"},
	}
}

func changesOfTrimmed() []change {
	return []change{
		{"dropped too much", func(s *story) { s.inReplicas(func(m []Message) []Message { return m[1:] }) }, "O1", "begins room \"a\" with Seq 4, messages from 3 on"},
		{"dropped all of it", func(s *story) { s.inReplicas(func([]Message) []Message { return nil }) }, "O1", "does not have a message"},
		{"more IDs missing than dropped", func(s *story) {
			s.inReplicas(func(m []Message) []Message { m[1].ID = 9; return m })
		}, "O1", "lacks 7 of the IDs up to 9, at most 4"},
		{"dropped by one of them", func(s *story) {
			s.replicas[1].Messages = append([]Message{stored("a", 2, 2)}, s.replicas[1].Messages...)
		}, "O5", "have applied the same 9 entries"},
		{"told of less than was dropped", func(s *story) { s.events[s.at("gap", "late", 0)].second = 1 }, "O2", "late has seen room \"b\" up to 1"},
		{"told of more than was dropped", func(s *story) { s.remove(s.at("dropped", "", 0)) }, "O2", "which were not dropped"},
		{"told of what it has seen", func(s *story) {
			s.add(event{what: "gap", who: "late", m: Message{Room: "a"}, first: 1, second: 2})
		}, "O2", "was told of a gap from 1 to 2 of room \"a\" when Seq 5"},
		{"told of what comes later", func(s *story) {
			s.events[s.at("gap", "late", 0)].first = 2
		}, "O2", "was told of a gap from 2 to 2"},
		{"not told", func(s *story) { s.remove(s.at("gap", "late", 0)) }, "O2", "late has seen room \"b\" up to 0"},
	}
}

// A judge that finds nothing wrong is only worth something if it finds each of
// the things that can be wrong.
func TestEveryRuleCanBeBroken(t *testing.T) {
	broken := map[string]bool{}
	for _, of := range []struct {
		story   func() *story
		changes []change
	}{{good, changesOfGood()}, {trimmed, changesOfTrimmed()}} {
		for _, c := range of.changes {
			t.Run(c.name, func(t *testing.T) {
				s := of.story()
				c.do(s)
				found := s.tell().Check()
				if !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == c.rule && strings.Contains(v.Detail, c.want) }) {
					t.Errorf("want %s about %q, found %v", c.rule, c.want, found)
				}
				same := of.story()
				c.do(same)
				if again := same.tell().Check(); !slices.Equal(again, found) {
					t.Errorf("the second time it is %v, the first time it was %v", again, found)
				}
				broken[c.rule] = true
			})
		}
	}
	for _, r := range rules {
		if !broken[r] {
			t.Errorf("no change breaks %s", r)
		}
	}
}
