package raftnode

import (
	"context"
	"encoding/json"
	"errors"

	"go.etcd.io/raft/v3"
)

// superviseLoop registers this member; as the leader it promotes learners that
// have caught up, and steps aside if its clock is off.
func (n *Node) superviseLoop() {
	tick, stopTick := n.cfg.Clock.Tick(5 * n.cfg.TickInterval)
	defer stopTick()
	for {
		n.register(n.ctx)
		if n.Status().Leader == n.cfg.ID {
			if n.clockOff.Load() {
				n.stepAside(n.ctx)
			} else {
				n.aside = 0
				n.promoteReady(n.ctx)
			}
		}
		select {
		case <-tick:
		case <-n.statusMoved:
		case <-n.stop:
			return
		}
	}
}

// register states this directory's incarnation and this member's addresses
// through the log, whenever the records do not have them.
func (n *Node) register(ctx context.Context) {
	self, ok := n.applier.members.Load().member(n.cfg.ID)
	if !ok || n.Status().Leader == raft.None || (self.Incarnation == n.identity.Incarnation && self.Attributes == n.cfg.Attributes) {
		return
	}
	err := n.proposeAttributes(ctx, attributeEntry{ID: n.cfg.ID, Attributes: n.cfg.Attributes})
	var e *Error
	if errors.As(err, &e) && e.Code == CodeMemberIDUsed {
		n.fail(&IdentityError{e.Detail})
	}
}

func (n *Node) proposeAttributes(ctx context.Context, a attributeEntry) error {
	payload, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return n.proposeAndWait(ctx, &proposal{kind: kindAttributes, payload: payload})
}

func (n *Node) promoteReady(ctx context.Context) {
	for _, m := range n.applier.members.Load().Members {
		if !m.AutoPromote {
			continue
		}
		if err := n.promote(ctx, m.ID); err == nil {
			n.logger.Info("learner promoted to voter", "member", m.ID)
		}
	}
}
