package chat

import (
	"context"
	"sync"
)

// Log is the replicated log as this package needs it. A proposal is a payload
// for Store.Apply.
type Log interface {
	// Propose hands data to the log as one entry. It blocks while the log cannot
	// take more and returns once data was taken or refused. done is called
	// exactly once, possibly before Propose returns and possibly from a
	// goroutine of the log; it does not block. result is what Store.Apply gave
	// for the entry. data must not be changed any more.
	//
	// Errors carry ErrorCode() string; no_leader, overloaded, stopping,
	// clock_skew and disk_full mean that nothing was proposed.
	Propose(ctx context.Context, data []byte, done func(result any, err error))
	// ReadIndex returns once everything that was committed before the call is
	// applied here.
	ReadIndex(ctx context.Context) error
}

// outcome is what became of one command.
type outcome struct {
	result commandResult
	err    error
}

// proposal is one command on its way through the batcher.
type proposal struct {
	command []byte // a field "commands" of chatpb.Batch
	solo    bool   // needs an entry of its own
	outcome chan outcome

	// Guarded by batcher.mu.
	next, prev *proposal // in the queue
	queued     bool
}

func newProposal(command []byte) *proposal {
	return &proposal{command: command, outcome: make(chan outcome, 1)}
}

// flight is one entry handed to the log.
type flight struct {
	b         *batcher
	proposals []*proposal
	bytes     int
	cancel    context.CancelFunc // of the context of its Propose
}

// batcher joins commands into log entries: all that wait while a Propose blocks
// go together. How many entries may be under way is the log's to say, which
// knows when one got lost. There is no delay to collect more, so a command that
// finds the log idle is proposed at once, by the goroutine that brings it;
// whatever has queued up meanwhile is taken over by a fresh goroutine.
//
// Everything is bounded: what waits and what is in flight together hold at most
// maxPending commands and maxPendingBytes.
type batcher struct {
	log Log
	opt ServiceOptions

	ctx    context.Context // of Propose; ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup // goroutines of run

	mu      sync.Mutex
	closed  bool
	head    *proposal // the queue, oldest first
	tail    *proposal
	pending int  // commands queued and in flight
	bytes   int  // their bytes
	handing bool // a goroutine is handing over
}

func newBatcher(log Log, opt ServiceOptions) *batcher {
	b := &batcher{log: log, opt: opt}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// submit queues p and, if nobody else is at it, hands it over; ctx bounds that,
// because p goes alone then. An error means that p was not taken; otherwise p.outcome
// gets one outcome, unless the batcher is closed.
func (b *batcher) submit(ctx context.Context, p *proposal) error {
	b.mu.Lock()
	if err := b.admit(p); err != nil {
		b.mu.Unlock()
		return err
	}
	if b.handing {
		b.mu.Unlock()
		return nil
	}
	b.handing = true
	f := b.take() // p alone: while anything else waits, somebody is handing over
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(b.ctx, cancel)
	f.cancel = func() { stop(); cancel() }
	b.fly(ctx, f)

	b.mu.Lock()
	defer b.mu.Unlock()
	b.handing = b.head != nil && !b.closed
	if b.handing {
		b.wg.Go(b.run)
	}
	return nil
}

// enqueue is submit for callers that must not wait: others hand p over.
func (b *batcher) enqueue(p *proposal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.admit(p); err != nil {
		return err
	}
	if !b.handing {
		b.handing = true
		b.wg.Go(b.run)
	}
	return nil
}

// admit queues p, or refuses it; mu is held.
func (b *batcher) admit(p *proposal) error {
	switch {
	case b.closed:
		return fail(CodeStopping, "this node is shutting down")
	case b.pending >= b.opt.MaxPending || b.bytes+len(p.command) > b.opt.MaxPendingBytes:
		return fail(CodeOverloaded, "too many messages are waiting on this node")
	}
	b.pending++
	b.bytes += len(p.command)
	b.push(p)
	return nil
}

// withdraw takes p back; false if it was handed over already.
func (b *batcher) withdraw(p *proposal) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !p.queued {
		return false
	}
	b.unlink(p)
	b.pending--
	b.bytes -= len(p.command)
	return true
}

// run hands over until nothing waits.
func (b *batcher) run() {
	for {
		b.mu.Lock()
		if b.head == nil || b.closed {
			b.handing = false
			b.mu.Unlock()
			return
		}
		f := b.take()
		b.mu.Unlock()
		b.fly(b.contextOf(f), f)
	}
}

// take makes an entry of the oldest commands. The queue is not empty.
func (b *batcher) take() *flight {
	f := &flight{b: b}
	for p := b.head; p != nil; p = b.head {
		if len(f.proposals) > 0 &&
			(p.solo || f.proposals[0].solo || len(f.proposals) == b.opt.MaxBatchCommands || f.bytes+len(p.command) > b.opt.MaxBatchBytes) {
			break
		}
		b.unlink(p)
		f.proposals = append(f.proposals, p)
		f.bytes += len(p.command)
	}
	return f
}

// contextOf makes the context of an entry, which belongs to no single request:
// its commands may end without each other.
func (b *batcher) contextOf(f *flight) (ctx context.Context) {
	ctx, f.cancel = context.WithTimeout(b.ctx, b.opt.RequestTimeout)
	return ctx
}

// fly hands an entry to the log.
func (b *batcher) fly(ctx context.Context, f *flight) {
	data := make([]byte, 0, maxEnvelopeHeader+f.bytes)
	data = appendHeader(data, b.opt.Now().UnixMicro())
	for _, p := range f.proposals {
		data = append(data, p.command...)
	}
	b.log.Propose(ctx, data, f.done)
}

// done gives every command of the entry its outcome. The log calls it.
func (f *flight) done(result any, err error) {
	results, ok := result.([]commandResult)
	if _, poisoned := result.(poisonedEntry); poisoned {
		results, ok = make([]commandResult, len(f.proposals)), true
		for i := range results {
			results[i].code = CodeCommandFailed
		}
	}
	if err == nil && (!ok || len(results) != len(f.proposals)) {
		err = fail(CodeInternal, "the log answered with the result of something else")
	}
	f.cancel()
	b := f.b
	b.mu.Lock()
	b.pending -= len(f.proposals)
	b.bytes -= f.bytes
	b.mu.Unlock()
	for i, p := range f.proposals {
		o := outcome{err: err}
		if err == nil {
			o.result = results[i]
		}
		p.outcome <- o // one slot, one outcome
	}
}

// close refuses everything from now on and waits for the goroutines. Waiters
// learn of it from the Service.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.wg.Wait()
}

func (b *batcher) push(p *proposal) {
	p.queued, p.prev, p.next = true, b.tail, nil
	if b.tail == nil {
		b.head = p
	} else {
		b.tail.next = p
	}
	b.tail = p
}

func (b *batcher) unlink(p *proposal) {
	if p.prev == nil {
		b.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		b.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.queued, p.prev, p.next = false, nil, nil
}
