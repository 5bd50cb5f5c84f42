package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/raft-chat/raft-chat/client"
	"github.com/raft-chat/raft-chat/internal/peeraddr"
)

func (p *program) newMembersCommand() *cobra.Command {
	members := p.newListMembersCommand("members", "List the members of the cluster, or change them")
	members.SuggestFor = []string{"raft", "nodes", "cluster", "peers"}
	members.AddCommand(p.newListMembersCommand("list", "List the members of the cluster"), p.newAddMemberCommand(), p.newPromoteMemberCommand(),
		p.newRemoveMemberCommand(), p.newReplaceMemberCommand(), p.newTransferCommand())
	return members
}

func (p *program) newListMembersCommand(use, short string) *cobra.Command {
	return p.newQueryCommand(use, short,
		"List the members of the cluster as the first node that answers sees them.", noArguments,
		func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			members, err := c.Members(ctx)
			a := answer{json: members, header: []string{"ID", "NAME", "ROLE", "ACTIVE", "LAG", "PEER URL", "CLIENT URL", "GRPC"}}
			for _, m := range members {
				a.rows = append(a.rows, []string{strconv.FormatUint(m.ID, 10), m.Name, m.Role, yesNo(m.Active),
					strconv.FormatUint(m.Lag, 10), m.PeerURL, m.ClientURL, m.GRPCAddr})
			}
			return a, err
		})
}

func (p *program) newTransferCommand() *cobra.Command {
	return p.newQueryCommand("transfer ID", "Make a member the leader",
		"Hand the leadership over to a voter, before its machine or the leader's is worked on.", positional(1, 1, "an id"),
		func(ctx context.Context, c *client.Client, args []string) (answer, error) {
			id, err := parseMemberID(args[0])
			if err == nil {
				err = c.TransferLeadership(ctx, id)
			}
			return answer{json: map[string]uint64{"Leader": id}, text: fmt.Sprintf("member %d leads now\n", id)}, err
		})
}

// memberChange is what a change prints as JSON.
type memberChange struct {
	Removed uint64 `json:",omitempty"`
	Added   uint64 `json:",omitempty"`
	PeerURL string `json:",omitempty"`
	// Start is the command that starts the added node.
	Start []string `json:",omitempty"`
}

func (p *program) newAddMemberCommand() *cobra.Command {
	var learner bool
	cmd := p.newQueryCommand("add ID PEER-URL", "Add a member, and say how to start it",
		`Add a member that the others will reach at PEER-URL, and print the command that
starts it. It takes part as a learner until it has caught up, and votes then. An
ID is never used again.`,
		positional(2, 2, "an id and a peer URL"),
		func(ctx context.Context, c *client.Client, args []string) (answer, error) {
			id, err := parseMemberID(args[0])
			if err != nil {
				return answer{}, err
			}
			peerURL, err := parsePeerURL(args[1])
			if err != nil {
				return answer{}, err
			}
			if err := c.AddMember(ctx, id, peerURL, learner); err != nil {
				return answer{}, err
			}
			return added(ctx, c, memberChange{Added: id, PeerURL: peerURL}, "")
		})
	cmd.Flags().BoolVar(&learner, "learner", learner, "keep it from voting until it is promoted")
	return cmd
}

func (p *program) newPromoteMemberCommand() *cobra.Command {
	return p.newQueryCommand("promote ID", "Make a learner a voter",
		"Make a learner that has caught up a voter.", positional(1, 1, "an id"),
		func(ctx context.Context, c *client.Client, args []string) (answer, error) {
			id, err := parseMemberID(args[0])
			if err == nil {
				err = c.PromoteMember(ctx, id)
			}
			return answer{json: map[string]uint64{"Promoted": id}, text: fmt.Sprintf("member %d votes now\n", id)}, err
		})
}

func (p *program) newRemoveMemberCommand() *cobra.Command {
	return p.newQueryCommand("remove ID", "Remove a member for good",
		`Remove a member for good: a node that runs under this id stops, and the id is
never used again. It is refused when too few of the others answer.`, positional(1, 1, "an id"),
		func(ctx context.Context, c *client.Client, args []string) (answer, error) {
			id, err := parseMemberID(args[0])
			if err == nil {
				err = c.RemoveMember(ctx, id)
			}
			return answer{json: memberChange{Removed: id}, text: fmt.Sprintf("member %d is removed\n", id)}, err
		})
}

func (p *program) newReplaceMemberCommand() *cobra.Command {
	return p.newQueryCommand("replace OLD-ID [NEW-ID [PEER-URL]]", "Replace a member by a fresh one",
		`Remove a member and add another one in its place: the remedy for a node that
refuses to start because its data directory is damaged, wiped or not its own. The
new member gets an id that was never used, and the address of the old one unless
PEER-URL says otherwise. The command that starts it is printed; its data
directory must be empty. It takes part as a learner until it has caught up, and
votes then.`,
		positional(1, 3, "the id to replace, and at most a new id and a peer URL"),
		func(ctx context.Context, c *client.Client, args []string) (answer, error) {
			r, err := planReplacement(ctx, c, args)
			if err != nil {
				return answer{}, err
			}
			return r.carryOut(ctx, c)
		})
}

