package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/internal/oracle"
)

// follower follows rooms in one form, from the beginning.
type follower struct {
	w          *Workload
	form       Form
	stream     Stream
	subscriber *oracle.Subscriber
	urls       []string // the next one to try first

	mu   sync.Mutex // guards the rest
	at   Place
	seen map[string]uint64 // by room: Seq up to which everything came or is known to be gone
	why  error             // the last stream ended
}

func newFollower(w *Workload, i int, form Form) *follower {
	f := &follower{w: w, form: form, stream: form.New(w.http, w.o.Rooms), seen: map[string]uint64{}}
	name := fmt.Sprintf("%s-follower-%d (%s)", w.o.Name, i, form.Name)
	if form.Everything {
		f.subscriber = w.o.History.Subscriber(name)
	} else {
		f.subscriber = w.o.History.Subscriber(name, w.o.Rooms...)
	}
	for n := range w.o.URLs {
		f.urls = append(f.urls, w.url(i+n))
	}
	return f
}

// run reads one stream after the other.
func (f *follower) run(ctx context.Context) {
	again := time.NewTicker(retryPause)
	defer again.Stop()
	for {
		err := f.read(ctx)
		if errors.Is(err, ErrSenseless) {
			f.w.failed("%s: %w", f.form.Name, err)
		}
		f.mu.Lock()
		f.why = err
		f.mu.Unlock()
		f.urls = append(slices.Clone(f.urls[1:]), f.urls[0])
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// read reads one stream to its end.
func (f *follower) read(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(f.w.o.IdleTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	f.mu.Lock()
	from := f.at
	f.mu.Unlock()
	defer f.stream.Close()
	if err := f.stream.Connect(ctx, f.urls, from); err != nil {
		return err
	}
	for {
		silence.Reset(f.w.o.IdleTimeout)
		events, err := f.stream.Next()
		for _, e := range events {
			f.take(e)
		}
		if err != nil {
			return err
		}
	}
}

// errSilent ends a stream of a node that may be out of reach.
var errSilent = errors.New("the stream says nothing any more")

// take tells the history of an event and moves the place.
func (f *follower) take(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case e.Gap != nil:
		f.subscriber.Gap(e.Gap.Room, e.Gap.FirstSeq, e.Gap.LastSeq)
		f.seen[e.Gap.Room] = max(f.seen[e.Gap.Room], e.Gap.LastSeq)
		f.at.ID = max(f.at.ID, e.Gap.ID)
	case e.Seq != 0:
		if next := f.seen[e.Room] + 1; e.Seq > next && !f.form.Tells {
			// All that such a form can tell. The history knows whether these
			// may be gone.
			f.subscriber.Gap(e.Room, next, e.Seq-1)
		}
		f.subscriber.Received(e.Oracle())
		f.seen[e.Room] = max(f.seen[e.Room], e.Seq)
		f.at.ID = max(f.at.ID, e.ID)
	}
	f.at.Seq = f.seen[f.w.o.Rooms[0]]
}

// lacks says what the follower has not seen yet of rooms that go up to tops.
func (f *follower) lacks(tops map[string]uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for room, top := range tops {
		if f.seen[room] < top && (f.form.Everything || slices.Contains(f.w.o.Rooms, room)) {
			return fmt.Errorf("the follower of %s is at %d of %d of %s; its last stream ended with: %w", f.form.Name, f.seen[room], top, room, f.why)
		}
	}
	return nil
}
