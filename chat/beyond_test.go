package chat_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// A cursor beyond the newest message is answered with a gap to that message, once
// and before all else, and the stream goes on from there.
func TestStreamBeyondTheHead(t *testing.T) {
	tests := map[string]struct {
		rooms []string
		begin func(w *world) (chat.Cursor, error)
		gaps  map[string]uint64 // by room: LastSeq
	}{
		"rooms, by ID":           {[]string{"a", "b", "none"}, byID(100), map[string]uint64{"a": 2, "b": 1, "none": 0}},
		"every room, by ID":      {nil, byID(100), map[string]uint64{"": 0}},
		"a Unix time":            {[]string{"a"}, byID(1_700_000_000), map[string]uint64{"a": 2}},
		"the largest number":     {[]string{"a"}, byID(1<<64 - 1), map[string]uint64{"a": 2}},
		"looked up, rooms":       {[]string{"a", "b"}, lookedUp(100), map[string]uint64{"a": 2, "b": 1}},
		"looked up, every room":  {nil, lookedUp(100), map[string]uint64{"": 0}},
		"by number":              {[]string{"a"}, bySeq("a", 9), map[string]uint64{"a": 2}},
		"by number, of no room":  {[]string{"none"}, bySeq("none", 9), map[string]uint64{"none": 0}},
		"by number, after a gap": {[]string{"trimmed"}, bySeq("trimmed", 9), map[string]uint64{"trimmed": 2}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, chat.ServiceOptions{})
			for _, room := range []string{"a", "b", "a", "trimmed", "trimmed"} {
				w.post(t, room, "old")
			}
			if _, err := w.Trim(ctxOf(t), nobody, "trimmed", 3); err != nil {
				t.Fatal(err)
			}
			from, err := test.begin(w)
			if err != nil {
				t.Fatal(err)
			}
			st := follow(t, w.Service, test.rooms, from)
			gaps := map[string]uint64{}
			for len(gaps) < len(test.gaps) {
				d, err := st.NextDelivery(ctxOf(t))
				if err != nil || len(d.Messages) > 0 {
					t.Fatalf("%+v, %v", d, err)
				}
				for _, g := range d.Gaps {
					if g.Beyond == nil || g.Beyond.Code != chat.CodeCursorBeyondHead || g.ID != 5 {
						t.Errorf("gap %+v", g)
					}
					gaps[g.Room] = g.LastSeq
				}
			}
			for room, last := range test.gaps {
				if got, told := gaps[room]; !told || got != last {
					t.Errorf("gap of %q up to %d, want %d", room, got, last)
				}
			}
			if st.Cursor() != 5 {
				t.Errorf("goes on after %d", st.Cursor())
			}
			rooms := test.rooms
			if rooms == nil {
				rooms = []string{"a", "b", "none"}
			}
			for range 2 {
				for _, room := range rooms {
					want := w.post(t, room, "new")
					d, err := st.NextDelivery(ctxOf(t))
					if err != nil || len(d.Gaps) > 0 || len(d.Messages) != 1 || d.Messages[0].ID != want.ID {
						t.Fatalf("%+v, %v", d, err)
					}
				}
			}
		})
	}
}

func byID(id uint64) func(*world) (chat.Cursor, error) {
	return func(*world) (chat.Cursor, error) { return chat.Cursor{ID: id}, nil }
}

func lookedUp(id uint64) func(*world) (chat.Cursor, error) {
	return func(w *world) (chat.Cursor, error) {
		c, err := w.CursorAfterID(context.Background(), nobody, id, false)
		if err == nil && (c.Beyond() == nil || !strings.Contains(c.Beyond().Error(), "since=@")) {
			err = chattest.Error("not beyond")
		}
		return c, err
	}
}

func bySeq(room string, seq uint64) func(*world) (chat.Cursor, error) {
	return func(w *world) (chat.Cursor, error) {
		return w.CursorAfterSeq(context.Background(), nobody, room, seq, false)
	}
}

// A cursor that is only ahead of this node is waited for, and asked about again
// until somebody knows.
func TestStreamAheadOfTheNode(t *testing.T) {
	for name, rooms := range map[string][]string{"rooms": {"a"}, "every room": nil} {
		w := newWorld(t, chat.ServiceOptions{})
		w.log.FailReads(chattest.Error("no_leader"))
		st := follow(t, w.Service, rooms, chat.Cursor{ID: 3})
		got := make(chan chat.Delivery, 1)
		go func() {
			d, err := st.NextDelivery(ctxOf(t))
			if err != nil {
				t.Error(err)
			}
			got <- d
		}()
		for range 4 {
			w.post(t, "a", "x")
		}
		if d := <-got; len(d.Gaps) != 0 || len(d.Messages) != 1 || d.Messages[0].ID != 4 {
			t.Errorf("%s: %+v", name, d)
		}

		beyond := follow(t, w.Service, rooms, chat.Cursor{ID: 30})
		go func() {
			d, err := beyond.NextDelivery(ctxOf(t))
			if err != nil {
				t.Error(err)
			}
			got <- d
		}()
		time.AfterFunc(time.Millisecond, func() { w.log.FailReads(nil) })
		if d := <-got; len(d.Gaps) != 1 || d.Gaps[0].Beyond == nil || d.Gaps[0].ID != 4 {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// Numbers and times that this node cannot judge alone are asked for, others not.
func TestCursorsAskTheCluster(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	first := w.post(t, "a", "x")
	w.log.FailReads(chattest.Error("no_leader"))
	for what, test := range map[string]struct {
		begin func() (chat.Cursor, error)
		asks  bool
	}{
		"known ID":        {func() (chat.Cursor, error) { return w.CursorAfterID(ctxOf(t), nobody, 1, false) }, false},
		"unknown ID":      {func() (chat.Cursor, error) { return w.CursorAfterID(ctxOf(t), nobody, 2, false) }, true},
		"known number":    {func() (chat.Cursor, error) { return w.CursorAfterSeq(ctxOf(t), nobody, "a", 1, false) }, false},
		"unknown number":  {func() (chat.Cursor, error) { return w.CursorAfterSeq(ctxOf(t), nobody, "a", 2, false) }, true},
		"time of before":  {func() (chat.Cursor, error) { return w.CursorAtTime(ctxOf(t), nobody, first.PostedAt, false) }, false},
		"time after that": {func() (chat.Cursor, error) { return w.CursorAtTime(ctxOf(t), nobody, first.PostedAt.Add(1), false) }, true},
	} {
		_, err := test.begin()
		if got := chat.CodeOf(err) == chat.CodeNoLeader; got != test.asks || (err != nil) != test.asks {
			t.Errorf("%s: %v", what, err)
		}
	}
}
