package raftnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// peers is the node's side of the network: the listener, etcd's rafthttp
// transport, and who may use it. No raft message goes to or comes from a
// member before that member has accepted this node's hello in this process's
// lifetime: it knows by then that the data directory behind this member id is
// the one that the cluster registered. Each request of a member carries the
// secret that it has told this node, see trust.go.
type peers struct {
	n      *Node
	client *http.Client
	server *http.Server
	door   *door
	ctx    context.Context // ends with the node
	cancel context.CancelFunc

	refused    counts // requests, by reason
	turnedAway counts // connections, by reason
	asking     gate   // of the records of others
	rivals     rivals

	mu       sync.Mutex
	known    map[uint64]*peer
	seen     map[uint64]Incarnation              // as they said in a hello
	requests map[*http.ResponseController]uint64 // of rafthttp, under way, by member
	others   []*membership                       // what members that were met know, see vouched
	doubts   lasting                             // that are cast on this directory, see doubt
	former   map[Peer]context.CancelFunc         // who is reminded
	closed   bool
	handling sync.WaitGroup // of requests; counted up under mu while not closed

	meeting sync.Mutex // held over a write of met
	met     Met
}

// peer is one other member.
type peer struct {
	id     uint64
	url    string
	secret secret // of this node, for this member alone
	cancel context.CancelFunc
	kick   chan struct{} // one slot: try the hello, or the call back, again now
	errors chan error    // of rafthttp: the member answers that this one was removed
	asking gate          // of call backs
	absent atomic.Bool   // it did not answer lately: it is greeted again

	// Guarded by peers.mu.
	claim     claim
	ready     bool                // it accepted our hello
	guest     bool                // vouched for, and not in our records yet
	transport *rafthttp.Transport // once ready
	handler   http.Handler        // of the transport
}

const (
	dialTimeout = time.Second
	// dialInterval is how far apart the dials of a raft stream are that fail.
	dialInterval = 100 * time.Millisecond
	// greetInterval is how far apart hellos to a member are that does not answer, at
	// most: a directory that is made anew listens for a second.
	greetInterval = 250 * time.Millisecond
	// againInterval is that of hellos to ask whether this member was removed, in ticks.
	againInterval = 32
)

