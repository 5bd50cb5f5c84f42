package chat_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat"
)

func TestTrim(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	_, err := w.Trim(ctxOf(t), nobody, "a", 1)
	wantCode(t, "absent room", err, chat.CodeRoomNotFound)
	_, err = w.Trim(ctxOf(t), nobody, "a/b", 1)
	wantCode(t, "bad name", err, chat.CodeRoomNameInvalid)
	if _, _, err := w.CreateRoom(ctxOf(t), nobody, "empty", ""); err != nil {
		t.Fatal(err)
	}
	if info, err := w.Trim(ctxOf(t), nobody, "empty", 9); err != nil || info.FirstSeq != 0 || info.LastSeq != 0 {
		t.Errorf("empty room: %+v, %v", info, err)
	}
	for i := range 10 {
		w.post(t, "a", fmt.Sprint(i+1))
	}
	room := func() chat.RoomInfo {
		rooms, _, err := w.Rooms(ctxOf(t), nobody, chat.RoomsQuery{Prefix: "a"})
		if err != nil || len(rooms) != 1 {
			t.Fatal(rooms, err)
		}
		return rooms[0]
	}
	posted := room().LastPostedAt
	for _, c := range []struct{ below, first, messages uint64 }{{0, 1, 10}, {1, 1, 10}, {4, 4, 7}, {2, 4, 7}, {11, 11, 0}, {^uint64(0), 11, 0}} {
		info, err := w.Trim(ctxOf(t), nobody, "a", c.below)
		if err != nil || info.FirstSeq != c.first || info.LastSeq != 10 || info.Messages != c.messages || !info.LastPostedAt.Equal(posted) || info != room() {
			t.Errorf("below %d: %+v, %v", c.below, info, err)
		}
		p, err := w.Messages(ctxOf(t), nobody, "a", chat.Page{})
		if err != nil || !p.Exists || uint64(len(p.Messages)) != c.messages || p.Earlier || p.Later {
			t.Errorf("below %d: a page of %d, earlier %v, later %v, %v", c.below, len(p.Messages), p.Earlier, p.Later, err)
		}
		_, err = w.Message(ctxOf(t), nobody, "a", c.first-1, false)
		wantCode(t, "dropped message", err, chat.CodeMessageNotFound)
	}
	if m := w.post(t, "a", "11"); m.Seq != 11 {
		t.Errorf("posted %d", m.Seq)
	}
	if info := room(); info.FirstSeq != 11 || info.LastSeq != 11 || info.Messages != 1 {
		t.Errorf("%+v", info)
	}
}

// Pages of a trimmed room end at its first message.
func TestPagesOverTrim(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	for i := range 10 {
		w.post(t, "a", fmt.Sprint(i+1))
	}
	if _, err := w.Trim(ctxOf(t), nobody, "a", 5); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		page           chat.Page
		from, to       uint64
		earlier, later bool
	}{
		{chat.Page{}, 5, 10, false, false},
		{chat.Page{After: ptr(0), Limit: 2}, 5, 6, false, true},
		{chat.Page{After: ptr(3), Limit: 2}, 5, 6, false, true},
		{chat.Page{After: ptr(5), Limit: 2}, 6, 7, true, true},
		{chat.Page{Before: ptr(7)}, 5, 6, false, true},
		{chat.Page{Before: ptr(3)}, 0, 0, false, true},
		{chat.Page{After: ptr(1), Before: ptr(4)}, 0, 0, false, true},
	} {
		p, err := w.Messages(ctxOf(t), nobody, "a", c.page)
		var from, to uint64
		if n := len(p.Messages); n > 0 {
			from, to = p.Messages[0].Seq, p.Messages[n-1].Seq
		}
		if err != nil || from != c.from || to != c.to || p.Earlier != c.earlier || p.Later != c.later {
			t.Errorf("%+v: %d to %d, earlier %v, later %v, %v", c, from, to, p.Earlier, p.Later, err)
		}
	}
}