// replacement is what replace is about to do. Everything that can be refused
// beforehand was, because the removal cannot be undone.
type replacement struct {
	old     client.Member
	id      uint64
	chosen  bool // by the user
	peerURL string
}

func planReplacement(ctx context.Context, c *client.Client, args []string) (r replacement, err error) {
	oldID, err := parseMemberID(args[0])
	if err != nil {
		return r, err
	}
	if r.chosen = len(args) > 1; r.chosen {
		if r.id, err = parseMemberID(args[1]); err != nil {
			return r, err
		}
	}
	if len(args) > 2 {
		if r.peerURL, err = parsePeerURL(args[2]); err != nil {
			return r, err
		}
	}
	members, err := c.Members(ctx)
	if err != nil {
		return r, err
	}
	i := slices.IndexFunc(members, func(m client.Member) bool { return m.ID == oldID })
	if i < 0 {
		return r, fmt.Errorf("no member has the id %d; if it was removed already, go on with: raft-chat members add NEW-ID PEER-URL", oldID)
	}
	r.old = members[i]
	if r.peerURL == "" {
		r.peerURL = r.old.PeerURL
	}
	last := uint64(0)
	for _, m := range members {
		last = max(last, m.ID)
		switch {
		case m.ID == r.id:
			return r, fmt.Errorf("member %d is in the cluster already: a new member gets an id that was never used", r.id)
		case m.ID != oldID && m.PeerURL == r.peerURL:
			return r, fmt.Errorf("%s belongs to member %d", r.peerURL, m.ID)
		}
	}
	if !r.chosen {
		r.id = last + 1
	}
	return r, nil
}

// maxIDsTried bounds how many ids of removed members are passed over.
const maxIDsTried = 1000

func (r replacement) carryOut(ctx context.Context, c *client.Client) (answer, error) {
	if err := c.RemoveMember(ctx, r.old.ID); err != nil {
		return answer{}, err
	}
	for tried := 1; ; tried++ {
		err := c.AddMember(ctx, r.id, r.peerURL, false)
		var refused *client.Error
		switch {
		case err == nil:
			return added(ctx, c, memberChange{Removed: r.old.ID, Added: r.id, PeerURL: r.peerURL}, r.old.ClientURL)
		case errors.As(err, &refused) && refused.Code == "member_id_used" && !r.chosen && tried < maxIDsTried:
			r.id++ // of a member that was removed before
		default:
			return answer{}, fmt.Errorf("member %d is removed, but no other was added in its place (go on with: raft-chat members add NEW-ID %s): %w", r.old.ID, r.peerURL, err)
		}
	}
}

// added says what was done and how the new node is started. clientURL is where
// the API of the member before it was, or "".
func added(ctx context.Context, c *client.Client, change memberChange, clientURL string) (answer, error) {
	members, err := c.Members(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("member %d is added, but the list that it starts with cannot be read: %w", change.Added, err)
	}
	change.Start = startCommand(change.Added, members, clientURL)
	var b strings.Builder
	if change.Removed != 0 {
		fmt.Fprintf(&b, "member %d is removed\n", change.Removed)
	}
	fmt.Fprintf(&b, "member %d is added, at %s\n", change.Added, change.PeerURL)
	fmt.Fprintf(&b, "start it with an empty data directory, and your other flags (--host, --listen-grpc and so on):\n\n    %s\n", strings.Join(change.Start, " "))
	return answer{json: change, text: b.String()}, nil
}

// startCommand is how a member that was added is started.
func startCommand(id uint64, members []client.Member, clientURL string) []string {
	var list []string
	insecure := false
	for _, m := range members {
		list = append(list, fmt.Sprintf("%d=%s", m.ID, m.PeerURL))
		insecure = insecure || !peeraddr.Loopback(m.PeerURL)
	}
	command := []string{"raft-chat", "--id", strconv.FormatUint(id, 10), "--cluster", strings.Join(list, ","), "--join",
		"--data-dir", fmt.Sprintf("./raft-chat-%d", id)}
	if u, err := url.Parse(clientURL); err == nil && u.Port() != "" {
		command = append(command, "--port", u.Port())
	}
	if insecure {
		command = append(command, "--insecure-peers")
	}
	return command
}

func parseMemberID(text string) (uint64, error) {
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil || id == 0 {
		return 0, usageErrorf("%q is not a member id, which is a whole number from 1 on", text)
	}
	if err := peeraddr.CheckID(id); err != nil {
		return 0, usageErrorf("%v", err)
	}
	return id, nil
}

// parsePeerURL checks what the node that is asked will check as well.
func parsePeerURL(text string) (string, error) {
	normal, err := peeraddr.ParseURL(text)
	if err != nil {
		return "", usageErrorf("%v", err)
	}
	return normal, nil
}
