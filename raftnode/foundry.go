package raftnode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

const (
	foundPath = "/member/v1/found"

	// askTimeout is how long one who is asked counts as one who may answer.
	askTimeout = time.Second
	// maxHeard bounds whose greetings a fresh directory follows up.
	maxHeard = 16
	// roundInterval is how far apart rounds begin in which nothing changes, at
	// most; minRoundInterval is that of others, however many strangers ask.
	roundInterval    = 100 * time.Millisecond
	minRoundInterval = 2 * time.Millisecond
)

// codeFresh says that a directory belongs to no cluster yet.
const codeFresh = "fresh"

// foundRequest asks what its receiver knows of a directory, see Founding.
type foundRequest struct {
	Version int `json:"version"`
	Founder
	PeerURL string `json:"peer_url"`
	Changes uint64 `json:"changes,omitempty"` // how often what the caller would answer has changed
}

// foundry drives a Founding: it asks, stores the vote, and makes the directory
// part of the cluster in the end.
type foundry struct {
	n    *Node
	kick chan struct{} // one slot: begin the next round now

	mu      sync.Mutex
	f       *Founding
	changes uint64
	seen    map[uint64]uint64 // changes of others, by id
	heard   map[string]uint64 // addresses outside the list that have greeted this directory, and as whom
	waiting FoundingWait
}

func newFoundry(n *Node) *foundry {
	id := n.identity
	return &foundry{
		n: n, kick: make(chan struct{}, 1), seen: map[uint64]uint64{}, heard: map[string]uint64{},
		f: NewFounding(FoundingConfig{
			Self: Founder{id.MemberID, id.Incarnation}, List: id.Cluster, Vote: id.Vote, Listen: n.cfg.ListenFirst, Anyway: n.cfg.FoundAnyway,
		}),
	}
}

// run ends when the directory belongs to a cluster or must not.
func (y *foundry) run() {
	n := y.n
	began := n.cfg.Clock.Now()
	tick, stop := n.cfg.Clock.Tick(min(n.cfg.TickInterval, roundInterval))
	defer stop()
	listened, stopListening := n.cfg.Clock.Tick(n.cfg.ListenFirst)
	defer stopListening()
	var told lasting
	for {
		now := n.cfg.Clock.Now().Sub(began)
		listed, heard := y.askAll()
		step, err := y.round(now, listed, heard)
		switch {
		case n.ctx.Err() != nil:
			return
		case err != nil:
			n.fail(err)
			return
		case step.Refused != nil:
			n.fail(n.refusal(step.Refused))
			return
		case step.Found != nil || step.Join != nil:
			y.settle(step)
			return
		}
		if now >= 2*n.cfg.ListenFirst {
			// A kind of its own for each cause.
			if times, due := told.due(n.cfg.Clock.Now(), &Error{step.Waiting.Why, ""}); due {
				n.logger.Info("no cluster yet", append(step.Waiting.attrs(), "rounds", times)...)
			}
		}
		if !step.Changed && !y.pause(tick, listened) {
			return
		}
	}
}

// pause returns when the next round is due, false if none is.
func (y *foundry) pause(tick, listened <-chan time.Time) bool {
	select {
	case <-tick:
		return true
	case <-listened:
		return true
	case <-y.n.stop:
		return false
	case <-y.kick:
	}
	// Others may have more to say in a moment, and strangers must not make it spin.
	soon, stop := y.n.cfg.Clock.Tick(minRoundInterval)
	defer stop()
	select {
	case <-soon:
		return true
	case <-y.n.stop:
		return false
	}
}

// Founding says what keeps this node from belonging to a cluster, "" if it does.
func (n *Node) Founding() string {
	if n.settled.Load() {
		return ""
	}
	n.founding.mu.Lock()
	defer n.founding.mu.Unlock()
	w := n.founding.waiting
	if len(w.Members) > 0 {
		return fmt.Sprintf("%s: %v", w.Why, w.Members)
	}
	return cmp.Or(w.Why, "it begins")
}

func (w FoundingWait) attrs() []any {
	attrs := []any{slog.String("reason", w.Why)}
	if len(w.Members) > 0 {
		attrs = append(attrs, slog.Any("members", w.Members))
	}
	if w.Claim != nil {
		attrs = append(attrs, slog.Uint64("says", w.Claim.ID), slog.String("url", w.Claim.PeerURL))
	}
	return attrs
}

// round is one of Founding's; the vote is durable when it returns.
func (y *foundry) round(now time.Duration, listed map[uint64]FoundingAnswer, heard []FoundingAnswer) (FoundingStep, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	step := y.f.Round(now, listed, heard)
	y.waiting = step.Waiting
	if step.Changed {
		y.changes++
	}
	if !step.Save {
		return step, nil
	}
	y.n.identity.Vote = y.f.State().Vote
	return step, y.n.identity.save(y.n.cfg.Dir)
}

