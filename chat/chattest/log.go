package chattest

import (
	"context"
	"iter"
	"sync"

	"github.com/raft-chat/raft-chat/chat"
)

// Error is an error of the log with a code, as a real one reports it.
type Error string

// Error gives the code.
func (e Error) Error() string { return "log: " + string(e) }

// ErrorCode gives the code.
func (e Error) ErrorCode() string { return string(e) }

// Fault is what happens to one proposal. The zero value is none.
type Fault struct {
	// Refuse answers with this error and proposes nothing.
	Refuse error
	// Lose takes the proposal, does not apply it and answers with this error.
	Lose error
	// Hide applies the proposal and answers with this error all the same.
	Hide error
	// Wait, if not nil, delays all of it until it is closed or the context of
	// the proposal ends; Propose does not return before.
	Wait <-chan struct{}
}

// Log is a chat.Log of one node in memory. All methods may be called
// concurrently.
type Log struct {
	store *chat.Store
	queue chan proposal
	stop  chan struct{}
	done  chan struct{}

	mu    sync.Mutex
	fault func() Fault
	read  error

	closing sync.Once
}

type proposal struct {
	data   []byte
	done   func(any, error)
	fault  Fault
	marker bool // of a ReadIndex: nothing to apply
}

// queueLen is how many proposals the log takes before Propose blocks.
const queueLen = 16

// NewLog starts a log that applies to store, after what that holds. Close it
// before the store.
func NewLog(store *chat.Store) *Log {
	l := &Log{
		store: store,
		queue: make(chan proposal, queueLen),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	go l.run()
	return l
}

// Inject makes f decide the fault of each proposal from now on; nil ends it. f
// is called from many goroutines, one at a time.
func (l *Log) Inject(f func() Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = f
}

// FailReads makes ReadIndex answer with err; nil ends it.
func (l *Log) FailReads(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read = err
}

// Propose implements chat.Log.
func (l *Log) Propose(ctx context.Context, data []byte, done func(result any, err error)) {
	p := proposal{data: data, done: done}
	l.mu.Lock()
	if l.fault != nil {
		p.fault = l.fault()
	}
	l.mu.Unlock()
	if p.fault.Wait != nil {
		select {
		case <-p.fault.Wait:
		case <-ctx.Done():
			done(nil, ctx.Err())
			return
		}
	}
	if p.fault.Refuse != nil {
		done(nil, p.fault.Refuse)
		return
	}
	if err := l.enqueue(ctx, p); err != nil {
		done(nil, err)
	}
}

// ReadIndex implements chat.Log.
func (l *Log) ReadIndex(ctx context.Context) error {
	l.mu.Lock()
	err := l.read
	l.mu.Unlock()
	if err != nil {
		return err
	}
	answer := make(chan error, 1)
	p := proposal{marker: true, done: func(_ any, err error) { answer <- err }}
	if err := l.enqueue(ctx, p); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Log) enqueue(ctx context.Context, p proposal) error {
	// These are looked at first, since a select takes any case that is ready:
	// after Close nobody empties the queue, and whoever's context has ended is
	// not answered.
	select {
	case <-l.stop:
		return Error("stopping")
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	select {
	case l.queue <- p:
	case <-l.stop:
		return Error("stopping")
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-l.done:
		l.refuseQueued() // the log ended at the same moment
	default:
	}
	return nil
}

// Close ends the log; proposals that wait are answered with "stopping". A second
// Close does nothing.
func (l *Log) Close() {
	l.closing.Do(func() { close(l.stop) })
	<-l.done
	l.refuseQueued()
}

func (l *Log) refuseQueued() {
	for {
		select {
		case p := <-l.queue:
			p.done(nil, Error("stopping"))
		default:
			return
		}
	}
}

// run applies what is proposed: all that waits in one Apply, as a real log does.
func (l *Log) run() {
	defer close(l.done)
	for {
		select {
		case <-l.stop:
			return
		case p := <-l.queue:
			batch := []proposal{p}
		more:
			for len(batch) < queueLen {
				select {
				case p := <-l.queue:
					batch = append(batch, p)
				default:
					break more
				}
			}
			l.apply(batch)
		}
	}
}

func (l *Log) apply(batch []proposal) {
	last, _ := l.store.Applied()
	first := last + 1
	for i := range batch {
		if batch[i].entry() {
			last++
		}
	}
	results, err := l.store.Apply(entries(first, batch), last, nil)
	for i, n := 0, 0; i < len(batch); i++ {
		p := &batch[i]
		var result any
		if p.entry() && err == nil {
			result = results[n]
			n++
		}
		switch {
		case p.fault.Lose != nil:
			p.done(nil, p.fault.Lose)
		case p.fault.Hide != nil:
			p.done(nil, p.fault.Hide)
		default:
			p.done(result, err)
		}
	}
}

// entry reports whether the proposal becomes an entry.
func (p *proposal) entry() bool { return !p.marker && p.fault.Lose == nil }

func entries(index uint64, batch []proposal) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i := range batch {
			if !batch[i].entry() {
				continue
			}
			if !yield(index, batch[i].data) {
				return
			}
			index++
		}
	}
}
