package server

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// addresses are those under which this node is told to others: to clients of
// other nodes that look for the leader, and to gRPC clients at a follower.
type addresses struct {
	client     string // URL of the API
	grpc       string // host:port, or ""
	servesGRPC string // host:port of this node's own listener, or ""
	// warnings say who will not be able to use them, and how to mend that.
	warnings []string
}

// advertised chooses the addresses of a node whose listeners are bound to api
// and grpc (nil: none). What is not given is where the listener is bound. If
// that is every address of the machine, the host is that of the node's own peer
// URL, which the other members reach; the port is always the listener's.
func (c *Config) advertised(api, grpc net.Addr) addresses {
	self := c.self()
	peerHost := hostOf(strings.TrimPrefix(self.URL, "http://"))
	var a addresses
	told := func(flag string, bound net.Addr) string {
		addr := reachableAddr(bound, peerHost)
		switch {
		case !isLoopback(addr):
		case !isLoopbackHost(peerHost):
			a.warn("clients of other machines will be told %s, which is themselves; let it listen on an address that they reach, or name one with --%s", addr, flag)
		case !isLoopback(bound.String()):
			a.warn("%s listens for other machines, whose clients will be told %s, which is themselves; name an address that they reach with --%s", bound, addr, flag)
		}
		return addr
	}
	if a.client = c.AdvertiseClient; a.client == "" {
		a.client = "http://" + told("advertise-client", api)
	}
	var open []string
	if !isLoopback(api.String()) {
		open = append(open, "API on "+api.String())
	}
	a.grpc = cmp.Or(c.AdvertiseGRPC, self.GRPCAddr)
	if grpc != nil {
		a.servesGRPC = reachableAddr(grpc, peerHost)
		if a.grpc == "" {
			a.grpc = told("advertise-grpc", grpc)
		}
		if !isLoopback(grpc.String()) {
			open = append(open, "gRPC on "+grpc.String())
		}
	}
	if len(open) > 0 {
		a.warn("there are no accounts yet: anyone who reaches the %s can read and write every room and change the members", strings.Join(open, " and the "))
	}
	return a
}

func (a *addresses) warn(format string, args ...any) {
	a.warnings = append(a.warnings, fmt.Sprintf(format, args...))
}

// reachableAddr is bound, with the host of the node's peer URL in place of the
// wildcard address, which is no address for anybody else. A host of the other
// family, or one that only names this machine, becomes the loopback address.
func reachableAddr(bound net.Addr, peerHost string) string {
	host, port, err := net.SplitHostPort(bound.String())
	if err != nil {
		return bound.String()
	}
	wildcard, err := netip.ParseAddr(host)
	if err != nil || !wildcard.IsUnspecified() {
		return net.JoinHostPort(host, port)
	}
	host = peerHost
	ip, err := netip.ParseAddr(peerHost)
	if strings.EqualFold(peerHost, "localhost") || err == nil && (ip.IsUnspecified() || wildcard.Is4() && !ip.Unmap().Is4()) {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// advertiseProblem says why an address cannot be told to others, or "".
func advertiseProblem(hostPort string) string {
	if isWildcard(hostOf(hostPort)) {
		return fmt.Sprintf("%q is every address of a machine, which tells others nothing; name one that they reach", hostPort)
	}
	return ""
}

// hostOf returns the host of host:port, or addr itself if it has no port.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return strings.Trim(addr, "[]")
	}
	return host
}

// checkAdvertised checks what the node is to tell others.
func (c *Config) checkAdvertised() error {
	if c.AdvertiseClient != "" {
		u, err := url.Parse(c.AdvertiseClient)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "0" || u.User != nil ||
			strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return &ConfigError{"advertise-client", fmt.Sprintf("%q is not a URL of the form http://host:port", c.AdvertiseClient)}
		}
		if problem := advertiseProblem(u.Host); problem != "" {
			return &ConfigError{"advertise-client", problem}
		}
		c.AdvertiseClient = strings.TrimRight(c.AdvertiseClient, "/")
	}
	if c.AdvertiseGRPC != "" {
		if problem := cmp.Or(addrProblem(c.AdvertiseGRPC, 1), advertiseProblem(c.AdvertiseGRPC)); problem != "" {
			return &ConfigError{"advertise-grpc", problem}
		}
	}
	return nil
}
