package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
)

// Member is a member of the cluster as the node that was asked sees it.
type Member struct {
	ID        uint64
	Name      string
	PeerURL   string
	ClientURL string
	GRPCAddr  string
	// Role is leader, follower, candidate or learner.
	Role string
	// Match is the highest log index known to be on the member, Lag how many
	// entries it is behind.
	Match, Lag uint64
	// Active says that the member was heard of lately.
	Active bool
}

// Members lists the members in order of ID.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	var members []Member
	_, err := c.call(ctx, request{
		method: http.MethodGet, path: "/raft",
		decode: func(_ http.Header, body []byte) error {
			members = nil
			if err := json.Unmarshal(body, &members); err != nil {
				return fmt.Errorf("decode members: %w", err)
			}
			return nil
		},
	})
	return members, err
}

// NodeStatus is what one node says of itself.
type NodeStatus struct {
	// Endpoint is the URL that was asked.
	Endpoint string
	// Err says why there is no answer; then the rest is empty.
	Err error `json:"-"`

	NodeID string `json:"node_id"`
	// Role is leader, follower, candidate or learner.
	Role     string `json:"role"`
	IsLeader bool   `json:"is_leader"`
	// The leader's fields are empty while the node knows none.
	LeaderID       string `json:"leader_id"`
	LeaderRaftAddr string `json:"leader_raft_addr"`
	LeaderGRPCAddr string `json:"leader_grpc_addr"`
	// Alarm says what needs people at once although the node goes on; "" if nothing does.
	Alarm string `json:"alarm"`
	// Ready says that the node can do its work; NotReady says why it cannot.
	Ready    bool   `json:"-"`
	NotReady string `json:"-"`
}

// Status asks each of [Options.Endpoints], once and at the same time, and
// returns their answers in that order. There is one for every endpoint.
func (c *Client) Status(ctx context.Context) []NodeStatus {
	list := c.endpoints.given()
	all := make([]NodeStatus, len(list))
	var wg sync.WaitGroup
	for i, endpoint := range list {
		wg.Go(func() { all[i] = c.statusOf(ctx, endpoint) })
	}
	wg.Wait()
	return all
}

func (c *Client) statusOf(ctx context.Context, endpoint string) NodeStatus {
	s := NodeStatus{Endpoint: endpoint}
	err := c.attempt(ctx, endpoint, request{
		method: http.MethodGet, path: "/health",
		decode: func(_ http.Header, body []byte) error {
			if err := json.Unmarshal(body, &s); err != nil {
				return fmt.Errorf("decode health: %w", err)
			}
			return nil
		},
	})
	if err != nil {
		return NodeStatus{Endpoint: endpoint, Err: err}
	}
	s.Endpoint = endpoint
	err = c.attempt(ctx, endpoint, request{
		method: http.MethodGet, path: "/readyz",
		decode: func(http.Header, []byte) error { return nil },
	})
	s.Ready = err == nil
	if err != nil {
		s.NotReady = reason(err)
	}
	return s
}
