package raftnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"
)

// The members speak three small calls with each other beside raft, on the peer
// listener: hello says who is who before anything else, confirm is the call back
// that makes it count (see trust.go), and call carries what raft messages do not
// (see membership.go).
const (
	helloPath   = "/member/v1/hello"
	confirmPath = "/member/v1/confirm"
	callPath    = "/member/v1/call"

	maxRequestBytes = 8 << 10
	maxReplyBytes   = 1 << 20
	callTimeout     = 5 * time.Second
)

// caller says who asks; it is part of every request between members.
type caller struct {
	ClusterID   uint64      `json:"cluster_id"`
	From        uint64      `json:"from"`
	Incarnation Incarnation `json:"incarnation"`
	To          uint64      `json:"to"`
	Secret      secret      `json:"secret"` // the caller's for this member
}

type helloRequest struct {
	Version int `json:"version"`
	caller
	PeerURL string `json:"peer_url"` // the caller's own
	// Expected is the incarnation that the caller knows the other by, so that
	// a directory that was wiped learns of it; zero if it knows none.
	Expected Incarnation `json:"expected"`
	// Joining asks which cluster this is, before the caller knows it.
	Joining bool `json:"joining,omitempty"`
	// Starts are those of the caller's directory, ExpectedStart the last one of
	// the other's that it has met.
	Starts        BootList `json:"starts,omitempty"`
	ExpectedStart BootID   `json:"expected_start,omitempty"`
}

type helloReply struct {
	Version     int         `json:"version"`
	ClusterID   uint64      `json:"cluster_id"`
	ID          uint64      `json:"id"`
	Incarnation Incarnation `json:"incarnation"`
	TimeNS      int64       `json:"time_ns,omitempty"` // its clock
	Starts      BootList    `json:"starts,omitempty"`
}

// helloVersion 2 came with the secret. A build before has none, and is refused.
const helloVersion = 2

func unknownVersion(version int, id uint64) *Error {
	return errorf("bad_request", "hello of version %d is not known to member %d, which speaks version %d: members of a cluster run the same release or the next one", version, id, helloVersion)
}

// callError is how a refusal travels.
type callError struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Codes that only members see.
const (
	codeIdentity     = "identity_refused"
	codeOlderCopy    = "older_copy"
	codeRemoved      = "removed"
	codeOtherCluster = "other_cluster"
	codeNotMember    = "not_a_member"
	codeMoved        = "leader_moved"
	codeUnconfirmed  = "unconfirmed" // a call back has not confirmed the caller, or not yet
)

func (p *peers) self(to uint64) caller {
	n := p.n
	c := caller{ClusterID: n.identity.ClusterID, From: n.cfg.ID, Incarnation: n.identity.Incarnation, To: to}
	p.mu.Lock()
	defer p.mu.Unlock()
	if x, ok := p.known[to]; ok {
		c.Secret = x.secret
	}
	return c
}

// hello asks x to accept this node, and checks that x is who it should be.
func (p *peers) hello(ctx context.Context, x *peer) error {
	if !p.n.cfg.reachable(p.n.cfg.ID, x.id) || !p.n.cfg.reachable(x.id, p.n.cfg.ID) {
		return errLinkCut
	}
	var reply helloReply
	before := p.n.cfg.Clock.Now().UnixNano()
	if err := p.post(ctx, x.url+helloPath, helloRequest{
		Version: helloVersion, caller: p.self(x.id), PeerURL: p.n.cfg.ownURL(), Expected: p.n.replica.incarnationOf(x.id),
		Starts: p.n.identity.Starts, ExpectedStart: p.metLast(x.id),
	}, &reply); err != nil {
		var refused *IdentityError
		if errors.As(err, &refused) {
			return p.n.wrongDirectory(refused.Reason)
		}
		return err
	}
	if reply.ID != x.id || reply.ClusterID != p.n.identity.ClusterID {
		return fmt.Errorf("%s is member %d of another cluster or under another id, not member %d", x.url, reply.ID, x.id)
	}
	if known := p.incarnationOf(x.id); !known.IsZero() && known != reply.Incarnation {
		return fmt.Errorf("member %d runs on a data directory that is not its own", x.id)
	}
	if err := p.noteStart(x.id, reply.Starts); err != nil {
		return fmt.Errorf("member %d (%s) is not let in: %v", x.id, x.url, err)
	}
	p.mu.Lock()
	p.seen[x.id] = reply.Incarnation
	p.mu.Unlock()
	// Before the first raft message: no node leads or follows, and so proposes,
	// that has not compared its clock.
	p.n.watch.compare(x.id, before, reply.TimeNS, p.n.cfg.Clock.Now().UnixNano())
	p.n.judge()
	return nil
}

