package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
)

// Codes with which nodes refuse what was done before.
const (
	codeMemberExists   = "member_exists"
	codeMemberNotFound = "member_not_found"
)

// AddMember adds a member that will be reached at peerURL. It enters as a
// learner, which becomes a voter by itself as soon as it has caught up, unless
// learner asks for one that stays so. Start it afterwards, with --join and an
// empty directory. An id that was ever used is refused with "member_id_used".
//
// Like the other changes it is tried at one node after the other. An attempt
// whose outcome is not known is repeated, and what it has done already counts as
// done; a *[MembershipUnknownError] says that no answer came in time.
func (c *Client) AddMember(ctx context.Context, id uint64, peerURL string, learner bool) error {
	path := "/raft/" + strconv.FormatUint(id, 10)
	if learner {
		path += "?learner=true"
	}
	return c.changeMember(ctx, id, request{method: http.MethodPost, path: path, body: []byte(peerURL), contentType: "text/plain; charset=utf-8"},
		codeMemberExists, func(m *Member) bool { return m != nil && m.PeerURL == peerURL })
}

// PromoteMember makes a learner that has caught up a voter.
func (c *Client) PromoteMember(ctx context.Context, id uint64) error {
	return c.changeMember(ctx, id, request{method: http.MethodPost, path: "/raft/" + strconv.FormatUint(id, 10) + "/promote"},
		codeMemberExists, func(m *Member) bool { return m != nil && m.Role != "learner" })
}

// RemoveMember removes a member for good: its id is never used again, and a
// node that runs under it stops. It is refused with "quorum_at_risk" when too few
// of the others answer.
func (c *Client) RemoveMember(ctx context.Context, id uint64) error {
	return c.changeMember(ctx, id, request{method: http.MethodDelete, path: "/raft/" + strconv.FormatUint(id, 10)},
		codeMemberNotFound, func(m *Member) bool { return m == nil })
}

// TransferLeadership makes the voter with this id the leader, and returns when
// it leads. It is refused with "leader_transfer_failed" when the voter does not
// take over within an election timeout.
func (c *Client) TransferLeadership(ctx context.Context, id uint64) error {
	_, err := c.call(ctx, request{
		method: http.MethodPost, path: "/raft/leader", body: []byte(`{"ID":` + strconv.FormatUint(id, 10) + `}`),
		decode: func(http.Header, []byte) error { return nil },
	})
	return err // asking again does no harm, so an outcome that is not known needs no error of its own
}

// changeMember makes r. A refusal with the code done may be the echo of an
// earlier attempt that took effect; then the members show what is asked for.
func (c *Client) changeMember(ctx context.Context, id uint64, r request, done string, made func(m *Member) bool) error {
	r.decode = func(http.Header, []byte) error { return nil }
	uncertain, err := c.call(ctx, r)
	if !uncertain || err == nil {
		return err
	}
	var refused *Error
	switch {
	case errors.Is(err, ErrUnavailable):
		return &MembershipUnknownError{ID: id, Err: err}
	case !errors.As(err, &refused) || refused.Code != done:
		return err
	}
	members, lookErr := c.Members(ctx)
	if lookErr != nil {
		return &MembershipUnknownError{ID: id, Err: lookErr}
	}
	var now *Member
	if i := slices.IndexFunc(members, func(m Member) bool { return m.ID == id }); i >= 0 {
		now = &members[i]
	}
	if made(now) {
		return nil
	}
	return err
}
