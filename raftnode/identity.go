package raftnode

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// identity is who a data directory is. It is written when the directory is
// made and at each start, atomically.
type identity struct {
	Version     int         `json:"version"`
	ClusterID   uint64      `json:"cluster_id"` // 0: of none yet, see Founding
	MemberID    uint64      `json:"member_id"`
	Incarnation Incarnation `json:"incarnation"`
	Cluster     []Peer      `json:"cluster"` // the list the directory was made with
	Joined      bool        `json:"joined"`
	Vote        Vote        `json:"vote,omitzero"`      // until it belongs to a cluster
	Founders    []Founder   `json:"founders,omitempty"` // of the cluster, if it began with them
	// Prepared is set once the log exists. A directory without it was left
	// half made by a crash, was never part of anything, and is made again.
	Prepared bool `json:"prepared"`
	// Boots counts starts. Request ids begin at Boots<<40, so none is used
	// twice by one directory.
	Boots uint64 `json:"boots"`
}

const (
	identityVersion = 1
	identityFile    = "identity"
	lockFile        = "lock"
)

func sortedPeers(peers []Peer) []Peer {
	s := slices.Clone(peers)
	slices.SortFunc(s, func(a, b Peer) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return s
}

func peerList(peers []Peer) string {
	var b strings.Builder
	for i, p := range sortedPeers(peers) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(p.ID, 10) + "=" + p.URL)
	}
	return b.String()
}

func newIncarnation() (i Incarnation) {
	_, _ = rand.Read(i[:]) // never fails, as crypto/rand promises
	return i
}

// loadIdentity returns nil if the directory has none.
func loadIdentity(dir string) (*identity, error) {
	path := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	if len(b) < 4 || binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return nil, &damageError{path, -1, errors.New("its checksum is wrong")}
	}
	id := &identity{}
	if err := json.Unmarshal(b[4:], id); err != nil {
		return nil, &damageError{path, -1, err}
	}
	if id.Version != identityVersion {
		return nil, fmt.Errorf("%s: version %d is not known to this build", path, id.Version)
	}
	return id, nil
}

// save replaces the file: a crash leaves the old one or the new one.
func (id *identity) save(dir string) error {
	body, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	b := append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)), body...)
	path := filepath.Join(dir, identityFile)
	if err := writeFileSync(path+".tmp", b); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return syncDir(dir)
}

func writeFileSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

// lockDir keeps a second process out of the directory for as long as this
// one lives.
func lockDir(dir string) (*fileutil.LockedFile, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	l, err := fileutil.TryLockFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is in use by another process", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	return l, nil
}

// claimIdentity loads the directory's identity or makes a fresh one, and
// refuses a directory that belongs to another member.
func claimIdentity(c *Config) (id *identity, err error) {
	if id, err = loadIdentity(c.Dir); err != nil {
		return nil, withRemedy(err, c.ID)
	}
	if id == nil {
		for _, name := range []string{walDir, snapDir} {
			if _, err := os.Stat(filepath.Join(c.Dir, name)); err == nil {
				return nil, &IdentityError{fmt.Sprintf("data directory %s has a log but no identity file: it is not whole. Bring the file back or, if it is lost, %s", c.Dir, remedy(c.ID))}
			}
		}
		return &identity{Version: identityVersion, MemberID: c.ID, Incarnation: newIncarnation(), Cluster: sortedPeers(c.Cluster), Joined: c.Join}, nil
	}
	if id.MemberID != c.ID {
		return nil, &IdentityError{fmt.Sprintf("data directory %s belongs to member %d, not to member %d: give each node a directory of its own (--data-dir), never a copy of another's", c.Dir, id.MemberID, c.ID)}
	}
	if id.ClusterID == 0 {
		return id, id.begin(c)
	}
	return id, nil
}

// begin takes the list of this start for a directory that belongs to no cluster
// yet, unless it has given others its word.
func (id *identity) begin(c *Config) error {
	if id.Vote.Promised != (Ballot{}) && peerList(c.Cluster) != peerList(id.Cluster) {
		return &IdentityError{fmt.Sprintf("data directory %s has taken part in founding the cluster %s, but --cluster says %s. "+
			"To go on with that cluster, start with its list. To found another one, use another directory (--data-dir); this one holds no messages", c.Dir, peerList(id.Cluster), peerList(c.Cluster))}
	}
	id.Cluster, id.Joined = sortedPeers(c.Cluster), c.Join
	return nil
}

// Unfounded reports whether a directory belongs to no cluster yet, although a
// node was started on it.
func Unfounded(dir string) bool {
	id, err := loadIdentity(dir)
	return err == nil && id != nil && id.ClusterID == 0
}

// checkList refuses a start whose list of members matches neither the one
// the directory was made with nor the cluster as it is now.
func (id *identity) checkList(c *Config, now *membership) error {
	given := peerList(c.Cluster)
	if given == peerList(id.Cluster) {
		return nil
	}
	var current []Peer
	for _, m := range now.Members {
		current = append(current, Peer{ID: m.ID, URL: m.PeerURL})
	}
	if given == peerList(current) {
		return nil
	}
	return &IdentityError{fmt.Sprintf("data directory %s was made for the cluster %s (its members now: %s), but --cluster says %s. "+
		"To go on with that cluster, start with its list. To start another one, use another directory (--data-dir) or move this one away. To add members to it, start it as it was and run `raft-chat members add`",
		c.Dir, peerList(id.Cluster), peerList(current), given)}
}