var errLinkCut = errors.New("link is cut")

// askCluster is the first step of a join: it learns the cluster's id from
// any member, which must have this node in its configuration already.
func (p *peers) askCluster(ctx context.Context) error {
	n := p.n
	own := n.cfg.ownURL()
	retry, stop := n.cfg.Clock.Tick(5 * n.cfg.TickInterval)
	defer stop()
	if !slices.ContainsFunc(n.cfg.Cluster, func(x Peer) bool { return x.ID != n.cfg.ID }) {
		return fmt.Errorf("join: --cluster lists this member alone, so there is nobody to ask: list a member of the running cluster too, as ID=URL, beside %d=%s", n.cfg.ID, own)
	}
	var waiting lasting
	for round := 0; ; round++ {
		var lastErr error
		for _, x := range n.cfg.Cluster {
			if x.ID == n.cfg.ID {
				continue
			}
			var reply helloReply
			err := p.post(ctx, x.URL+helloPath, helloRequest{Version: helloVersion, caller: p.self(x.ID), Joining: true, PeerURL: own}, &reply)
			var e *Error
			var refused *IdentityError
			switch {
			case err == nil:
				n.identity.ClusterID = reply.ClusterID
				return nil
			case errors.As(err, &refused):
				return n.wrongDirectory(refused.Reason)
			case errors.Is(err, ErrRemoved) || errors.As(err, &e) && e.Code == codeOtherCluster:
				// The address knows what to do, also when it is another member's by now.
				if refused := p.refusedBy(x); refused != nil {
					return refused
				}
				if errors.Is(err, ErrRemoved) {
					return err
				}
				if lastErr == nil {
					lastErr = err
				}
			case errors.As(err, &e) && e.Code == codeNotMember:
				lastErr = &IdentityError{fmt.Sprintf("member %d (%s) is not in the cluster yet: add it first, by `raft-chat members add %d %s` against a node that is up (--endpoints)", n.cfg.ID, own, n.cfg.ID, own)}
			case lastErr == nil:
				lastErr = err
			}
		}
		// A member that lags behind may not know of this one yet.
		var refused *IdentityError
		if errors.As(lastErr, &refused) && round >= 5 {
			return lastErr
		}
		if times, due := waiting.due(n.cfg.Clock.Now(), lastErr); due {
			n.logger.Info("waiting for a member of the cluster to join", "reason", lastErr, "attempts", times)
		}
		select {
		case <-retry:
		case <-ctx.Done():
			return fmt.Errorf("join: %w: no member of the cluster answered: %w", ctx.Err(), lastErr)
		}
	}
}

// refusedBy returns why whoever is at an address of the list refuses this
// directory for good, nil if it does not.
func (p *peers) refusedBy(x Peer) error {
	a, err := p.askFound(p.n.ctx, x.ID, x.URL)
	if err != nil || a.Founded == nil {
		return nil
	}
	switch a.Founded.Standing {
	case StandingRemoved, StandingWiped, StandingMoved:
		return p.n.refusal(a.Founded)
	}
	return nil
}

