package httpapi

import (
	"context"
	"time"
)

const (
	// leaderTick is how often a node looks whether it knows a leader, which its streams are told.
	leaderTick = 100 * time.Millisecond
	// endpointsAge is how long a list of the members' client URLs is used: all streams end at once with the same one.
	endpointsAge = time.Second
)

// watchLeader tells every stream when the leader is lost or back, and closes the streams of a node that has had none
// for LeaderGrace: what it sends is not the cluster's present any more, and its clients can follow another node.
func (s *Server) watchLeader() {
	tick := time.NewTicker(min(leaderTick, s.options.LeaderGrace/2+1))
	defer tick.Stop()
	seen := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		known := s.options.Cluster.Status().LeaderID != 0
		if known {
			seen = time.Now()
		}
		changed := s.lost.Swap(!known) == known
		s.mu.Lock()
		s.leaderless = time.Since(seen) >= s.options.LeaderGrace
		for stream := range s.streams {
			switch {
			case s.leaderless:
				stream.cut(errNoLeader)
			case changed:
				stream.wait.ring()
			}
		}
		s.mu.Unlock()
	}
}

// leaderLost reports whether no leader is known. lost is only as new as the last tick.
func (s *Server) leaderLost() bool {
	return s.lost.Load() && s.options.Cluster.Status().LeaderID == 0
}

// leaderURL is where clients reach the leader; empty while it is lost.
func (s *Server) leaderURL(lost bool) string {
	if lost {
		return ""
	}
	return s.options.Cluster.Status().LeaderClientURL
}

// endpointCache is the list of the other members' client URLs, as of some time.
type endpointCache struct {
	urls []string
	read time.Time
}

// endpoints lists where else a client can go: the client URLs of the other members.
func (s *Server) endpoints() []string {
	s.endpointsMu.Lock()
	defer s.endpointsMu.Unlock()
	if time.Since(s.endpointsKnown.read) < endpointsAge {
		return s.endpointsKnown.urls
	}
	ctx, cancel := context.WithTimeout(context.Background(), partingTime/2)
	defer cancel()
	members, err := s.options.Cluster.Members(ctx)
	known := endpointCache{read: time.Now()}
	if err != nil {
		known.urls = s.endpointsKnown.urls // better an old list than none
	}
	self := s.options.Cluster.Status().NodeID
	for _, m := range members {
		if m.ID != self && m.ClientURL != "" {
			known.urls = append(known.urls, m.ClientURL)
		}
	}
	s.endpointsKnown = known
	return known.urls
}
