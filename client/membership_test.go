package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/raft-chat/raft-chat/client"
)

// memberNode answers what changes of the membership ask of a node. Its first
// faults answers are taken from it, after the change was made.
type memberNode struct {
	mu      sync.Mutex // guards the rest
	members []string
	used    map[string]bool
	roles   map[string]string
	faults  int
	calls   []string
	called  func() // after each, if set
}

func (n *memberNode) handle(w http.ResponseWriter, r *http.Request) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, promote := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/raft/"), "/promote")
	body, _ := io.ReadAll(r.Body) // a body that breaks off fails the comparison
	if r.URL.Path == "/raft" {
		var list []string
		for _, m := range n.members {
			list = append(list, fmt.Sprintf(`{"ID":%s,"PeerURL":"http://h:%s","Role":%q}`, m, m, n.roles[m]))
		}
		fmt.Fprintf(w, "[%s]", strings.Join(list, ","))
		return true
	}
	n.calls = append(n.calls, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), body)))
	exists := n.roles[id] != ""
	status, code := http.StatusNoContent, ""
	switch {
	case promote && n.roles[id] != "learner", r.Method == http.MethodPost && !promote && exists:
		status, code = 409, "member_exists"
	case promote:
		n.roles[id] = "follower"
	case r.Method == http.MethodPost && n.used[id]:
		status, code = 409, "member_id_used"
	case r.Method == http.MethodPost:
		n.members, n.roles[id] = append(n.members, id), "learner"
	case !exists:
		status, code = 404, "member_not_found"
	default:
		n.members, n.used[id], n.roles[id] = nil, true, ""
	}
	if n.called != nil {
		defer n.called()
	}
	if n.faults > 0 {
		n.faults--
		status, code = 503, "outcome_unknown"
	}
	if code != "" {
		refuse(w, status, code, "so it is")
	} else {
		w.WriteHeader(status)
	}
	return true
}

func startMemberNode(t *testing.T, faults int) (*memberNode, *client.Client) {
	cluster, c := start(t, 1)
	n := &memberNode{used: map[string]bool{"3": true}, roles: map[string]string{}, faults: faults}
	cluster.nodes[0].fault = n.handle
	return n, c
}

// An answer that got lost is no failure: what was asked for is there.
func TestMembershipChanges(t *testing.T) {
	for faults := range 2 {
		n, c := startMemberNode(t, faults)
		steps := []struct {
			call func() error
			want string
		}{
			{func() error { return c.AddMember(limited(t), 4, "http://h:4", true) }, "POST /raft/4?learner=true text/plain; charset=utf-8 http://h:4"},
			{func() error { return c.PromoteMember(limited(t), 4) }, "POST /raft/4/promote"},
			{func() error { return c.RemoveMember(limited(t), 4) }, "DELETE /raft/4"},
			{func() error { return c.AddMember(limited(t), 5, "http://h:5", false) }, "POST /raft/5 text/plain; charset=utf-8 http://h:5"},
		}
		for i, s := range steps {
			n.faults, n.calls = faults, nil
			if err := s.call(); err != nil {
				t.Errorf("step %d, %d answers lost: %v", i, faults, err)
			}
			if len(n.calls) != faults+1 || n.calls[0] != s.want {
				t.Errorf("step %d, %d answers lost: %q", i, faults, n.calls)
			}
		}
	}
}

func TestMembershipRefusals(t *testing.T) {
	n, c := startMemberNode(t, 0)
	if err := c.AddMember(limited(t), 4, "http://h:4", false); err != nil {
		t.Fatal(err)
	}
	for what, tt := range map[string]struct {
		call func() error
		code string
	}{
		"an id that is taken":     {func() error { return c.AddMember(limited(t), 4, "http://h:4", false) }, "member_exists"},
		"an id that was used":     {func() error { return c.AddMember(limited(t), 3, "http://h:3", false) }, "member_id_used"},
		"removal of a stranger":   {func() error { return c.RemoveMember(limited(t), 9) }, "member_not_found"},
		"promotion of a stranger": {func() error { return c.PromoteMember(limited(t), 9) }, "member_exists"},
	} {
		var refused *client.Error
		if err := tt.call(); !errors.As(err, &refused) || refused.Code != tt.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The lost answer was to an attempt that another's change made void.
	n.faults = 1
	var refused *client.Error
	if err := c.AddMember(limited(t), 4, "http://elsewhere:4", false); !errors.As(err, &refused) || refused.Code != "member_exists" {
		t.Errorf("another address under the same id: %v", err)
	}
	ctx, cancel := context.WithCancel(limited(t))
	n.faults, n.called = 1, cancel
	var unknown *client.MembershipUnknownError
	if err := c.RemoveMember(ctx, 4); !errors.As(err, &unknown) || unknown.ID != 4 {
		t.Errorf("the time is over before an answer comes: %v", err)
	}
}
