package oracle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// explicable decides by trying every order.
func explicable(last uint64, left []operation) bool {
	if len(left) == 0 {
		return true
	}
	end := int64(math.MaxInt64)
	for _, op := range left {
		end = min(end, op.ended)
	}
	for i, op := range left {
		if op.begun > end || op.post && op.seq != last+1 || !op.post && op.seq != last {
			continue
		}
		rest := append(append([]operation(nil), left[:i]...), left[i+1:]...)
		if explicable(op.seq, rest) {
			return true
		}
	}
	return false
}

// Whether the search takes a history in one piece or in several, it says what
// trying every order says.
func TestPiecesGiveTheSameAnswer(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	answers := map[bool]int{}
	for range 3000 {
		n := 2 + random.IntN(6)
		moments := random.Perm(2 * n)
		r := &room{name: "a"}
		var operations []operation
		seq := uint64(0)
		for i := range n {
			begun, ended := int64(moments[2*i]+1), int64(moments[2*i+1]+1)
			if begun > ended {
				begun, ended = ended, begun
			}
			if random.IntN(2) == 0 {
				seq++
				p := &Post{seq: seq, begun: date{moment: begun}}
				if random.IntN(4) > 0 {
					p.ended.moment = ended
				} else {
					ended = math.MaxInt64
				}
				r.sent = append(r.sent, p)
				operations = append(operations, operation{true, seq, begun, ended})
			} else {
				last := uint64(random.IntN(3))
				r.reads = append(r.reads, &Read{room: r, begun: date{moment: begun}, ended: date{moment: ended}, last: last})
				operations = append(operations, operation{false, last, begun, ended})
			}
		}
		want := explicable(0, operations)
		answers[want]++
		for _, size := range []int{1, 2, 100} {
			var found findings
			r.checkPieces(&found, size)
			if (len(found.list) == 0) != want {
				t.Fatalf("in pieces of %d the answer is %v, every order says %v: %+v", size, found.list, want, operations)
			}
		}
	}
	if answers[true] < 100 || answers[false] < 100 {
		t.Errorf("too few of one kind to mean anything: %v", answers)
	}
}

// A search that does not end is never taken for a good history.
func TestSearchThatDoesNotEnd(t *testing.T) {
	// All reads could have been anywhere, and the post that none of them saw
	// had ended before the last one began.
	r := &room{name: "a"}
	for i := range 40 {
		r.reads = append(r.reads, &Read{room: r, begun: date{moment: int64(1 + i)}, ended: date{moment: 1000}})
	}
	r.sent = []*Post{
		{seq: 1, begun: date{moment: 1}, ended: date{moment: 900}},
		{seq: 2, begun: date{moment: 1}, ended: date{moment: 900}},
	}
	r.reads = append(r.reads, &Read{room: r, begun: date{moment: 950}, ended: date{moment: 1000}, last: 1})
	var found findings
	r.checkPieces(&found, mostOperations)
	if len(found.list) != 1 || found.list[0].Rule != "O6" || !strings.Contains(found.list[0].Detail, "not finished") {
		t.Errorf("found %v, want O6 that the search has not finished", found.list)
	}
}

// busy is a history as a simulated cluster makes it: some posts and reads at
// the same time, of which each is given a place by chance.
func busy(operations, rooms, replicas int) *History {
	random := rand.New(rand.NewPCG(3, 4))
	clock := int64(0)
	h := NewHistory(func() int64 { clock++; return clock })
	subscribers := []*Subscriber{h.Subscriber("one"), h.Subscriber("two"), h.Subscriber("three", "room-0")}
	var log []Message
	content := map[string][]Message{}
	type pending struct {
		answer func()
	}
	var open []pending
	for i := range operations {
		room := fmt.Sprint("room-", random.IntN(rooms))
		if random.IntN(3) > 0 {
			m := Message{Room: room, User: "ann", Body: fmt.Sprint("the message number ", i), ClientID: fmt.Sprint(i)}
			p := h.Send(m)
			m.Seq, m.ID, m.PostedUS = uint64(len(content[room])+1), uint64(len(log)+1), int64(1+i)
			log, content[room] = append(log, m), append(content[room], m)
			if random.IntN(20) > 0 { // else it is never answered
				open = append(open, pending{func() { p.Acknowledged(m) }})
			}
		} else {
			r, all := h.Read(room), content[room]
			open = append(open, pending{func() { r.Returned(uint64(len(all)), all[max(0, len(all)-10):]) }})
		}
		for len(open) > 4 {
			k := random.IntN(len(open))
			open[k].answer()
			open[k] = open[len(open)-1]
			open = open[:len(open)-1]
		}
	}
	for _, p := range open {
		p.answer()
	}
	for _, m := range log {
		subscribers[0].Received(m)
		subscribers[1].Received(m)
		if m.Room == "room-0" {
			subscribers[2].Received(m)
		}
	}
	for i := range replicas {
		h.Replica(Replica{Name: fmt.Sprint(i), Applied: 1, Hash: 1, Messages: log})
	}
	return h
}

func TestLongHistory(t *testing.T) {
	if found := busy(20_000, 2, 3).Check(); len(found) > 0 {
		t.Error(found)
	}
}

func BenchmarkTellAndCheck(b *testing.B) {
	for _, n := range []int{300, 30_000} {
		b.Run(fmt.Sprint("operations=", n), func(b *testing.B) {
			for b.Loop() {
				if found := busy(n, 3, 3).Check(); len(found) > 0 {
					b.Fatal(found)
				}
			}
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	h := busy(300, 3, 3)
	for b.Loop() {
		if found := h.Check(); len(found) > 0 {
			b.Fatal(found)
		}
	}
}
