package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

var errPowerCut = errors.New("the power is cut")

// powerCutDisk is a real disk that takes a number of writes, and then no more.
type powerCutDisk struct {
	*walDisk
	writes int // that are left
}

func (d *powerCutDisk) write() error {
	if d.writes == 0 {
		return errPowerCut
	}
	d.writes--
	return nil
}

func (d *powerCutDisk) Save(state *raftpb.HardState, entries []*raftpb.Entry) error {
	if err := d.write(); err != nil {
		return err
	}
	return d.walDisk.Save(state, entries)
}

func (d *powerCutDisk) SaveSnapshot(state *raftpb.HardState, snapshot *raftpb.Snapshot) error {
	if err := d.write(); err != nil {
		return err
	}
	return d.walDisk.SaveSnapshot(state, snapshot)
}

func snapshotAppend(term, commit uint64, snapshot *raftpb.Snapshot, entries ...*raftpb.Entry) *raftpb.Message {
	m := storageAppend(term, commit, entries...)
	m.Snapshot = snapshot
	return m
}

// cutAfter has an appender do batches on a new disk whose power is cut after
// a number of writes. It returns the directory as the next start finds it, and
// whether the power was cut at all.
func cutAfter(t *testing.T, writes int, batches [][]*raftpb.Message) (dir string, id *identity, cut bool) {
	t.Helper()
	dir = t.TempDir()
	id = &identity{Version: identityVersion, ClusterID: 7, MemberID: 1, Incarnation: Incarnation{1, 2, 3}, Prepared: true, Boots: 1, Cluster: []Peer{{1, "http://a:1"}}}
	disk, err := createDisk(dir, id, bootstrapSnapshot(id.Cluster), quietZap())
	if err != nil {
		t.Fatal(err)
	}
	a := newTestAppender(t, &powerCutDisk{disk, writes})
	for _, messages := range batches {
		if err := a.process(messages); errors.Is(err, errPowerCut) {
			cut = true
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, id, cut
}

// restart opens the log, starts raft on it and returns what raft says is
// committed above the snapshot. The panic with which raft refuses a log is an
// error here.
func restart(dir string, id *identity) (rec recovered, committed []*raftpb.Entry, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("raft panics: %v", r)
		}
	}()
	disk, rec, err := openDisk(dir, id, quietZap())
	if err != nil {
		return rec, nil, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	storage := raft.NewMemoryStorage()
	if err := errors.Join(storage.ApplySnapshot(rec.snapshot), storage.SetHardState(rec.state), storage.Append(rec.entries)); err != nil {
		return rec, nil, err
	}
	rn, err := raft.NewRawNode(&raft.Config{
		ID: id.MemberID, ElectionTick: 10, HeartbeatTick: 1, Storage: storage, Applied: rec.snapshot.GetMetadata().GetIndex(),
		AsyncStorageWrites: true, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256, Logger: raftLogger{slog.New(slog.DiscardHandler)},
	})
	if err != nil {
		return rec, nil, err
	}
	if rn.HasReady() {
		committed = rn.Ready().CommittedEntries
	}
	return rec, committed, nil
}

// The appender joins what raft hands it into as few writes as it can. Whatever
// write the power is cut after: the member starts, and what it then takes for
// committed is what a majority decided, not what lay at that index before.
func TestPowerCutBetweenWritesCommitsNothingThatWasReplaced(t *testing.T) {
	for _, tt := range []struct {
		name    string
		batches [][]*raftpb.Message
		decided uint64 // the term of every entry that may be committed
		last    uint64 // where the log ends if the power stays on
	}{
		{
			// The commit index that comes with the new tail is not true of the
			// tail it replaces, which must not get on the disk along with it.
			name: "tail rewritten under a later hard state",
			batches: [][]*raftpb.Message{{
				storageAppend(2, 1, run(2, 2, 5)...),
				storageAppend(3, 3, run(3, 2, 3)...),
			}},
			decided: 3, last: 3,
		},
		{
			name: "tail rewritten twice",
			batches: [][]*raftpb.Message{{
				storageAppend(2, 1, run(2, 2, 5)...),
				storageAppend(3, 1, run(3, 3, 9)...),
				storageAppend(4, 6, run(4, 2, 6)...),
			}},
			decided: 4, last: 6,
		},
		{
			// The snapshot commits its own index: with a log that does not
			// reach it, raft refuses to start.
			name: "received snapshot beyond the log",
			batches: [][]*raftpb.Message{
				{storageAppend(2, 1, run(2, 2, 5)...)},
				{snapshotAppend(5, 150, snapshotAt(150, 5))},
			},
			decided: 5, last: 150,
		},
		{
			// The log does reach it, with entries that nobody ever committed.
			name: "received snapshot within the log",
			batches: [][]*raftpb.Message{
				{storageAppend(2, 1, run(2, 2, 200)...)},
				{snapshotAppend(5, 150, snapshotAt(150, 5))},
			},
			decided: 5, last: 150,
		},
		{
			name: "received snapshot behind entries of the same batch",
			batches: [][]*raftpb.Message{{
				storageAppend(2, 1, run(2, 2, 200)...),
				snapshotAppend(5, 150, snapshotAt(150, 5)),
			}},
			decided: 5, last: 150,
		},
		{
			// The commit index is that of the entries, which are written after
			// the snapshot.
			name: "received snapshot with entries",
			batches: [][]*raftpb.Message{
				{snapshotAppend(5, 153, snapshotAt(150, 5), run(5, 151, 153)...)},
			},
			decided: 5, last: 153,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			smallSegments(t, 1<<20)
			for writes := 0; ; writes++ {
				dir, id, cut := cutAfter(t, writes, tt.batches)
				rec, committed, err := restart(dir, id)
				if err != nil {
					t.Fatalf("power cut after %d writes: %v", writes, err)
				}
				for _, e := range committed {
					if e.GetTerm() != tt.decided {
						t.Fatalf("power cut after %d writes: entry %d of term %d is taken for committed, decided was that of term %d", writes, e.GetIndex(), e.GetTerm(), tt.decided)
					}
				}
				if cut {
					continue
				}
				if last := max(rec.snapshot.GetMetadata().GetIndex(), lastIndex(rec.entries)); last != tt.last {
					t.Errorf("without a power cut the log ends at %d, want %d", last, tt.last)
				}
				return
			}
		})
	}
}

