package raftnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raft-chat/raft-chat/internal/slow"
)

// metNode is a node of three that has accepted members 2 and 3; its loops do
// not run, so what it takes in stays in its channels.
func metNode(t *testing.T, tune func(*Config)) *Node {
	t.Helper()
	n := newDiskNode(t, &recordingDisk{}, 3, tune)
	for id := range uint64(2) {
		x := &peer{id: id + 2, ready: true, cancel: func() {}, kick: make(chan struct{}, 1), secret: newSecret()}
		challenge := newSecret()
		x.claim = claim{challenge, memberSecret(x.id).answer(challenge), true}
		n.peers.known[x.id] = x
	}
	t.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// memberSecret is that of a member of metNode.
func memberSecret(id uint64) secret { return secret{Incarnation{15: byte(id)}} }

// A message gets to raft when it is for this node, from a member that said
// hello and was not removed; every other one is like a lost packet.
func TestOnlyMessagesOfMembersToThisNodeGetToRaft(t *testing.T) {
	n := metNode(t, nil)
	removed := mustChange(t, n.applier.members.Load(), raftpb.ConfChangeRemoveNode, 3, confContext{})
	n.applier.members.Store(removed)
	for _, tt := range []struct {
		what     string
		from, to uint64
		kind     raftpb.MessageType
		taken    bool
	}{
		{"to this node", 2, 1, raftpb.MsgHeartbeat, true},
		{"to another member", 2, 3, raftpb.MsgHeartbeat, false},
		{"to nobody", 2, 0, raftpb.MsgHeartbeat, false},
		{"from a removed member that still has a connection", 3, 1, raftpb.MsgVote, false},
		{"from a stranger", 9, 1, raftpb.MsgVote, false},
		{"that only raft itself may send", 2, 1, raftpb.MsgHup, false},
	} {
		m := &raftpb.Message{Type: tt.kind.Enum(), From: new(tt.from), To: new(tt.to), Term: new(uint64(5))}
		if err := (link{n, tt.from}).Process(t.Context(), m); err != nil {
			t.Errorf("%s: %v", tt.what, err)
		}
		taken := len(n.messages) > 0
		for len(n.messages) > 0 {
			<-n.messages
		}
		if taken != tt.taken {
			t.Errorf("a message %s: taken %v", tt.what, taken)
		}
	}
}

// What a member sends as a snapshot can be no longer than what is free on the
// disk allows; the addresses that a request claims are not passed on.
func TestReceivedSnapshotIsBoundedInSize(t *testing.T) {
	n := metNode(t, func(c *Config) { c.MinFreeBytes = 1 << 60 }) // nothing is free
	var read int64
	var readErr error
	var claimed string
	handler := n.peers.guarded(func(_ *peer, _ http.ResponseWriter, r *http.Request) {
		claimed = r.Header.Get("X-PeerURLs") + r.Header.Get(secretHeader)
		read, readErr = io.Copy(io.Discard, r.Body)
	})
	for path, bounded := range map[string]bool{rafthttp.RaftSnapshotPrefix: true, rafthttp.RaftPrefix: false} {
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(strings.Repeat("x", 3<<20)))
		r.Header.Set("X-Server-From", types.ID(2).String())
		r.Header.Set("X-PeerURLs", "http://127.0.0.1:1")
		r.Header.Set(secretHeader, memberSecret(2).String())
		handler.ServeHTTP(httptest.NewRecorder(), r)
		var tooLong *http.MaxBytesError
		if errors.As(readErr, &tooLong) != bounded || bounded && read > 1<<20 {
			t.Errorf("%s: read %d bytes, %v", path, read, readErr)
		}
		if claimed != "" {
			t.Errorf("%s: the addresses %q were passed on", path, claimed)
		}
	}
}

// flakySnapshots is a state machine whose first snapshots fail.
type flakySnapshots struct {
	StateMachine
	failures *atomic.Int32
	attempts *atomic.Int32
}

func (f flakySnapshots) Snapshot(use func(uint64, []byte, io.WriterTo) error) error {
	f.attempts.Add(1)
	if f.failures.Add(-1) >= 0 {
		return errDisk
	}
	return f.StateMachine.Snapshot(use)
}

// Raft hears of a snapshot that could not be sent, or it would never offer the
// member another one.
func TestFailedSnapshotIsSentAgain(t *testing.T) {
	slow.Test(t)
	c := newTestCluster(t, 3)
	var failures, attempts atomic.Int32
	failures.Store(1)
	c.tune = func(cfg *Config) {
		cfg.CatchUpBytes = 4 << 10
		open := cfg.StateMachine
		cfg.StateMachine = func() (StateMachine, error) {
			sm, err := open()
			return flakySnapshots{sm, &failures, &attempts}, err
		}
	}
	c.startAll()
	lagging := c.leader()%3 + 1
	c.stop(lagging)
	leader := c.leader()
	const lines = 200
	for i := range lines {
		c.mustPropose(leader, fmt.Sprint(i, strings.Repeat("x", 100)))
	}
	c.start(lagging)
	c.agree(lines)
	if failures.Load() >= 0 || attempts.Load() < 2 {
		t.Errorf("%d attempts: no snapshot failed, so nothing was tested", attempts.Load())
	}
}
