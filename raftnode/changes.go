package raftnode

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// changes are the configuration changes of a log, by index, that its disk does
// not know to be committed; ascending.
//
// Raft campaigns under the newest configuration that a member knows to be
// committed. One that forgot over a restart what it knew would ask voters of
// before: if these are lost for good, the voters of today, though a majority of
// them is there, never elect anybody.
type changes []uint64

// append takes in entries that were appended to the log, perhaps in place of its
// tail, when the disk knew of commits up to an index.
func (c *changes) append(entries []*raftpb.Entry, committed uint64) {
	for len(*c) > 0 && (*c)[len(*c)-1] >= entries[0].GetIndex() {
		*c = (*c)[:len(*c)-1]
	}
	for _, e := range entries {
		if e.GetType() == raftpb.EntryConfChange && e.GetIndex() > committed {
			*c = append(*c, e.GetIndex())
		}
	}
}

// committedBy reports whether a commit index tells of changes that the disk does
// not know to be committed.
func (c changes) committedBy(commit uint64) bool { return len(c) > 0 && c[0] <= commit }

// saved forgets what a commit index on the disk tells.
func (c *changes) saved(commit uint64) {
	n := 0
	for n < len(*c) && (*c)[n] <= commit {
		n++
	}
	*c = slices.Delete(*c, 0, n)
}

// provenCommit is the newest index that entries of one log prove to be committed,
// 0 if none: a leader appends a configuration change only when it has applied the
// one before. A crash can leave the second without the commit index that was to
// follow it in the same write.
func provenCommit(entries []*raftpb.Entry) uint64 {
	var before, newest uint64
	for _, e := range entries {
		if e.GetType() == raftpb.EntryConfChange {
			before, newest = newest, e.GetIndex()
		}
	}
	return before
}
