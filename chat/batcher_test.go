package chat_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// faults hands out faults to proposals in turn, none after the last, and counts
// the proposals.
type faults struct {
	next  []chattest.Fault
	count int
	seen  chan int // gets the number of each proposal
}

func inject(w *world, next ...chattest.Fault) *faults {
	f := &faults{next: next, seen: make(chan int, 1000)}
	w.log.Inject(func() chattest.Fault {
		f.count++
		f.seen <- f.count
		if len(f.next) == 0 {
			return chattest.Fault{}
		}
		first := f.next[0]
		f.next = f.next[1:]
		return first
	})
	return f
}

func (w *world) send(ctx context.Context, room, text, id string) error {
	_, _, err := w.Post(ctx, nobody, chat.PostRequest{Room: room, User: "ann", Payload: []byte(text), ClientMessageID: id})
	return err
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s did not happen", what)
		}
	}
}

// What waits while the log is busy goes together, in order, within the bounds.
func TestBatcherJoins(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{MaxBatchCommands: 10, RequestTimeout: patience})
	release := make(chan struct{})
	f := inject(w, chattest.Fault{Wait: release})
	var posts sync.WaitGroup
	send := func(i int) {
		posts.Go(func() {
			if err := w.send(ctxOf(t), "a", fmt.Sprint(i), ""); err != nil {
				t.Error(err)
			}
		})
	}
	send(0)
	<-f.seen // the first is on its way and blocks the log
	for i := range 25 {
		send(i + 1)
	}
	eventually(t, "queueing", func() bool { return chat.Pending(w.Service) == 26 })
	close(release)
	posts.Wait()
	if f.count != 4 {
		t.Errorf("26 posts went as %d entries, want 1 + 3", f.count)
	}
	p, err := w.Messages(ctxOf(t), nobody, "a", chat.Page{})
	if err != nil || len(p.Messages) != 26 {
		t.Fatalf("%d messages, %v", len(p.Messages), err)
	}
	if n := chat.Pending(w.Service); n != 0 {
		t.Errorf("%d commands still count as pending", n)
	}
}

// A creation without a name travels alone.
func TestBatcherKeepsSoloAlone(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	release := make(chan struct{})
	f := inject(w, chattest.Fault{Wait: release})
	var posts sync.WaitGroup
	post := func() {
		posts.Go(func() {
			if err := w.send(ctxOf(t), "a", "x", ""); err != nil {
				t.Error(err)
			}
		})
	}
	post()
	<-f.seen
	for range 3 {
		n := chat.Pending(w.Service)
		post()
		posts.Go(func() {
			if _, created, err := w.CreateRoom(ctxOf(t), nobody, "", ""); err != nil || !created {
				t.Error(created, err)
			}
		})
		eventually(t, "queueing", func() bool { return chat.Pending(w.Service) == n+2 })
	}
	close(release)
	posts.Wait()
}

// An entry whose outcome does not come, because it got lost on its way to the
// leader, holds nothing back that the log would take.
func TestBatcherDoesNotWaitForLostEntries(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	lost := chat.NewStuckLog(2)
	s := chat.NewService(lost, w.store, chat.ServiceOptions{RequestTimeout: patience})
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var posts sync.WaitGroup
	for i := range 2 {
		posts.Go(func() {
			if _, _, err := s.Post(ctx, nobody, chat.PostRequest{Room: "a", User: "u", Payload: []byte("p")}); err == nil {
				t.Error("posted to a log that never answers")
			}
		})
		eventually(t, "proposal", func() bool { return lost.Proposed() == i+1 })
	}
	cancel()
	posts.Wait()
}