// follower returns the stack of the goroutine that writes a high-water record
// behind; the test has one open at a time.
func follower() string {
	b := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(b[:runtime.Stack(b, true)]), "\n\n") {
		if strings.Contains(g, "highWater).follow(") {
			return g
		}
	}
	return ""
}

// A start believes the slot with the higher counter. The write that follows
// behind, late as it may be, must not put there what was true before a write
// that was done at once: the member would refuse its own, undamaged log.
func TestHighWaterRecordOnDiskIsNeverOlderThanTheLastSyncedOne(t *testing.T) {
	// Who writes first is up to the scheduler, so there are some rounds.
	for round := range 8 {
		dir := t.TempDir()
		h, err := openHighWater(dir, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.advance(water{term: 2, vote: 1, lastTerm: 2, lastIndex: 1}); err != nil {
			t.Fatal(err)
		}
		h.io.Lock() // the write that follows behind comes this far and waits
		if err := h.advance(water{term: 2, vote: 1, lastTerm: 2, lastIndex: 100}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the write behind to begin", func() bool { return strings.Contains(follower(), "sync.(*Mutex).Lock(") })
		h.io.Unlock()
		last := water{term: 3, vote: 0, lastTerm: 2, lastIndex: 50} // a shorter tail: synced at once
		if err := h.advance(last); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the write behind to end", func() bool {
			return !strings.Contains(follower(), "highWater).write(") && !strings.Contains(follower(), "Mutex")
		})
		found := readHighWater(t, dir)
		if err := h.close(); err != nil {
			t.Fatal(err)
		}
		if found != last {
			t.Fatalf("round %d: on the disk is %+v, synced last was %+v", round, found, last)
		}
	}
}

// readHighWater returns what a start would find now.
func readHighWater(t *testing.T, dir string) water {
	t.Helper()
	h, err := openHighWater(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	return h.now
}
