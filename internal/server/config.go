package server

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/httpapi"
	"github.com/raft-chat/raft-chat/internal/budget"
	"github.com/raft-chat/raft-chat/internal/peeraddr"
	"github.com/raft-chat/raft-chat/raftnode"
)

// Peer is one member of the cluster as the configuration names it.
type Peer struct {
	// ID is the member's raft id, 1 or more. Ids are never used again.
	ID uint64
	// URL is where the member's peer listener is reached: http://host:port.
	URL string
	// Name is the member's display name (node_id in the raftogram layout), or
	// "" when the configuration does not give one.
	Name string
	// GRPCAddr is the host:port the member serves gRPC on, or "".
	GRPCAddr string
}

// Config is everything a node needs to start. A field left at its zero value
// means the default that its comment states; Validate fills the defaults in.
type Config struct {
	// ID is this node's raft id, which must be listed in Cluster: 1 or more, and
	// neither of the two highest, which raft keeps for itself.
	ID uint64
	// Name is the display name, at most 128 bytes without control characters.
	// Default: the ID in decimal.
	Name string

	// Cluster lists the members, this node included, with distinct IDs and URLs.
	Cluster []Peer
	// Join says that the running cluster has already been told about this node,
	// so that a first start waits to be contacted instead of bootstrapping.
	Join bool

	// DataDir holds everything the node stores. Default: ./raft-chat-<ID>.
	DataDir string

	// Listen is the API's host:port; port 0 takes a free one.
	// Default: 127.0.0.1:12380.
	Listen string
	// ListenPeer is the host:port for the other members.
	// Default: host and port of this node's own URL in Cluster.
	ListenPeer string
	// ListenHealth is the host:port of a further listener that serves the
	// health endpoints alone, or "" for none.
	ListenHealth string

	// ListenGRPC is the host:port of the gRPC API, or "" for none.
	ListenGRPC string
	// GRPCForward makes a follower serve gRPC calls itself instead of naming the
	// leader.
	GRPCForward bool

	// AdvertiseClient is the base URL others should use for this node's API.
	// Default: where Listen is bound or, if that is every address of the machine,
	// the host of this node's own URL in Cluster with the listener's port.
	AdvertiseClient string
	// AdvertiseGRPC is the host:port others should use for gRPC. Default: the
	// one of this node's entry in Cluster, or as for AdvertiseClient.
	AdvertiseGRPC string
	// InsecurePeers allows unencrypted, unauthenticated peer traffic on other
	// than loopback addresses.
	InsecurePeers bool
	// FoundAnyway lets an empty data directory found a cluster although one that
	// runs takes this node for its member.
	FoundAnyway bool

	// TickInterval is raft's unit of time, 1 ms to 1 min; a leader sends a
	// heartbeat every tick. Default: 100 ms.
	TickInterval time.Duration
	// ElectionTicks is how many ticks without a leader start an election,
	// 3 to 1,000. Default: 10.
	ElectionTicks int

	// MaxBodyBytes bounds a request body and a frame of raft-chat.v1. The longest
	// message must fit however it is escaped: httpapi.BodyFor(MaxMessageBytes) is
	// the least. Default: 1 MiB, or that.
	MaxBodyBytes int64
	// MaxMessageBytes bounds the text of a message, at most 16 MiB. Default: 64 KiB.
	MaxMessageBytes int
	// RequestTimeout bounds how long a request waits for the cluster.
	// Default: 5 s.
	RequestTimeout time.Duration
	// AllowedHosts are names, besides those that this node tells others, under
	// which clients and proxies ask for it (the Host header): a name without a
	// port, *.domain, .domain (with the domain itself) or * for every name. IP
	// addresses and localhost always pass. Default: none.
	AllowedHosts []string
	// AllowedOrigins are the foreign web origins (scheme://host[:port],
	// host[:port], null, or *) whose pages may read, write and stream as this
	// node's own do. Default: none, same origin only.
	AllowedOrigins []string

	// LeaderGrace is how long streams stay open on a node that knows no leader.
	// Default: 10 s.
	LeaderGrace time.Duration
	// KeepaliveInterval is the time between two signs of life on an idle HTTP
	// stream. Default: 15 s.
	KeepaliveInterval time.Duration
	// PingInterval is the time between pings on a stream. Default: 20 s.
	PingInterval time.Duration
	// PongTimeout is how long a client may take to answer one. Default: 10 s.
	PongTimeout time.Duration
	// WriteTimeout bounds one write to a stream. Default: 10 s.
	WriteTimeout time.Duration
	// ShutdownTimeout bounds a graceful stop. Default: 10 s.
	ShutdownTimeout time.Duration

	// MinFreeBytes is the free disk space below which user writes are refused
	// while reads and administration go on. Default: 512 MiB; a negative value
	// keeps no reserve.
	MinFreeBytes int64
	// CatchUpBytes is how much of the log is kept for members that fall behind,
	// 1 MiB to 1 TiB; one further behind gets a snapshot. Default: 64 MiB.
	CatchUpBytes int64

	// MemoryBudget bounds, in bytes, what clients and peers can make the node hold,
	// 32 MiB or more; see package budget. Default: DefaultMemoryBudget.
	MemoryBudget int64

	// Logger receives the node's log. Default: slog.DiscardHandler.
	Logger *slog.Logger
	// Version is the build's version, for logs and metrics. Default: "unknown".
	Version string

	// APIListener and PeerListener, when set, are open sockets to serve on
	// instead of opening Listen and ListenPeer. The server owns and closes them.
	APIListener, PeerListener net.Listener
	// ListenFirst is how long an empty data directory listens for a cluster that
	// knows it; see raftnode.Config. For tests, which start many. Default: 1 s.
	ListenFirst time.Duration
	// Reachable cuts links between members; see raftnode.Config. For tests.
	Reachable func(from, to uint64) bool
}