func (p *peers) serveHello(w http.ResponseWriter, r *http.Request) {
	var q helloRequest
	if !p.read(w, r, &q) {
		return
	}
	n := p.n
	if !n.cfg.reachable(q.From, n.cfg.ID) {
		answerError(w, http.StatusServiceUnavailable, errorf("cut", "link is cut"))
		return
	}
	refusal := p.checkHello(&q)
	if refusal != nil && refusal.Code == codeNotMember && !q.Joining && p.vouched(r.Context(), &q) {
		p.meetGuest(q.From, q.PeerURL)
		refusal = nil
	}
	switch {
	case refusal != nil:
		p.doubt(&q)
		if refusal.Code == codeOtherCluster && !q.Joining {
			p.suspect(q.From, q.PeerURL)
		}
		p.refused.add("hello_" + refusal.Code)
		answerError(w, http.StatusConflict, refusal)
		return
	case !q.Joining:
		// What is said from here on counts, so it has to be the member that says it.
		x := p.verified(r.Context(), q.From, q.Secret)
		if x == nil {
			p.doubt(&q)
			p.refused.add("hello_" + codeUnconfirmed)
			answerError(w, http.StatusServiceUnavailable, errorf(codeUnconfirmed, "a call back from member %d to the recorded URL of member %d has not confirmed this hello", n.cfg.ID, q.From))
			return
		}
		markVerified(r)
		if err := p.mistaken(&q); err != nil {
			answerError(w, http.StatusConflict, errorf("bad_request", "%v", err))
			n.fail(err)
			return
		}
		p.welcome(x, q.Incarnation)
	}
	answer(w, helloReply{Version: helloVersion, ClusterID: n.identity.ClusterID, ID: n.cfg.ID, Incarnation: n.identity.Incarnation, TimeNS: n.cfg.Clock.Now().UnixNano(), Starts: n.identity.Starts})
}

// doubt logs, now and then, that somebody who is not believed says that this
// directory was wiped. A directory whose list names only members that are gone
// can hear of it in no other way.
func (p *peers) doubt(q *helloRequest) {
	err := p.mistaken(q)
	if err == nil {
		return
	}
	p.mu.Lock()
	times, due := p.doubts.due(p.n.cfg.Clock.Now(), err)
	p.mu.Unlock()
	if due {
		p.n.logger.Warn("somebody who cannot be verified says that this data directory is not the one that the cluster knows; if it was wiped, swapped or put back to an older copy, that is so",
			"says_to_be", q.From, "times", times, "remedy", remedy(p.n.cfg.ID))
	}
}

// checkHello returns why a hello is refused, whoever sends it, or nil. It changes
// nothing, and what it answers concerns the caller alone.
func (p *peers) checkHello(q *helloRequest) *Error {
	n := p.n
	if q.Version != helloVersion {
		return unknownVersion(q.Version, n.cfg.ID)
	}
	if q.To != n.cfg.ID {
		return errorf(codeOtherCluster, "this is member %d, not member %d", n.cfg.ID, q.To)
	}
	if !q.Joining && q.ClusterID != n.identity.ClusterID {
		return errorf(codeOtherCluster, "member %d belongs to another cluster: its --cluster list was another one when it first started", n.cfg.ID)
	}
	members := n.applier.members.Load()
	if refusal := members.admits(q.From, q.Incarnation, p.incarnationOf(q.From), q.PeerURL); refusal != nil {
		return refusal
	}
	if !q.Joining && p.older(q.From, q.Starts) {
		return Met{}.refusal(q.From)
	}
	if x, _ := p.holds(q.From, secret{}); len(members.Members) == 0 && (x == nil || x.url != q.PeerURL) {
		// One that joins has no records yet, but the list it was given.
		return errorf(codeNotMember, "member %d is not known to member %d, which is joining", q.From, n.cfg.ID)
	}
	return nil
}

// admits reports why a directory may not speak as member id from a peer URL, or
// nil. known is the incarnation that the member has been met with; zero if none.
func (m *membership) admits(id uint64, inc, known Incarnation, url string) *Error {
	if m.isRemoved(id) {
		return errorf(codeRemoved, "member %d was removed from the cluster", id)
	}
	if !known.IsZero() && known != inc {
		return errorf(codeIdentity, "%s", wrongIncarnation(id))
	}
	if len(m.Members) == 0 {
		return nil // this member joins and knows nobody yet
	}
	x, ok := m.member(id)
	switch {
	case !ok:
		return errorf(codeNotMember, "member %d is not in the cluster", id)
	case x.PeerURL != url:
		return errorf(codeIdentity, "the cluster knows member %d at %s, not at %s: a copy of its directory must not be started", id, x.PeerURL, url)
	}
	return nil
}

