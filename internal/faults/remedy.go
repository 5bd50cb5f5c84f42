//go:build linux

package faults

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var remedies = regexp.MustCompile("run `raft-chat (members [^`]+)`")

// commandOf is the command that a refusal tells people to run, without the name
// of the program.
func (r *run) commandOf(said string) []string {
	found := remedies.FindStringSubmatch(said)
	if found == nil {
		r.fail("the refusal names no command: %s", said)
	}
	return strings.Fields(found[1])
}

// carryOut does what a refusal of n says, to the letter: it runs the command and
// starts, on the machine of n, what that prints.
func (r *run) carryOut(n *node, said string) *node {
	args := r.commandOf(said)
	if !slices.Contains(args, "--endpoints") {
		var up []string
		for _, x := range r.members() {
			if x.running() {
				up = append(up, x.url())
			}
		}
		args = append(args, "--endpoints", strings.Join(up, ","))
	}
	r.did("remedy", "raft-chat %s", strings.Join(args, " "))
	var printed string
	r.await("the remedy to be done", func() (err error) {
		// Refused while the cluster has to find itself; nothing was changed then.
		printed, err = command(r.ctx, n.host.inside(append([]string{r.binary}, args...)...)...)
		if err != nil && strings.Contains(err.Error(), "is removed") {
			return &ended{err}
		}
		return err
	})
	n.out = true
	added, err := printedNode(n, printed)
	r.must(err, "start what the remedy prints")
	r.nodes = append(r.nodes, added)
	r.start(added)
	r.votes(added)
	r.ready(added)
	return added
}

// printedNode is the node that a command of members says to start on the machine
// of another one.
func printedNode(n *node, printed string) (*node, error) {
	_, line, found := strings.Cut(printed, "\n    raft-chat ")
	if !found {
		return nil, fmt.Errorf("no command is printed: %s", printed)
	}
	line, _, _ = strings.Cut(line, "\n")
	args := strings.Fields(line)
	value := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	id, err := strconv.Atoi(value("--id"))
	added := *n
	added.id, added.list, added.join, added.proc, added.out = id, value("--cluster"), slices.Contains(args, "--join"), nil, false
	added.dir = filepath.Join(n.host.disk.path, fmt.Sprint("data", id))
	if err != nil || id == n.id || !added.join || !slices.Contains(strings.Split(added.list, ","), added.listEntry()) {
		return nil, fmt.Errorf("what is printed starts no member at %s: %s", n.peerURL, line)
	}
	return &added, nil
}

// votes waits until a member is no learner any more.
func (r *run) votes(n *node) {
	r.await(fmt.Sprint(n, " to vote"), func() error {
		list, err := r.api.Members(r.ctx, r.leader().url())
		if err != nil {
			return err
		}
		for _, m := range list {
			if m.ID == uint64(n.id) && m.Role != "learner" {
				return nil
			}
		}
		return errors.Join(r.alive(n), errors.New("it is a learner"))
	})
}
