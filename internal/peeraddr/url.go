package peeraddr

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MaxURL bounds the text of a peer URL, in bytes.
const MaxURL = 300

// NeedsInsecure is what is said about a URL that is not on this machine, where
// peers may not speak in plaintext.
const NeedsInsecure = "is not a loopback address, and peers do not encrypt or authenticate yet; " +
	"set --insecure-peers if the network between the nodes is trusted"

// ParseURL returns the one text by which a peer URL is known everywhere:
// http://HOST:PORT, with the host in lower case and without a trailing dot, an
// IP address in its shortest form, one of IPv6 in brackets. A slash at the end
// and white space around it are taken off; anything else is an error.
func ParseURL(text string) (string, error) {
	s := strings.TrimSpace(text)
	refuse := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("peer URL %q: %s; want http://HOST:PORT", shorten(text), fmt.Sprintf(format, args...))
	}
	if len(s) > MaxURL {
		return refuse("it is longer than %d bytes", MaxURL)
	}
	scheme, rest, found := strings.Cut(s, "://")
	switch scheme = strings.ToLower(scheme); {
	case !found:
		return refuse("it has no scheme")
	case scheme == "https":
		return refuse("peers do not speak TLS yet")
	case scheme != "http":
		return refuse("its scheme is not http")
	}
	rest = strings.TrimSuffix(rest, "/")
	if i := strings.IndexAny(rest, `/?#@\`); i >= 0 {
		return refuse("it has a user, a path, a query or a fragment")
	}
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 || strings.HasSuffix(rest, "]") {
		return refuse("it has no port")
	}
	port, err := strconv.ParseUint(rest[colon+1:], 10, 16)
	if err != nil || port == 0 || rest[colon+1] == '+' {
		return refuse("its port is not a number from 1 to 65535")
	}
	host, problem := parseHost(rest[:colon])
	if problem != "" {
		return refuse("%s", problem)
	}
	return "http://" + host + ":" + strconv.FormatUint(port, 10), nil
}

// parseHost returns a host as it stands in a URL, or what is wrong with it.
func parseHost(s string) (host, problem string) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		if !ok || err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", "its host is not an IPv6 address without a zone in brackets"
		}
		return ipHost(ip.Unmap())
	}
	if strings.Contains(s, ":") {
		return "", "an IPv6 address stands in brackets"
	}
	s = strings.TrimSuffix(strings.ToLower(s), ".")
	switch {
	case s == "":
		return "", "it has no host"
	case len(s) > 253:
		return "", "its host is longer than 253 bytes"
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return "", "a part of its host is empty or longer than 63 bytes"
		}
		if i := strings.IndexFunc(label, func(r rune) bool { return !nameRune(r) }); i >= 0 {
			return "", "its host holds something else than letters, digits, dots and hyphens"
		}
		last = label
	}
	// A name whose last part is a number is taken for an address by some: 127.1,
	// 0x7f.1 and 2130706433 are one machine to a C library and none to Go.
	if last[0] >= '0' && last[0] <= '9' {
		ip, err := netip.ParseAddr(s)
		if err == nil {
			return ipHost(ip)
		}
		if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
			return "", "its host is neither a name nor an IPv4 address of four decimal numbers"
		}
	}
	return s, ""
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

func ipHost(ip netip.Addr) (host, problem string) {
	switch {
	case ip.IsUnspecified(), ip.IsMulticast():
		return "", fmt.Sprintf("%s is not an address that others can reach; name one, and listen on all with listen-peer", ip)
	case ip.Is6():
		return "[" + ip.String() + "]", ""
	}
	return ip.String(), ""
}

// Loopback reports whether the host of a URL that ParseURL returned can only be
// reached from this machine. Names other than localhost are not looked up: what
// they resolve to may change.
func Loopback(url string) bool {
	host := strings.TrimPrefix(url, "http://")
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		host = host[:i]
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// shorten keeps what is quoted in an error to a line.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