// mistaken returns an error if a member that expects another directory under
// this member's id is right to do so: this one was wiped, and has not yet been
// refused because it knows nobody of the members of today. It is asked about a
// hello of a member that is in the records or the list, and confirmed.
func (r *replica) mistaken(expected Incarnation) error {
	if expected.IsZero() || expected == r.applier.self {
		return nil
	}
	return &IdentityError{wrongIncarnation(r.id)}
}

// vouches reports whether the records know a member by this directory and URL.
func (m *membership) vouches(id uint64, inc Incarnation, url string) bool {
	x, ok := m.member(id)
	return ok && m.admits(id, inc, x.Incarnation, url) == nil
}

// vouched reports whether members that this one has met know a stranger. Whoever
// was away while a member was added can only learn of it from the leader; if that
// is the new member itself, it would be refused for ever. Others are asked for all
// they know, and not more often than the gate lets, whoever says hello.
func (p *peers) vouched(ctx context.Context, q *helloRequest) bool {
	p.asking.do(ctx, p.n.cfg.Clock.Now(), 2*callBackInterval*p.n.cfg.TickInterval, p.askOthers)
	p.mu.Lock()
	others := p.others
	p.mu.Unlock()
	for _, m := range others {
		if m.vouches(q.From, q.Incarnation, q.PeerURL) {
			return true
		}
	}
	return false
}

// askOthers fetches the records of the members that were met.
func (p *peers) askOthers() {
	ctx, cancel := context.WithTimeout(p.ctx, callTimeout)
	defer cancel()
	var friends []*peer
	p.mu.Lock()
	for _, x := range p.known {
		if x.ready {
			friends = append(friends, x)
		}
	}
	p.mu.Unlock()
	var others []*membership
	for _, f := range friends {
		if !p.n.cfg.reachable(p.n.cfg.ID, f.id) {
			continue
		}
		var reply callReply
		if err := p.post(ctx, f.url+callPath, callRequest{caller: p.self(f.id), Op: opMembers}, &reply); err == nil && reply.Members != nil && reply.Members.check() == nil {
			others = append(others, reply.Members)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others = others
}

// post sends a request to a member and decodes its answer or its refusal.
func (p *peers) post(ctx context.Context, url string, request, reply any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReplyBytes))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		return json.Unmarshal(b, reply)
	}
	var refusal callError
	if json.Unmarshal(b, &refusal) != nil || refusal.Code == "" {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return refusalOf(&Error{Code: refusal.Code, Detail: refusal.Detail})
}

// refusalOf is what the one who is refused makes of it.
func refusalOf(e *Error) error {
	switch e.Code {
	case codeIdentity, codeOlderCopy:
		return &IdentityError{e.Detail}
	case codeRemoved:
		return ErrRemoved
	}
	return e
}

// read decodes a request, or answers why it cannot. A browser cannot send the
// content type to another origin without asking first.
func (p *peers) read(w http.ResponseWriter, r *http.Request, v any) bool {
	refuse := func(status int, code, format string, args ...any) bool {
		p.refused.add(code)
		w.Header().Set("Connection", "close") // what it has sent is not read to its end
		answerError(w, status, errorf(code, format, args...))
		return false
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "media_type", "the content type is application/json")
	}
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return refuse(http.StatusForbidden, "web_page", "this listener is for members, not for web pages")
	}
	if r.ContentLength > maxRequestBytes {
		return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "a body of more than %d bytes is not taken", maxRequestBytes)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "bad_request", "%v", err)
	}
	return true
}

func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the caller retries when the answer is lost
}

func answerError(w http.ResponseWriter, status int, e *Error) {
	b, err := json.Marshal(callError{e.Code, e.Detail})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the caller retries when the answer is lost
}
