package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/raft-chat/raft-chat/internal/server"
)

// raftogramLayout is the cluster mapping of a raftogram configuration file.
// All of its keys must be there. In our terms:
//
//   - a node's id is its position in peers, its name is node_id, its peer URL
//     is http:// and raft_addr;
//   - raft_bind_addr is --listen-peer;
//   - health_bind_addr is where the API and the web client are served, unless
//     --host or --port say otherwise: then it is --listen-health;
//   - grpc_bind_addr is --listen-grpc, the node's own grpc_addr is
//     --advertise-grpc.
type raftogramLayout struct {
	path                                string
	nodeID                              string
	raftBind, grpcBind, health, dataDir string
	peers                               []raftogramPeer
}

type raftogramPeer struct {
	nodeID, raftAddr, grpcAddr string
}

// parseRaftogram reads the cluster mapping n of the file at path.
func parseRaftogram(path string, n *yaml.Node) (*raftogramLayout, error) {
	l := &raftogramLayout{path: path}
	var peers *yaml.Node
	err := readKeys(path, "cluster.", n, map[string]any{
		"node_id": &l.nodeID, "raft_bind_addr": &l.raftBind, "grpc_bind_addr": &l.grpcBind,
		"health_bind_addr": &l.health, "data_dir": &l.dataDir, "peers": &peers,
	})
	if err != nil {
		return nil, err
	}
	if peers.Kind != yaml.SequenceNode {
		return nil, fmt.Errorf("%s:%d: cluster.peers: is not a list", path, peers.Line)
	}
	for i, item := range peers.Content {
		var p raftogramPeer
		prefix := fmt.Sprintf("cluster.peers[%d].", i)
		err := readKeys(path, prefix, item, map[string]any{
			"node_id": &p.nodeID, "raft_addr": &p.raftAddr, "grpc_addr": &p.grpcAddr,
		})
		if err != nil {
			return nil, err
		}
		if err := hostPort(path, prefix+"raft_addr", p.raftAddr); err != nil {
			return nil, err
		}
		if err := hostPort(path, prefix+"grpc_addr", p.grpcAddr); err != nil {
			return nil, err
		}
		l.peers = append(l.peers, p)
	}
	// The other addresses become settings, which are checked as such.
	if err := hostPort(path, "cluster.grpc_bind_addr", l.grpcBind); err != nil {
		return nil, err
	}
	return l, nil
}

func hostPort(path, key, addr string) error {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("%s: %s: %q is not of the form host:port", path, key, addr)
	}
	return nil
}

// readKeys reads a mapping that has exactly the keys of want, whose values are
// *string for one that is not empty, or **yaml.Node.
func readKeys(path, prefix string, n *yaml.Node, want map[string]any) error {
	pairs, err := mappingPairs(path, prefix, n)
	if err != nil {
		return err
	}
	missing := make(map[string]bool, len(want))
	for key := range want {
		missing[key] = true
	}
	for _, p := range pairs {
		switch target := want[p.key].(type) {
		case *string:
			if *target, err = scalar(path, prefix+p.key, p.value); err != nil {
				return err
			}
			if *target == "" {
				return fmt.Errorf("%s:%d: %s%s: is empty", path, p.line, prefix, p.key)
			}
		case **yaml.Node:
			*target = p.value
		default:
			return fmt.Errorf("%s:%d: unknown key %s%s%s", path, p.line, prefix, p.key, didYouMean(p.key, slices.Sorted(maps.Keys(want))))
		}
		delete(missing, p.key)
	}
	if len(missing) > 0 {
		keys := make([]string, 0, len(missing))
		for key := range missing {
			keys = append(keys, key)
		}
		return fmt.Errorf("%s:%d: %s%s is missing", path, n.Line, prefix, slices.Min(keys))
	}
	return nil
}

// apply sets in c what the layout says, and where from in from.
func (l *raftogramLayout) apply(c *server.Config, from origins) error {
	for _, setting := range []string{"id", "cluster", "name"} {
		if from.given(setting) {
			return usageErrorf("%s: cannot be combined with the cluster mapping of %s, which settles it", from.of(setting), l.path)
		}
	}
	key := func(name string) string { return l.path + ": cluster." + name }
	for i, p := range l.peers {
		c.Cluster = append(c.Cluster, server.Peer{ID: uint64(i) + 1, URL: "http://" + p.raftAddr, Name: p.nodeID, GRPCAddr: p.grpcAddr})
	}
	from["cluster"], from["id"], from["name"] = key("peers"), key("node_id"), key("node_id")
	self := slices.IndexFunc(l.peers, func(p raftogramPeer) bool { return p.nodeID == l.nodeID })
	if self < 0 {
		return usageErrorf("%s: %q is not the node_id of any of the peers", key("node_id"), l.nodeID)
	}
	c.ID, c.Name = uint64(self)+1, l.nodeID
	set := func(setting, keyName string, target *string, value string) {
		if !from.given(setting) {
			*target, from[setting] = value, key(keyName)
		}
	}
	set("data-dir", "data_dir", &c.DataDir, l.dataDir)
	set("listen-peer", "raft_bind_addr", &c.ListenPeer, l.raftBind)
	set("listen-grpc", "grpc_bind_addr", &c.ListenGRPC, l.grpcBind)
	set("advertise-grpc", "peers["+strconv.Itoa(self)+"].grpc_addr", &c.AdvertiseGRPC, l.peers[self].grpcAddr)
	if from.given("host") || from.given("port") {
		set("listen-health", "health_bind_addr", &c.ListenHealth, l.health)
	} else {
		c.Listen, from["port"] = l.health, key("health_bind_addr")
	}
	return nil
}
