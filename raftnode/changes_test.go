package raftnode

import (
	"encoding/json"
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/internal/slow"
)

func changeEntry(t *testing.T, term, index uint64, typ raftpb.ConfChangeType, id uint64, ctx confContext) *raftpb.Entry {
	t.Helper()
	payload, err := json.Marshal(ctx)
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&raftpb.ConfChange{Type: typ.Enum(), NodeId: new(id), Context: appendEntry(nil, kindConfChange, requestID{Incarnation{9}, index}, payload)})
	if err != nil {
		t.Fatal(err)
	}
	return &raftpb.Entry{Term: new(term), Index: new(index), Type: raftpb.EntryConfChange.Enum(), Data: data}
}

// A commit index gets a record of its own when it commits a change of the
// configuration, and then only. Found by the simulator: after a restart of all
// nobody knew that a voter had been added, and two of three could not elect.
func TestCommitOfAChangeIsWritten(t *testing.T) {
	change := func(term, index uint64) *raftpb.Entry {
		return changeEntry(t, term, index, raftpb.ConfChangeAddLearnerNode, 2, confContext{PeerURL: "http://b:1"})
	}
	for _, tt := range []struct {
		name     string
		messages []*raftpb.Message // one process call each
		want     string
	}{
		{"by itself", []*raftpb.Message{storageAppend(2, 1, change(2, 2), testEntry(2, 3, 0)), storageAppend(2, 2), storageAppend(2, 3)},
			"save term 2 commit 1 entries 2-3, save term 2 commit 2"},
		{"with what follows", []*raftpb.Message{storageAppend(2, 1, change(2, 2)), storageAppend(2, 2, run(2, 3, 4)...), storageAppend(2, 4)},
			"save term 2 commit 1 entries 2-2, save term 2 commit 2 entries 3-4"},
		{"not before it", []*raftpb.Message{storageAppend(2, 1, testEntry(2, 2, 0), change(2, 3)), storageAppend(2, 2), storageAppend(2, 3)},
			"save term 2 commit 1 entries 2-3, save term 2 commit 3"},
		{"committed as it comes", []*raftpb.Message{storageAppend(2, 2, change(2, 2)), storageAppend(2, 2)},
			"save term 2 commit 2 entries 2-2"},
		{"replaced by another entry", []*raftpb.Message{storageAppend(2, 1, change(2, 2), testEntry(2, 3, 0)), storageAppend(3, 1, run(3, 2, 3)...), storageAppend(3, 3)},
			"save term 2 commit 1 entries 2-3, save term 3 commit 1 entries 2-3"},
		{"two of them", []*raftpb.Message{storageAppend(2, 1, change(2, 2)), storageAppend(2, 2), storageAppend(0, 0, change(2, 3)), storageAppend(2, 3)},
			"save term 2 commit 1 entries 2-2, save term 2 commit 2, save term 2 commit 2 entries 3-3, save term 2 commit 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &recordingDisk{}
			a := newTestAppender(t, d)
			a.state.Vote = new(uint64(1))
			for _, m := range tt.messages {
				if err := a.process([]*raftpb.Message{m}); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.takeEvents(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// At a start the changes in the log count as well, those that the disk knows to
// be committed not.
func TestCommitOfAChangeBeforeTheStartIsWritten(t *testing.T) {
	for commit, want := range map[uint64]string{1: "save term 2 commit 2", 2: ""} {
		d := &recordingDisk{}
		a := newTestAppender(t, d)
		a.state = hardState(2, 1, commit)
		if err := a.remember([]*raftpb.Entry{changeEntry(t, 2, 2, raftpb.ConfChangeRemoveNode, 3, confContext{})}); err != nil {
			t.Fatal(err)
		}
		if err := a.process([]*raftpb.Message{storageAppend(2, 2)}); err != nil {
			t.Fatal(err)
		}
		if got := d.takeEvents(); got != want {
			t.Errorf("known up to %d: wrote %q, want %q", commit, got, want)
		}
	}
}

// What waits to be written can be older than a mark: its commit index must not
// take back that of the mark, without which the mark counts as absent, and the log
// before it is gone. Found by the simulator, on a slow disk.
func TestCommitIndexNeverGoesBack(t *testing.T) {
	d := &recordingDisk{}
	a := newTestAppender(t, d)
	if err := a.process([]*raftpb.Message{storageAppend(2, 1, run(2, 2, 9)...)}); err != nil {
		t.Fatal(err)
	}
	if err := a.mark(fixtureSnapshot(8), 0); err != nil {
		t.Fatal(err)
	}
	for _, m := range []*raftpb.Message{storageAppend(2, 5, run(2, 10, 12)...), storageAppend(3, 6), storageAppend(3, 10, run(3, 13, 13)...)} {
		if err := a.process([]*raftpb.Message{m}); err != nil {
			t.Fatal(err)
		}
	}
	want := "save term 2 commit 1 entries 2-9, mark 8 commit 8, release 8, save term 2 commit 8 entries 10-12, save term 3 commit 8, save term 3 commit 10 entries 13-13"
	if got := d.takeEvents(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The same on real files: whatever was marked and written can be opened.
func TestLogOpensAfterAMarkOvertookTheCommitIndex(t *testing.T) {
	smallSegments(t, 4<<10)
	f := newLogFixture(t)
	a := &appender{disk: f.disk, storage: newTestAppender(t, f.disk).storage, state: f.state}
	a.sizes.reset(1)
	for index := uint64(2); index < 60; index += 2 {
		if err := a.process([]*raftpb.Message{storageAppend(2, 1, testEntry(2, index, 150), testEntry(2, index+1, 150))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.mark(snapshotAt(50, 2), 0); err != nil {
		t.Fatal(err)
	}
	if err := a.process([]*raftpb.Message{storageAppend(2, 20, testEntry(2, 60, 150))}); err != nil {
		t.Fatal(err)
	}
	f.close()
	d, rec, err := f.open(readFiles(t, f.dir))
	if err != nil {
		t.Fatal(err)
	}
	if got := rec.snapshot.GetMetadata().GetIndex(); got != 50 || lastIndex(rec.entries) != 60 || rec.state.GetCommit() != 50 {
		t.Errorf("mark %d, log up to %d, commit %d", got, lastIndex(rec.entries), rec.state.GetCommit())
	}
	if wrong := f.closed(d); wrong != "" {
		t.Error(wrong)
	}
}

// A commit index that is written alone is on the disk when Save returns.
func TestCommitIndexAloneIsSynced(t *testing.T) {
	slow.Test(t)
	f := newLogFixture(t)
	f.save(2, 5, 60)
	state := proto.CloneOf(f.state)
	state.Commit = new(uint64(5))
	if err := f.disk.Save(state, nil); err != nil {
		t.Fatal(err)
	}
	// Nothing may be left in the log's buffer: the files are read before it is closed.
	asOfReturn := readFiles(t, f.dir)
	f.close()
	d, rec, err := f.open(asOfReturn)
	if err != nil {
		t.Fatal(err)
	}
	if got := rec.state.GetCommit(); got != 5 {
		t.Errorf("commit index %d on the disk, want 5", got)
	}
	if wrong := f.closed(d); wrong != "" {
		t.Error(wrong)
	}
}

// A crash can leave two changes without the commit index that was to follow them
// in the same write. The second proves that the first is committed.
func TestStartKnowsEveryChangeButTheNewest(t *testing.T) {
	peers := []Peer{{1, "http://a:1"}, {2, "http://b:1"}, {3, "http://c:1"}}
	learner := func(index, id uint64) *raftpb.Entry {
		return changeEntry(t, 1, index, raftpb.ConfChangeAddLearnerNode, id, confContext{PeerURL: fmt.Sprintf("http://n%d:1", id)})
	}
	for _, tt := range []struct {
		name    string
		entries []*raftpb.Entry
		commit  uint64
		want    uint64
	}{
		{"none", run(1, 2, 4), 1, 1},
		{"one", append(run(1, 2, 3), learner(4, 4)), 1, 1},
		{"two", []*raftpb.Entry{testEntry(1, 2, 0), learner(3, 4), learner(4, 5), testEntry(1, 5, 0)}, 1, 3},
		{"three", []*raftpb.Entry{learner(2, 4), learner(3, 5), learner(4, 6)}, 1, 3},
		{"known anyway", []*raftpb.Entry{learner(2, 4), learner(3, 5), testEntry(1, 4, 0)}, 4, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sm, err := openLedger(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			rec := bootstrapLog(peers)
			rec.entries, rec.state = tt.entries, hardState(1, 1, tt.commit)
			r, err := OpenReplica(ReplicaConfig{ID: 1, Incarnation: Incarnation{1}, Boots: 2, Bootstrap: peers,
				Disk: &recordingDisk{}, StateMachine: sm, ElectionTicks: 10, MaxInFlight: 1, CatchUpBytes: 1 << 20}, shown(rec))
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Status().Commit; got != tt.want {
				t.Errorf("starts with the commit index %d, want %d", got, tt.want)
			}
		})
	}
}
