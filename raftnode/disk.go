package raftnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
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
	inc  Incarnation
	wal  *wal.WAL
	snap *snap.Snapshotter
	high *highWater
	tide tide
	// syncDir makes the names in a directory durable; tests put their own in its
	// place.
	syncDir func(dir string) error
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
	d := &walDisk{dir: dir, inc: id.Incarnation, wal: w, snap: snap.New(lg, filepath.Join(dir, snapDir)), syncDir: syncDir}
	if d.high, err = openHighWater(dir, true); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	d.tide.note = d.high.advance
	if first != nil {
		m := first.GetMetadata()
		if err := d.SaveSnapshot(&raftpb.HardState{Term: proto.Uint64(m.GetTerm()), Commit: proto.Uint64(m.GetIndex())}, first); err != nil {
			return nil, errors.Join(fmt.Errorf("make the log: %w", err), d.Close())
		}
	}
	return d, d.syncDir(dir)
}

// openDisk opens the log and reads what it holds from the newest mark on. A
// torn tail is repaired; any other damage is refused by file and offset, with
// the remedy.
func openDisk(dir string, id *identity, lg *zap.Logger) (_ *walDisk, rec recovered, err error) {
	defer func() { err = withRemedy(err, id.MemberID) }()
	d := &walDisk{dir: dir, inc: id.Incarnation, snap: snap.New(lg, filepath.Join(dir, snapDir)), syncDir: syncDir}
	path := filepath.Join(dir, walDir)
	if err := removeLeftovers(filepath.Join(dir, snapDir)); err != nil {
		return nil, rec, err
	}
	end, err := scanLog(path, id)
	if err != nil {
		return nil, rec, err
	}
	if d.high, err = openHighWater(dir, false); err != nil {
		return nil, rec, err
	}
	if rec, err = d.readLog(path, end, id, lg); err != nil {
		return nil, rec, errors.Join(err, d.high.close())
	}
	return d, rec, nil
}

func (d *walDisk) readLog(path string, end logEnd, id *identity, lg *zap.Logger) (rec recovered, err error) {
	marks, err := wal.ValidSnapshotEntries(lg, path)
	if err != nil {
		return rec, damaged(path, -1, fmt.Errorf("read the marks: %w", err))
	}
	mark := &walpb.Snapshot{}
	rec.snapshot, err = d.snap.LoadNewestAvailable(marks)
	switch {
	case err == nil:
		m := rec.snapshot.GetMetadata()
		mark = &walpb.Snapshot{Index: m.Index, Term: m.Term}
	case errors.Is(err, snap.ErrNoSnapshot):
		rec.snapshot = nil // joined, and has not received anything yet
	default:
		return rec, damaged(filepath.Join(d.dir, snapDir), -1, fmt.Errorf("load snapshot: %w", err))
	}
	if newest := newestMark(marks); mark.GetIndex() != newest {
		// An older snapshot may be there, but not the log that follows it.
		return rec, damaged(filepath.Join(d.dir, snapDir), -1, fmt.Errorf("the file of snapshot %d, at which the log begins, is missing or damaged", newest))
	}
	// A second attempt after the repair of a torn tail.
	for attempt := 0; ; attempt++ {
		if d.wal, err = wal.Open(lg, path, mark); err != nil {
			if unreadable := new(fs.PathError); errors.As(err, &unreadable) || errors.Is(err, fileutil.ErrLocked) {
				return rec, fmt.Errorf("open the log: %w", err)
			}
			return rec, damaged(path, -1, fmt.Errorf("open it: %w", err)) // no segment goes on from the mark
		}
		var metadata []byte
		metadata, rec.state, rec.entries, err = d.wal.ReadAll()
		if err == nil {
			if string(metadata) != string(id.walMetadata()) {
				return rec, errors.Join(&IdentityError{fmt.Sprintf("the log in %s belongs to another data directory", path)}, d.wal.Close())
			}
			untag(rec.state)
			rec.entries = DropStale(mark.GetTerm(), rec.entries)
			last := max(mark.GetIndex(), lastIndex(rec.entries))
			if commit := rec.state.GetCommit(); commit > last {
				return rec, errors.Join(damaged(end.path, end.offset, fmt.Errorf("the log ends at entry %d, but %d is committed", last, commit)), d.wal.Close())
			}
			var lost error
			if d.tide, lost = openTide(rec, d.high.now, d.high.advance); lost != nil {
				return rec, errors.Join(damaged(end.path, end.offset, lost), d.wal.Close())
			}
			return rec, nil
		}
		err = errors.Join(err, d.wal.Close())
		if attempt > 0 || !errors.Is(err, io.ErrUnexpectedEOF) || !wal.Repair(lg, path) {
			return rec, damaged(path, -1, err)
		}
	}
}

// DropStale cuts the entries where their terms go down. Terms never do in a
// log: what follows was there before a received snapshot replaced it.
func DropStale(term uint64, entries []*raftpb.Entry) []*raftpb.Entry {
	for i, e := range entries {
		if e.GetTerm() < term {
			return entries[:i]
		}
		term = e.GetTerm()
	}
	return entries
}

func newestMark(marks []*walpb.Snapshot) (index uint64) {
	for _, m := range marks {
		index = max(index, m.GetIndex())
	}
	return index
}

func (d *walDisk) Save(state *raftpb.HardState, entries []*raftpb.Entry) error {
	return d.tide.save(state, entries, func() error {
		if err := d.wal.Save(tagged(state, d.inc), entries); err != nil {
			return err
		}
		if before := d.tide.last; len(entries) > 0 || before.term != state.GetTerm() || before.vote != state.GetVote() {
			return nil
		}
		return d.wal.Sync() // Save does not, for a commit index alone
	})
}

// SaveSnapshot: the snapshot file and its directory entry are durable before
// the log mentions them. The hard state that commits the mark's index goes
// last: a mark above the last known commit index counts as absent, and a
// commit index above what the log reaches would be damage.
func (d *walDisk) SaveSnapshot(state *raftpb.HardState, snapshot *raftpb.Snapshot) error {
	if err := d.snap.SaveSnap(snapshot); err != nil {
		return err
	}
	if err := d.syncDir(filepath.Join(d.dir, snapDir)); err != nil {
		return err
	}
	return d.tide.mark(state, snapshot, func() error {
		m := snapshot.GetMetadata()
		if err := d.wal.SaveSnapshot(&walpb.Snapshot{Index: m.Index, Term: m.Term, ConfState: m.GetConfState()}); err != nil {
			return err
		}
		if err := d.wal.Save(tagged(state, d.inc), nil); err != nil {
			return err
		}
		return d.wal.Sync() // Save does not, for a commit index alone
	})
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

func (d *walDisk) Close() error { return errors.Join(d.wal.Close(), d.high.close()) }

// removeLeftovers deletes what a crash left of files being received or sent.
func removeLeftovers(dir string) error {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return damaged(dir, -1, err)
	}
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "tmp") || strings.HasPrefix(f.Name(), "db.tmp") {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return fmt.Errorf("remove a partial snapshot: %w", err)
			}
		}
	}
	return nil
}

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
