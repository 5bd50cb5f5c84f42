//go:build linux

package faults

import (
	"errors"
	"fmt"

	"github.com/raft-chat/raft-chat/internal/workload"
)

// probe tries once to post to a node, and tells the oracle what came of it.
func (r *run) probe(n *node, id string) error {
	m := workload.Message{Room: "probes", User: "probe", Message: "is this taken?", ClientMessageID: id}
	post := r.load.history.Send(m.Oracle())
	stored, _, err := r.api.Post(r.ctx, n.url(), m)
	switch {
	case err == nil:
		post.Acknowledged(stored.Oracle())
	case workload.Harmless(err):
		post.Refused()
	}
	return err // of any other the outcome stays unknown
}

// refusesPosts waits until a node answers posts with a code, and returns the
// answer.
func (r *run) refusesPosts(n *node, code, id string) (said string) {
	try := 0
	r.await(fmt.Sprint(n, " to refuse posts"), func() error {
		if err := r.alive(n); err != nil {
			return err
		}
		try++
		err := r.probe(n, fmt.Sprint(id, "/", try))
		if err == nil {
			return errors.New("it takes a post")
		}
		if workload.CodeOf(err) != code {
			return err
		}
		said = err.Error()
		return nil
	})
	r.result.Refusals = append(r.result.Refusals, said)
	return said
}

// takesPosts waits until a node takes a post.
func (r *run) takesPosts(n *node, id string) {
	try := 0
	r.await(fmt.Sprint(n, " to take posts"), func() error {
		try++
		if err := r.probe(n, fmt.Sprint(id, "/", try)); err != nil {
			return errors.Join(r.alive(n), err)
		}
		return nil
	})
}
