package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/raft-chat/raft-chat/internal/server"
)

// serverConfig turns the settings, and the raftogram layout if there is one,
// into a validated configuration. All errors are usage errors that begin with
// the place the value came from.
func (s *settings) serverConfig(from origins, layout *raftogramLayout) (server.Config, error) {
	if err := s.refuseZeros(from); err != nil {
		return server.Config{}, err
	}
	listen, err := s.listenAddress(from)
	if err != nil {
		return server.Config{}, err
	}
	c := server.Config{
		ID: s.id, Name: s.name, Join: s.join, DataDir: s.dataDir,
		Listen: listen, ListenPeer: s.listenPeer, ListenHealth: s.listenHealth,
		ListenGRPC: s.listenGRPC, GRPCForward: bool(s.grpcFollower),
		AdvertiseClient: s.advertiseClient, AdvertiseGRPC: s.advertiseGRPC,
		LeaderGrace: s.leaderGrace, KeepaliveInterval: s.keepalive,
		InsecurePeers: s.insecurePeers, FoundAnyway: s.foundAnyway,
		AllowedHosts: s.allowedHosts, AllowedOrigins: s.allowedOrigins,
		TickInterval: s.tickInterval, ElectionTicks: s.electionTicks,
		MaxBodyBytes: int64(s.maxBodyBytes), MaxMessageBytes: int(min(s.maxMessageBytes, math.MaxInt)),
		RequestTimeout: s.requestTimeout, PingInterval: s.pingInterval, PongTimeout: s.pongTimeout,
		WriteTimeout: s.writeTimeout, ShutdownTimeout: s.shutdownTimeout,
		MinFreeBytes: int64(s.minFreeBytes), CatchUpBytes: int64(s.catchUpBytes),
		MemoryBudget: int64(s.memoryBudget), Version: buildVersion(),
	}
	if !from.given("max-body-bytes") {
		c.MaxBodyBytes = 0 // the default follows max-message-bytes
	}
	if c.MinFreeBytes == 0 {
		c.MinFreeBytes = -1 // there, 0 means the default
	}
	switch {
	case layout != nil:
		if err := layout.apply(&c, from); err != nil {
			return server.Config{}, err
		}
	case from.given("cluster"):
		if c.Cluster, err = parseCluster(s.cluster); err != nil {
			return server.Config{}, usageErrorf("%s: %w", from.of("cluster"), err)
		}
	default:
		c.Cluster = []server.Peer{{ID: 1, URL: defaultPeerURL}}
	}
	if err := c.Validate(); err != nil {
		return server.Config{}, configError(err, from)
	}
	return c, nil
}

// configError names the origin of the setting that a *server.ConfigError or a
// *server.ListenError is about; any other error is returned as it is.
func configError(err error, from origins) error {
	var bad *server.ConfigError
	if errors.As(err, &bad) {
		return usageErrorf("%s: %s", from.of(bad.Setting), bad.Problem)
	}
	var taken *server.ListenError
	if errors.As(err, &taken) {
		return fmt.Errorf("%s: %s", from.of(taken.Setting), taken.Problem)
	}
	return err
}

// refuseZeros refuses a zero that somebody wrote where the server would take
// it for "not set" and use its default.
func (s *settings) refuseZeros(from origins) error {
	for _, z := range []struct {
		setting string
		isZero  bool
		reason  string
	}{
		{"tick-interval", s.tickInterval == 0, ""},
		{"election-ticks", s.electionTicks == 0, ""},
		{"max-body-bytes", s.maxBodyBytes == 0, ": it cannot be switched off, as memory has an end"},
		{"max-message-bytes", s.maxMessageBytes == 0, ": it cannot be switched off, as memory has an end"},
		{"request-timeout", s.requestTimeout == 0, ": without a limit, requests would pile up while there is no leader"},
		{"leader-grace", s.leaderGrace == 0, ": without a grace, every change of the leader would close all streams"},
		{"keepalive-interval", s.keepalive == 0, ": without signs of life, proxies would cut streams that are idle"},
		{"ping-interval", s.pingInterval == 0, ": without pings, nobody would notice that a client is gone"},
		{"pong-timeout", s.pongTimeout == 0, ": a client needs time to answer a ping"},
		{"write-timeout", s.writeTimeout == 0, ": without a limit, a client that does not read would be kept for ever"},
		{"shutdown-timeout", s.shutdownTimeout == 0, ": handing over and ending streams take a moment; SIGKILL ends a node at once"},
		{"catch-up-bytes", s.catchUpBytes == 0, ": without any log, every restart of a member would cost a whole copy of the data"},
		{"memory-budget", s.memoryBudget == 0 && from.given("memory-budget"), ": it cannot be switched off, as memory has an end"},
	} {
		if z.isZero {
			return usageErrorf("%s: must be more than 0%s", from.of(z.setting), z.reason)
		}
	}
	return nil
}

// listenAddress joins host and port. An IPv6 address may have its brackets.
func (s *settings) listenAddress(from origins) (string, error) {
	host := s.host
	if inner, found := strings.CutPrefix(host, "["); found {
		host = strings.TrimSuffix(inner, "]")
	}
	if strings.ContainsAny(host, ":/[] ") {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", usageErrorf("%s: %q is not a host name or an IP address", from.of("host"), s.host)
		}
	}
	return net.JoinHostPort(host, s.port.String()), nil
}

// parseCluster reads entries of the form URL, whose id is their position from
// 1 on, or id=URL.
func parseCluster(entries []string) ([]server.Peer, error) {
	peers := make([]server.Peer, len(entries))
	for i, entry := range entries {
		peers[i] = server.Peer{ID: uint64(i) + 1, URL: entry}
		id, url, found := strings.Cut(entry, "=")
		if !found || strings.Contains(id, "/") {
			continue // the URL, good or bad, is for Validate to judge
		}
		n, err := strconv.ParseUint(strings.TrimSpace(id), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q: %q is not a node id", entry, id)
		}
		peers[i] = server.Peer{ID: n, URL: strings.TrimSpace(url)}
	}
	return peers, nil
}
