package webguard

import (
	"fmt"
	"slices"
	"strings"
)

// origin is a web origin (RFC 6454) in the form that can be compared: in lower case, with the port written out.
type origin struct{ scheme, host, port string }

// parseOrigin reads scheme://host[:port], which is what browsers send. "null" is no origin that can be compared.
func parseOrigin(text string) (origin, bool) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || !isScheme(scheme) {
		return origin{}, false
	}
	host, port, ok := splitHost(rest)
	if !ok || !isPort(port) {
		return origin{}, false
	}
	o := origin{strings.ToLower(scheme), host, strings.TrimLeft(port, "0")}
	// Some clients that are no browsers name the scheme of their socket.
	switch o.scheme {
	case "ws":
		o.scheme = "http"
	case "wss":
		o.scheme = "https"
	}
	if o.port == "" {
		o.port = o.standardPort()
	}
	return o, true
}

// isScheme reports whether text is a scheme (RFC 3986, 3.1).
func isScheme(text string) bool {
	for i := 0; i < len(text); i++ {
		c := text[i] | 0x20
		if !(c >= 'a' && c <= 'z') && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(text[i]))) {
			return false
		}
	}
	return text != ""
}

// standardPort is the port of the scheme when none is written.
func (o origin) standardPort() string {
	switch o.scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// isHost reports whether the origin is that of a request with this Host. The scheme is not compared: behind a proxy that
// ends TLS the page's is https and ours is http. A Host without a port has the standard port of either.
func (o origin) isHost(hostport string) bool {
	if o.scheme != "http" && o.scheme != "https" {
		return false
	}
	host, port, ok := splitHost(hostport)
	if port == "" {
		port = o.standardPort()
	}
	return ok && o.host == host && o.port == port
}

// originList are the allowed origins.
type originList struct {
	all, null bool
	exact     []origin
	hosts     []string // of entries without a scheme
}

// add takes an entry of --allowed-origins.
func (l *originList) add(text string) error {
	if err := CheckOrigin(text); err != nil {
		return err
	}
	switch o, ok := parseOrigin(text); {
	case text == "*":
		l.all = true
	case text == "null":
		l.null = true
	case ok:
		l.exact = append(l.exact, o)
	default:
		l.hosts = append(l.hosts, text)
	}
	return nil
}

// CheckOrigin says what keeps text from being an entry of AllowedOrigins: scheme://host[:port]; host[:port], which is
// http and https; "null", pages without an origin, such as files; or "*", every page there is.
func CheckOrigin(text string) error {
	_, full := parseOrigin(text)
	_, bare := hostname(text)
	if text == "*" || full || bare {
		return nil // "null" looks like a host
	}
	return fmt.Errorf("%q is not an origin of the form https://host[:port]", text)
}

func (l *originList) empty() bool {
	return !l.all && !l.null && len(l.exact) == 0 && len(l.hosts) == 0
}

// has reports whether a page may do everything. o is the parsed text, if that could be parsed.
func (l *originList) has(text string, o origin, parsed bool) bool {
	switch {
	case l.all:
		return true
	case !parsed:
		return l.null && text == "null"
	}
	return slices.Contains(l.exact, o) || slices.ContainsFunc(l.hosts, o.isHost)
}
