package chat_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// laneOf posts texts to room "a" on one lane, without waiting, and returns the
// wait for all of their outcomes.
func (w *world) laneOf(t testing.TB, lane *chat.Lane, ids bool, texts ...string) (wait func()) {
	t.Helper()
	var all sync.WaitGroup
	for _, text := range texts {
		r := chat.PostRequest{Room: "a", User: "ann", Payload: []byte(text)}
		if ids {
			r.ClientMessageID = "id-" + text
		}
		outcome := lane.Post(ctxOf(t), nobody, r)
		all.Go(func() {
			if m, _, err := outcome(); err != nil || string(m.Payload) != text {
				t.Errorf("post %q: %v", text, err)
			}
		})
	}
	return all.Wait
}

func (w *world) texts(t testing.TB, room string) (texts []string) {
	t.Helper()
	after := uint64(0)
	page, err := w.Messages(ctxOf(t), nobody, room, chat.Page{After: &after, Limit: chat.MaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range page.Messages {
		texts = append(texts, string(m.Payload))
	}
	return texts
}

func numbers(from, to int) (texts []string) {
	for i := from; i < to; i++ {
		texts = append(texts, fmt.Sprint(i))
	}
	return texts
}

func TestLaneKeepsOrder(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{MaxBatchCommands: 3, RequestTimeout: patience})
	ctx, cancel := context.WithCancel(ctxOf(t))
	var others sync.WaitGroup
	for range 8 {
		others.Go(func() {
			for ctx.Err() == nil {
				_ = w.send(ctx, "b", "x", "")
			}
		})
	}
	texts := numbers(0, 500)
	w.laneOf(t, w.NewLane(), false, texts...)()
	cancel()
	others.Wait()
	if got := w.texts(t, "a"); !slices.Equal(got, texts) {
		t.Errorf("stored as %q", got)
	}
}

// A log that takes nothing does not hold up who posts on a lane.
func TestLaneDoesNotBlock(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	release := make(chan struct{})
	inject(w, chattest.Fault{Wait: release})
	texts := numbers(0, 50)
	wait := w.laneOf(t, w.NewLane(), false, texts...) // returns although nothing moves
	close(release)
	wait()
	if got := w.texts(t, "a"); !slices.Equal(got, texts) {
		t.Errorf("stored as %q", got)
	}
}

// What got lost with its leader is proposed again in order, and what is posted
// meanwhile comes behind it.
func TestLaneRetriesInOrder(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{MaxBatchCommands: 1, RequestTimeout: patience})
	lost := slices.Repeat([]chattest.Fault{{Lose: chattest.Error("outcome_unknown")}}, 20)
	hold := make(chan struct{})
	f := inject(w, append(lost, chattest.Fault{Wait: hold})...)
	lane := w.NewLane()
	first := w.laneOf(t, lane, true, numbers(0, 20)...)
	for range 21 { // 20 were lost, and the first of them comes again
		<-f.seen
	}
	second := w.laneOf(t, lane, true, numbers(20, 40)...)
	close(hold)
	first()
	second()
	if got, want := w.texts(t, "a"), numbers(0, 40); !slices.Equal(got, want) {
		t.Errorf("stored as %q", got)
	}
	if n := chat.Pending(w.Service); n != 0 {
		t.Errorf("%d are still pending", n)
	}
	// The lane is as before: what does not get lost waits for nothing.
	w.laneOf(t, lane, false, "end")()
}

// A post that is refused does not hold up the others, and is not repeated behind
// their back.
func TestLaneRefusals(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{MaxBatchCommands: 1, RequestTimeout: patience})
	inject(w, chattest.Fault{}, chattest.Fault{Refuse: chattest.Error("no_leader")}, chattest.Fault{Lose: chattest.Error("outcome_unknown")})
	lane := w.NewLane()
	post := func(text string) func() (*chat.Message, bool, error) {
		return lane.Post(ctxOf(t), nobody, chat.PostRequest{Room: "a", User: "ann", Payload: []byte(text)})
	}
	for _, test := range []struct {
		outcome func() (*chat.Message, bool, error)
		code    chat.Code
	}{
		{post("1"), ""}, {post(" "), chat.CodeMessageEmpty}, {post("2"), chat.CodeNoLeader}, {post("3"), chat.CodeOutcomeUnknown}, {post("4"), ""},
	} {
		if _, _, err := test.outcome(); chat.CodeOf(err) != test.code {
			t.Errorf("got %v, want %q", err, test.code)
		}
	}
	if got := w.texts(t, "a"); !slices.Equal(got, []string{"1", "4"}) {
		t.Errorf("stored as %q", got)
	}
}

// A post whose time is over while those before it are not settled was not sent.
func TestLaneGivesUp(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{MaxBatchCommands: 1, RequestTimeout: patience})
	hold := make(chan struct{})
	f := inject(w, chattest.Fault{Lose: chattest.Error("outcome_unknown")}, chattest.Fault{Wait: hold})
	lane := w.NewLane()
	first := w.laneOf(t, lane, true, "1")
	<-f.seen
	<-f.seen
	ctx, cancel := context.WithCancel(ctxOf(t))
	second := lane.Post(ctx, nobody, chat.PostRequest{Room: "a", User: "ann", Payload: []byte("2")})
	third := w.laneOf(t, lane, false, "3")
	cancel()
	_, _, err := second()
	wantCode(t, "given up", err, chat.CodeTimeoutNotSent)
	close(hold)
	first()
	third()
	if got := w.texts(t, "a"); !slices.Equal(got, []string{"1", "3"}) {
		t.Errorf("stored as %q", got)
	}
}