// settle makes the directory part of the cluster that was found.
func (y *foundry) settle(step FoundingStep) {
	n, id := y.n, clusterID(y.n.identity.Cluster, step.Found)
	if step.Join != nil {
		id = step.Join.ClusterID
	}
	var err error
	if n.onLoop(n.ctx, func() { err = n.settle(id, step.Found) }) != nil {
		return // it ends
	}
	switch {
	case err != nil:
		n.fail(err)
	case step.Join != nil:
		n.logger.Info("let into the cluster that the list began", "cluster_id", clusterName(id), "by", step.Join.ID)
	default:
		n.logger.Info("cluster founded", "cluster_id", clusterName(id), "founders", len(step.Found), "of", len(n.identity.Cluster))
		if step.Found[0].ID == n.cfg.ID {
			n.spawn(n.firstElection)
		}
	}
}

func clusterName(id uint64) string { return strconv.FormatUint(id, 16) }

// firstElection saves a new cluster the time that all its members would wait for
// a leader. It gives them the time to dial each other's streams once more, which
// fails before both have said hello: without streams a burst of forwarded
// messages is more than rafthttp queues.
func (n *Node) firstElection() {
	tick, stop := n.cfg.Clock.Tick(n.cfg.TickInterval)
	defer stop()
	voters := n.applier.members.Load().Voters
	met, dialled := 0, int(2*dialInterval/n.cfg.TickInterval)
	for range n.cfg.ElectionTicks + dialled {
		select {
		case <-tick:
		case <-n.stop:
			return
		}
		there := 1
		for _, v := range voters {
			if v != n.cfg.ID && n.peers.accepted(v) {
				there++
			}
		}
		if there <= len(voters)/2 {
			met = 0
		} else if met++; met > dialled {
			_ = n.onLoop(n.ctx, n.core.campaign) // or the node ends
			return
		}
	}
}

// campaign tries to become the leader if there is none.
func (c *core) campaign() {
	if c.lead == 0 {
		if err := c.rn.Campaign(); err != nil {
			c.logger.Debug("no election", "error", err)
		}
	}
}

// askAll asks everybody once, all at the same time.
func (y *foundry) askAll() (listed map[uint64]FoundingAnswer, heard []FoundingAnswer) {
	n := y.n
	var mu sync.Mutex
	var asking sync.WaitGroup
	listed = map[uint64]FoundingAnswer{}
	for _, x := range n.identity.Cluster {
		if x.ID == n.cfg.ID {
			continue
		}
		asking.Go(func() {
			if a, err := n.peers.askFound(n.ctx, x.ID, x.URL); err == nil {
				mu.Lock()
				defer mu.Unlock()
				listed[x.ID] = a
			}
		})
	}
	y.mu.Lock()
	others := make(map[string]uint64, len(y.heard))
	for url, id := range y.heard {
		others[url] = id
	}
	y.mu.Unlock()
	for url, id := range others {
		asking.Go(func() {
			if a, err := n.peers.askFound(n.ctx, id, url); err == nil {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, a)
			}
		})
	}
	asking.Wait()
	return listed, heard
}