// ConfigError is a mistake of whoever wrote the configuration, as opposed to a
// fault of the machine. Its text is one line.
type ConfigError struct {
	// Setting names the setting at fault the way a user writes it: the name of
	// the command-line flag without dashes, such as "listen-peer".
	Setting string
	// Problem says what is wrong with it and what would be right.
	Problem string
}

// Error returns "setting: problem".
func (e *ConfigError) Error() string { return e.Setting + ": " + e.Problem }

// Validate fills in the defaults and checks the configuration. It returns a
// *ConfigError naming the first setting that is wrong. The only thing it looks
// at outside of c is whether DataDir is still empty: an even number of voters
// is refused for a first start, but is a legal stage of a cluster that grows.
func (c *Config) Validate() error {
	c.setDefaults()
	if err := peeraddr.CheckID(c.ID); err != nil {
		return &ConfigError{"id", err.Error()}
	}
	self, err := c.checkCluster()
	if err != nil {
		return err
	}
	if c.Name == "" {
		c.Name = cmp.Or(self.Name, strconv.FormatUint(c.ID, 10))
	}
	if problem := nameProblem(c.Name); problem != "" {
		return &ConfigError{"name", problem}
	}
	if err := c.checkListeners(self); err != nil {
		return err
	}
	if err := c.checkAdvertised(); err != nil {
		return err
	}
	if err := c.checkGuards(); err != nil {
		return err
	}
	if err := c.checkLimits(); err != nil {
		return err
	}
	return c.checkFirstStart()
}

func (c *Config) setDefaults() {
	if c.DataDir == "" {
		c.DataDir = "./raft-chat-" + strconv.FormatUint(c.ID, 10)
	}
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:12380")
	c.TickInterval = cmp.Or(c.TickInterval, 100*time.Millisecond)
	c.ElectionTicks = cmp.Or(c.ElectionTicks, 10)
	c.MaxMessageBytes = cmp.Or(c.MaxMessageBytes, 64<<10)
	c.MaxBodyBytes = cmp.Or(c.MaxBodyBytes, max(1<<20, httpapi.BodyFor(c.MaxMessageBytes)))
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 5*time.Second)
	c.LeaderGrace = cmp.Or(c.LeaderGrace, 10*time.Second)
	c.KeepaliveInterval = cmp.Or(c.KeepaliveInterval, 15*time.Second)
	c.PingInterval = cmp.Or(c.PingInterval, 20*time.Second)
	c.PongTimeout = cmp.Or(c.PongTimeout, 10*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, 10*time.Second)
	c.MinFreeBytes = cmp.Or(c.MinFreeBytes, 512<<20)
	c.CatchUpBytes = cmp.Or(c.CatchUpBytes, 64<<20)
	if c.MemoryBudget == 0 {
		c.MemoryBudget = DefaultMemoryBudget()
	}
	c.Version = cmp.Or(c.Version, "unknown")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// checkCluster normalises the peers' URLs in a copy of the list, so that the
