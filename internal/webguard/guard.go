package webguard

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
)

// The codes of refusals.
const (
	CodeMisdirected      = "misdirected_request" // 421
	CodeOriginNotAllowed = "origin_not_allowed"  // 403
)

// Options configure a Guard. The zero value admits pages that come from the node itself by an address or as localhost.
type Options struct {
	// Own are the URLs and addresses (host:port, or a host alone) by which others are told to reach this node. Their
	// hosts pass as Host, and the origins of the URLs are the node's own. What is no URL or address is passed over.
	Own []string
	// AllowedHosts are further names that pass as Host, see [CheckHost].
	AllowedHosts []string
	// AllowedOrigins are the origins of other sites whose pages may do everything, see [CheckOrigin].
	AllowedOrigins []string
	// Strict treats every request as one that changes state: for a listener with nothing for a page to read.
	Strict bool
	// Logger gets the refusals. Default: discard.
	Logger *slog.Logger
}

// Guard judges requests. All methods may be called concurrently.
type Guard struct {
	names   hostList
	own     []origin
	allowed originList
	strict  bool
	log     refusalLog
}

// New returns a guard. It panics when an allowed host or origin is none: [CheckHost] and [CheckOrigin] say so before.
func New(o Options) *Guard {
	g := &Guard{strict: o.Strict, log: refusalLog{logger: o.Logger}}
	if o.Logger == nil {
		g.log.logger = slog.New(slog.DiscardHandler)
	}
	for _, text := range o.AllowedHosts {
		if err := g.names.add(text); err != nil {
			panic(err)
		}
	}
	for _, text := range o.AllowedOrigins {
		if err := g.allowed.add(text); err != nil {
			panic(err)
		}
	}
	for _, text := range o.Own {
		if own, ok := parseOrigin(text); ok {
			g.own = append(g.own, own)
			g.names.exact = append(g.names.exact, own.host)
		} else if name, ok := hostname(text); ok {
			g.names.exact = append(g.names.exact, name)
		}
	}
	return g
}

// Verdict is the answer to a request that must not be handled any further.
type Verdict struct {
	Status int    // 204 for a preflight of an allowed origin, otherwise 403 or 421
	Code   string // "" with 204
	Detail string // what is wrong and which setting would change it
}

// relation says what a page has to do with this node.
type relation int

const (
	own     relation = iota // no page, or one of this node
	allowed                 // a page of an allowed origin
	foreign
)

// Judge looks at a request before anything of it is done. It returns nil if the request may go on, and adds to h what
// every answer to it has to carry.
func (g *Guard) Judge(h http.Header, r *http.Request) *Verdict {
	if !g.allowed.empty() {
		h.Add("Vary", "Origin")
	}
	from := g.relation(r)
	if from == allowed {
		h.Set("Access-Control-Allow-Origin", r.Header["Origin"][0])
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
	}
	preflight := r.Method == http.MethodOptions && len(r.Header["Access-Control-Request-Method"]) > 0
	switch {
	case !g.names.passes(r):
		return g.misdirected(r)
	case from == foreign && (g.strict || preflight || changes(r)):
		return g.notAllowed(r)
	case from == allowed && preflight:
		answerPreflight(h, r)
		return &Verdict{Status: http.StatusNoContent}
	}
	return nil
}

// JudgeStream is for a read that costs more than an answer, and comes after Judge: it refuses pages of other origins as
// if the request changed something. A link that somebody follows is no such page.
func (g *Guard) JudgeStream(r *http.Request) *Verdict {
	followed := r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" &&
		len(r.Header["Origin"]) == 0
	if followed || g.relation(r) != foreign {
		return nil
	}
	return g.notAllowed(r)
}

// Wrap judges the requests of a handler that answers in no form of its own: what is refused gets a problem document.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v := g.Judge(w.Header(), r); v != nil {
			v.write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// changes reports whether a request may change something. A handshake does: what the page then says is not looked at.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return len(r.Header["Upgrade"]) > 0
	}
	return true
}

// relation decides by Origin, where there is one. Browsers leave it out of plain GETs, and then Sec-Fetch-Site, which a
// page cannot set, tells about the page.
func (g *Guard) relation(r *http.Request) relation {
	origins, sites := r.Header["Origin"], r.Header["Sec-Fetch-Site"]
	if len(origins) == 0 {
		if slices.ContainsFunc(sites, func(site string) bool { return site != "same-origin" && site != "none" }) {
			return foreign
		}
		return own
	}
	if len(origins) > 1 {
		return foreign
	}
	from, ok := parseOrigin(origins[0])
	switch {
	case g.allowed.has(origins[0], from, ok):
		return allowed
	case !ok || slices.Contains(sites, "cross-site"):
		return foreign
	case from.isHost(r.Host) || slices.Contains(g.own, from):
		return own
	}
	return foreign
}

const (
	exposedHeaders = "Location, Link, Retry-After, X-Request-Id, X-Raft-Chat-Node"
	// Seconds for which a browser need not ask again.
	preflightAge = "600"
)

// answerPreflight permits what a page of an allowed origin asks for (WHATWG Fetch, CORS protocol; and Private Network
// Access, which browsers ask of a node on the local network).
func answerPreflight(h http.Header, r *http.Request) {
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE")
	h.Set("Access-Control-Allow-Headers",
		"Content-Type, X-User, X-Client-Message-ID, Idempotency-Key, Last-Event-ID, X-Request-Id, Cache-Control")
	h.Set("Access-Control-Max-Age", preflightAge)
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
}

// misdirected is the verdict about a Host that is not this node's.
func (g *Guard) misdirected(r *http.Request) *Verdict {
	name, ok := hostname(r.Host)
	if !ok {
		name = r.Host
	}
	g.log.refused("host", name, r, "this name is not known as one of this node's",
		"if the name is meant for this node, list it in --allowed-hosts; a page that made it resolve to this node is refused rightly")
	return &Verdict{http.StatusMisdirectedRequest, CodeMisdirected, strconv.Quote(cut(r.Host)) + " is not known as a name of this node; " +
		"names other than the advertised ones have to be listed in --allowed-hosts"}
}

// notAllowed is the verdict about a page of another origin.
func (g *Guard) notAllowed(r *http.Request) *Verdict {
	who := "a page of another site"
	from := r.Header.Get("Origin")
	if from != "" {
		who = strconv.Quote(cut(from))
	}
	const remedy = "a proxy has to keep the Host header, pages of other sites need --allowed-origins"
	why := who + " is not an origin of this node, which was asked for as " + strconv.Quote(cut(r.Host))
	if g.strict {
		g.log.refused("origin", from, r, "no web page speaks to this listener", "keep browsers away from this listener")
		return &Verdict{http.StatusForbidden, CodeOriginNotAllowed, why + "; --allowed-origins does not open this listener"}
	}
	g.log.refused("origin", from, r, "the page is not of this node", remedy+"; docs/proxies.md has examples")
	return &Verdict{http.StatusForbidden, CodeOriginNotAllowed, why + "; " + remedy}
}

// write answers with v.
func (v *Verdict) write(w http.ResponseWriter) {
	if v.Status == http.StatusNoContent {
		w.WriteHeader(v.Status)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	// Strings and a number only: there is nothing that could fail.
	body, _ := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
	}{"about:blank", http.StatusText(v.Status), v.Status, v.Detail, v.Code})
	w.WriteHeader(v.Status)
	_, _ = w.Write(append(body, '\n'))
}
