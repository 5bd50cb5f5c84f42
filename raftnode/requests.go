package raftnode

import (
	"context"
	"time"
)

// Propose hands data to the log as one entry. It blocks while enough of this
// node's entries are under way, and returns once the log has taken it or
// refused it. done is called exactly once, perhaps before Propose returns,
// with the state machine's result or an *Error; it must not block.
func (n *Node) Propose(ctx context.Context, data []byte, done func(result any, err error)) {
	if err := n.standing().refusal(n.applier.members.Load()); err != nil {
		done(nil, err)
		return
	}
	n.enqueue(ctx, &proposal{kind: kindApplication, payload: data, done: done})
}

func (n *Node) enqueue(ctx context.Context, p *proposal) {
	select {
	case n.proposals <- p:
	case <-ctx.Done():
		p.done(nil, errOverload)
	case <-n.stop:
		p.done(nil, errStopping)
	}
}

// ReadIndex returns nil when everything that was committed anywhere before
// the call is applied here: a read of the state machine is linearizable then.
// Concurrent calls share one round of messages.
func (n *Node) ReadIndex(ctx context.Context) error {
	result := make(chan error, 1)
	select {
	case n.readers <- func(err error) { result <- err }:
	case <-ctx.Done():
		return errNoRead
	case <-n.stop:
		return errStopping
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return errorf(CodeNoLeader, "no leader confirmed the read in time")
	case <-n.stop:
		return errStopping
	}
}

// Status never blocks.
func (n *Node) Status() Status {
	return n.statusNow(*n.status.Load())
}

// Name is this member's name.
func (n *Node) Name() string { return n.cfg.Name }

// StorageLow reports that the free disk space here is below the reserve.
func (n *Node) StorageLow() bool { return n.storageLow.Load() }

// LowMember is a member whose free disk space is below its reserve, so that this
// node takes no proposals; 0 if there is none.
func (n *Node) LowMember() uint64 { return n.lowMember.Load() }

// ClockOffset is how far this node's clock is ahead of the voters' median, and
// whether that is more than an election timeout, so that this node takes no
// proposals. In a cluster of one it is 0.
func (n *Node) ClockOffset() (ahead time.Duration, off bool) {
	return time.Duration(n.clockOffset.Load()), n.clockOff.Load()
}

// Failed is closed when the node stopped by itself; Err then says why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Stopped is closed when the node's goroutines end, for whatever reason.
func (n *Node) Stopped() <-chan struct{} { return n.stop }

// Err is ErrRemoved, a failure, or nil while the node lives.
func (n *Node) Err() error {
	select {
	case <-n.failed:
		return n.err
	default:
		return nil
	}
}