// A command with a client message id survives changes of leader, and is stored
// once, whether or not the lost attempts took effect.
func TestUnknownOutcomeIsRepeated(t *testing.T) {
	unknown, noLeader := chattest.Error("outcome_unknown"), chattest.Error("no_leader")
	for what, next := range map[string][]chattest.Fault{
		"lost":                  {{Lose: unknown}},
		"hidden":                {{Hide: unknown}},
		"both, then no leader":  {{Lose: unknown}, {Hide: unknown}, {Refuse: noLeader}, {Refuse: noLeader}},
		"hidden, then overload": {{Hide: unknown}, {Refuse: chattest.Error("overloaded")}},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
			n := len(next)
			f := inject(w, next...)
			if err := w.send(ctxOf(t), "a", "x", "1"); err != nil {
				t.Fatal(err)
			}
			if f.count != n+1 {
				t.Errorf("proposed %d times", f.count)
			}
			if p, err := w.Messages(ctxOf(t), nobody, "a", chat.Page{}); err != nil || len(p.Messages) != 1 {
				t.Errorf("%d messages, %v", len(p.Messages), err)
			}
		})
	}
}

// Without a client message id the first unknown outcome is the answer.
func TestUnknownOutcomeIsAnswered(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	f := inject(w, chattest.Fault{Hide: chattest.Error("outcome_unknown")})
	wantCode(t, "hidden", w.send(ctxOf(t), "a", "x", ""), chat.CodeOutcomeUnknown)
	if f.count != 1 {
		t.Errorf("proposed %d times", f.count)
	}
	// Something the service does not know is not known either.
	inject(w, chattest.Fault{Hide: errors.New("strange")})
	wantCode(t, "strange", w.send(ctxOf(t), "a", "x", ""), chat.CodeOutcomeUnknown)
	_, _, err := w.CreateRoom(ctxOf(t), nobody, "", "")
	if err != nil {
		t.Error(err)
	}
	inject(w, chattest.Fault{Hide: chattest.Error("outcome_unknown")})
	_, _, err = w.CreateRoom(ctxOf(t), nobody, "", "")
	wantCode(t, "assigned room", err, chat.CodeOutcomeUnknown)
}

// After an attempt that may have been proposed, a refusal is not the answer.
func TestRefusalAfterUnknown(t *testing.T) {
	refuse := func(code string) error {
		w := newWorld(t, chat.ServiceOptions{RequestTimeout: 200 * time.Millisecond})
		unknown := true
		w.log.Inject(func() chattest.Fault {
			if unknown {
				unknown = false
				return chattest.Fault{Lose: chattest.Error("outcome_unknown")}
			}
			return chattest.Fault{Refuse: chattest.Error(code)}
		})
		return w.send(ctxOf(t), "a", "x", "1")
	}
	for _, code := range []string{"no_leader", "overloaded", "clock_skew", "disk_full", "stopping"} {
		wantCode(t, code, refuse(code), chat.CodeOutcomeUnknown)
	}
}

// A first attempt that is refused is answered at once with the reason, id or not.
func TestRefusalIsAnswered(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	for _, code := range []string{"no_leader", "overloaded", "clock_skew", "disk_full", "stopping"} {
		for _, id := range []string{"", "1"} {
			f := inject(w, chattest.Fault{Refuse: chattest.Error(code)})
			err := w.send(ctxOf(t), "a", "x", id)
			wantCode(t, code, err, chat.Code(code))
			var e *chat.Error
			if errors.As(err, &e); e.RetryAfter <= 0 {
				t.Errorf("%s: no RetryAfter", code)
			}
			if f.count != 1 {
				t.Errorf("%s: proposed %d times", code, f.count)
			}
		}
	}
}

// More than the bound is refused and nothing else suffers.
func TestOverload(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{MaxPending: 5, RequestTimeout: patience})
	release := make(chan struct{})
	f := inject(w, chattest.Fault{Wait: release})
	var posts sync.WaitGroup
	post := func() {
		posts.Go(func() {
			if err := w.send(ctxOf(t), "a", "x", ""); err != nil {
				t.Error(err)
			}
		})
	}
	post()
	<-f.seen
	for range 4 {
		post()
	}
	eventually(t, "queueing", func() bool { return chat.Pending(w.Service) == 5 })
	wantCode(t, "sixth", w.send(ctxOf(t), "a", "x", "1"), chat.CodeOverloaded)
	close(release)
	posts.Wait()
	if err := w.send(ctxOf(t), "a", "x", "1"); err != nil {
		t.Errorf("after the overload: %v", err)
	}

	bytes := newWorld(t, chat.ServiceOptions{MaxPendingBytes: 100})
	wantCode(t, "bytes", bytes.send(ctxOf(t), "a", string(make([]byte, 200)), ""), chat.CodeOverloaded)
}

