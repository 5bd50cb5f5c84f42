package raftnode

import (
	"fmt"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

// Two clusters that both take the same address for their member's can only come
// from a directory that was lost or a list that was given twice, and each
// acknowledges what the other does not have. Neither is the right one by itself,
// so a claim stops no member: both raise the alarm, for people to decide.

const (
	// rivalInterval is how far apart the questions are that greetings bring about,
	// rivalLasts how long an answer stands.
	rivalInterval = 5 * time.Second
	rivalLasts    = 4 * rivalInterval
)

// Rival is another cluster that claims what this one has.
type Rival struct {
	ClusterID uint64
	Member    uint64 // of it, who says so
	URL       string
	At        time.Time // when it was confirmed last
}

func (r Rival) String() string {
	return fmt.Sprintf("member %d at %s is of another cluster (%s) that has members of this one in its records, or the address of one: one of the two has lost its directory or was given the wrong list", r.Member, r.URL, clusterName(r.ClusterID))
}

// rivals is what is known of other clusters.
type rivals struct {
	mu     sync.Mutex
	asking bool
	asked  time.Time
	last   Rival
	told   lasting
}

// Rival returns the other cluster that was met in the last seconds, false if none.
func (n *Node) Rival() (Rival, bool) {
	r := &n.peers.rivals
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.last.ClusterID != 0 && n.cfg.Clock.Now().Sub(r.last.At) < rivalLasts
}

// suspect asks an address whether it is of another cluster that claims this
// member, or that sits at a recorded address. It returns at once.
func (p *peers) suspect(id uint64, url string) {
	n, r := p.n, &p.rivals
	if normal, err := peeraddr.ParseURL(url); err != nil || normal != url || !n.cfg.InsecurePeers && !peeraddr.Loopback(url) {
		return
	}
	r.mu.Lock()
	now := n.cfg.Clock.Now()
	if r.asking || !r.asked.IsZero() && now.Sub(r.asked).Abs() < rivalInterval {
		r.mu.Unlock()
		return
	}
	r.asking, r.asked = true, now
	r.mu.Unlock()
	n.spawn(func() {
		a, err := p.askFound(p.ctx, id, url)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asking = false
		if err != nil || a.Founded == nil || !p.rivals.claims(a.Founded, n.identity.ClusterID, p.recorded(url)) {
			return
		}
		r.last = Rival{a.Founded.ClusterID, a.Founded.ID, url, n.cfg.Clock.Now()}
		if times, due := r.told.due(n.cfg.Clock.Now(), &Error{Code: clusterName(r.last.ClusterID)}); due {
			n.logger.Error("two clusters claim the same member: each acknowledges messages that the other does not have", "cluster_id", clusterName(n.identity.ClusterID),
				"other_cluster_id", clusterName(r.last.ClusterID), "says", r.last.Member, "url", url, "times", times,
				"remedy", "stop the nodes of the one that holds the wrong messages, or, if they are to be two clusters, remove from each the members that are the other's (raft-chat members remove)")
		}
	})
}

// claims reports whether an answer is that of a rival: of another cluster, at an
// address that is recorded here or with a record of this very member.
func (*rivals) claims(a *FoundedState, own uint64, recorded bool) bool {
	if a.ClusterID == own {
		return false
	}
	switch a.Standing {
	case StandingWiped, StandingAwaited, StandingMember:
		return true
	}
	return recorded
}

// recorded reports whether a member of this cluster has a peer URL.
func (p *peers) recorded(url string) bool {
	for _, m := range p.n.applier.members.Load().Members {
		if m.PeerURL == url {
			return true
		}
	}
	return false
}
