package webguard

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// hostList are the names that pass as Host, in lower case.
type hostList struct {
	all     bool
	exact   []string
	domains []string // ".example.org": every name that ends so
}

// add takes an entry of --allowed-hosts.
func (l *hostList) add(text string) error {
	if err := CheckHost(text); err != nil {
		return err
	}
	name := strings.ToLower(strings.TrimSuffix(text, "."))
	switch {
	case name == "*":
		l.all = true
	case strings.HasPrefix(name, "*."):
		l.domains = append(l.domains, name[1:])
	case strings.HasPrefix(name, "."):
		l.domains, l.exact = append(l.domains, name), append(l.exact, name[1:])
	default:
		l.exact = append(l.exact, name)
	}
	return nil
}

// CheckHost says what keeps text from being an entry of AllowedHosts: a name without a port; "*.example.org", every name
// below example.org; ".example.org", that and example.org itself; or "*", every name.
func CheckHost(text string) error {
	name := strings.TrimPrefix(strings.TrimPrefix(text, "*"), ".")
	if text == "*" || isName(strings.TrimSuffix(name, ".")) && (name == text || strings.HasSuffix(text, "."+name)) {
		return nil
	}
	if _, err := netip.ParseAddr(text); err == nil {
		return nil // passes anyway
	}
	return fmt.Errorf("%q is not a host name, *.domain, .domain or *; a port does not belong to it, and a name beyond ASCII is written as xn--…", text)
}

// isName reports whether text, which may have upper case, can be a DNS name.
func isName(text string) bool {
	if text == "" || len(text) > 253 || text[0] == '.' || text[len(text)-1] == '.' || strings.Contains(text, "..") {
		return false
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// passes judges the Host of a request. One without a Host comes from an HTTP/1.0 client, which is no browser.
func (l *hostList) passes(r *http.Request) bool {
	if r.Host == "" {
		return !fromPage(r)
	}
	name, ok := hostname(r.Host)
	if !ok {
		return false
	}
	// No name server is asked about a literal or, by browsers, about localhost.
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	if l.all || slices.Contains(l.exact, name) ||
		slices.ContainsFunc(l.domains, func(domain string) bool { return len(name) > len(domain) && strings.HasSuffix(name, domain) }) {
		return true
	}
	// Containers and machines of one network ask for each other by names of one
	// label. Browsers are kept out even so: who answers for such names may not be
	// the owner of the node. All of them say Mozilla, also where they send neither
	// of the other two, as with a plain read.
	return !strings.Contains(name, ".") && !fromPage(r) && !strings.HasPrefix(r.UserAgent(), "Mozilla/")
}

// fromPage reports whether only a browser can have sent r.
func fromPage(r *http.Request) bool {
	return len(r.Header["Origin"]) > 0 || len(r.Header["Sec-Fetch-Site"]) > 0
}

// hostname returns the host of "host", "host:port" or "[address]:port" in lower case, without brackets and the dot that
// ends a full name.
func hostname(hostport string) (name string, ok bool) {
	name, port, ok := splitHost(hostport)
	return name, ok && isPort(port)
}

// splitHost is hostname with the port, which is "" if there is none.
func splitHost(hostport string) (name, port string, ok bool) {
	if inner, found := strings.CutPrefix(hostport, "["); found {
		address, rest, closed := strings.Cut(inner, "]")
		if _, err := netip.ParseAddr(address); err != nil || !closed || rest != "" && rest[0] != ':' {
			return "", "", false
		}
		return strings.ToLower(address), strings.TrimPrefix(rest, ":"), true
	}
	name, port, _ = strings.Cut(hostport, ":")
	name = strings.TrimSuffix(name, ".")
	return strings.ToLower(name), port, isName(name)
}

// isPort reports whether text holds nothing but digits. No port is one, too.
func isPort(text string) bool {
	return len(text) <= 5 && strings.Trim(text, "0123456789") == ""
}