func newPeers(n *Node) *peers {
	p := &peers{
		n: n, known: map[uint64]*peer{}, former: map[Peer]context.CancelFunc{}, seen: map[uint64]Incarnation{}, requests: map[*http.ResponseController]uint64{},
		client: &http.Client{
			// No proxy: members are not the web. No redirect: a recorded URL is meant.
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
				MaxIdleConnsPerHost: 2, IdleConnTimeout: clientIdleTimeout, ResponseHeaderTimeout: 10 * time.Second,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	p.door = &door{Listener: n.cfg.Listener, account: n.cfg.Budget.Account(budget.Peers), closed: &p.turnedAway}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// start begins to listen. The members to greet come with reconcile.
func (p *peers) start() (err error) {
	n := p.n
	if p.met, err = loadMet(n.cfg.Dir); err != nil {
		return err
	}
	p.server = &http.Server{
		Handler: p.routes(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10, ConnContext: withConn,
		ErrorLog: slog.NewLogLogger(n.logger.Handler(), slog.LevelDebug),
	}
	n.wg.Go(func() {
		if err := p.server.Serve(p.door); !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("peer listener: %w", err))
		}
	})
	n.wg.Go(func() {
		<-n.stop
		p.refuseAll()
		_ = p.server.Close() // ends Serve; its connections die with it
	})
	return nil
}

// refuseAll lets nothing begin any more.
func (p *peers) refuseAll() {
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, x := range p.known {
		x.cancel()
	}
}

// close stops the transport after every goroutine that sends has ended.
func (p *peers) close() {
	p.refuseAll()
	p.mu.Lock()
	var transports []*rafthttp.Transport
	for _, x := range p.known {
		if x.transport != nil {
			transports = append(transports, x.transport)
		}
	}
	p.mu.Unlock()
	var stopping sync.WaitGroup
	for _, t := range transports {
		stopping.Go(t.Stop)
	}
	stopping.Wait()
	p.handling.Wait()
	p.client.CloseIdleConnections()
}

// reconcile makes the peers those of the member records.
func (p *peers) reconcile(m *membership) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	want := m.Members
	if len(want) == 0 {
		// A joining member knows nobody yet but the list it was given.
		for _, x := range p.n.identity.Cluster {
			want = append(want, Member{ID: x.ID, PeerURL: x.URL})
		}
	}
	keep := map[uint64]bool{}
	for _, x := range want {
		if x.ID == p.n.cfg.ID {
			continue
		}
		keep[x.ID] = true
		if old, ok := p.known[x.ID]; ok && old.url == x.PeerURL {
			continue
		} else if ok {
			p.forget(old)
		}
		p.meet(x.ID, x.PeerURL)
	}
	p.remindAll(m)
	for id, x := range p.known {
		x.guest = x.guest && !keep[id]
		if !keep[id] && (!x.guest || m.isRemoved(id)) {
			p.forget(x)
		}
	}
}

// remindAll is called with mu held.
func (p *peers) remindAll(m *membership) {
	for x, stop := range p.former {
		if !slices.Contains(m.Former, x) {
			stop()
			delete(p.former, x)
		}
	}
	for _, x := range m.Former {
		if p.former[x] == nil {
			ctx, cancel := context.WithCancel(p.ctx)
			p.former[x] = cancel
			p.n.spawn(func() { p.remind(ctx, x) })
		}
	}
}

// forget is called with mu held.
func (p *peers) forget(x *peer) {
	x.cancel()
	delete(p.known, x.id)
	if !x.ready {
		return
	}
	for request, from := range p.requests {
		if from == x.id {
			_ = request.SetWriteDeadline(time.Unix(1, 0)) // the listener's own deadline is the fallback
		}
	}
	// An id is never used again, so nothing depends on when this is done.
	p.n.spawn(x.transport.Stop)
}

// greet says hello until the member accepts it, and again when it is away. From
// then on it answers doubts about the member.
func (p *peers) greet(ctx context.Context, x *peer) {
	tick, stop := p.n.cfg.Clock.Tick(min(p.n.cfg.TickInterval, greetInterval))
	defer stop()
	var waiting lasting
	rarely := int(greetInterval / min(p.n.cfg.TickInterval, greetInterval))
	for pause := 1; ; pause = min(2*pause, rarely) {
		err := p.hello(ctx, x)
		if err == nil {
			if since := waiting.since; !since.IsZero() {
				p.n.logger.Info("member answers", "member", x.id, "url", x.url, "waited_since", since.UTC().Format(time.RFC3339))
			}
			break
		}
		switch {
		case p.final(x, err):
			p.n.fail(err)
			return
		case ctx.Err() != nil:
			return
		}
		p.notGreeted(ctx, x, err)
		if times, due := waiting.due(p.n.cfg.Clock.Now(), err); due {
			p.n.logger.Info("waiting for member", "member", x.id, "url", x.url, "reason", err, "attempts", times)
		}
		for range pause {
			select {
			case <-tick:
				continue
			case <-x.kick:
				pause = 1
			case <-ctx.Done():
				return
			}
			break
		}
	}
	if err := p.connect(ctx, x); err != nil {
		p.n.fail(err)
		return
	}
	p.callBack(ctx, x) // its requests may be on their way already
	var again gate
	away, stopAway := p.n.cfg.Clock.Tick(greetInterval)
	defer stopAway()
	for {
		select {
		case <-x.kick:
			p.callBack(ctx, x)
		case <-away:
			if !x.absent.Load() {
				continue
			}
			err := p.hello(ctx, x)
			if p.final(x, err) {
				p.n.fail(err)
				return
			}
			x.absent.Store(err != nil)
			p.notGreeted(ctx, x, err)
		case <-x.errors:
			// rafthttp knows one reason only: the member, or whatever answers at
			// its address, says that this one was removed. Ask in our own words.
			again.do(ctx, p.n.cfg.Clock.Now(), againInterval*p.n.cfg.TickInterval, func() {
				if err := p.hello(ctx, x); p.final(x, err) {
					p.n.fail(err)
				}
			})
		case <-ctx.Done():
			return
		}
	}
}

// notGreeted follows up why a member that was greeted is not there.
func (p *peers) notGreeted(ctx context.Context, x *peer, err error) {
	var e *Error
	switch {
	case !errors.As(err, &e):
	case e.Code == codeFresh:
		p.adopt(ctx, x)
	case e.Code == codeOtherCluster:
		p.suspect(x.id, x.url)
	}
}

// remind tells former members' addresses that the cluster is there, in case a
// directory is made anew there. One tells it, who leads.
func (p *peers) remind(ctx context.Context, x Peer) {
	tick, stop := p.n.cfg.Clock.Tick(greetInterval)
	defer stop()
	for {
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
		if n := p.n; n.Status().Leader == n.cfg.ID && n.cfg.reachable(n.cfg.ID, x.ID) {
			var reply helloReply
			// Whatever it answers: nobody waits for it.
			_ = p.post(ctx, x.URL+helloPath, helloRequest{Version: helloVersion, caller: p.self(x.ID), PeerURL: n.cfg.ownURL()}, &reply)
		}
	}
}

// missed notes that a member did not answer.
func (p *peers) missed(id uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x, ok := p.known[id]; ok {
		x.absent.Store(true)
	}
}

// final reports whether the answer to a hello ends this node. A guest's does
// not: its address is not in our records.
func (p *peers) final(x *peer, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var refused *IdentityError
	return (errors.As(err, &refused) || errors.Is(err, ErrRemoved)) && !x.guest
}

// welcome notes that a member has said hello, and answers its greeting at once.
func (p *peers) welcome(x *peer, inc Incarnation) {
	p.mu.Lock()
	p.seen[x.id] = inc
	p.mu.Unlock()
	x.nudge()
}

// nudge makes greet look again.
func (x *peer) nudge() {
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

// meet begins to greet a member; mu is held.
func (p *peers) meet(id uint64, url string) *peer {
	ctx, cancel := context.WithCancel(p.ctx)
	fresh := &peer{id: id, url: url, secret: newSecret(), cancel: cancel, kick: make(chan struct{}, 1), errors: make(chan error, 1)}
	p.known[id] = fresh
	p.n.spawn(func() { p.greet(ctx, fresh) })
	return fresh
}

// meetGuest begins to greet a member that others vouch for.
func (p *peers) meetGuest(id uint64, url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.known[id]; !known && !p.closed && len(p.known) < MaxMembers {
		p.meet(id, url).guest = true
	}
}

// incarnationOf returns what is known of a member's directory: from the
// replicated records, or else from its first hello to this process.
func (p *peers) incarnationOf(id uint64) Incarnation {
	if known := p.n.replica.incarnationOf(id); !known.IsZero() {
		return known
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[id]
}

func (p *peers) accepted(id uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.known[id]
	return ok && x.ready
}

func (p *peers) url(id uint64) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.known[id]
	if !ok {
		return "", false
	}
	return x.url, true
}

// PeerCounts is what a node has refused and dropped on its peer listener since it
// was opened, by reason.
type PeerCounts struct {
	DroppedMessages   map[string]uint64 // raft messages that no member can have sent
	RefusedRequests   map[string]uint64
	ClosedConnections map[string]uint64 // to make room, or for the memory budget
	Connections       int64             // that are open
}

// PeerCounts never blocks for long.
func (n *Node) PeerCounts() PeerCounts {
	p := n.peers
	return PeerCounts{n.dropped.all(), p.refused.all(), p.turnedAway.all(), p.door.open.Load()}
}
