package raftnode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	stats "go.etcd.io/etcd/server/v3/etcdserver/api/v2stats"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// connect lets raft messages pass to and from a member. Each has a transport of
// its own, so that what one of them answers is known to be its answer, and no
// member is told the secret that is for another.
func (p *peers) connect(ctx context.Context, x *peer) error {
	n := p.n
	lg, id := zapLogger(n.logger), types.ID(n.cfg.ID)
	t := &rafthttp.Transport{
		Logger: lg, DialTimeout: dialTimeout, DialRetryFrequency: rate.Every(dialInterval),
		ID: id, ClusterID: types.ID(n.identity.ClusterID), Raft: link{n, x.id},
		Snapshotter: n.disk.snap,
		ServerStats: stats.NewServerStats(n.cfg.Name, id.String()), LeaderStats: stats.NewLeaderStats(lg, id.String()),
		ErrorC: x.errors,
	}
	if err := t.Start(); err != nil {
		return fmt.Errorf("start peer transport: %w", err)
	}
	if err := ownRoundTrippers(t, x.secret); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() == nil && !p.closed {
		t.AddPeer(types.ID(x.id), []string{x.url}) // starts goroutines, waits for nothing
		x.transport, x.handler, x.ready = t, t.Handler(), true
	}
	return nil
}

// Send implements Network over rafthttp.
func (p *peers) Send(messages []*raftpb.Message) {
	for i, m := range messages {
		if !p.n.cfg.reachable(p.n.cfg.ID, m.GetTo()) {
			continue
		}
		if t := p.transport(m.GetTo()); t != nil {
			t.Send(messages[i : i+1])
		}
	}
}

// transport returns the one to a member, nil if nothing passes to it yet.
func (p *peers) transport(id uint64) *rafthttp.Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x, ok := p.known[id]; ok {
		return x.transport
	}
	return nil
}

// sendSnapshot streams a snapshot to a member; the outcome is reported to raft.
func (p *peers) sendSnapshot(m *snap.Message) {
	if t := p.transport(m.GetTo()); t != nil {
		t.SendSnapshot(m)
		return
	}
	m.CloseWithError(errors.New("the member is not there any more"))
	p.n.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
}

// routes are those of the peer listener.
func (p *peers) routes() http.Handler {
	mux := http.NewServeMux()
	raft := p.guarded(func(x *peer, w http.ResponseWriter, r *http.Request) { x.handler.ServeHTTP(w, r) })
	mux.Handle(rafthttp.RaftPrefix, p.settled(raft.ServeHTTP))
	mux.Handle(rafthttp.RaftPrefix+"/", p.settled(raft.ServeHTTP))
	mux.HandleFunc("GET "+rafthttp.ProbingPrefix, serveProbe)
	mux.Handle("POST "+helloPath, p.settled(p.serveHello))
	mux.Handle("POST "+confirmPath, p.settled(p.serveConfirm))
	mux.Handle("POST "+callPath, p.settled(p.serveCall))
	mux.HandleFunc("POST "+foundPath, p.serveFound)
	if p.n.cfg.Wrap != nil {
		return p.bounded(p.n.cfg.Wrap(mux))
	}
	return p.bounded(mux)
}

// settled serves what only a member of a cluster can answer.
func (p *peers) settled(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.n.settled.Load() {
			next(w, r)
		} else {
			p.serveFresh(w, r)
		}
	})
}

// serveProbe answers the prober of rafthttp as its own handler does.
func serveProbe(w http.ResponseWriter, _ *http.Request) {
	answer(w, struct {
		OK  bool
		Now time.Time
	}{true, time.Now()})
}

