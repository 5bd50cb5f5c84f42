package raftnode

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// sendSnapshot streams the state machine to a member that is too far behind
// for the log. The transport needs to know the size beforehand, so the file
// is written out first; disk budgets count with it.
func (n *Node) sendSnapshot(m *raftpb.Message) {
	to := m.GetTo()
	if n.sending.Add(1) > 2 || n.core.ticks < n.snapRetry[to] || !n.cfg.reachable(n.cfg.ID, to) {
		n.sending.Add(-1)
		n.core.rn.ReportSnapshot(to, raft.SnapshotFailure)
		return
	}
	n.wg.Go(func() {
		defer n.sending.Add(-1)
		file, size, meta, err := n.stageSnapshot(to)
		if errors.Is(err, errStopping) {
			return
		}
		if err != nil {
			n.logger.Error("snapshot not sent", "to", to, "error", err)
			n.holdSnapshots(to)
			n.ReportSnapshot(to, raft.SnapshotFailure)
			return
		}
		out := proto.CloneOf(m)
		out.Snapshot = &raftpb.Snapshot{Metadata: meta}
		n.logger.Info("sending snapshot", "to", to, "index", meta.GetIndex(), "bytes", size)
		message := snap.NewMessage(out, file, size)
		n.peers.sendSnapshot(message)
		// The transport reports the outcome to raft itself.
		select {
		case ok := <-message.CloseNotify():
			if !ok {
				n.holdSnapshots(to)
			}
		case <-n.stop:
		}
	})
}

// snapRetryTicks is how long a member that could not take a snapshot is not
// offered another: each costs a copy of the whole store.
const snapRetryTicks = 100

func (n *Node) holdSnapshots(to uint64) {
	n.post(func() { n.snapRetry[to] = n.core.ticks + snapRetryTicks })
}

// reserveWriter fails before a dump takes the disk space that the log needs, and
// when the node stops.
type reserveWriter struct {
	w       io.Writer
	n       *Node
	written int64 // since the last look
}

func (r *reserveWriter) Write(b []byte) (int, error) {
	select {
	case <-r.n.stop:
		return 0, errStopping
	default:
	}
	if r.written -= int64(len(b)); r.written < 0 {
		r.written = 16 << 20
		if free := r.n.cfg.FreeBytes(); free-r.written < r.n.cfg.MinFreeBytes {
			return 0, fmt.Errorf("only %d MiB are free on the disk", free>>20)
		}
	}
	return r.w.Write(b)
}

// stageSnapshot writes the snapshot into a file that is gone when closed.
func (n *Node) stageSnapshot(to uint64) (file *os.File, size int64, meta *raftpb.SnapshotMetadata, err error) {
	file, err = os.CreateTemp(filepath.Join(n.cfg.Dir, snapDir), fmt.Sprintf("db.tmp-send-%d-", to))
	if err != nil {
		return nil, 0, nil, err
	}
	defer func() {
		err = errors.Join(err, os.Remove(file.Name()))
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	meta, err = n.dump(&reserveWriter{w: file, n: n}, n.identity.ClusterID)
	if err == nil {
		size, err = file.Seek(0, io.SeekEnd)
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	return file, size, meta, err
}

// acceptSnapshot verifies the file that came with a MsgSnap before raft hears
// of it. A damaged one is deleted, so that the next attempt is not mistaken
// for it.
func (n *Node) acceptSnapshot(m *raftpb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	path := stagedPath(n.cfg.Dir, meta.GetIndex())
	h, err := verifySnapshot(path, n.stop)
	if errors.Is(err, errStopping) {
		return err // the next start will need it, if raft was told of it before
	}
	if err == nil {
		err = h.announced(n.identity.ClusterID, meta)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("received snapshot: %w", err), os.Remove(path))
	}
	return nil
}

// install is the appender's way to the apply goroutine.
func (n *Node) install(s *raftpb.Snapshot) error {
	done := make(chan error, 1)
	n.applyq.push(applyTask{install: s, done: done})
	select {
	case err := <-done:
		return err
	case <-n.stop:
		return errStopping
	}
}

// installNow swaps the store for a received snapshot, on the apply goroutine. A
// stop ends it with errStopping: the log has the mark, so the next start does it.
func (n *Node) installNow(s *raftpb.Snapshot) error {
	installed, err := n.installSnapshot(s)
	if installed {
		n.logger.Info("snapshot installed", "index", s.GetMetadata().GetIndex())
	}
	return err
}
