package raftnode

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// A snapshot that arrives damaged, or is another than was announced, does not
// get to raft, and its file is gone, so that the next attempt is not taken for it.
func TestDamagedSnapshotIsNotTakenIn(t *testing.T) {
	n := metNode(t, nil)
	if err := os.MkdirAll(filepath.Join(n.cfg.Dir, snapDir), 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(h snapHeader) []byte {
		var b bytes.Buffer
		if err := writeSnapshot(&b, h, pieces{noise(3000)}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	of := bootstrapMembership([]Peer{{1, "http://a:1"}})
	right := snapHeader{ClusterID: n.identity.ClusterID, Index: 50, Term: 3, FeatureLevel: featureLevel, Membership: of.encode()}
	damaged := file(right)
	damaged[len(damaged)/2] ^= 1
	for what, tt := range map[string]struct {
		content []byte
		taken   bool
	}{
		"whole":              {file(right), true},
		"damaged":            {damaged, false},
		"cut":                {file(right)[:2000], false},
		"of another cluster": {file(snapHeader{ClusterID: 99, Index: 50, Term: 3, FeatureLevel: featureLevel, Membership: of.encode()}), false},
		"of another index":   {file(snapHeader{ClusterID: n.identity.ClusterID, Index: 51, Term: 3, FeatureLevel: featureLevel, Membership: of.encode()}), false},
		"of another term":    {file(snapHeader{ClusterID: n.identity.ClusterID, Index: 50, Term: 4, FeatureLevel: featureLevel, Membership: of.encode()}), false},
		"of other members":   {file(snapHeader{ClusterID: n.identity.ClusterID, Index: 50, Term: 3, FeatureLevel: featureLevel, Membership: bootstrapMembership([]Peer{{1, "http://a:1"}, {2, "http://b:1"}}).encode()}), false},
		"of a reserved id":   {file(snapHeader{ClusterID: n.identity.ClusterID, Index: 50, Term: 3, FeatureLevel: featureLevel, Membership: []byte(`{"version":1,"voters":[1],"learners":[18446744073709551614],"members":[{"id":1},{"id":18446744073709551614}]}`)}), false},
	} {
		path := stagedPath(n.cfg.Dir, 50)
		if err := os.WriteFile(path, tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(3)), Snapshot: snapshotAt(50, 3)}
		err := (link{n, 2}).Process(t.Context(), m)
		taken := len(n.messages) > 0
		for len(n.messages) > 0 {
			<-n.messages
		}
		_, gone := os.Stat(path)
		if taken != tt.taken || (err == nil) != tt.taken || errors.Is(gone, os.ErrNotExist) == tt.taken {
			t.Errorf("%s: taken %v, %v, file: %v", what, taken, err, gone)
		}
	}
}

// A dump for another member ends before it takes the space that the log needs,
// and leaves nothing behind.
func TestDumpStopsAtTheReserve(t *testing.T) {
	for reserve, fits := range map[int64]bool{-1: true, 1 << 60: false} {
		n := metNode(t, func(c *Config) { c.MinFreeBytes = reserve })
		dir := filepath.Join(n.cfg.Dir, snapDir)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		file, size, meta, err := n.stageSnapshot(2)
		if fits {
			if err != nil || size == 0 || meta.GetIndex() != 1 {
				t.Fatalf("with a reserve of %d: %d bytes of %v, %v", reserve, size, meta, err)
			}
			if err := file.Close(); err != nil {
				t.Error(err)
			}
		} else if err == nil || !strings.Contains(err.Error(), "are free") {
			t.Errorf("with a reserve of %d: %v", reserve, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("with a reserve of %d %d files are left, %v", reserve, len(left), err)
		}
	}
}

// While a snapshot is on its way, the log that its receiver needs afterwards is
// kept.
func TestLogIsKeptWhileASnapshotIsSent(t *testing.T) {
	n := metNode(t, func(c *Config) { c.CatchUpBytes = 1000 })
	before := n.catchUpBytes()
	n.sending.Add(1)
	during := n.catchUpBytes()
	n.sending.Add(-1)
	if before != 1000 || during <= before || n.catchUpBytes() != before {
		t.Errorf("%d bytes before, %d while sending, %d after", before, during, n.catchUpBytes())
	}
}