// A request that ends while it waits was not sent; one that ends later may have
// been.
func TestEndedRequests(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	release := make(chan struct{})
	f := inject(w, chattest.Fault{Wait: release})
	var posts sync.WaitGroup
	handed, cancelHanded := context.WithCancel(context.Background())
	posts.Go(func() { wantCode(t, "handed over", w.send(handed, "a", "1", ""), chat.CodeOutcomeUnknown) })
	<-f.seen
	waiting, cancelWaiting := context.WithCancel(context.Background())
	posts.Go(func() { wantCode(t, "waiting", w.send(waiting, "a", "2", ""), chat.CodeTimeoutNotSent) })
	eventually(t, "queueing", func() bool { return chat.Pending(w.Service) == 2 })
	cancelWaiting()
	eventually(t, "withdrawing", func() bool { return chat.Pending(w.Service) == 1 })
	cancelHanded()
	posts.Wait()
	close(release)
	wantCode(t, "ended before", w.send(waiting, "a", "3", ""), chat.CodeTimeoutNotSent)
	if p, err := w.Messages(ctxOf(t), nobody, "a", chat.Page{}); err != nil || len(p.Messages) != 0 {
		t.Errorf("%d messages, %v", len(p.Messages), err)
	}
}

// Close answers everybody and says what is known.
func TestServiceClose(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	release := make(chan struct{})
	defer close(release)
	stuck := chat.NewStuckLog(1)
	s := chat.NewService(stuck, w.store, chat.ServiceOptions{RequestTimeout: patience})
	send := func() error {
		_, _, err := s.Post(ctxOf(t), nobody, chat.PostRequest{Room: "a", User: "u", Payload: []byte("p"), ClientMessageID: "1"})
		return err
	}
	var posts sync.WaitGroup
	posts.Go(func() { wantCode(t, "handed over", send(), chat.CodeOutcomeUnknown) })
	eventually(t, "proposal", func() bool { return stuck.Proposed() == 1 })
	posts.Go(func() { wantCode(t, "waiting", send(), chat.CodeStopping) })
	eventually(t, "queueing", func() bool { return chat.Pending(s) == 2 })
	s.Close()
	posts.Wait()
	s.Close()
	wantCode(t, "after", send(), chat.CodeStopping)
	_, err := s.Follow(ctxOf(t), nobody, nil, chat.Cursor{})
	wantCode(t, "follow", err, chat.CodeStopping)
}

// Many posters, repeats and a log that loses answers: every message exactly once.
func TestPostsUnderFaults(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{RequestTimeout: patience})
	n := 0
	w.log.Inject(func() chattest.Fault {
		n++
		switch n % 7 {
		case 1:
			return chattest.Fault{Hide: chattest.Error("outcome_unknown")}
		case 3:
			return chattest.Fault{Lose: chattest.Error("outcome_unknown")}
		}
		return chattest.Fault{}
	})
	const posters, each = 16, 20
	var posts sync.WaitGroup
	for p := range posters {
		posts.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d-%d", p, i)
				for range 2 {
					if err := w.send(ctxOf(t), fmt.Sprintf("room-%d", p%3), id, id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	posts.Wait()
	w.log.Inject(nil)
	if w.Head() != posters*each {
		t.Errorf("head is %d, want %d", w.Head(), posters*each)
	}
	seen := map[string]bool{}
	for r := range 3 {
		p, err := w.Messages(ctxOf(t), nobody, fmt.Sprintf("room-%d", r), chat.Page{Limit: chat.MaxLimit})
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range p.Messages {
			if m.Seq != uint64(i+1) || seen[m.ClientMessageID] {
				t.Errorf("room %d: seq %d of %s", r, m.Seq, m.ClientMessageID)
			}
			seen[m.ClientMessageID] = true
		}
	}
	if len(seen) != posters*each {
		t.Errorf("%d messages", len(seen))
	}
}
