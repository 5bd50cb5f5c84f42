package raftnode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// A disk that does not answer does not keep Close.
func TestCloseGivesUpOnADiskThatHangs(t *testing.T) {
	hanging, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d := &recordingDisk{before: func(call string) {
		if call == "save" {
			once.Do(func() { close(hanging) })
			<-release
		}
	}}
	n := newDiskNode(t, d, 1, nil)
	n.grace = time.Millisecond
	n.startLoops()
	n.Propose(context.Background(), nil, func(any, error) {}) // wakes it
	<-hanging
	if err := n.Close(ended()); !errors.Is(err, ErrStuck) {
		t.Errorf("got %v", err)
	}
	if err := n.Close(ended()); !errors.Is(err, ErrStuck) {
		t.Errorf("the second time: %v", err)
	}
	if strings.Contains(d.takeEvents(), "close") {
		t.Error("the disk was closed while it was written to")
	}
	close(release)
	// Nothing is left then, the leak check sees to that.
	eventually(t, "the end of the node", func() bool { return strings.Contains(d.takeEvents(), "close") })
}

// Neither does an end of the time by itself: what stops within moments is closed.
func TestCloseAfterItsTimeClosesWhatItCan(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	lead := c.leader()
	c.mustPropose(lead, "before")
	if err := c.nodes[lead].Close(ended()); err != nil {
		t.Error(err)
	}
	delete(c.nodes, lead)
	c.start(lead)
	c.mustPropose(lead, "after")
}

// snapshotBody begins a transfer of a snapshot, as rafthttp sends it, that never ends.
func snapshotBody(t *testing.T, from, to, index uint64) []byte {
	m, err := proto.Marshal(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(from), To: new(to),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(index), Term: new(uint64(1)), ConfState: &raftpb.ConfState{}}}})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.Write(binary.BigEndian.AppendUint64(nil, uint64(len(m))))
	b.Write(m)
	b.WriteString("the first bytes")
	return b.Bytes()
}

// A snapshot that a member sends and never ends neither keeps Close nor is
// anything of it written, or left, when Close has let go of the directory.
func TestCloseDuringAStalledSnapshot(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	lead := c.leader()
	c.mustPropose(lead, "before")
	n, sender := c.nodes[lead], lead%3+1
	eventually(t, "the members to have met", func() bool {
		_, fits := n.peers.holds(sender, c.nodes[sender].peers.self(lead).Secret)
		return fits && n.peers.accepted(sender)
	})
	addr := strings.TrimPrefix(n.cfg.ownURL(), "http://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := snapshotBody(t, sender, lead, 1_000_000)
	r, err := http.NewRequest(http.MethodPost, "http://"+addr+"/raft/snapshot", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	cluster := types.ID(n.identity.ClusterID).String()
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nX-Server-From: %s\r\nX-Server-Version: %s\r\nX-Min-Cluster-Version: %s\r\nX-Etcd-Cluster-ID: %s\r\n%s: %s\r\n\r\n",
		r.URL.Path, addr, len(body)+1<<20, types.ID(sender), version.Version, version.MinClusterVersion, cluster, secretHeader, c.nodes[sender].peers.self(lead).Secret)
	if _, err := conn.Write(append([]byte(head), body...)); err != nil {
		t.Fatal(err)
	}
	temporary := func() int {
		files, err := filepath.Glob(filepath.Join(c.memberDir(lead), snapDir, "tmp*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	eventually(t, "the snapshot to be taken in", func() bool { return temporary() == 1 })
	if err := n.Close(ended()); err != nil {
		t.Error(err)
	}
	delete(c.nodes, lead)
	if temporary() != 0 {
		t.Error("a part of the snapshot is left, or still written")
	}
}

// Members that greet a node while it closes do not disturb it.
func TestCloseUnderGreetings(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	c.leader()
	n := c.nodes[1]
	url := n.cfg.ownURL()
	stop := make(chan struct{})
	var greeted atomic.Int64
	var wg sync.WaitGroup
	for i := range uint64(4) {
		wg.Go(func() {
			for id := 100 * (i + 1); ; id++ {
				select {
				case <-stop:
					return
				default:
				}
				body := fmt.Sprintf(`{"version":1,"to":1,"from":%d,"cluster_id":%d,"incarnation":"%032x","peer_url":"http://127.0.0.1:%d"}`, id, n.identity.ClusterID, id, id%60_000+1)
				resp, err := http.Post(url+helloPath, "application/json", strings.NewReader(body))
				if err == nil {
					_ = resp.Body.Close()
					greeted.Add(1)
				}
			}
		})
	}
	// As a member that joins and knows nobody yet: it meets whoever greets.
	n.applier.members.Store(&membership{Version: membershipVersion})
	eventually(t, "greetings to be answered", func() bool { return greeted.Load() > 20 })
	if err := n.Close(context.Background()); err != nil {
		t.Error(err)
	}
	delete(c.nodes, 1)
	close(stop)
	wg.Wait()
	http.DefaultClient.CloseIdleConnections()
	if _, err := os.Stat(c.memberDir(1)); err != nil {
		t.Error(err)
	}
}

// A stop while a snapshot is installed is no failure.
func TestStopIsNoFailure(t *testing.T) {
	n := newNode(Config{})
	n.end()
	n.fail(fmt.Errorf("restore: %w", errStopping))
	if n.Err() != nil {
		t.Errorf("got %v", n.Err())
	}
	if _, err := (untilStop{strings.NewReader("x"), n.stop}).Read(make([]byte, 1)); !errors.Is(err, errStopping) {
		t.Errorf("a reader goes on: %v", err)
	}
}
