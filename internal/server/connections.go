package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raft-chat/raft-chat/internal/budget"
)

const (
	// spareFiles are kept for the store, the log and the other members when the
	// process may open few files; half of them at most.
	spareFiles = 700
	// lingering bounds how many refused connections are kept at a time until their
	// client has read why, and lingerTime for how long.
	lingering  = 64
	lingerTime = time.Second
	// relieveEvery is the time between two rounds of closing idle connections.
	relieveEvery = time.Second
)

var errNoRoom = errors.New("the memory for connections (--memory-budget) or the limit of open files (ulimit -n) is used up")

// gate counts the open connections of all listeners for clients.
type gate struct {
	account *budget.Account
	files   atomic.Int64 // that connections may still take
	linger  chan struct{}
	parting sync.WaitGroup // of refused connections
	logger  *slog.Logger
	told    atomic.Int64 // when refusals were last logged, in Unix seconds
}

func newGate(account *budget.Account, files int64, logger *slog.Logger) *gate {
	g := &gate{account: account, linger: make(chan struct{}, lingering), logger: logger}
	g.files.Store(max(files-spareFiles, files/2))
	return g
}

// guardedListener lets connections in that the gate has room for, and answers the
// others: who is not accepted at all waits, and does not know for what.
type guardedListener struct {
	net.Listener
	gate *gate
	cost int64 // bytes of the budget that a connection takes
	// refusal is written to a connection that there is no room for; nothing if it
	// is empty.
	refusal []byte
	// relieve closes connections that nobody needs at the moment; it may be nil.
	relieve  func()
	relieved atomic.Int64  // when it was last called, in Unix nanoseconds
	spare    chan struct{} // has room for what is let in all the same

	closing sync.Once
	closed  chan struct{}
}

// guard returns l with the gate before it. spare connections are let in whatever
// the budget says.
func (g *gate) guard(l net.Listener, cost int64, refusal []byte, spare int) *guardedListener {
	return &guardedListener{Listener: l, gate: g, cost: cost, refusal: refusal,
		spare: make(chan struct{}, spare), closed: make(chan struct{})}
}

// Close implements net.Listener.
func (l *guardedListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Accept implements net.Listener. An error says that the listener is closed: any
// other, such as that there are too many open files, passes, and ends nothing.
func (l *guardedListener) Accept() (net.Conn, error) {
	for wait := time.Duration(0); ; {
		conn, err := l.Listener.Accept()
		switch {
		case err == nil:
			wait = 0
			if admitted := l.admit(conn); admitted != nil {
				return admitted, nil
			}
			l.refuse(conn)
			continue
		case errors.Is(err, net.ErrClosed):
			return nil, err
		}
		l.gate.tell("connections cannot be accepted", err)
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(wait):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// admit returns conn as one that gives back what it takes when it is closed, or nil
// if there is no room for it.
func (l *guardedListener) admit(conn net.Conn) net.Conn {
	release, ok := l.take()
	if !ok {
		now := time.Now().UnixNano()
		if last := l.relieved.Load(); l.relieve != nil && now-last >= int64(relieveEvery) && l.relieved.CompareAndSwap(last, now) {
			l.relieve()
			release, ok = l.take()
		}
	}
	if !ok {
		return nil
	}
	c := countedConn{release: release, open: new(atomic.Bool)}
	c.open.Store(true)
	if tcp, ok := conn.(*net.TCPConn); ok {
		return &countedTCPConn{tcp, c}
	}
	return &countedNetConn{conn, c}
}

// take takes the place of a connection.
func (l *guardedListener) take() (release func(), ok bool) {
	g := l.gate
	if g.files.Add(-1) >= 0 {
		if g.account.Take(l.cost) {
			return l.giveBack, true
		}
	}
	select {
	case l.spare <- struct{}{}:
		return func() { g.files.Add(1); <-l.spare }, true
	default:
		g.files.Add(1)
		return nil, false
	}
}

func (l *guardedListener) giveBack() {
	l.gate.files.Add(1)
	l.gate.account.Give(l.cost)
}

// refuse tells conn's client that there is no room. To close at once could destroy
// the answer on its way, because the client is sending.
func (l *guardedListener) refuse(conn net.Conn) {
	l.gate.tell("connections are refused", errNoRoom)
	half, ok := conn.(interface{ CloseWrite() error })
	if len(l.refusal) == 0 || !ok {
		_ = conn.Close()
		return
	}
	select {
	case l.gate.linger <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Now().Add(lingerTime))
	l.gate.parting.Go(func() {
		defer func() { <-l.gate.linger }()
		defer conn.Close()
		if _, err := conn.Write(l.refusal); err == nil && half.CloseWrite() == nil {
			_, _ = io.CopyBuffer(io.Discard, io.LimitReader(conn, 64<<10), make([]byte, 512))
		}
	})
}

// tell logs what happens to connections, once a minute.
func (g *gate) tell(what string, err error) {
	now := time.Now().Unix()
	if last := g.told.Load(); now-last >= 60 && g.told.CompareAndSwap(last, now) {
		g.logger.Warn(what, "error", err)
	}
}

// countedConn is what is common to the connections of a gate.
type countedConn struct {
	release func()
	open    *atomic.Bool
}

func (c *countedConn) closed() {
	if c.open.Swap(false) {
		c.release()
	}
}

// countedTCPConn keeps all that a TCP connection can do.
type countedTCPConn struct {
	*net.TCPConn
	countedConn
}

// Close implements net.Conn.
func (c *countedTCPConn) Close() error {
	defer c.closed()
	return c.TCPConn.Close()
}

type countedNetConn struct {
	net.Conn
	countedConn
}

// Close implements net.Conn.
func (c *countedNetConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