// The client message id of a dropped message is remembered for the dedup window,
// and forgotten by the first trim after it.
func TestTrimKeepsClientMessageIDs(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var clock sync.Mutex
	w := newWorld(t, chat.ServiceOptions{Now: func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return at
	}})
	pass := func(d time.Duration) {
		clock.Lock()
		at = at.Add(d)
		clock.Unlock()
	}
	post := func(user, id, text string) (*chat.Message, bool, error) {
		return w.Post(ctxOf(t), nobody, chat.PostRequest{Room: "a", User: user, Payload: []byte(text), ClientMessageID: id})
	}
	first, _, err := post("ann", "1", "one")
	if err != nil {
		t.Fatal(err)
	}
	trim := func() {
		t.Helper()
		if _, err := w.Trim(ctxOf(t), nobody, "a", ^uint64(0)); err != nil {
			t.Fatal(err)
		}
	}
	known := func(what string) {
		t.Helper()
		m, dup, err := post("ann", "1", "one")
		if err != nil || !dup || !m.Trimmed || m.Payload != nil || m.Seq != first.Seq || m.ID != first.ID || m.User != "ann" ||
			m.Room != "a" || m.ClientMessageID != "1" || !m.PostedAt.Equal(first.PostedAt) {
			t.Errorf("%s, the same again: %+v, %v, %v", what, m, dup, err)
		}
		for _, other := range [][2]string{{"bob", "one"}, {"ann", "another"}} {
			_, _, err = post(other[0], "1", other[1])
			wantCode(t, what+", another", err, chat.CodeClientMessageIDConflict)
			var e *chat.Error
			if errors.As(err, &e) && e.Seq != first.Seq {
				t.Errorf("%s: in conflict with %d", what, e.Seq)
			}
		}
	}
	trim()
	known("at once")
	pass(chat.DefaultDedupWindow)
	trim()
	known("after an hour")
	if err := w.SetDedupWindow(ctxOf(t), nobody, 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	pass(time.Hour)
	trim()
	known("after two, which is the window now")
	for _, d := range []time.Duration{time.Hour - 1, 0, -time.Hour, chat.MaxDedupWindow + time.Microsecond} {
		wantCode(t, fmt.Sprint("a window of ", d), w.SetDedupWindow(ctxOf(t), nobody, d), chat.CodeLimitInvalid)
	}
	pass(time.Microsecond)
	trim()
	if m, dup, err := post("ann", "1", "one"); err != nil || dup || m.Trimmed || m.Seq != 2 {
		t.Errorf("after the window: %+v, %v, %v", m, dup, err)
	}
	// What is stored is remembered however old it is.
	pass(100 * time.Hour)
	trim2, err := w.Trim(ctxOf(t), nobody, "a", 1)
	if m, dup, err2 := post("ann", "1", "one"); err != nil || err2 != nil || !dup || m.Trimmed || m.Seq != 2 || trim2.Messages != 1 {
		t.Errorf("stored: %+v, %v, %v, %v", m, dup, err, err2)
	}
}

