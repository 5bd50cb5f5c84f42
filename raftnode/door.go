package raftnode

import (
	"container/list"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// maxUnverified is how many connections may be open on which no member has
// proved itself yet.
const maxUnverified = 128

// door is the peer listener: it bounds what strangers can hold open. When too
// many connections wait to show whose they are, the one that has waited longest
// is closed, so that a member always gets in; members' own are left alone.
type door struct {
	net.Listener
	account *budget.Account
	closed  *counts // connections that were closed for others, by reason

	mu      sync.Mutex
	waiting list.List // of *doorConn, the oldest first
	open    atomic.Int64
}

// Why a connection was closed or refused.
const (
	crowded   = "unverified_connections"
	overspent = "memory_budget"
)

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := d.admit(conn); c != nil {
			return c, nil
		}
		d.closed.add(overspent)
		_ = conn.Close() // nobody was served on it
	}
}

func (d *door) admit(conn net.Conn) *doorConn {
	if !d.account.Take(budget.PerConnection) && (!d.evict() || !d.account.Take(budget.PerConnection)) {
		return nil
	}
	c := &doorConn{Conn: conn, door: d}
	d.open.Add(1)
	d.mu.Lock()
	c.place = d.waiting.PushBack(c)
	over := d.waiting.Len() > maxUnverified
	d.mu.Unlock()
	if over {
		d.evict()
	}
	return c
}

// evict closes the connection that has been a stranger's for longest.
func (d *door) evict() bool {
	d.mu.Lock()
	first := d.waiting.Front()
	d.mu.Unlock()
	if first == nil {
		return false
	}
	d.closed.add(crowded)
	_ = first.Value.(*doorConn).Close() // whoever it was gets to know by it
	return true
}

// doorConn gives every write a deadline, as rafthttp expects of its listener: a
// stream to a member that does not read must end.
type doorConn struct {
	net.Conn
	door  *door
	place *list.Element // nil: a member has proved itself; guarded by door.mu
	ended sync.Once
}

// writeStep is how much has to get through within one deadline: a large entry
// comes as one write.
const writeStep = 256 << 10

func (c *doorConn) Write(b []byte) (written int, err error) {
	for err == nil && (written == 0 || written < len(b)) {
		if err := c.SetWriteDeadline(time.Now().Add(rafthttp.DefaultConnWriteTimeout)); err != nil {
			return written, err
		}
		var n int
		n, err = c.Conn.Write(b[written:min(len(b), written+writeStep)])
		if written += n; len(b) == 0 {
			break
		}
	}
	return written, err
}

func (c *doorConn) Close() error {
	err := c.Conn.Close()
	c.ended.Do(func() {
		c.verified()
		c.door.account.Give(budget.PerConnection)
		c.door.open.Add(-1)
	})
	return err
}

// verified takes the connection out of those that wait.
func (c *doorConn) verified() {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	if c.place != nil {
		c.door.waiting.Remove(c.place)
		c.place = nil
	}
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// markVerified notes that a member has proved itself on a request's connection.
func markVerified(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*doorConn); ok {
		c.verified()
	}
}

const (
	headerTimeout = 5 * time.Second
	// bodyTimeout is for the whole body of a request, and for each piece of one
	// whose length is not bounded.
	bodyTimeout = 10 * time.Second
	idleTimeout = 30 * time.Second
	// clientIdleTimeout is shorter, so that a member does not write into a
	// connection that the other one is about to close.
	clientIdleTimeout = 20 * time.Second
)

// bounded lets close wait for the requests under way, which may write files,
// refuses what comes later, and bounds the time that a body takes.
func (p *peers) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.enter() {
			answerError(w, http.StatusServiceUnavailable, errStopping)
			return
		}
		defer p.handling.Done()
		// The connections that are not a member's have nothing to wait for.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // only a test's recorder has none
		next.ServeHTTP(w, r)
	})
}

// enter counts a request in, unless the node is stopping.
func (p *peers) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.handling.Add(1)
	return true
}

// patientBody is a body that may take long, but not long for each piece.
type patientBody struct {
	io.ReadCloser
	request *http.ResponseController
}

func (b patientBody) Read(p []byte) (int, error) {
	_ = b.request.SetReadDeadline(time.Now().Add(bodyTimeout))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.request.SetReadDeadline(time.Time{}) // what is done with it may take long, too
	}
	return n, err
}