// caller's slice stays as it was, and returns this node's own entry.
func (c *Config) checkCluster() (Peer, error) {
	if len(c.Cluster) == 0 {
		return Peer{}, &ConfigError{"cluster", "is empty; list the peer URL of every member, this node's included"}
	}
	c.Cluster = slices.Clone(c.Cluster)
	urls := make(map[string]uint64, len(c.Cluster))
	names := make(map[string]uint64, len(c.Cluster))
	ids := make([]uint64, 0, len(c.Cluster))
	var self *Peer
	for i := range c.Cluster {
		p := &c.Cluster[i]
		if err := peeraddr.CheckID(p.ID); err != nil {
			return Peer{}, &ConfigError{"cluster", err.Error()}
		}
		if slices.Contains(ids, p.ID) {
			return Peer{}, &ConfigError{"cluster", fmt.Sprintf("id %d is listed twice", p.ID)}
		}
		ids = append(ids, p.ID)
		u, err := peeraddr.ParseURL(p.URL)
		if err != nil {
			return Peer{}, &ConfigError{"cluster", err.Error()}
		}
		p.URL = u
		if other, taken := urls[u]; taken {
			return Peer{}, &ConfigError{"cluster", fmt.Sprintf("%s is the URL of both node %d and node %d", u, other, p.ID)}
		}
		urls[u] = p.ID
		if p.Name != "" {
			if other, taken := names[p.Name]; taken {
				return Peer{}, &ConfigError{"cluster", fmt.Sprintf("%q is the name of both node %d and node %d", p.Name, other, p.ID)}
			}
			names[p.Name] = p.ID
		}
		if p.GRPCAddr != "" {
			if problem := addrProblem(p.GRPCAddr, 1); problem != "" {
				return Peer{}, &ConfigError{"cluster", fmt.Sprintf("gRPC address of node %d: %s", p.ID, problem)}
			}
		}
		if p.ID == c.ID {
			self = p
		}
	}
	if self == nil {
		return Peer{}, &ConfigError{"id", fmt.Sprintf("%d is not in the cluster list, which has %s", c.ID, idList(ids))}
	}
	return *self, nil
}

// self is this node's own entry of the list.
func (c *Config) self() Peer {
	for _, p := range c.Cluster {
		if p.ID == c.ID {
			return p
		}
	}
	return Peer{}
}

// checkFirstStart refuses, where they would become the first configuration of
// a new cluster, an even number of voters and, for a node that joins, nobody
// to ask.
func (c *Config) checkFirstStart() error {
	n := len(c.Cluster)
	if n%2 == 1 && !c.Join || n > 1 && c.Join {
		return nil
	}
	fresh, err := isFreshDir(c.DataDir)
	if err != nil {
		return &ConfigError{"data-dir", err.Error()}
	}
	if !fresh {
		return nil
	}
	if c.Join {
		return &ConfigError{"cluster", "lists only this node, but a node that joins has to ask another one: list the peer URLs of all members, this node's included"}
	}
	return &ConfigError{"cluster", fmt.Sprintf("lists %d voters, but a new cluster needs an odd number (1, 3, 5 …): "+
		"%d survive no more failures than %d; add or leave out one, or use join for a node that was added to a running cluster", n, n, n-1)}
}

func (c *Config) checkListeners(self Peer) error {
	own, err := url.Parse(self.URL)
	if err != nil {
		return &ConfigError{"cluster", err.Error()}
	}
	c.ListenPeer = cmp.Or(c.ListenPeer, own.Host)
	named := []struct{ setting, addr string }{
		{"listen-peer", c.ListenPeer}, {"port", c.Listen}, {"listen-health", c.ListenHealth}, {"listen-grpc", c.ListenGRPC},
	}
	for i, l := range named {
		if l.addr == "" {
			continue
		}
		if problem := addrProblem(l.addr, 0); problem != "" {
			return &ConfigError{l.setting, problem}
		}
		for _, other := range named[:i] {
			if sameListener(l.addr, other.addr) {
				return &ConfigError{l.setting, fmt.Sprintf("%s is taken by %s", l.addr, other.setting)}
			}
		}
	}
	if c.InsecurePeers {
		return nil
	}
	if !isLoopback(c.ListenPeer) {
		return &ConfigError{"listen-peer", c.ListenPeer + " " + peeraddr.NeedsInsecure}
	}
	for _, p := range c.Cluster {
		if !peeraddr.Loopback(p.URL) {
			return &ConfigError{"cluster", p.URL + " " + peeraddr.NeedsInsecure}
		}
	}
	return nil
}

