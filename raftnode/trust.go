package raftnode

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"
)

// On plaintext anybody who reaches the peer port can say anything, a member's
// id and the cluster's included. What a member says is therefore believed only
// with a secret, which this member has told to the recorded URL of the one it
// speaks to and to nobody else. The one it speaks to learns whether a secret is
// the right one by a call back: it asks the member's recorded URL to answer a
// challenge with it. The answer serves for every later request, and a secret
// that does not fit makes the next call back, one at a time and not more often
// than each callBackInterval, however many strangers try.
//
// This proves who holds a recorded address, not more; certificates come later.

// secret is what this process proves itself with to one member. It is never
// stored.
type secret struct{ Incarnation }

func newSecret() secret { return secret{newIncarnation()} }

// proof is how a secret answers a challenge.
type proof [sha256.Size]byte

func (s secret) answer(challenge secret) (p proof) {
	mac := hmac.New(sha256.New, s.Incarnation[:])
	_, _ = mac.Write([]byte("raft-chat member 1")) // a hash never fails
	_, _ = mac.Write(challenge.Incarnation[:])
	mac.Sum(p[:0])
	return p
}

// MarshalText and UnmarshalText give the hexadecimal form.
func (p proof) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(p[:])), nil }

// UnmarshalText accepts the whole text only.
func (p *proof) UnmarshalText(b []byte) error {
	if len(b) != 2*len(p) {
		return errors.New("proof: want 64 hexadecimal digits")
	}
	_, err := hex.Decode(p[:], b)
	return err
}

// claim is what a member has answered last; the zero value fits no secret.
type claim struct {
	challenge secret
	answer    proof
	made      bool
}

// fits reports whether s is the secret of the member that made the claim.
func (c *claim) fits(s secret) bool {
	if !c.made || s.IsZero() {
		return false
	}
	answer := s.answer(c.challenge)
	return hmac.Equal(answer[:], c.answer[:])
}

const (
	// callBackInterval is how far apart two calls to one member begin that
	// strangers can bring about, in ticks.
	callBackInterval = 2
	callBackTimeout  = 2 * time.Second
)

// gate lets one call run at a time, and the next begin only when an interval has
// passed, or the clock was set. Who comes while one runs waits for it.
type gate struct {
	mu      sync.Mutex
	running chan struct{}
	began   time.Time
}

func (g *gate) do(ctx context.Context, now time.Time, interval time.Duration, call func()) {
	g.mu.Lock()
	if running := g.running; running != nil {
		g.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
		}
		return
	}
	if !g.began.IsZero() && now.Sub(g.began).Abs() < interval { // a clock may be set back
		g.mu.Unlock()
		return
	}
	running := make(chan struct{})
	g.running, g.began = running, now
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.running = nil
		g.mu.Unlock()
		close(running)
	}()
	call()
}

type confirmRequest struct {
	Version   int    `json:"version"`
	ClusterID uint64 `json:"cluster_id"`
	From      uint64 `json:"from"`
	To        uint64 `json:"to"`
	Challenge secret `json:"challenge"`
}

type confirmReply struct {
	Version   int    `json:"version"`
	ClusterID uint64 `json:"cluster_id"`
	ID        uint64 `json:"id"`
	Answer    proof  `json:"answer"`
	// Starts are those of the directory behind the secret: what it proves is
	// worth nothing if the directory is an older copy.
	Starts BootList `json:"starts,omitempty"`
}

// verified returns the member of an id if s is its secret, after a call back if
// need be; nil if not.
func (p *peers) verified(ctx context.Context, id uint64, s secret) *peer {
	x, fits := p.holds(id, s)
	if x == nil || s.IsZero() {
		return nil
	}
	if !fits {
		p.callBack(ctx, x)
		if again, fits := p.holds(id, s); !fits || again != x {
			return nil
		}
	}
	return x
}

// holds returns the member of an id, nil if it is not known, and whether s is
// its secret as far as is known.
func (p *peers) holds(id uint64, s secret) (*peer, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	x, ok := p.known[id]
	if !ok {
		return nil, false
	}
	return x, x.claim.fits(s)
}

// callBack asks x to confirm itself, unless that was done just now.
func (p *peers) callBack(ctx context.Context, x *peer) {
	cfg := &p.n.cfg
	x.asking.do(ctx, cfg.Clock.Now(), callBackInterval*cfg.TickInterval, func() {
		if err := p.confirm(x); err != nil {
			p.n.logger.Debug("member not confirmed", "member", x.id, "url", x.url, "reason", err)
		}
	})
}

func (p *peers) confirm(x *peer) error {
	n := p.n
	if !n.cfg.reachable(n.cfg.ID, x.id) || !n.cfg.reachable(x.id, n.cfg.ID) {
		return errLinkCut
	}
	var challenge secret
	_, _ = rand.Read(challenge.Incarnation[:]) // never fails, as crypto/rand promises
	ctx, cancel := context.WithTimeout(p.ctx, callBackTimeout)
	defer cancel()
	var reply confirmReply
	q := confirmRequest{Version: helloVersion, ClusterID: n.identity.ClusterID, From: n.cfg.ID, To: x.id, Challenge: challenge}
	if err := p.post(ctx, x.url+confirmPath, q, &reply); err != nil {
		return err
	}
	if reply.ID != x.id || reply.ClusterID != n.identity.ClusterID {
		return errorf(codeOtherCluster, "%s is member %d of another cluster or under another id", x.url, reply.ID)
	}
	if err := p.noteStart(x.id, reply.Starts); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x.claim = claim{challenge, reply.Answer, true}
	return nil
}

// serveConfirm answers a challenge. It tells nobody anything who does not hold
// the secret already, and changes nothing.
func (p *peers) serveConfirm(w http.ResponseWriter, r *http.Request) {
	n := p.n
	var q confirmRequest
	if !p.read(w, r, &q) {
		return
	}
	x, _ := p.holds(q.From, secret{})
	switch {
	case q.Version != helloVersion:
		answerError(w, http.StatusConflict, unknownVersion(q.Version, n.cfg.ID))
	case q.To != n.cfg.ID || q.ClusterID != n.identity.ClusterID:
		answerError(w, http.StatusConflict, errorf(codeOtherCluster, "this is another member or cluster"))
	case x == nil:
		answerError(w, http.StatusConflict, errorf(codeNotMember, "member %d is not known here", q.From))
	case !n.cfg.reachable(q.From, n.cfg.ID):
		answerError(w, http.StatusServiceUnavailable, errorf("cut", "link is cut"))
	default:
		answer(w, confirmReply{Version: helloVersion, ClusterID: n.identity.ClusterID, ID: n.cfg.ID, Answer: x.secret.answer(q.Challenge), Starts: n.identity.Starts})
	}
}
