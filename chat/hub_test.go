package chat

import (
	"fmt"
	"testing"

	"github.com/raft-chat/raft-chat/internal/budget"
)

func messages(from, to uint64, room string) []*Message {
	var out []*Message
	for id := from; id <= to; id++ {
		m := &Message{ID: id, Seq: id, Room: room}
		if id > 1 {
			m.prev = id - 1
		}
		out = append(out, m)
	}
	return out
}

// A subscriber that never looks costs one slot; posting goes on and wakes
// others, and the idle one is woken once.
// Who is woken must see why: the head moves before anybody hears of it, or a
// subscriber would look, find nothing and sleep on.
func TestNobodyIsWokenBeforeTheHeadMoves(t *testing.T) {
	for name, rooms := range map[string][]string{"of a room": {"a"}, "of every room": nil} {
		h := newHub(true)
		subscriber := h.subscribe(rooms)
		published := false
		h.posted([]*room{{name: "a"}}, func() {
			select {
			case <-subscriber.wake:
				t.Errorf("a subscriber %s is woken before the head moves", name)
			default:
			}
			published = true
		})
		select {
		case <-subscriber.wake:
		default:
			t.Errorf("a subscriber %s is not woken", name)
		}
		if !published {
			t.Error("nothing was published")
		}
		h.close()
	}
}

func TestHubDoesNotWaitForSubscribers(t *testing.T) {
	h := newHub(false)
	defer h.close()
	stalled, other, all := h.subscribe([]string{"a"}), h.subscribe([]string{"a", "b"}), h.subscribe(nil)
	for i := range uint64(10_000) {
		h.posted([]*room{{name: "a", roomState: roomState{last: i + 1, lastID: i + 1}}}, func() {})
	}
	<-stalled.wake
	<-other.wake
	<-all.wake
	h.mu.Lock()
	if len(h.dirty) > 2 {
		t.Errorf("%d topics queued", len(h.dirty))
	}
	if p := h.topics["a"].newest.Load(); p.seq != 10_000 {
		t.Errorf("newest is %d", p.seq)
	}
	h.mu.Unlock()
	for _, s := range []*subscriber{stalled, other, all} {
		h.unsubscribe(s)
	}
	if len(h.topics) != 0 || len(h.all.subs) != 0 {
		t.Errorf("topics left: %v", h.topics)
	}
}

// Only followers of a room are woken for it.
func TestHubWakesFollowersOnly(t *testing.T) {
	h := newHub(false)
	defer h.close()
	a, b := h.subscribe([]string{"a"}), h.subscribe([]string{"b"})
	h.posted([]*room{{name: "a", roomState: roomState{last: 1, lastID: 1}}}, func() {})
	<-a.wake
	h.posted([]*room{{name: "b", roomState: roomState{last: 1, lastID: 2}}}, func() {})
	<-b.wake
	select {
	case <-a.wake:
		t.Error("a was woken for b")
	default:
	}
}

func TestRecentBounds(t *testing.T) {
	r := newRecent(4, 1<<20, nil)
	r.add(messages(1, 10, "a"))
	if r.n != 4 || r.first != 7 {
		t.Errorf("%d messages from %d on", r.n, r.first)
	}
	if _, ok := r.after(5, 10, 10, 1<<20); ok {
		t.Error("gave a page although message 6 is gone")
	}
	for after := uint64(6); after <= 10; after++ {
		page, ok := r.after(after, 10, 2, 1<<20)
		want := []uint64{}
		for id := after + 1; id <= min(10, after+2); id++ {
			want = append(want, id)
		}
		if !ok || fmt.Sprint(seqs(page)) != fmt.Sprint(want) {
			t.Errorf("after %d: %v, %v", after, seqs(page), ok)
		}
	}
	if page, ok := r.after(7, 8, 10, 1<<20); !ok || len(page) != 1 {
		t.Errorf("beyond the head: %v", seqs(page))
	}
	if page, ok := r.after(6, 10, 10, 1); !ok || len(page) != 1 {
		t.Errorf("a page of few bytes has %d messages", len(page))
	}
	if page, ok := r.room(position{10, 10}, 7); !ok || fmt.Sprint(seqs(page)) != "[7 8 9 10]" {
		t.Errorf("walk: %v, %v", seqs(page), ok)
	}
	if _, ok := r.room(position{10, 10}, 6); ok {
		t.Error("walked to a message that is gone")
	}
	small := newRecent(100, 3*messageOverhead, nil)
	small.add(messages(1, 10, "a"))
	if small.n != 3 || small.bytes > small.maxBytes {
		t.Errorf("%d messages, %d bytes", small.n, small.bytes)
	}
	small.add(messages(20, 20, "a"))
	if small.n != 1 || small.first != 20 {
		t.Error("kept messages before a gap")
	}
	small.reset()
	if _, ok := small.after(19, 20, 10, 1<<20); ok || small.bytes != 0 {
		t.Error("reset left something")
	}
}

// Encodings are made once and shared.
func TestEncoded(t *testing.T) {
	m := &Message{}
	calls := 0
	encode := func(*Message) []byte { calls++; return []byte{byte(calls)} }
	for form := range forms {
		first := m.Encoded(form, encode)
		if again := m.Encoded(form, encode); &again[0] != &first[0] || calls != form+1 {
			t.Errorf("form %d was encoded again", form)
		}
	}
}

// The encodings of recent messages are bounded with them, and go with them.
func TestEncodingsAreBounded(t *testing.T) {
	cache := budget.New(100 << 10).Account(budget.Cache) // 10 KiB of it
	encode := func(*Message) []byte { return make([]byte, 1000) }
	for name, account := range map[string]*budget.Account{"alone": nil, "in a budget": cache} {
		r := newRecent(4, 1<<20, account)
		r.encodings.max = 20_000
		for round := range uint64(10) {
			list := messages(10*round+1, 10*round+10, "a")
			r.add(list)
			for _, m := range list {
				for form := range forms {
					first, again := m.Encoded(form, encode), m.Encoded(form, encode)
					if kept := &first[0] == &again[0]; kept && m.ID < r.first {
						t.Errorf("%s: an encoding of message %d is kept, which is no longer recent", name, m.ID)
					}
				}
			}
			if used := r.encodings.used.Load(); used > 4*forms*1000 || used != account.Used() && account != nil || used > account.Limit() && account != nil || used == 0 {
				t.Errorf("%s: %d bytes of encodings, %d in the account", name, used, account.Used())
			}
		}
		r.reset()
		if used := r.encodings.used.Load(); used != 0 || account.Used() != 0 {
			t.Errorf("%s: %d bytes are left, %d in the account", name, used, account.Used())
		}
	}
}
