package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

const (
	walDir  = "wal"
	snapDir = "snap"
)

// walDisk is the real Disk: etcd's write-ahead log and snapshotter.
type walDisk struct {
	dir  string
	wal  *wal.WAL
	snap *snap.Snapshotter
}

// recovered is what a log held when it was opened.
type recovered struct {
	snapshot *raftpb.Snapshot // the mark the log begins at; nil for a member that joins
	state    *raftpb.HardState
	entries  []*raftpb.Entry
}

func (id *identity) walMetadata() []byte {
	b := binary.BigEndian.AppendUint64([]byte{identityVersion}, id.ClusterID)
	b = binary.BigEndian.AppendUint64(b, id.MemberID)
	return append(b, id.Incarnation[:]...)
}

// createDisk makes the log of a fresh directory. first is the snapshot that
// every member of a new cluster begins with, nil for a member that joins.
func createDisk(dir string, id *identity, first *raftpb.Snapshot, lg *zap.Logger) (*walDisk, error) {
	for _, name := range []string{walDir, walDir + ".tmp", snapDir} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("make the log: %w", err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, snapDir), 0o700); err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	w, err := wal.Create(lg, filepath.Join(dir, walDir), id.walMetadata())
	if err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	d := &walDisk{dir: dir, wal: w, snap: snap.New(lg, filepath.Join(dir, snapDir))}
	if first != nil {
		m := first.GetMetadata()
		if err := d.SaveSnapshot(&raftpb.HardState{Term: proto.Uint64(m.GetTerm()), Commit: proto.Uint64(m.GetIndex())}, first); err != nil {
			return nil, errors.Join(fmt.Errorf("make the log: %w", err), d.Close())
		}
	}
	return d, syncDir(dir)
}

// openDisk opens the log and reads what it holds from the newest mark on. A
// torn tail is repaired; any other damage is refused by file and offset.
func openDisk(dir string, id *identity, lg *zap.Logger) (*walDisk, recovered, error) {
	var rec recovered
	d := &walDisk{dir: dir, snap: snap.New(lg, filepath.Join(dir, snapDir))}
	path := filepath.Join(dir, walDir)
	if err := scanLog(path); err != nil {
		return nil, rec, err
	}
	marks, err := wal.ValidSnapshotEntries(lg, path)
	if err != nil {
		return nil, rec, fmt.Errorf("read the log's marks: %w", err)
	}
	mark := &walpb.Snapshot{}
	rec.snapshot, err = d.snap.LoadNewestAvailable(marks)
	switch {
	case err == nil:
		m := rec.snapshot.GetMetadata()
		mark = &walpb.Snapshot{Index: m.Index, Term: m.Term}
	case errors.Is(err, snap.ErrNoSnapshot) && newestMark(marks) == 0:
		rec.snapshot = nil // joined, and has not received anything yet
	case errors.Is(err, snap.ErrNoSnapshot):
		return nil, rec, fmt.Errorf("the log in %s begins at snapshot %d, but its file in %s is missing or damaged", path, newestMark(marks), filepath.Join(dir, snapDir))
	default:
		return nil, rec, fmt.Errorf("load snapshot: %w", err)
	}
	// A second attempt after the repair of a torn tail.
	for attempt := 0; ; attempt++ {
		if d.wal, err = wal.Open(lg, path, mark); err != nil {
			return nil, rec, fmt.Errorf("open the log: %w", err)
		}
		var metadata []byte
		metadata, rec.state, rec.entries, err = d.wal.ReadAll()
		if err == nil {
			if string(metadata) != string(id.walMetadata()) {
				return nil, rec, errors.Join(&IdentityError{fmt.Sprintf("the log in %s belongs to another data directory", path)}, d.wal.Close())
			}
			return d, rec, nil
		}
		err = errors.Join(err, d.wal.Close())
		if attempt > 0 || !errors.Is(err, io.ErrUnexpectedEOF) || !wal.Repair(lg, path) {
			return nil, rec, fmt.Errorf("read the log in %s: %w", path, err)
		}
	}
}

func newestMark(marks []*walpb.Snapshot) (index uint64) {
	for _, m := range marks {
		index = max(index, m.GetIndex())
	}
	return index
}

func (d *walDisk) Save(state *raftpb.HardState, entries []*raftpb.Entry) error {
	return d.wal.Save(state, entries)
}

// SaveSnapshot: the snapshot file and its directory entry are durable before
// the log mentions them; the hard state goes before the mark because a mark
// above the last known commit index counts as absent.
func (d *walDisk) SaveSnapshot(state *raftpb.HardState, snapshot *raftpb.Snapshot) error {
	if err := d.snap.SaveSnap(snapshot); err != nil {
		return err
	}
	if err := syncDir(filepath.Join(d.dir, snapDir)); err != nil {
		return err
	}
	if err := d.wal.Save(state, nil); err != nil {
		return err
	}
	m := snapshot.GetMetadata()
	return d.wal.SaveSnapshot(&walpb.Snapshot{Index: m.Index, Term: m.Term, ConfState: m.GetConfState()})
}

// Release unlocks and deletes log segments and snapshot files that no start
// needs any more. The newest two snapshot files stay.
func (d *walDisk) Release(index uint64) error {
	if err := d.wal.ReleaseLockTo(index); err != nil {
		return err
	}
	names, err := segments(filepath.Join(d.dir, walDir))
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(names) && names[i+1].first <= index; i++ {
		if err := os.Remove(names[i].path); err != nil {
			return err
		}
	}
	return d.releaseSnapshots(index)
}

func (d *walDisk) releaseSnapshots(index uint64) error {
	dir := filepath.Join(d.dir, snapDir)
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var snaps []string
	for _, f := range files {
		name := f.Name()
		switch {
		case strings.HasSuffix(name, ".snap"):
			snaps = append(snaps, name)
		case strings.HasSuffix(name, ".snap.db") && stagedIndex(name) < index, strings.HasSuffix(name, ".broken"):
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	// Names begin with the term and the index in hexadecimal, so they sort
	// from the oldest to the newest.
	slices.Sort(snaps)
	for len(snaps) > 2 {
		if err := os.Remove(filepath.Join(dir, snaps[0])); err != nil {
			return err
		}
		snaps = snaps[1:]
	}
	return nil
}

func (d *walDisk) Close() error { return d.wal.Close() }

// stagedPath is where the snapshotter puts the content that came with a
// snapshot of index.
func stagedPath(dir string, index uint64) string {
	return filepath.Join(dir, snapDir, fmt.Sprintf("%016x.snap.db", index))
}

func stagedIndex(name string) (index uint64) {
	_, err := fmt.Sscanf(name, "%016x.snap.db", &index)
	if err != nil {
		return ^uint64(0)
	}
	return index
}

// segment is one file of the log.
type segment struct {
	path     string
	sequence uint64
	first    uint64 // index of its first entry, at most
}

// segments lists the log's files in order.
func segments(dir string) ([]segment, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the log: %w", err)
	}
	var out []segment
	for _, f := range files {
		s := segment{path: filepath.Join(dir, f.Name())}
		if n, err := fmt.Sscanf(f.Name(), "%016x-%016x.wal", &s.sequence, &s.first); n == 2 && err == nil && strings.HasSuffix(f.Name(), ".wal") {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b segment) int { return strings.Compare(a.path, b.path) })
	return out, nil
}
