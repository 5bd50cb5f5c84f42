package main

import (
	"log/slog"
	"time"

	"github.com/spf13/pflag"
)

// settings holds the value of every serve flag, wherever it came from.
type settings struct {
	configPath string
	dev        bool
	logLevel   levelValue

	id      uint64
	name    string
	cluster listValue
	join    bool
	dataDir string

	host            string
	port            portValue
	listenPeer      string
	listenHealth    string
	advertiseClient string
	advertiseGRPC   string
	listenGRPC      string
	grpcFollower    followerValue
	insecurePeers   bool
	foundAnyway     bool
	allowedHosts    listValue
	allowedOrigins  listValue

	tickInterval  time.Duration
	electionTicks int

	maxBodyBytes    sizeValue
	maxMessageBytes sizeValue
	minFreeBytes    sizeValue
	catchUpBytes    sizeValue
	memoryBudget    sizeValue // 0: what the server makes of the machine

	requestTimeout  time.Duration
	leaderGrace     time.Duration
	keepalive       time.Duration
	pingInterval    time.Duration
	pongTimeout     time.Duration
	writeTimeout    time.Duration
	shutdownTimeout time.Duration
}

// defaultPeerURL is the cluster of one that runs when no other is named.
const defaultPeerURL = "http://127.0.0.1:12379"

// defaultSettings returns what applies when nothing is said.
func defaultSettings() *settings {
	return &settings{
		logLevel: levelValue(slog.LevelInfo),
		id:       1,
		host:     "127.0.0.1", port: 12380,
		tickInterval: 100 * time.Millisecond, electionTicks: 10,
		maxBodyBytes: 1 << 20, maxMessageBytes: 64 << 10, minFreeBytes: 512 << 20, catchUpBytes: 64 << 20,
		requestTimeout: 5 * time.Second,
		leaderGrace:    10 * time.Second, keepalive: 15 * time.Second,
		pingInterval: 20 * time.Second, pongTimeout: 10 * time.Second, writeTimeout: 10 * time.Second,
		shutdownTimeout: 10 * time.Second,
	}
}

// register declares every setting as a flag of fs, with the values that s has
// now as the defaults. The order is the one that help prints.
func (s *settings) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.Uint64Var(&s.id, "id", s.id, "this node's id: its position in --cluster, or the id of its id=URL entry")
	fs.Var(&s.cluster, "cluster", "peer URLs of all members, as URL or id=URL, comma separated (default "+defaultPeerURL+")")
	fs.BoolVar(&s.join, "join", s.join, "this node was added to a running cluster: wait for it instead of starting a new one")
	fs.StringVar(&s.host, "host", s.host, "address the API and the web client listen on")
	fs.Var(&s.port, "port", "port the API and the web client listen on; 0 takes a free one")
	fs.StringVar(&s.dataDir, "data-dir", s.dataDir, "directory for everything the node stores (default ./raft-chat-<id>)")
	fs.StringVar(&s.name, "name", s.name, "display name of the node (default the id)")
	fs.StringVar(&s.configPath, "config", s.configPath, "YAML file with settings (key = flag name with _ for -) or a raftogram cluster mapping")
	fs.BoolVar(&s.dev, "dev", s.dev, "human-readable logs instead of JSON")
	fs.Var(&s.logLevel, "log-level", "least severe level that is logged: debug, info, warn or error")

	fs.StringVar(&s.listenPeer, "listen-peer", s.listenPeer, "host:port for the other members (default that of the own --cluster URL)")
	fs.StringVar(&s.listenHealth, "listen-health", s.listenHealth, "host:port of a further listener for the health endpoints alone")
	fs.StringVar(&s.listenGRPC, "listen-grpc", s.listenGRPC, "host:port of the gRPC API (default none)")
	fs.Var(&s.grpcFollower, "grpc-follower", "what a follower does with a gRPC call: redirect to the leader, or forward (serve it)")
	fs.StringVar(&s.advertiseClient, "advertise-client", s.advertiseClient, "URL of the API that others are told to use (default derived from --host and --port)")
	fs.StringVar(&s.advertiseGRPC, "advertise-grpc", s.advertiseGRPC, "host:port of gRPC that others are told to use")
	fs.BoolVar(&s.insecurePeers, "insecure-peers", s.insecurePeers, "allow unencrypted peer traffic on other than loopback addresses")
	fs.BoolVar(&s.foundAnyway, "found-anyway", s.foundAnyway, "found a new, empty cluster with an empty data directory although one that runs knows this node as its member")
	fs.Var(&s.allowedHosts, "allowed-hosts", "names besides the advertised ones under which this node is asked for, behind a proxy for one; comma separated, *.domain for all below it, * for all")
	fs.Var(&s.allowedOrigins, "allowed-origins", "foreign web origins whose pages may do everything, comma separated, * for all (default same origin only)")

	fs.Var(&s.maxMessageBytes, "max-message-bytes", "longest text of a message")
	fs.Var(&s.maxBodyBytes, "max-body-bytes", "longest body of a request, and frame of a session; if it is not set, more where max-message-bytes needs it")
	fs.Var(&s.minFreeBytes, "min-free-bytes", "free disk space below which the whole cluster refuses messages; 0 keeps no reserve")
	fs.Var(&s.catchUpBytes, "catch-up-bytes", "how much of the log is kept for members that fall behind; one further behind gets a snapshot")
	fs.Var(&s.memoryBudget, "memory-budget", "memory that clients and peers can make the node hold, on top of its own (default 1/8 of what the process may use, 64MiB to 512MiB)")
	fs.Lookup("memory-budget").DefValue = "" // its 0 is no value of the setting
	fs.DurationVar(&s.requestTimeout, "request-timeout", s.requestTimeout, "how long a request waits for the cluster")
	fs.DurationVar(&s.leaderGrace, "leader-grace", s.leaderGrace, "how long streams stay open on a node that knows no leader")
	fs.DurationVar(&s.keepalive, "keepalive-interval", s.keepalive, "time between two signs of life on an idle HTTP stream")
	fs.DurationVar(&s.pingInterval, "ping-interval", s.pingInterval, "time between two pings on a stream")
	fs.DurationVar(&s.pongTimeout, "pong-timeout", s.pongTimeout, "how long a client may take to answer a ping")
	fs.DurationVar(&s.writeTimeout, "write-timeout", s.writeTimeout, "how long one write to a stream may take")
	fs.DurationVar(&s.shutdownTimeout, "shutdown-timeout", s.shutdownTimeout, "how long a graceful stop may take")
	fs.DurationVar(&s.tickInterval, "tick-interval", s.tickInterval, "time between two heartbeats of the leader; the same on all members")
	fs.IntVar(&s.electionTicks, "election-ticks", s.electionTicks, "heartbeats missed before an election; the same on all members")
}