func (c *Config) checkLimits() error {
	for _, d := range []struct {
		setting  string
		value    time.Duration
		min, max time.Duration
	}{
		{"tick-interval", c.TickInterval, time.Millisecond, time.Minute},
		{"request-timeout", c.RequestTimeout, time.Millisecond, time.Hour},
		{"leader-grace", c.LeaderGrace, time.Millisecond, time.Hour},
		{"keepalive-interval", c.KeepaliveInterval, time.Millisecond, time.Hour},
		{"ping-interval", c.PingInterval, time.Millisecond, 24 * time.Hour},
		{"pong-timeout", c.PongTimeout, time.Millisecond, time.Hour},
		{"write-timeout", c.WriteTimeout, time.Millisecond, time.Hour},
		{"shutdown-timeout", c.ShutdownTimeout, time.Millisecond, time.Hour},
	} {
		if d.value < d.min || d.value > d.max {
			return &ConfigError{d.setting, fmt.Sprintf("%s is not between %s and %s", d.value, d.min, d.max)}
		}
	}
	if c.ElectionTicks < 3 || c.ElectionTicks > 1000 {
		return &ConfigError{"election-ticks", fmt.Sprintf("%d is not between 3 and 1000", c.ElectionTicks)}
	}
	// A message must fit into what waits for the log, and leave room for others.
	const maxMessage, maxBody = 16 << 20, 128 << 20
	if c.MaxMessageBytes < 1 || c.MaxMessageBytes > maxMessage {
		return &ConfigError{"max-message-bytes", fmt.Sprintf("%d is not between 1 and %d (16 MiB)", c.MaxMessageBytes, maxMessage)}
	}
	if c.MaxBodyBytes < 1 || c.MaxBodyBytes > maxBody {
		return &ConfigError{"max-body-bytes", fmt.Sprintf("%d is not between 1 and %d (128 MiB)", c.MaxBodyBytes, maxBody)}
	}
	if least := httpapi.BodyFor(c.MaxMessageBytes); c.MaxBodyBytes < least {
		return &ConfigError{"max-body-bytes", fmt.Sprintf("%d is less than the %d that a message of max-message-bytes (%d) can take as JSON; "+
			"leave it out, or lower max-message-bytes", c.MaxBodyBytes, least, c.MaxMessageBytes)}
	}
	if c.CatchUpBytes < 1<<20 || c.CatchUpBytes > 1<<40 {
		return &ConfigError{"catch-up-bytes", fmt.Sprintf("%d is not between 1 MiB and 1 TiB", c.CatchUpBytes)}
	}
	if problem := memoryBudgetProblem(c.MemoryBudget, max(usableMemory(), DefaultMemoryBudget())); problem != "" {
		return &ConfigError{"memory-budget", problem}
	}
	// What is read grows by doubling.
	need, room := min(2*httpapi.BodyFor(c.MaxMessageBytes), c.MaxBodyBytes+1), budget.New(c.MemoryBudget).Account(budget.Requests).Limit()
	if need > room {
		return &ConfigError{"max-message-bytes", fmt.Sprintf("a message of %d bytes can take %d as JSON, more than the %d that memory-budget (%d) leaves for requests; it takes a memory-budget of %dMiB",
			c.MaxMessageBytes, httpapi.BodyFor(c.MaxMessageBytes), room, c.MemoryBudget, need*(c.MemoryBudget/room+1)>>20+1)}
	}
	return nil
}

// addrProblem says what keeps addr from being a host:port, or "".
func addrProblem(addr string, minPort uint64) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Sprintf("%q is not of the form host:port", addr)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n < minPort {
		return fmt.Sprintf("%q is not a port between %d and 65535", port, minPort)
	}
	return ""
}

// isLoopback reports whether the host of addr can only be reached from this
// machine. Names other than localhost are not looked up: what they resolve to
// may change.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && isLoopbackHost(host)
}

func isLoopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// sameListener reports whether two addresses are certain to collide: the same
// port of the same host, or of one that stands for all of them. Port 0 never
// does.
func sameListener(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return strings.EqualFold(hostA, hostB) || isWildcard(hostA) || isWildcard(hostB)
}

// isWildcard reports whether listening on host takes the port of every address
// of the machine. Go listens on both families for either wildcard address.
func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

func nameProblem(name string) string {
	switch {
	case len(name) > 128:
		return fmt.Sprintf("is %d bytes long; 128 is the most", len(name))
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Sprintf("%q holds a control character", name)
	}
	return chat.NameFault(norm.NFC.String(name))
}

// isFreshDir reports whether dir belongs to no cluster yet: it does not exist, or
// holds nothing but what a start left that found none. What a file system puts
// at its own root does not count.
func isFreshDir(dir string) (bool, error) {
	if raftnode.Unfounded(dir) {
		return true, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != "lost+found" }), nil
}

// idList writes ids for an error message.
func idList(ids []uint64) string {
	if len(ids) == 1 {
		return "only node " + strconv.FormatUint(ids[0], 10)
	}
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = strconv.FormatUint(id, 10)
	}
	return "nodes " + strings.Join(parts, ", ")
}
