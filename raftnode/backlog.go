package raftnode

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// maxBacklog is how many bytes of entries may wait to be written, committed or
// applied before new ones are refused, unless the budget allows less.
const maxBacklog = 128 << 20

// backlog is the log behind the applied index in bytes: what a member holds in
// memory because its own disk or state machine is behind. The loop owns it.
type backlog struct {
	account *budget.Account
	limit   int64 // 0: maxBacklog
	sizes   logSizes
	coming  int64 // taken in since the last Ready
	held    int64 // of account
}

func (b *backlog) bound() int64 {
	limit := int64(maxBacklog)
	if b.limit > 0 {
		limit = b.limit
	}
	if l := b.account.Limit(); l > 0 {
		limit = min(limit, l)
	}
	return limit
}

// full reports that no more is to be taken in. One entry beyond the bound is
// always taken, however large it is: whoever refuses has something to apply.
func (b *backlog) full(applied uint64) bool {
	b.sizes.compact(applied)
	return b.sizes.total+b.coming > b.bound()
}

// take reports whether entries of another member may be given to raft.
func (b *backlog) take(entries []*raftpb.Entry, applied uint64) bool {
	if b.full(applied) {
		return false
	}
	for _, e := range entries {
		b.coming += entrySize(e)
	}
	return true
}

// grow notes what raft hands out to be written: entries, or a snapshot that
// replaces the log.
func (b *backlog) grow(snapshot uint64, entries []*raftpb.Entry, applied uint64) {
	if snapshot != 0 {
		b.sizes.reset(snapshot)
	}
	if len(entries) > 0 {
		if len(b.sizes.sizes) == 0 {
			b.sizes.reset(entries[0].GetIndex() - 1)
		}
		b.sizes.append(entries)
	}
	b.settle(applied)
}

// settle makes the budget's account right.
func (b *backlog) settle(applied uint64) {
	b.sizes.compact(applied)
	switch more := b.sizes.total - b.held; {
	case more < 0:
		b.account.Give(-more)
		b.held = b.sizes.total
	case more > 0 && b.account.Take(more):
		b.held = b.sizes.total
	}
}

// release gives everything back to the budget.
func (b *backlog) release() {
	b.account.Give(b.held)
	b.held = 0
}

// entrySize is what an entry holds: its data, its own fields and pointers.
func entrySize(e *raftpb.Entry) int64 { return int64(len(e.GetData())) + 64 }