// askFound asks an address what it knows of this directory.
func (p *peers) askFound(ctx context.Context, id uint64, url string) (a FoundingAnswer, err error) {
	n := p.n
	if !n.cfg.reachable(n.cfg.ID, id) || !n.cfg.reachable(id, n.cfg.ID) {
		return a, errLinkCut
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	q := foundRequest{Version: helloVersion, Founder: Founder{n.cfg.ID, n.identity.Incarnation}, PeerURL: n.cfg.ownURL()}
	if y := n.founding; y != nil {
		y.mu.Lock()
		q.Changes = y.changes
		y.mu.Unlock()
	}
	err = p.post(ctx, url+foundPath, q, &a)
	return a, err
}

// serveFound tells a directory what is known of it. Neither side believes more
// than what the other's known address answers, so it needs no proof.
func (p *peers) serveFound(w http.ResponseWriter, r *http.Request) {
	n := p.n
	var q foundRequest
	if !p.read(w, r, &q) {
		return
	}
	switch {
	case q.Version != helloVersion:
		answerError(w, http.StatusConflict, unknownVersion(q.Version, n.cfg.ID))
	case !n.cfg.reachable(q.ID, n.cfg.ID):
		answerError(w, http.StatusServiceUnavailable, errorf("cut", "link is cut"))
	case n.settled.Load():
		answer(w, FoundingAnswer{Founded: n.founderOf(&q)})
	default:
		answer(w, FoundingAnswer{Fresh: n.founding.answer(&q)})
	}
}

func (n *Node) founderOf(q *foundRequest) *FoundedState {
	id, members := n.identity, n.applier.members.Load()
	a := &FoundedState{ID: n.cfg.ID, ClusterID: id.ClusterID, PeerURL: n.cfg.ownURL(), ClientURL: n.cfg.ClientURL, Founders: id.Founders,
		FreeID:   members.freeID(),
		Standing: members.standing(q.ID, q.Incarnation, n.incarnationOf(q.ID), q.PeerURL)}
	if id.Founders != nil {
		a.List = clusterID(id.Cluster, nil)
	}
	if x, ok := members.member(q.ID); ok && a.Standing == StandingMoved {
		a.At = x.PeerURL
	}
	return a
}

func (y *foundry) answer(q *foundRequest) *FreshState {
	y.mu.Lock()
	defer y.mu.Unlock()
	if was, ok := y.seen[q.ID]; (ok || len(y.seen) < MaxMembers) && was != q.Changes {
		y.seen[q.ID] = q.Changes
		y.nudge()
	}
	s := y.f.State()
	return &s
}

func (y *foundry) nudge() {
	select {
	case y.kick <- struct{}{}:
	default:
	}
}

// greeted notes that somebody who belongs to a cluster takes this directory for
// a member of it. Whether that is so its address will say.
func (y *foundry) greeted(id uint64, url string) {
	normal, err := peeraddr.ParseURL(url)
	if err != nil || normal != url || !y.n.cfg.InsecurePeers && !peeraddr.Loopback(url) {
		return
	}
	for _, x := range y.n.identity.Cluster {
		if x.URL == url {
			return // it is asked anyway
		}
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if _, known := y.heard[url]; !known && len(y.heard) < maxHeard {
		y.heard[url] = id
		y.nudge()
	}
}

// serveFresh answers members of a cluster while this directory belongs to none.
func (p *peers) serveFresh(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == helloPath {
		var q helloRequest
		if !p.read(w, r, &q) {
			return
		}
		if !q.Joining && p.n.cfg.reachable(q.From, p.n.cfg.ID) {
			p.n.founding.greeted(q.From, q.PeerURL)
		}
	}
	answerError(w, http.StatusServiceUnavailable, errorf(codeFresh, "the directory of member %d belongs to no cluster yet", p.n.cfg.ID))
}

// fresh reports that a member answers which belongs to no cluster yet.
func fresh(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == codeFresh
}

// adopt registers the directory of a member that never had one, if this node
// leads: nobody else could say later which was the first.
func (p *peers) adopt(ctx context.Context, x *peer) {
	n := p.n
	if n.Status().Leader != n.cfg.ID || !n.incarnationOf(x.id).IsZero() {
		return
	}
	a, err := p.askFound(ctx, x.id, x.url)
	if err != nil || a.Fresh == nil || a.Fresh.ID != x.id || a.Fresh.Incarnation.IsZero() {
		return
	}
	if err := n.proposeAttributes(ctx, attributeEntry{ID: x.id, Adopted: a.Fresh.Incarnation}); err != nil {
		n.logger.Debug("member not let in", "member", x.id, "reason", err)
		return
	}
	n.logger.Info("member let in with its first directory", "member", x.id, "url", x.url)
}

// refusal says which cluster an empty directory is of, and what to do.
func (n *Node) refusal(c *FoundedState) *IdentityError {
	own, dir := n.cfg.ownURL(), n.cfg.Dir
	endpoints := ""
	if c.ClientURL != "" {
		endpoints = " --endpoints " + c.ClientURL
	}
	outcome := "no cluster is founded with it"
	if n.identity.Joined {
		outcome = "is not let in"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "data directory %s is empty, and %s: member %d at %s, of cluster %s, which runs, says ", dir, outcome, c.ID, c.PeerURL, clusterName(c.ClusterID))
	switch c.Standing {
	case StandingRemoved:
		fmt.Fprintf(&b, "that member %d was removed, and ids are never used again. To bring this machine back in, run `raft-chat members add %d %s%s` and start what it prints", n.cfg.ID, c.FreeID, own, endpoints)
	case StandingStrange:
		fmt.Fprintf(&b, "that it has no member %d. To bring this node in, run `raft-chat members add %d %s%s` and start what it prints. If it is to be another cluster, list none of that one's members", n.cfg.ID, n.cfg.ID, own, endpoints)
	case StandingMoved:
		fmt.Fprintf(&b, "that member %d is at %s, not at %s. Start it there, or run `raft-chat members replace %d %d %s%s` and start what it prints", n.cfg.ID, c.At, own, n.cfg.ID, c.FreeID, own, endpoints)
	default:
		fmt.Fprintf(&b, "that member %d has another directory: this one was wiped or is not the right one, and what the member acknowledged is not in it. Bring the right directory back (--data-dir) or, if it is lost, run `raft-chat members replace %d%s` and start what it prints", n.cfg.ID, n.cfg.ID, endpoints)
	}
	if !n.identity.Joined {
		fmt.Fprintf(&b, ". To found another, empty cluster here all the same, add --found-anyway")
	}
	return &IdentityError{b.String()}
}
