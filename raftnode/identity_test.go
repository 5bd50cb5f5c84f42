package raftnode

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/internal/slow"
	"github.com/raft-chat/raft-chat/internal/testaddr"
)

func testIdentity() *identity {
	return &identity{Version: identityVersion, ClusterID: 1<<63 + 1, MemberID: 3, Incarnation: Incarnation{1, 2, 3}, Joined: true, Prepared: true, Boots: 9, Starts: BootList{7, 8, 9},
		Cluster: []Peer{{1, "http://a:1"}, {3, "http://c:1"}}}
}

func sameIdentity(a, b *identity) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func TestIdentityRoundTrip(t *testing.T) {
	dir := t.TempDir()
	if id, err := loadIdentity(dir); id != nil || err != nil {
		t.Fatal("an empty directory", id, err)
	}
	want := testIdentity()
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := loadIdentity(dir)
	if err != nil || !sameIdentity(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("%v is left in the directory, %v", names, err)
	}
	if err := want.save(filepath.Join(dir, "none")); err == nil {
		t.Error("no error without a directory")
	}
}

func TestDamagedIdentityIsRefused(t *testing.T) {
	slow.Test(t)
	dir := t.TempDir()
	path := filepath.Join(dir, identityFile)
	if err := testIdentity().save(dir); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range whole {
		refused(fmt.Sprint("cut at ", n), whole[:n])
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[n] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, n), b)
		}
	}
	refused("longer", append(bytes.Clone(whole), 0))
	summed := func(body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(body), castagnoli)), body...)
	}
	refused("not JSON", summed("x"))
	refused("no version", summed("{}"))
	refused("a later version", summed(`{"version":2}`))

	// A node does not start either, and leaves the file alone.
	c := newTestCluster(t, 1)
	c.start(1)
	c.stop(1)
	path = filepath.Join(c.memberDir(1), identityFile)
	if err := os.WriteFile(path, whole[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.open(1); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("open: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, whole[:20]) {
		t.Error("the damaged file was changed", err)
	}
}

// Wherever a crash hits the save, the directory has the old identity or the
// new one.
func TestCrashDuringIdentitySave(t *testing.T) {
	dir, path := t.TempDir(), ""
	path = filepath.Join(dir, identityFile)
	before, after := testIdentity(), testIdentity()
	after.Boots, after.Prepared = 10, false
	if err := after.save(dir); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := before.save(dir); err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= len(fresh); n++ {
		if err := os.WriteFile(path+".tmp", fresh[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := loadIdentity(dir); err != nil || !sameIdentity(got, before) {
			t.Fatalf("crash after %d bytes: %+v, %v", n, got, err)
		}
	}
	// A longer file of an earlier crash is no part of the next one.
	if err := os.WriteFile(path+".tmp", bytes.Repeat([]byte("x"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := after.save(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := loadIdentity(dir); err != nil || !sameIdentity(got, after) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A directory that a crash left half made is made again, and stays who it is.
func TestUnpreparedDirectoryIsMadeAgain(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, dir string, id *identity){
		"identity alone": func(*testing.T, string, *identity) {},
		"a log begun": func(t *testing.T, dir string, _ *identity) {
			for _, sub := range []string{snapDir, walDir + ".tmp"} {
				if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, walDir+".tmp", "0000000000000000-0000000000000000.wal"), []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a log without its first snapshot": func(t *testing.T, dir string, id *identity) {
			d, err := createDisk(dir, id, nil, quietZap())
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		},
		"a whole log": func(t *testing.T, dir string, id *identity) {
			d, err := createDisk(dir, id, bootstrapSnapshot(id.Cluster), quietZap())
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			smallSegments(t, 1<<20)
			c := newTestCluster(t, 1)
			dir := c.memberDir(1)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			id, err := claimIdentity(&Config{ID: 1, Cluster: c.peers, Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			id.Boots = 1
			if err := id.save(dir); err != nil {
				t.Fatal(err)
			}
			leave(t, dir, id)
			c.start(1)
			c.leader()
			c.mustPropose(1, "x")
			now := c.nodes[1].identity
			if now.Incarnation != id.Incarnation || !now.Prepared || now.Boots != 2 {
				t.Errorf("was %+v, is %+v", id, now)
			}
			c.stop(1)
			c.start(1)
			c.agree(1)
			if got := c.nodes[1].identity; got.Incarnation != id.Incarnation || got.Boots != 3 {
				t.Errorf("after a restart: %+v", got)
			}
		})
	}
}

func TestDirectoryWithoutIdentityOrLogIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.start(1)
	c.leader()
	c.mustPropose(1, "x")
	c.stop(1)
	dir := c.memberDir(1)
	away := filepath.Join(c.dir, "away")

	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(filepath.Join(dir, identityFile), away)
	_, err := c.open(1)
	var refused *IdentityError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), dir) {
		t.Errorf("without the identity: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, identityFile)); err == nil {
		t.Error("an identity was made")
	}
	move(away, filepath.Join(dir, identityFile))

	move(filepath.Join(dir, walDir), away)
	if _, err := c.open(1); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, walDir)) {
		t.Errorf("without the log: %v", err)
	}
	move(away, filepath.Join(dir, walDir))

	// The log of another directory.
	id, err := loadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	own := id.Incarnation
	id.Incarnation = Incarnation{5}
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := c.open(1); err == nil || !strings.Contains(err.Error(), "another data directory") {
		t.Errorf("another incarnation: %v", err)
	}
	id.Incarnation = own
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	c.agree(1)
}

// Each start has request ids of its own, so that an entry of an earlier life
// never answers a proposal of this one.
func TestRequestIDsNeverRepeat(t *testing.T) {
	smallSegments(t, 1<<20)
	c := newTestCluster(t, 1)
	var lastBoots uint64
	for round := range 4 {
		c.start(1)
		c.leader()
		n := c.nodes[1]
		for i := range 5 {
			c.mustPropose(1, fmt.Sprint(round, ".", i))
			if err := n.ReadIndex(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		if n.identity.Boots <= lastBoots {
			t.Errorf("boots %d after %d", n.identity.Boots, lastBoots)
		}
		lastBoots = n.identity.Boots
		c.stop(1)
		if got := n.core.sequence >> 40; got != n.identity.Boots {
			t.Errorf("start %d gives out numbers of start %d", n.identity.Boots, got)
		}
	}
	// A start that is refused uses no number up.
	c.peers[0].URL = "http://" + testaddr.Addr(t)
	_, err := c.open(1)
	var refused *IdentityError
	if !errors.As(err, &refused) {
		t.Errorf("another list: %v", err)
	}
	id, err := loadIdentity(c.memberDir(1))
	if err != nil || id.Boots != lastBoots || len(id.Starts) != int(lastBoots) {
		t.Errorf("%+v, %v", id, err)
	}

	disk, rec, err := openDisk(c.memberDir(1), id, quietZap())
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[requestID]bool{}
	for _, e := range rec.entries {
		if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
			continue
		}
		_, id, _, err := decodeEntry(e.GetData())
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Errorf("%v is used twice", id)
		}
		seen[id] = true
	}
	if len(seen) < 20 {
		t.Errorf("only %d entries looked at", len(seen))
	}
}

func TestClusterListsAreCompared(t *testing.T) {
	a, b, d := Peer{1, "http://a:1"}, Peer{2, "http://b:1"}, Peer{4, "http://d:1"}
	if clusterID([]Peer{a, b}, nil) != clusterID([]Peer{b, a}, nil) {
		t.Error("the order of the list changes the cluster id")
	}
	if clusterID([]Peer{a, b}, nil) == clusterID([]Peer{a}, nil) || clusterID([]Peer{a, b}, nil) == clusterID([]Peer{{2, a.URL}, {1, b.URL}}, nil) {
		t.Error("different lists, one cluster id")
	}
	list := []Peer{b, a}
	if peerList(list) != "1=http://a:1,2=http://b:1" || !slices.Equal(list, []Peer{b, a}) {
		t.Error(peerList(list), list)
	}

	id := &identity{Cluster: []Peer{a, b}}
	now := bootstrapMembership([]Peer{a, d})
	for _, tt := range []struct {
		given []Peer
		ok    bool
	}{
		{[]Peer{a, b}, true}, // as the directory was made
		{[]Peer{b, a}, true}, // in another order
		{[]Peer{d, a}, true}, // as the cluster is now
		{[]Peer{a}, false},   // too few
		{[]Peer{a, d, b}, false},
		{[]Peer{a, {2, "http://x:1"}}, false},
		{[]Peer{{2, a.URL}, {1, b.URL}}, false},
	} {
		err := id.checkList(&Config{Dir: "/data/one", Cluster: tt.given}, now)
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", peerList(tt.given), err)
		}
		if err == nil {
			continue
		}
		for _, part := range []string{"/data/one", "1=http://a:1,2=http://b:1", "1=http://a:1,4=http://d:1", peerList(tt.given), "--data-dir", "raft-chat members add"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: the message lacks %s: %v", peerList(tt.given), part, err)
			}
		}
	}
}

// A member may be started with the list that its log, not yet applied, leads to.
func TestListMayBeThatOfTheLog(t *testing.T) {
	m := bootstrapMembership([]Peer{{1, "http://a:1"}})
	change := func(index uint64, typ raftpb.ConfChangeType, id uint64, url string) *raftpb.Entry {
		payload, err := json.Marshal(confContext{PeerURL: url})
		if err != nil {
			t.Fatal(err)
		}
		cc := &raftpb.ConfChange{Type: typ.Enum(), NodeId: new(id), Context: appendEntry(nil, kindConfChange, requestID{}, payload)}
		data, err := proto.Marshal(cc)
		if err != nil {
			t.Fatal(err)
		}
		return &raftpb.Entry{Index: new(index), Term: new(uint64(1)), Type: raftpb.EntryConfChange.Enum(), Data: data}
	}
	entries := []*raftpb.Entry{
		change(5, raftpb.ConfChangeAddLearnerNode, 9, "http://applied:1"),
		testEntry(1, 6, 10),
		change(7, raftpb.ConfChangeAddLearnerNode, 2, "http://b:1"),
		change(8, raftpb.ConfChangeAddLearnerNode, 2, "http://rejected:1"),
		change(9, raftpb.ConfChangeAddNode, 2, ""),
	}
	got := membershipAfter(m, 5, entries)
	if !slices.Equal(got.Voters, []uint64{1, 2}) || got.Members[1].PeerURL != "http://b:1" || len(got.Members) != 2 {
		t.Errorf("%+v", got)
	}
	if len(m.Members) != 1 {
		t.Error("the records were changed")
	}
}

func TestConfigIsValidated(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"id 0":                 func(c *Config) { c.ID = 0 },
		"not in the list":      func(c *Config) { c.ID = 7 },
		"no directory":         func(c *Config) { c.Dir = "" },
		"no state machine":     func(c *Config) { c.StateMachine = nil },
		"an id twice":          func(c *Config) { c.Cluster = append(c.Cluster, c.Cluster[0]) },
		"an id 0 in the list":  func(c *Config) { c.Cluster = append(c.Cluster, Peer{0, "http://z:1"}) },
		"a short election":     func(c *Config) { c.ElectionTicks = 2 },
		"an empty member list": func(c *Config) { c.Cluster = nil },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{ID: 1, Cluster: []Peer{{1, "http://a:1"}}, Dir: t.TempDir(), Listener: l, StateMachine: func() (StateMachine, error) { return nil, errors.New("opened") }}
		edit(&cfg)
		if _, err := Open(context.Background(), cfg); err == nil || err.Error() == "opened" {
			t.Errorf("%s: %v", name, err)
		}
		// The listener is the node's from Open on, also when Open fails.
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: the listener was left open", name)
		}
	}
}
