package raftnode

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// stopAt is a state machine that calls a function in the middle of its work with
// content. Its Restore ends when the reading fails.
type stopAt struct {
	StateMachine
	middle func()
}

func (s stopAt) Restore(content io.Reader) error {
	if _, err := content.Read(make([]byte, 1)); err != nil {
		return err
	}
	s.middle()
	for { // the stop may come behind the end
		if _, err := content.Read(make([]byte, 512)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		runtime.Gosched()
	}
}

func (s stopAt) Snapshot(f func(uint64, []byte, io.WriterTo) error) error {
	return s.StateMachine.Snapshot(func(index uint64, meta []byte, content io.WriterTo) error {
		return f(index, meta, writerTo(func(w io.Writer) (int64, error) {
			s.middle()
			return content.WriteTo(w)
		}))
	})
}

type writerTo func(w io.Writer) (int64, error)

func (f writerTo) WriteTo(w io.Writer) (int64, error) { return f(w) }

// A node that is to end does not wait for a snapshot that it sends, verifies or
// takes in, and does not count as failed for it.
func TestStopEndsWorkOnASnapshot(t *testing.T) {
	stage := func(t *testing.T, n *Node) (path string) {
		path = stagedPath(n.cfg.Dir, 50)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		h := snapHeader{ClusterID: n.identity.ClusterID, Index: 50, Term: 3, FeatureLevel: featureLevel}
		if err := writeSnapshot(&b, h, pieces{noise(3 * snapBlock)}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for what, work := range map[string]func(t *testing.T, n *Node) error{
		"sent": func(t *testing.T, n *Node) error {
			stage(t, n)
			_, _, _, err := n.stageSnapshot(2)
			if files, _ := filepath.Glob(filepath.Join(n.cfg.Dir, snapDir, "db.tmp*")); len(files) > 0 {
				t.Errorf("%v is left", files)
			}
			return err
		},
		"verified": func(t *testing.T, n *Node) error {
			path := stage(t, n)
			n.end()
			err := n.acceptSnapshot(&raftpb.Message{Snapshot: snapshotAt(50, 3)})
			if _, gone := os.Stat(path); gone != nil {
				t.Error("the file is gone, though nothing is wrong with it")
			}
			return err
		},
		"taken in": func(t *testing.T, n *Node) error {
			stage(t, n)
			return n.installNow(snapshotAt(50, 3))
		},
	} {
		t.Run(what, func(t *testing.T) {
			n := metNode(t, nil)
			n.sm = stopAt{n.sm, n.end}
			n.staged = n.stagedContent
			err := work(t, n)
			if !errors.Is(err, errStopping) {
				t.Errorf("it ended with %v", err)
			}
			n.fail(err)
			if n.Err() != nil {
				t.Errorf("the node failed: %v", n.Err())
			}
		})
	}
}

// A start that ends in the middle of the swap to a received snapshot says why it
// was stopped, and the next start finishes the swap.
func TestStopOfAStart(t *testing.T) {
	dir := t.TempDir()
	peers := []Peer{{ID: 1, URL: "http://127.0.0.1:1"}, {ID: 2, URL: "http://127.0.0.1:2"}, {ID: 3, URL: "http://127.0.0.1:3"}}
	open := func(ctx context.Context, sm func() (StateMachine, error)) (*Node, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return Open(ctx, Config{ID: 1, Cluster: peers, Dir: dir, Listener: l, StateMachine: sm})
	}
	foundedDir(t, dir, 1, peers)
	ledgerIn := func() (StateMachine, error) { return openLedger(dir) }
	n, err := open(t.Context(), ledgerIn)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The crash of a receiver: the log has the mark, the store is the old one.
	members := bootstrapMembership(peers)
	source := &ledger{state: ledgerState{Index: 50, Meta: members.encode(), Lines: []string{"received"}}}
	disk, rec, err := openDisk(dir, n.identity, quietZap())
	if err != nil {
		t.Fatal(err)
	}
	mark := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(50)), Term: new(uint64(3)), ConfState: members.confState()}}
	state := rec.state
	state.Term, state.Commit = new(uint64(3)), new(uint64(50))
	var file bytes.Buffer
	if err := source.Snapshot(func(index uint64, meta []byte, c io.WriterTo) error {
		return writeSnapshot(&file, snapHeader{ClusterID: n.identity.ClusterID, Index: 50, Term: 3, FeatureLevel: featureLevel, Membership: meta}, c)
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(stagedPath(dir, 50), file.Bytes(), 0o600), disk.SaveSnapshot(state, mark), disk.Close()); err != nil {
		t.Fatal(err)
	}

	cause := errors.New("a signal came")
	ctx, cancel := context.WithCancelCause(t.Context())
	if n, err := open(ctx, func() (StateMachine, error) {
		l, err := openLedger(dir)
		return stopAt{l, func() { cancel(cause) }}, err
	}); err == nil || !errors.Is(err, cause) {
		t.Fatalf("the start that was stopped: %v, %v", n, err)
	}
	n, err = open(t.Context(), ledgerIn)
	if err != nil {
		t.Fatal(err)
	}
	if lines := n.sm.(*ledger).lines(); len(lines) != 1 || lines[0] != "received" {
		t.Errorf("the next start has %v", lines)
	}
	if err := n.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
