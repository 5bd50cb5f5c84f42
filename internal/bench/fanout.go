package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const defaultDrain = 10 * time.Second

// fanout is one run of Fanout.
type fanout struct {
	options FanoutOptions
	addrs   []string
	run     string // the tag of the run's messages and rooms
	begin   time.Time
	window  window

	subscribers []*subscriber
	stalled     []*socket
	shards      []deliveryShard

	posted []postedRoom // by room

	mu   sync.Mutex // guards sent
	sent *tally     // latencies and errors of posting
}

// postedRoom counts what was posted to a room.
type postedRoom struct {
	acknowledged atomic.Uint64 // messages, warm-up included
	measured     atomic.Uint64 // of these, due inside the window
}

// deliveryShard is what some subscribers have received. One histogram for
// each subscriber would take 350 MB for 10,000.
type deliveryShard struct {
	mu        sync.Mutex // guards the rest
	latency   Histogram
	delivered uint64 // of messages due inside the window
}

const deliveryShards = 16

// subscriber is one WebSocket that follows a room.
type subscriber struct {
	room   int
	socket *socket
	shard  *deliveryShard

	// received counts the run's messages, in and out of the window. The others
	// are valid once the reading goroutine has ended.
	received atomic.Uint64
	last     uint64 // Seq of the newest message
	skipped  uint64 // messages left out in the order of Seq
	repeated uint64 // messages that came again or too late
	err      error  // why reading ended
}

// Fanout opens subscribers, posts messages at a fixed rate and reports what
// was delivered, and how long after the time at which it was to be posted.
// When ctx ends early, the report covers the time up to then and says
// Interrupted. The error is about o, or says that subscribers could not be
// opened; what goes wrong later is in the report.
func Fanout(ctx context.Context, o FanoutOptions) (FanoutReport, error) {
	if err := o.Validate(); err != nil {
		return FanoutReport{}, err
	}
	o.RequestTimeout = orStandard(o.RequestTimeout, defaultRequestTimeout)
	o.Drain = orStandard(o.Drain, defaultDrain)
	addrs, err := dialAddresses(o.Endpoints)
	if err != nil {
		return FanoutReport{}, err
	}
	f := &fanout{
		options: o, addrs: addrs, run: rand.Text()[:8], posted: make([]postedRoom, o.Rooms),
		shards: make([]deliveryShard, deliveryShards), sent: newTally(len(addrs)),
	}
	// Sockets outlive the end of ctx: what was delivered until then still counts.
	open, closeAll := context.WithCancel(context.WithoutCancel(ctx))
	defer closeAll()
	if err := f.open(ctx, open); err != nil {
		return FanoutReport{}, fmt.Errorf("open subscribers: %w", err)
	}
	var reading sync.WaitGroup
	for _, s := range f.subscribers {
		reading.Go(func() { f.read(s) })
	}

	f.begin = time.Now()
	measure := f.begin.Add(o.Warmup)
	f.window = window{open: measure, end: measure.Add(o.Duration)}
	f.send(ctx)
	measured := o.Duration
	interrupted := ctx.Err() != nil && time.Now().Before(f.window.end)
	if interrupted {
		measured = max(time.Since(f.window.open), 0)
	}
	f.drain(ctx)
	held := f.held()
	closeAll()
	reading.Wait()
	return f.report(measured, interrupted, held), nil
}

func orStandard(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}

func (f *fanout) roomName(i int) string { return "fanout-" + f.run + "-" + strconv.Itoa(i) }

// open opens all sockets, which live until live ends. It gives up at the first
// that cannot be opened, or when ctx ends.
func (f *fanout) open(ctx, live context.Context) error {
	n := f.options.Rooms * f.options.Subscribers
	f.subscribers = make([]*subscriber, n)
	f.stalled = make([]*socket, f.options.Stalled)
	return openAll(ctx, n+len(f.stalled), func(i int) error {
		room, receiveBuffer := i%f.options.Rooms, 0
		if i >= n {
			receiveBuffer = socketBuffer // so that it fills soon
		}
		s, err := openSocket(live, f.addrs[i%len(f.addrs)], "/rooms/"+f.roomName(room)+"/ws", f.options.RequestTimeout, receiveBuffer)
		if err != nil {
			return err
		}
		if i >= n {
			f.stalled[i-n] = s
			return nil
		}
		f.subscribers[i] = &subscriber{room: room, socket: s, shard: &f.shards[i%deliveryShards]}
		return nil
	})
}

// openAll calls open for 0 to n-1, some at a time, until one fails or ctx
// ends.
func openAll(ctx context.Context, n int, open func(i int) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(dialling, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := open(i); err != nil {
					stop(fmt.Errorf("socket %d: %s", i+1, transportKind(err)))
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// stampedBytes is how much of a message is looked at; it holds the stamp
// behind the longest names.
const stampedBytes = 1 << 10

// read receives until the socket ends.
func (f *fanout) read(s *subscriber) {
	defer s.socket.close()
	for {
		frame, err := s.socket.next(stampedBytes)
		now := time.Now()
		if err != nil {
			s.err = err
			return
		}
		stamp, seq, ours := parseDelivery(frame, f.run)
		if !ours {
			continue
		}
		switch {
		case seq <= s.last:
			s.repeated++
			continue
		case seq > s.last+1:
			s.skipped += seq - s.last - 1
		}
		s.last = seq
		if due := f.begin.Add(stamp.due); f.window.contains(due) {
			s.shard.mu.Lock()
			s.shard.delivered++
			s.shard.latency.Record(now.Sub(due))
			s.shard.mu.Unlock()
		}
		s.received.Add(1)
	}
}

// drain waits until every subscriber has everything that was acknowledged, for
// a time, or until ctx ends.
func (f *fanout) drain(ctx context.Context) {
	for end := time.Now().Add(f.options.Drain); time.Now().Before(end) && !f.complete(); {
		if !pause(ctx, retryPause) {
			return
		}
	}
}

func (f *fanout) complete() bool {
	for _, s := range f.subscribers {
		if s.received.Load() < f.posted[s.room].acknowledged.Load() {
			return false
		}
	}
	return true
}

// held closes the stalled subscribers and returns how many of them the servers
// had not cut off.
func (f *fanout) held() int {
	var held atomic.Int64
	var wg sync.WaitGroup
	for _, s := range f.stalled {
		wg.Go(func() {
			defer s.close()
			// Whoever was cut finds an end behind what is still buffered.
			if err := s.nc.SetReadDeadline(time.Now().Add(cutCheck)); err != nil {
				return
			}
			for {
				if _, err := s.next(0); err != nil {
					if errors.Is(err, errDeadline) {
						held.Add(1)
					}
					return
				}
			}
		})
	}
	wg.Wait()
	return int(held.Load())
}
