package raftnode

import "testing"

// What raft drops during a transfer of the leadership was not proposed, and its
// caller hears so at once.
func TestProposalDroppedDuringATransferIsAnswered(t *testing.T) {
	s := newSim(t)
	s.elect(1)
	s.at(1).rn.TransferLeader(2)
	s.want("a proposal during a transfer", s.propose(1, "dropped"), CodeNoLeader)
	s.heal()
	s.run()
	if n := s.copies("dropped"); n != 0 {
		t.Errorf("%d members have what was refused", n)
	}
	s.elect(2)
	later := s.propose(2, "later")
	s.run()
	s.want("a proposal after it", later, "ok")
}
