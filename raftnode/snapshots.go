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
	if n.sending.Add(1) > 2 || !n.cfg.reachable(n.cfg.ID, to) {
		n.sending.Add(-1)
		n.core.rn.ReportSnapshot(to, raft.SnapshotFailure)
		return
	}
	n.wg.Go(func() {
		defer n.sending.Add(-1)
		file, meta, err := n.stageSnapshot(to)
		if err != nil {
			n.logger.Error("snapshot not sent", "to", to, "error", err)
			n.ReportSnapshot(to, raft.SnapshotFailure)
			return
		}
		size, err := file.Seek(0, io.SeekEnd)
		if err == nil {
			_, err = file.Seek(0, io.SeekStart)
		}
		if err != nil {
			n.logger.Error("snapshot not sent", "to", to, "error", err)
			n.ReportSnapshot(to, raft.SnapshotFailure)
			return
		}
		out := proto.CloneOf(m)
		out.Snapshot = &raftpb.Snapshot{Metadata: meta}
		n.logger.Info("sending snapshot", "to", to, "index", meta.GetIndex(), "bytes", size)
		message := snap.NewMessage(out, file, size)
		n.peers.transport.SendSnapshot(message)
		// The transport reports the outcome to raft itself.
		select {
		case <-message.CloseNotify():
		case <-n.stop:
		}
	})
}

// stageSnapshot writes the snapshot into a file that is gone when closed.
func (n *Node) stageSnapshot(to uint64) (file *os.File, meta *raftpb.SnapshotMetadata, err error) {
	file, err = os.CreateTemp(filepath.Join(n.cfg.Dir, snapDir), fmt.Sprintf("db.tmp-send-%d-", to))
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		err = errors.Join(err, os.Remove(file.Name()))
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	err = n.sm.Snapshot(func(index uint64, record []byte, content io.WriterTo) error {
		term, err := n.storage.Term(index)
		if err != nil {
			return fmt.Errorf("term of entry %d: %w", index, err)
		}
		members, err := decodeMembership(record)
		if err != nil {
			return err
		}
		meta = &raftpb.SnapshotMetadata{Index: new(index), Term: new(term), ConfState: members.confState()}
		return writeSnapshot(file, snapHeader{ClusterID: n.identity.ClusterID, Index: index, Term: term, FeatureLevel: featureLevel, Membership: record}, content)
	})
	return file, meta, err
}

// acceptSnapshot verifies the file that came with a MsgSnap before raft hears
// of it. A damaged one is deleted, so that the next attempt is not mistaken
// for it.
func (n *Node) acceptSnapshot(m *raftpb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	path := stagedPath(n.cfg.Dir, meta.GetIndex())
	h, err := verifySnapshot(path)
	if err == nil && (h.ClusterID != n.identity.ClusterID || h.Index != meta.GetIndex() || h.Term != meta.GetTerm()) {
		err = fmt.Errorf("%w: it is not the snapshot that was announced", errSnapshotFile)
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

// installNow swaps the store for a received snapshot, on the apply goroutine.
func (n *Node) installNow(s *raftpb.Snapshot) error {
	index := s.GetMetadata().GetIndex()
	if index <= n.applied.Load() {
		return nil
	}
	if err := n.restore(index); err != nil {
		return err
	}
	_, record := n.sm.Applied()
	members, err := decodeMembership(record)
	if err != nil {
		return err
	}
	n.applied.Store(index)
	n.applier.setMembership(index, members)
	n.logger.Info("snapshot installed", "index", index)
	return nil
}

func (n *Node) restore(index uint64) error {
	err := withSnapshot(stagedPath(n.cfg.Dir, index), func(_ snapHeader, content io.Reader) error {
		return n.sm.Restore(content)
	})
	if err != nil {
		return fmt.Errorf("restore snapshot %d: %w", index, err)
	}
	if applied, _ := n.sm.Applied(); applied != index {
		return fmt.Errorf("restore snapshot %d: its content is of entry %d", index, applied)
	}
	return nil
}
