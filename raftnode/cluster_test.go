package raftnode

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/testaddr"
)

// ledger is a state machine for tests: the list of all payloads. Like the
// real store it keeps what it applied in memory until Flush.
type ledger struct {
	path string

	mu    sync.Mutex
	state ledgerState
}

type ledgerState struct {
	Index uint64
	Meta  []byte
	Lines []string
}

func openLedger(dir string) (*ledger, error) {
	l := &ledger{path: filepath.Join(dir, "ledger")}
	b, err := os.ReadFile(l.path)
	if errors.Is(err, os.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	return l, json.Unmarshal(b, &l.state)
}

func (l *ledger) Applied() (uint64, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Index, l.state.Meta
}

func (l *ledger) Apply(entries iter.Seq2[uint64, []byte], last uint64, meta []byte) (results []any, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, payload := range entries {
		l.state.Lines = append(l.state.Lines, string(payload))
		results = append(results, len(l.state.Lines))
	}
	l.state.Index = last
	if meta != nil {
		l.state.Meta = meta
	}
	return results, nil
}

func (l *ledger) Flush() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := json.Marshal(l.state)
	if err != nil {
		return 0, err
	}
	if err := writeFileSync(l.path+".tmp", b); err != nil {
		return 0, err
	}
	return l.state.Index, os.Rename(l.path+".tmp", l.path)
}

type ledgerContent []byte

func (c ledgerContent) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(c)
	return int64(n), err
}

func (l *ledger) Snapshot(f func(uint64, []byte, io.WriterTo) error) error {
	l.mu.Lock()
	b, err := json.Marshal(l.state)
	index, meta := l.state.Index, l.state.Meta
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return f(index, meta, ledgerContent(b))
}

func (l *ledger) Restore(content io.Reader) error {
	var s ledgerState
	if err := json.NewDecoder(bufio.NewReader(content)).Decode(&s); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return err
	}
	l.mu.Lock()
	l.state = s
	l.mu.Unlock()
	_, err := l.Flush()
	return err
}

func (l *ledger) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.state.Lines)
}

// testCluster runs members in this process over real files and real HTTP.
type testCluster struct {
	t     *testing.T
	dir   string
	peers []Peer
	nodes map[uint64]*Node
	sms   map[uint64]*ledger
	cut   atomic.Pointer[func(from, to uint64) bool] // true: the link is cut
	tune  func(*Config)
}

func newTestCluster(t *testing.T, members int) *testCluster {
	c := &testCluster{t: t, dir: t.TempDir(), nodes: map[uint64]*Node{}, sms: map[uint64]*ledger{}}
	for id := range uint64(members) {
		c.peers = append(c.peers, Peer{ID: id + 1, URL: "http://" + testaddr.Addr(t)})
	}
	t.Cleanup(func() {
		for id := range c.nodes {
			c.stop(id)
		}
	})
	return c
}

func (c *testCluster) memberDir(id uint64) string { return filepath.Join(c.dir, fmt.Sprint(id)) }

func (c *testCluster) config(id uint64) Config {
	var addr string
	for _, p := range c.peers {
		if p.ID == id {
			addr = p.URL[len("http://"):]
		}
	}
	var l net.Listener
	eventually(c.t, "listen on "+addr, func() bool {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelInfo
	}
	cfg := Config{
		ID: id, Cluster: c.peers, Dir: c.memberDir(id), Listener: l, MinFreeBytes: -1, ListenFirst: 10 * time.Millisecond,
		Attributes: Attributes{Name: fmt.Sprint("n", id)}, TickInterval: 20 * time.Millisecond,
		Logger: slog.New(slog.NewTextHandler(testWriter{c.t}, &slog.HandlerOptions{Level: level})).With("node", id),
		StateMachine: func() (StateMachine, error) {
			sm, err := openLedger(c.memberDir(id))
			c.sms[id] = sm
			return sm, err
		},
		Reachable: func(from, to uint64) bool {
			f := c.cut.Load()
			return f == nil || !(*f)(from, to)
		},
	}
	if c.tune != nil {
		c.tune(&cfg)
	}
	return cfg
}

func (c *testCluster) open(id uint64) (*Node, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return Open(ctx, c.config(id))
}

func (c *testCluster) start(ids ...uint64) {
	c.t.Helper()
	for _, id := range ids {
		n, err := c.open(id)
		if err != nil {
			c.t.Fatalf("open %d: %v", id, err)
		}
		c.nodes[id] = n
	}
}

// foundedDir makes a directory of a cluster that began with its list, as of the
// moment before it has a log.
func foundedDir(t *testing.T, dir string, id uint64, list []Peer) {
	t.Helper()
	who := &identity{Version: identityVersion, ClusterID: clusterID(list, nil), MemberID: id, Incarnation: newIncarnation(), Cluster: sortedPeers(list)}
	if err := errors.Join(os.MkdirAll(dir, 0o700), who.save(dir)); err != nil {
		t.Fatal(err)
	}
}

func (c *testCluster) startAll() {
	for _, p := range c.peers {
		c.start(p.ID)
	}
}

var errKilled = errors.New("killed by the test")

// stop ends a node without handing anything over, as a crash of the process
// would: what the ledger has not flushed is lost.
func (c *testCluster) stop(id uint64) {
	c.nodes[id].fail(errKilled)
	if err := c.nodes[id].Close(context.Background()); err != nil {
		c.t.Errorf("close %d: %v", id, err)
	}
	delete(c.nodes, id)
}

func (c *testCluster) cutLinks(f func(from, to uint64) bool) { c.cut.Store(&f) }

func (c *testCluster) leader() uint64 {
	c.t.Helper()
	var leader uint64
	eventually(c.t, "a leader", func() bool {
		for id, n := range c.nodes {
			if s := n.Status(); s.Role == "leader" {
				leader = id
				return true
			}
		}
		return false
	})
	return leader
}

// propose writes a line through member id and waits for its outcome.
func (c *testCluster) propose(id uint64, line string) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	type outcome struct {
		result any
		err    error
	}
	done := make(chan outcome, 1)
	c.nodes[id].Propose(ctx, []byte(line), func(r any, err error) { done <- outcome{r, err} })
	select {
	case o := <-done:
		return o.result, o.err
	case <-ctx.Done():
		return nil, errUnknown
	}
}

// mustPropose tries again until the line is acknowledged; the caller's lines
// are distinct, a line may then be there twice.
func (c *testCluster) mustPropose(id uint64, line string) {
	c.t.Helper()
	eventually(c.t, "propose "+line, func() bool {
		_, err := c.propose(id, line)
		return err == nil
	})
}

func (c *testCluster) agree(want int) {
	c.t.Helper()
	defer func() {
		if c.t.Failed() {
			for id, n := range c.nodes {
				c.t.Logf("member %d: %+v, %d lines, error %v", id, n.Status(), len(c.sms[id].lines()), n.Err())
			}
		}
	}()
	eventually(c.t, "agreement of all members", func() bool {
		var first []string
		for id := range c.nodes {
			l := c.sms[id].lines()
			if first == nil {
				first = l
			}
			if len(l) < want || !slices.Equal(l, first) {
				return false
			}
		}
		return true
	})
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

// eventually polls; the deadline is generous because the machine may be slow.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("timed out waiting for %s", what)
		case <-poll.C:
		}
	}
}
