package workload

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raft-chat/raft-chat/internal/oracle"
)

// retryPause is the time between two attempts of one client.
const retryPause = 10 * time.Millisecond

// mostErrors is how many errors are kept. More of the same does not help.
const mostErrors = 10

// Options say what is to be done. History and URLs are required.
type Options struct {
	History *oracle.History
	// URLs are the nodes to talk to, http://host:port.
	URLs []string
	// Transport sends the requests and opens the streams. Default: one of its
	// own, closed by Close.
	Transport http.RoundTripper

	// Name begins the names of users and rooms and the client message ids.
	// Default "load".
	Name string
	// Rooms are written to in turn. Default: Name followed by -0, -1 and -2.
	Rooms []string

	// Aside are rooms that Settle does not read, because they are too large. The
	// history has to be told that all of them is dropped.
	Aside []string

	Writers, Readers int
	// Forms are those of the followers, one for each: see [Forms].
	Forms []Form

	// Pause is how long a writer or reader rests between two operations.
	// Default none.
	Pause time.Duration
	// AttemptTimeout is how long one node may take to answer. Default 10 s.
	AttemptTimeout time.Duration
	// IdleTimeout is how long a stream may be silent before the follower goes to
	// another node. Nodes say something every 30 s. Default 75 s.
	IdleTimeout time.Duration
}

func (o Options) withDefaults() Options {
	if o.Name == "" {
		o.Name = "load"
	}
	if len(o.Rooms) == 0 {
		for i := range 3 {
			o.Rooms = append(o.Rooms, fmt.Sprint(o.Name, "-", i))
		}
	}
	if o.AttemptTimeout == 0 {
		o.AttemptTimeout = 10 * time.Second
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = 75 * time.Second
	}
	return o
}

// Workload is a number of clients at work. All methods may be called
// concurrently.
type Workload struct {
	o         Options
	client    *Client
	http      *http.Client
	transport *http.Transport // to be closed; nil if it was given

	stopping chan struct{} // closed: no further operation begins
	stop     sync.Once

	working   context.Context // of the writers and readers
	abandon   context.CancelFunc
	work      sync.WaitGroup
	following context.Context // of the followers
	unfollow  context.CancelFunc
	streams   sync.WaitGroup
	followers []*follower
	settling  atomic.Bool // the followers are to get everything
	closing   sync.Once

	mu   sync.Mutex        // guards the rest
	tops map[string]uint64 // highest Seq that was acknowledged, by room
	errs []error
}

// Start starts all clients.
func Start(o Options) *Workload {
	w := &Workload{o: o.withDefaults(), stopping: make(chan struct{}), tops: map[string]uint64{}}
	transport := o.Transport
	if transport == nil {
		w.transport = &http.Transport{MaxIdleConnsPerHost: 64}
		transport = w.transport
	}
	w.http = &http.Client{Transport: transport}
	w.client = NewClient(w.http)
	w.working, w.abandon = context.WithCancel(context.Background())
	w.following, w.unfollow = context.WithCancel(context.Background())
	for i := range w.o.Writers {
		w.work.Go(func() { w.write(i) })
	}
	for i := range w.o.Readers {
		w.work.Go(func() { w.read(i) })
	}
	for i, form := range w.o.Forms {
		f := newFollower(w, i, form)
		w.followers = append(w.followers, f)
		w.streams.Go(func() { f.run(w.following) })
	}
	return w
}

// Stop lets no further operation begin and waits until those under way are
// answered. When ctx ends first they are abandoned: their outcome is not known.
// Calling it twice is fine.
func (w *Workload) Stop(ctx context.Context) error {
	w.stop.Do(func() { close(w.stopping) })
	giveUp := context.AfterFunc(ctx, w.abandon)
	w.work.Wait()
	if !giveUp() {
		return fmt.Errorf("operations were not answered in time: %w", context.Cause(ctx))
	}
	return nil
}

// Close ends everything at once. Without Settle the followers are not held to
// get everything. Calling it twice is fine.
func (w *Workload) Close() {
	w.stop.Do(func() { close(w.stopping) })
	w.abandon()
	w.unfollow()
	w.work.Wait()
	w.streams.Wait()
	w.closing.Do(func() {
		for _, f := range w.followers {
			if !w.settling.Load() {
				f.subscriber.Closed()
			}
		}
		if w.transport != nil {
			w.transport.CloseIdleConnections()
		}
	})
}

// Err is what went wrong that no outage explains.
func (w *Workload) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.errs...)
}

func (w *Workload) failed(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.errs) < mostErrors {
		w.errs = append(w.errs, fmt.Errorf(format, args...))
	}
}

// Latest is the highest Seq of a room that was acknowledged.
func (w *Workload) Latest(room string) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tops[room]
}

// ended reports whether no further operation may begin.
func (w *Workload) ended() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return w.working.Err() != nil
	}
}

// rest waits between two operations.
func (w *Workload) rest() {
	if w.o.Pause <= 0 {
		return
	}
	t := time.NewTimer(w.o.Pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.stopping:
	}
}

// url is the node for the n-th attempt.
func (w *Workload) url(n int) string { return w.o.URLs[n%len(w.o.URLs)] }

// room is the room for the n-th operation.
func (w *Workload) room(n int) string { return w.o.Rooms[n%len(w.o.Rooms)] }