// A long room goes in steps, while others post to it.
func TestTrimInSteps(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	const n = 9000
	var posts sync.WaitGroup
	for range 100 {
		posts.Go(func() {
			for range n / 100 {
				w.post(t, "a", "x")
			}
		})
	}
	posts.Wait()
	before, _ := w.store.Applied()
	posts.Go(func() { w.post(t, "a", "meanwhile") })
	info, err := w.Trim(ctxOf(t), nobody, "a", n)
	posts.Wait()
	after, _ := w.store.Applied()
	if err != nil || info.FirstSeq != n || after-before < 4 {
		t.Errorf("%+v after %d entries, %v", info, after-before, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = w.Trim(ctx, nobody, "a", n+1)
	wantCode(t, "ended context", err, chat.CodeTimeoutNotSent)
}

// deliver reads deliveries until the stream is at ID end.
func deliver(t *testing.T, st *chat.Stream, end uint64) (got []string) {
	t.Helper()
	for st.Cursor() < end {
		d, err := st.NextDelivery(ctxOf(t))
		if err != nil {
			t.Errorf("after %v: %v", got, err)
			return got
		}
		for _, g := range d.Gaps {
			got = append(got, fmt.Sprintf("gap %s %d-%d", g.Room, g.FirstSeq, g.LastSeq))
		}
		for _, m := range d.Messages {
			got = append(got, fmt.Sprintf("%s/%d", m.Room, m.Seq))
		}
	}
	return got
}

// A stream that delivered what is dropped is not told, one that has not is, once.
func TestGaps(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	for range 3 {
		w.post(t, "a", "x") // IDs 1 4 7
		w.post(t, "b", "x") // IDs 2 5 8
		w.post(t, "c", "x") // IDs 3 6 9
	}
	has := map[string]*chat.Stream{}
	for name, rooms := range map[string][]string{"all": nil, "a": {"a"}, "ab": {"a", "b"}} {
		has[name] = follow(t, w.Service, rooms, chat.Cursor{})
	}
	deliver(t, has["all"], 9)
	deliver(t, has["a"], 7)
	deliver(t, has["ab"], 8)
	stalled := follow(t, w.Service, []string{"a"}, chat.Cursor{})
	if _, err := w.Trim(ctxOf(t), nobody, "a", 3); err != nil {
		t.Fatal(err)
	}
	w.post(t, "a", "x") // ID 10
	for name, st := range has {
		if got := fmt.Sprint(deliver(t, st, 10)); got != "[a/4]" {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, c := range []struct {
		what string
		st   *chat.Stream
		want string
	}{
		{"stalled", stalled, "[gap a 1-2 a/3 a/4]"},
		{"a", follow(t, w.Service, []string{"a"}, chat.Cursor{}), "[gap a 1-2 a/3 a/4]"},
		{"a after 4", follow(t, w.Service, []string{"a"}, chat.Cursor{ID: 4}), "[a/3 a/4]"},
		{"a after 3", follow(t, w.Service, []string{"a"}, chat.Cursor{ID: 3}), "[gap a 2-2 a/3 a/4]"},
		{"all", follow(t, w.Service, nil, chat.Cursor{}), "[gap a 1-2 b/1 c/1 b/2 c/2 a/3 b/3 c/3 a/4]"},
		{"all after 3", follow(t, w.Service, nil, chat.Cursor{ID: 3}), "[gap a 2-2 b/2 c/2 a/3 b/3 c/3 a/4]"},
		{"ab", follow(t, w.Service, []string{"a", "b"}, chat.Cursor{}), "[gap a 1-2 b/1 b/2 a/3 b/3 a/4]"},
	} {
		if got := fmt.Sprint(deliver(t, c.st, 10)); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}

	// A room that is emptied before anybody read on.
	w.post(t, "a", "x")
	if _, err := w.Trim(ctxOf(t), nobody, "a", 99); err != nil {
		t.Fatal(err)
	}
	for name, st := range has {
		if got := fmt.Sprint(deliver(t, st, 11)); got != "[gap a 5-5]" {
			t.Errorf("%s: %s", name, got)
		}
	}
	// Next passes over gaps.
	last := w.post(t, "a", "x")
	if m := collect(t, follow(t, w.Service, []string{"a"}, chat.Cursor{}), 1)[0]; m.ID != last.ID {
		t.Errorf("next gave %d", m.Seq)
	}
}

// More gaps than fit into a delivery all come before what is behind them.
func TestManyGaps(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	const n = 600
	for i := range n {
		w.post(t, fmt.Sprintf("room-%d", i), "x")
	}
	for i := range n {
		if _, err := w.Trim(ctxOf(t), nobody, fmt.Sprintf("room-%d", i), 9); err != nil {
			t.Fatal(err)
		}
	}
	end := w.post(t, "end", "x").ID
	got := deliver(t, follow(t, w.Service, nil, chat.Cursor{}), end)
	told := map[string]bool{}
	for _, g := range got[:len(got)-1] {
		told[g] = true
	}
	if len(got) != n+1 || len(told) != n || got[n] != "end/1" {
		t.Errorf("%d deliveries, %d gaps, the last is %s", len(got), len(told), got[len(got)-1])
	}
}

func TestCursorAfterSeq(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	for range 6 {
		w.post(t, "b", "x")
		w.post(t, "a", "x")
	}
	if _, err := w.Trim(ctxOf(t), nobody, "a", 4); err != nil {
		t.Fatal(err)
	}
	const end = 20
	streams := map[string]*chat.Stream{}
	for room, after := range map[string][]uint64{"a": {0, 1, 2, 3, 4, 6, 8}, "late": {0, 1}} {
		for _, seq := range after {
			c, err := w.CursorAfterSeq(ctxOf(t), nobody, room, seq, false)
			if err != nil {
				t.Fatal(err)
			}
			streams[fmt.Sprint(room, " ", seq)] = follow(t, w.Service, []string{room}, c)
		}
	}
	for range 3 {
		w.post(t, "a", "x")
		w.post(t, "late", "x")
	}
	w.post(t, "late", "x")
	w.post(t, "a", "x")
	for what, want := range map[string]string{
		"a 0": "[gap a 1-3 a/4 a/5 a/6 a/7 a/8 a/9 a/10]",
		"a 1": "[gap a 2-3 a/4 a/5 a/6 a/7 a/8 a/9 a/10]",
		"a 2": "[gap a 3-3 a/4 a/5 a/6 a/7 a/8 a/9 a/10]",
		"a 3": "[a/4 a/5 a/6 a/7 a/8 a/9 a/10]",
		"a 4": "[a/5 a/6 a/7 a/8 a/9 a/10]",
		"a 6": "[a/7 a/8 a/9 a/10]",
		"a 8": "[gap a 1-6 a/7 a/8 a/9 a/10]", // nobody has posted it

		"late 0": "[late/1 late/2 late/3 late/4]",
		"late 1": "[gap late 1-0 late/1 late/2 late/3 late/4]",
	} {
		last := uint64(end)
		if strings.HasPrefix(what, "late") {
			last--
		}
		if got := fmt.Sprint(deliver(t, streams[what], last)); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	_, err := w.CursorAfterSeq(ctxOf(t), nobody, "a/b", 1, false)
	wantCode(t, "bad name", err, chat.CodeRoomNameInvalid)
	_, err = w.CursorAfterSeq(ctxOf(t), nobody, "a", ^uint64(0), false)
	wantCode(t, "last number", err, chat.CodeCursorInvalid)
}

func TestCursorAtTime(t *testing.T) {
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	start := at
	w := newWorld(t, chat.ServiceOptions{Now: func() time.Time { return at }})
	check := func(what string, t0 time.Time, want uint64) {
		t.Helper()
		if c, err := w.CursorAtTime(ctxOf(t), nobody, t0, false); err != nil || c.ID != want || c.Latest {
			t.Errorf("%s: %d, %v; want %d", what, c.ID, err, want)
		}
	}
	check("no messages", start, 0)
	for i := range 50 { // messages 2i+1 and 2i+2 are posted in minute i
		w.post(t, fmt.Sprintf("room-%d", i%3), "x")
		w.post(t, "other", "x")
		at = at.Add(time.Minute)
	}
	minute := func(i int) time.Time { return start.Add(time.Duration(i) * time.Minute) }
	for i := range 50 {
		check("at", minute(i), uint64(2*i))
		check("just after", minute(i).Add(time.Nanosecond), uint64(2*i+2))
		check("between", minute(i).Add(30*time.Second), uint64(2*i+2))
	}
	check("zero time", time.Time{}, 0)
	check("long after", minute(5000), 100)

	// Dropped messages count no more; a part of them stays in between.
	if _, err := w.Trim(ctxOf(t), nobody, "other", 51); err != nil {
		t.Fatal(err)
	}
	for _, room := range []string{"room-0", "room-1"} {
		if _, err := w.Trim(ctxOf(t), nobody, room, 10); err != nil {
			t.Fatal(err)
		}
	}
	check("before all that is left", minute(2), 0)
	check("after the first that is left", minute(3), 5)
	check("behind dropped messages", minute(5), 5)
	check("long after again", minute(5000), 99)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := w.CursorAtTime(ctx, nobody, start, false)
	var e *chat.Error
	if !errors.As(err, &e) {
		t.Errorf("ended context: %v", err)
	}
}

// Posts, a retention that is always close behind and streams of all kinds at
// once: every message is delivered or told of.
func TestStreamsUnderRetention(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	const rooms, each = 3, 400
	name := func(i int) string { return fmt.Sprintf("room-%d", i) }
	var posts, streams sync.WaitGroup
	for p := range 2 * rooms {
		posts.Go(func() {
			for range each {
				m := w.post(t, name(p%rooms), "x")
				if m.Seq%10 == 0 {
					if _, err := w.Trim(ctxOf(t), nobody, m.Room, m.Seq-3); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for i, of := range [][]string{nil, nil, {name(0)}, {name(1)}, {name(0), name(1), name(2)}, {name(1), name(2)}} {
		// Nobody needs the end, which a stream of every room sees anyway.
		if of != nil {
			of = append(of, "end")
		}
		st := follow(t, w.Service, of, chat.Cursor{})
		streams.Go(func() {
			has, cursor := map[string]uint64{}, uint64(0)
			for {
				d, err := st.NextDelivery(ctxOf(t))
				if err != nil {
					t.Errorf("stream %d: %v", i, err)
					return
				}
				for _, g := range d.Gaps {
					exact := of == nil || g.FirstSeq == has[g.Room]+1
					if !exact || g.FirstSeq > has[g.Room]+1 || g.LastSeq <= has[g.Room] || g.ID < cursor {
						t.Errorf("stream %d: gap %+v after %d, cursor %d", i, g, has[g.Room], cursor)
					}
					has[g.Room], cursor = g.LastSeq, g.ID
				}
				for _, m := range d.Messages {
					if m.Room == "end" {
						return
					}
					if m.Seq != has[m.Room]+1 || m.ID <= cursor {
						t.Errorf("stream %d: %s/%d ID %d after %d, cursor %d", i, m.Room, m.Seq, m.ID, has[m.Room], cursor)
					}
					has[m.Room], cursor = m.Seq, m.ID
				}
			}
		})
	}
	posts.Wait()
	w.post(t, "end", "end")
	streams.Wait()
}
