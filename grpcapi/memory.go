package grpcapi

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/internal/budget"
)

// What a call makes this node hold is taken from the memory budget: a request while
// it is received, by its largest size, because nobody knows it before; an answer
// until the transport has written it; and the call itself until both are over. gRPC
// does not wait for a client to take an answer, and keeps it for as long as its
// connection lives: so answers have a time limit, too, and after it the connection
// is closed.

const (
	// callBytes is about what a call holds itself: its goroutine, its headers and
	// its place in the transport.
	callBytes = 16 << 10
	// receiveTimeout is how long a request may take to arrive.
	receiveTimeout = 15 * time.Second
	// smallAnswer is the size of buffers that are used again. The transport does not
	// tell when it is done with one that is much smaller.
	smallAnswer = 2 << 10
	// spareReceivers is how many requests are received at a time whatever others
	// have left of the budget.
	spareReceivers = 16
)

// charge is what one call holds. All methods may be called on nil, which holds nothing.
type charge struct {
	server    *Server
	conn      *limitedConn
	account   *budget.Account // of the call itself
	requests  *budget.Account
	receiving bool  // the request is not here yet
	since     int64 // when that began, in nanoseconds of the Unix time
	taken     int64 // for the request
	late      *time.Timer
	users     atomic.Int32 // the handler, and answers on their way
	patience  time.Duration
}

type chargeKey struct{}

// chargeOf gives what begin has put into ctx.
func chargeOf(ctx context.Context) *charge {
	c, _ := ctx.Value(chargeKey{}).(*charge)
	return c
}

// begin takes what a call needs until its request is here, before any of that is
// received. use is what the call itself is held for.
func (s *Server) begin(ctx context.Context, use budget.Use) (context.Context, *charge, error) {
	conn := connOf(ctx)
	if conn == nil {
		return ctx, nil, nil
	}
	c := &charge{
		server: s, conn: conn, account: s.options.Budget.Account(use), requests: s.options.Budget.Account(budget.Requests),
		patience: s.options.WriteTimeout + s.options.CloseGrace,
	}
	if !c.conn.take(c.account, callBytes) {
		return ctx, nil, overloaded()
	}
	if !s.receivers.enter(c, int64(s.options.MaxReceive)) {
		c.conn.give(c.account, callBytes)
		return ctx, nil, overloaded()
	}
	c.users.Store(1)
	c.late = time.AfterFunc(receiveTimeout, c.conn.cut)
	// What is compressed is held outside of the buffers that are counted.
	if t, ok := grpc.ServerTransportStreamFromContext(ctx).(interface{ SendCompress() string }); ok && t.SendCompress() != "" {
		if err := grpc.SetSendCompressor(ctx, encoding.Identity); err != nil {
			c.end()
			return ctx, nil, err
		}
	}
	return context.WithValue(ctx, chargeKey{}, c), c, nil
}

// overloaded is the answer to what the memory budget has no room for.
func overloaded() error {
	return failure{
		code:   chat.CodeOverloaded,
		detail: "this node's memory for such calls (--memory-budget) is used up; try again",
	}.status()
}

// received says that the client has sent all it can.
func (c *charge) received() {
	if c == nil || !c.receiving {
		return
	}
	c.late.Stop()
	c.server.receivers.leave(c)
}

// receivers are the calls whose request is not here yet.
type receivers struct {
	mu   sync.Mutex
	open map[*charge]struct{}
}

// enter takes n bytes for the request of c. Where the budget refuses them, the
// connection that has kept a request unfinished for longest is closed.
func (r *receivers) enter(c *charge, n int64) bool {
	ok := c.conn.take(c.requests, n)
	if !ok && r.cutOldest() {
		ok = c.conn.take(c.requests, n)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case ok:
		c.taken = n
	case len(r.open) >= spareReceivers:
		return false
	}
	c.receiving, c.since = true, time.Now().UnixNano()
	if r.open == nil {
		r.open = make(map[*charge]struct{})
	}
	r.open[c] = struct{}{}
	return true
}

func (r *receivers) leave(c *charge) {
	r.mu.Lock()
	delete(r.open, c)
	r.mu.Unlock()
	c.receiving = false
	c.conn.give(c.requests, c.taken)
}

// cutOldest closes the connection of the request that is unfinished for longest;
// false if none is stalled.
func (r *receivers) cutOldest() bool {
	var oldest *charge
	r.mu.Lock()
	for c := range r.open {
		if oldest == nil || c.since < oldest.since {
			oldest = c
		}
	}
	r.mu.Unlock()
	if oldest == nil || time.Now().UnixNano()-oldest.since < int64(stalledAfter) {
		return false
	}
	oldest.conn.cut()
	return true
}

// end is the end of the handler.
func (c *charge) end() {
	if c == nil {
		return
	}
	c.received()
	c.leave()
}

func (c *charge) leave() {
	if c.users.Add(-1) == 0 {
		c.conn.give(c.account, callBytes)
	}
}

// outgoing is a message to a client with what it takes of a budget until it is
// written. It is the pool that its buffer goes back to then.
type outgoing struct {
	message proto.Message
	charge  *charge
	account *budget.Account
	bytes   int64
	buffer  []byte
	small   *[]byte // what buffer was made from, to be used again
	late    *time.Timer
}

// answer gives message as an outgoing, which the codec must get; false if there is
// no room for it.
func (c *charge) answer(account *budget.Account, message any) (any, bool) {
	m, ok := message.(proto.Message)
	if c == nil || !ok {
		return message, true
	}
	o := &outgoing{message: m, charge: c, account: account}
	size := proto.Size(m)
	if o.bytes = max(int64(size)-budget.Free, 0); !c.conn.take(account, o.bytes) {
		return nil, false
	}
	c.users.Add(1)
	if size <= smallAnswer {
		o.small = smallBuffers.Get().(*[]byte)
		o.buffer = *o.small
	} else {
		o.buffer = make([]byte, 0, size)
	}
	return o, true
}

var smallBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, smallAnswer)
	return &b
}}

// marshal encodes the message.
func (o *outgoing) marshal() (mem.BufferSlice, error) {
	b, err := proto.MarshalOptions{}.MarshalAppend(o.buffer, o.message)
	if err != nil {
		o.Put(nil)
		return nil, err
	}
	o.buffer, o.message = b, nil
	o.late = time.AfterFunc(o.charge.patience, o.charge.conn.cut)
	return mem.BufferSlice{mem.NewBuffer(&o.buffer, o)}, nil
}

// Get implements mem.BufferPool; nobody calls it.
func (o *outgoing) Get(length int) *[]byte {
	b := make([]byte, length)
	return &b
}

// Put implements mem.BufferPool: the message was written, or never will be.
func (o *outgoing) Put(*[]byte) {
	if o.late != nil {
		o.late.Stop()
	}
	o.buffer = nil
	if o.small != nil {
		smallBuffers.Put(o.small)
		o.small = nil
	}
	o.charge.conn.give(o.account, o.bytes)
	o.charge.leave()
}