// guarded refuses strangers before rafthttp sees them: an id, a cluster id and an
// address in a header are no proof, and rafthttp would start goroutines for any,
// and give the messages for a member to whoever asks.
func (p *peers) guarded(next func(x *peer, w http.ResponseWriter, r *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// rafthttp overlooks the status of an answer without a version.
		w.Header().Set("X-Server-Version", version.Version)
		from, err := types.IDFromString(r.Header.Get("X-Server-From"))
		if err != nil {
			p.refused.add("no_member_id")
			http.Error(w, "no member id", http.StatusBadRequest)
			return
		}
		if p.n.IsIDRemoved(uint64(from)) && r.Header.Get("X-Etcd-Cluster-ID") == types.ID(p.n.identity.ClusterID).String() {
			http.Error(w, "removed member", http.StatusGone)
			return
		}
		var s secret
		_ = s.UnmarshalText([]byte(r.Header.Get(secretHeader))) // what is none is not the right one
		x, fits := p.holds(uint64(from), s)
		if x != nil && !fits && !s.IsZero() {
			x.nudge() // it may have been started anew
		}
		if !fits || !p.accepted(x.id) || !p.n.cfg.reachable(x.id, p.n.cfg.ID) {
			p.refused.add("unverified")
			// Not 403: rafthttp takes that for "you were removed".
			http.Error(w, "member "+strconv.FormatUint(uint64(from), 10)+" has to say hello first", http.StatusServiceUnavailable)
			return
		}
		markVerified(r)
		for _, h := range []string{"X-PeerURLs", secretHeader} {
			r.Header.Del(h)
		}
		r.Header.Set("X-Server-Version", version.Version) // what is no version makes rafthttp panic
		r.Header.Set("X-Min-Cluster-Version", version.MinClusterVersion)
		request := http.NewResponseController(w)
		limit := int64(maxFrame)
		if r.URL.Path == rafthttp.RaftSnapshotPrefix {
			// A snapshot is stored twice until the swap, and must leave room
			// for what the node itself writes.
			free := p.n.cfg.FreeBytes()
			limit = max((free-p.n.cfg.MinFreeBytes)/2, 1<<20)
		}
		if r.Method == http.MethodPost {
			r.Body = patientBody{http.MaxBytesReader(w, r.Body, limit), request}
		} else {
			_ = request.SetReadDeadline(time.Time{}) // a stream stays; only a test's recorder has none
		}
		defer p.track(x.id, request)()
		next(x, w, r)
	})
}

// track notes a request under way, so that forget can end it: rafthttp waits
// for a write to a member that reads no more, and everybody waits for rafthttp.
func (p *peers) track(from uint64, request *http.ResponseController) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[request] = from
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.requests, request)
	}
}

// freeBytes returns the space that is free for us on dir's file system, and
// more than any disk has if that cannot be told.
func freeBytes(dir string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 1 << 60
	}
	return int64(s.Bavail) * s.Bsize
}

// link is what rafthttp knows of the node on the way from one member.
type link struct {
	*Node
	from uint64
}

// Process implements rafthttp.Raft: a message from another member.
func (l link) Process(ctx context.Context, m *raftpb.Message) error {
	n := l.Node
	reason := implausible(m, n.cfg.ID)
	// A request that is for the leader alone may have been passed on.
	passedOn := m.GetType() == raftpb.MsgProp || m.GetType() == raftpb.MsgReadIndex
	switch {
	case reason != "":
	case m.GetFrom() != l.from && !passedOn, n.IsIDRemoved(m.GetFrom()), n.IsIDRemoved(l.from), !n.peers.accepted(l.from):
		reason = badSender
	}
	if reason != "" {
		n.dropped.add(reason)
		return nil // like a lost packet
	}
	if !n.cfg.reachable(l.from, n.cfg.ID) {
		return nil
	}
	if m.GetType() == raftpb.MsgSnap {
		if err := n.acceptSnapshot(m); err != nil {
			if !errors.Is(err, errStopping) {
				n.logger.Error("snapshot refused", "from", m.GetFrom(), "error", err)
			}
			return err
		}
	}
	select {
	case n.messages <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.stop:
		return errStopping
	}
}

// IsIDRemoved implements rafthttp.Raft.
func (n *Node) IsIDRemoved(id uint64) bool { return n.applier.members.Load().isRemoved(id) }

// ReportUnreachable implements rafthttp.Raft.
func (n *Node) ReportUnreachable(id uint64) {
	n.peers.missed(id)
	n.post(func() { n.core.unreachable(id) })
}

// ReportSnapshot implements rafthttp.Raft.
func (n *Node) ReportSnapshot(id uint64, status raft.SnapshotStatus) {
	n.post(func() { n.core.rn.ReportSnapshot(id, status) })
}

// post runs f on the loop, without waiting for it to be done.
func (n *Node) post(f func()) { n.reports.push(f) }

var _ Network = (*peers)(nil)
var _ rafthttp.Raft = link{}
