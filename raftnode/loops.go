package raftnode

import (
	"context"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// guard turns a panic of the raft library, which is how it reports a state
// that must not be, into the failure of this node alone.
func (n *Node) guard() {
	if r := recover(); r != nil {
		n.fail(fmt.Errorf("raft: %v", r))
	}
}

func (n *Node) loop() {
	defer n.guard()
	tick, stopTick := n.cfg.Clock.Tick(n.cfg.TickInterval)
	defer stopTick()
	for {
		var proposals chan *proposal
		if n.core.accepting() {
			proposals = n.proposals
		}
		select {
		case <-n.stop:
			return
		case <-tick:
			n.core.tick()
		case m := <-n.messages:
			n.core.receive(m)
		case ms := <-n.local:
			n.stepAll(ms)
		case p := <-proposals:
			n.core.propose(p)
		case r := <-n.readers:
			n.core.read(r)
		case f := <-n.calls:
			f()
		case <-n.reports.ready:
			for _, f := range n.reports.grab() {
				f()
			}
		}
		n.drain()
		n.core.advanceReads()
		n.core.advanceTransfer()
		for {
			out, any := n.core.ready()
			if !any {
				break
			}
			n.dispatch(out)
		}
	}
}

func (n *Node) stepAll(ms []*raftpb.Message) {
	for _, m := range ms {
		n.core.step(m)
	}
}

// drain takes in what waits already, so that one Ready covers it all.
func (n *Node) drain() {
	for range 256 {
		select {
		case m := <-n.messages:
			n.core.receive(m)
		case ms := <-n.local:
			n.stepAll(ms)
		case r := <-n.readers:
			n.core.read(r)
		default:
			return
		}
	}
}

func (n *Node) dispatch(out output) {
	// To the members first: they write while this node writes.
	n.peers.Send(out.send)
	if out.append != nil {
		n.appendq.push(appendTask{message: out.append})
	}
	if out.apply != nil {
		n.applyq.push(applyTask{message: out.apply})
	}
	for _, m := range out.snapshots {
		n.sendSnapshot(m)
	}
	if out.changed {
		n.publish()
	}
}

// publish makes the loop's view visible to Status.
func (n *Node) publish() {
	s := n.core.status()
	old := n.status.Swap(&s)
	if old == nil || old.Leader != s.Leader || old.Role != s.Role {
		if old != nil {
			n.logger.Info("raft role", "role", s.Role, "leader", s.Leader, "term", s.Term)
		}
		n.moved()
	}
}

func (n *Node) moved() {
	select {
	case n.statusMoved <- struct{}{}:
	default:
	}
}

func (n *Node) appendLoop() {
	defer n.guard()
	for {
		tasks, ok := n.appendq.take(n.stop)
		if !ok {
			return
		}
		var messages []*raftpb.Message
		for _, t := range tasks {
			if t.message != nil {
				messages = append(messages, t.message)
			}
		}
		if err := n.appender.process(messages); err != nil {
			n.fail(err)
			return
		}
		if !n.deliver(messages) {
			return
		}
		for _, t := range tasks {
			if t.mark == nil {
				continue
			}
			if err := n.appender.mark(t.mark, n.catchUpBytes()); err != nil {
				n.fail(err)
				return
			}
			n.compacting.Store(false)
		}
		if n.appender.sinceMark > n.cfg.CatchUpBytes && n.compacting.CompareAndSwap(false, true) {
			n.wg.Go(n.compact)
		}
	}
}

// catchUpBytes is how much log stays in memory for others.
func (n *Node) catchUpBytes() int64 {
	switch {
	case n.sending.Load() > 0:
		return 4 * n.cfg.CatchUpBytes // what the receiver will need next
	case len(n.applier.members.Load().Members) == 1:
		return 0
	}
	return n.cfg.CatchUpBytes
}

// compact makes the state machine durable, so that the log before it is not
// needed for a start any more, and asks for the mark.
func (n *Node) compact() {
	mark, err := n.checkpoint()
	switch {
	case err != nil:
		n.fail(err)
	case mark == nil:
		n.compacting.Store(false)
	default:
		n.appendq.push(appendTask{mark: mark})
	}
}

// deliver hands out the responses that the storage steps owed.
func (n *Node) deliver(messages []*raftpb.Message) bool {
	var local, remote []*raftpb.Message
	for _, m := range messages {
		for _, r := range m.GetResponses() {
			if r.GetTo() == n.cfg.ID {
				local = append(local, r)
			} else {
				remote = append(remote, r)
			}
		}
	}
	n.peers.Send(remote)
	if len(local) == 0 {
		return true
	}
	select {
	case n.local <- local:
		return true
	case <-n.stop:
		return false
	}
}

func (n *Node) applyLoop() {
	defer n.guard()
	for {
		tasks, ok := n.applyq.take(n.stop)
		if !ok {
			return
		}
		var messages []*raftpb.Message
		flush := func() bool {
			if err := n.applier.process(messages); err != nil {
				n.fail(err)
				return false
			}
			ok := n.deliver(messages)
			messages = messages[:0]
			return ok
		}
		for _, t := range tasks {
			if t.install == nil {
				messages = append(messages, t.message)
				continue
			}
			if !flush() {
				return
			}
			t.done <- n.installNow(t.install)
		}
		if !flush() {
			return
		}
	}
}

// onLoopConfChange runs on the apply goroutine; the RawNode is the loop's.
func (n *Node) onLoopConfChange(cc *raftpb.ConfChange) error {
	return n.onLoop(context.Background(), func() { n.core.applyConfChange(cc) })
}

// onLoop runs f on the loop and waits for it.
func (n *Node) onLoop(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case n.calls <- func() { f(); close(done) }:
	case <-n.stop:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-n.stop:
		return errStopping
	}
}
