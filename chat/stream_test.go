package chat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// collect reads a stream until it has n messages.
func collect(t testing.TB, st *chat.Stream, n int) []*chat.Message {
	t.Helper()
	var all []*chat.Message
	for len(all) < n {
		page, err := st.Next(ctxOf(t))
		if err != nil {
			t.Errorf("after %d of %d messages: %v", len(all), n, err)
			return all
		}
		all = append(all, page...)
		if st.Cursor() != all[len(all)-1].ID {
			t.Errorf("cursor %d after message %d", st.Cursor(), all[len(all)-1].ID)
		}
	}
	if len(all) > n {
		t.Errorf("%d messages, want %d", len(all), n)
	}
	return all
}

func follow(t testing.TB, s *chat.Service, rooms []string, from chat.Cursor) *chat.Stream {
	t.Helper()
	st, err := s.Follow(ctxOf(t), nobody, rooms, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return st
}

// Streams of all rooms and of some, begun at any time and anywhere, deliver
// every message after their cursor once and in ID order, while posts go on.
func TestStreamsSeeEverythingOnce(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	const posters, each = 8, 200
	const total = posters * each
	var posts, streams sync.WaitGroup
	for p := range posters {
		posts.Go(func() {
			r := rand.New(rand.NewPCG(uint64(p), 1))
			for range each {
				w.post(t, fmt.Sprintf("room-%d", r.IntN(6)), "hello")
			}
		})
	}
	type seen struct {
		what  string
		rooms []string
		after uint64
		ids   []uint64
		seqs  map[string]uint64
	}
	var mu sync.Mutex
	var results []*seen
	start := func(what string, rooms []string, from chat.Cursor) {
		st := follow(t, w.Service, rooms, from)
		s := &seen{what: what, rooms: rooms, after: st.Cursor(), seqs: map[string]uint64{}}
		mu.Lock()
		results = append(results, s)
		mu.Unlock()
		streams.Go(func() {
			ctx, cancel := context.WithCancel(ctxOf(t))
			defer cancel()
			for {
				page, err := st.Next(ctx)
				if err != nil {
					t.Errorf("%s: %v", what, err)
					return
				}
				for _, m := range page {
					if m.Room == "end" {
						return
					}
					s.ids = append(s.ids, m.ID)
					if last := s.seqs[m.Room]; last != 0 && m.Seq != last+1 {
						t.Errorf("%s: %s went from %d to %d", what, m.Room, last, m.Seq)
					}
					s.seqs[m.Room] = m.Seq
				}
			}
		})
	}
	start("all from the start", nil, chat.Cursor{})
	start("some from the start", []string{"room-1", "room-2", "room-4", "end", "never"}, chat.Cursor{})
	start("one from the start", []string{"room-3", "end"}, chat.Cursor{})
	// No round tells that nobody has posted that yet.
	w.log.FailReads(chattest.Error("no_leader"))
	start("ahead", []string{"room-0", "room-5", "end"}, chat.Cursor{ID: total / 2})
	start("all ahead", nil, chat.Cursor{ID: total / 2})
	for i := range 20 {
		target := uint64(i * total / 25)
		eventually(t, "posting", func() bool { return w.Head() >= target })
		start("latest", nil, chat.Cursor{Latest: true})
		start("some latest", []string{"room-0", "room-1", "end"}, chat.Cursor{Latest: true})
		start("behind", []string{"room-5", "end"}, chat.Cursor{ID: target / 2})
	}
	posts.Wait()
	w.post(t, "end", "end")
	streams.Wait()
	w.log.FailReads(nil)

	// The truth, from the store.
	rooms := make([]string, total+1)
	for r := range 6 {
		name := fmt.Sprintf("room-%d", r)
		for after := uint64(0); ; {
			p, err := w.Messages(ctxOf(t), nobody, name, chat.Page{After: &after, Limit: chat.MaxLimit})
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range p.Messages {
				rooms[m.ID] = name
				after = m.Seq
			}
			if !p.Later {
				break
			}
		}
	}
	for _, s := range results {
		var want []uint64
		for id := s.after + 1; id <= total; id++ {
			wanted := s.rooms == nil
			for _, r := range s.rooms {
				wanted = wanted || r == rooms[id]
			}
			if wanted {
				want = append(want, id)
			}
		}
		if fmt.Sprint(s.ids) != fmt.Sprint(want) {
			t.Errorf("%s after %d: %d messages, want %d", s.what, s.after, len(s.ids), len(want))
		}
	}
}

// History longer than the recent messages comes from the store, page by page,
// with the same result.
func TestStreamOfHistory(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	const n = 10_000 // more than is kept in memory
	var posts sync.WaitGroup
	for p := range 10 {
		posts.Go(func() {
			for i := range n / 10 {
				room := "busy"
				if i%500 == p {
					room = "quiet"
				}
				w.post(t, room, "x")
			}
		})
	}
	posts.Wait()
	for _, after := range []uint64{0, 1, 255, 5000, n - 300, n - 1} {
		for i, m := range collect(t, follow(t, w.Service, nil, chat.Cursor{ID: after}), int(n-after)) {
			if m.ID != after+1+uint64(i) {
				t.Fatalf("after %d: message %d is %d", after, i, m.ID)
			}
		}
		both := collect(t, follow(t, w.Service, []string{"quiet", "busy"}, chat.Cursor{ID: after}), int(n-after))
		for i, m := range both {
			if m.ID != after+1+uint64(i) {
				t.Fatalf("both after %d: message %d is %d", after, i, m.ID)
			}
		}
	}
	quiet := collect(t, follow(t, w.Service, []string{"quiet"}, chat.Cursor{}), 20)
	for i, m := range quiet {
		if m.Seq != uint64(i+1) || m.Room != "quiet" {
			t.Errorf("message %d is %s/%d", i, m.Room, m.Seq)
		}
	}
}

// Pages are bounded by bytes, too.
func TestStreamPagesAreBounded(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	text := strings.Repeat("x", 60<<10)
	for i := range 20 {
		w.post(t, fmt.Sprint(i%2), text)
	}
	for _, c := range []struct {
		rooms []string
		n     int
	}{{nil, 20}, {[]string{"0"}, 10}, {[]string{"0", "1"}, 20}} {
		st := follow(t, w.Service, c.rooms, chat.Cursor{})
		for n := c.n; n > 0; {
			page, err := st.Next(ctxOf(t))
			if err != nil {
				t.Fatal(err)
			}
			if len(page) > 5 {
				t.Errorf("%v: a page of %d long messages", c.rooms, len(page))
			}
			n -= len(page)
		}
	}
}

// The store is replaced under a stream, which goes on where it was.
func TestStreamAcrossRestore(t *testing.T) {
	leader, follower := newWorld(t, chat.ServiceOptions{}), newWorld(t, chat.ServiceOptions{})
	all := follow(t, follower.Service, nil, chat.Cursor{})
	some := follow(t, follower.Service, []string{"a", "late"}, chat.Cursor{})
	for range 5 {
		leader.post(t, "a", "x")
		follower.post(t, "a", "x")
	}
	collect(t, all, 5)
	collect(t, some, 5)
	for range 300 {
		leader.post(t, "a", "x")
		leader.post(t, "b", "x")
		leader.post(t, "late", "x")
	}
	got := make(chan []*chat.Message, 2)
	go func() { got <- collect(t, all, 900) }()
	go func() { got <- collect(t, some, 600) }()
	var saved bytes.Buffer
	if err := leader.store.Snapshot(func(_ uint64, _ []byte, c io.WriterTo) error {
		_, err := c.WriteTo(&saved)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := follower.store.Restore(&saved); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		last := uint64(5)
		for _, m := range <-got {
			if m.ID <= last {
				t.Fatalf("message %d after %d", m.ID, last)
			}
			last = m.ID
		}
	}
	follower.post(t, "late", "after")
	if m := collect(t, some, 1)[0]; m.Seq != 301 || m.ID != 906 {
		t.Errorf("after the restore: %d, %d", m.Seq, m.ID)
	}
	collect(t, all, 1)
}

func TestStreamEnds(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	waiting := func(st *chat.Stream, ctx context.Context) chan error {
		result := make(chan error, 1)
		go func() {
			_, err := st.Next(ctx)
			result <- err
		}()
		return result
	}
	ctx, cancel := context.WithCancel(context.Background())
	st := follow(t, w.Service, nil, chat.Cursor{Latest: true})
	result := waiting(st, ctx)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	result = waiting(st, ctxOf(t))
	st.Close()
	wantCode(t, "closed", <-result, chat.CodeStopping)
	st.Close()

	byService := follow(t, w.Service, []string{"a"}, chat.Cursor{})
	result = waiting(byService, ctxOf(t))
	w.Service.Close()
	wantCode(t, "service closed", <-result, chat.CodeStopping)

	other := newWorld(t, chat.ServiceOptions{})
	byStore := follow(t, other.Service, nil, chat.Cursor{})
	result = waiting(byStore, ctxOf(t))
	if err := other.store.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "store closed", <-result, chat.CodeStopping)
}

func TestFollowRefuses(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	_, err := w.Follow(ctxOf(t), nobody, []string{"a", ""}, chat.Cursor{})
	wantCode(t, "bad name", err, chat.CodeRoomNameInvalid)
	_, err = w.Follow(ctxOf(t), nobody, []string{}, chat.Cursor{})
	wantCode(t, "no rooms", err, chat.CodeRoomNameInvalid)
	_, err = w.Follow(ctxOf(t), nobody, make([]string, 1001), chat.Cursor{})
	wantCode(t, "too many", err, chat.CodeLimitInvalid)
	// The same room twice, in two spellings, is one.
	st := follow(t, w.Service, []string{"caf\u00e9", "cafe\u0301"}, chat.Cursor{})
	w.post(t, "caf\u00e9", "hi")
	collect(t, st, 1)
}
