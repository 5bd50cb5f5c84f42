package client

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Options say which cluster to talk to, and how.
type Options struct {
	// Endpoints are the base URLs of nodes, http://host:port or https://…, in
	// the order in which to try them. At least one.
	Endpoints []string
	// User is the author of what is sent, unless [WithUser] names another.
	User string
	// HTTPClient sends the requests. A Timeout that it has is not used, because
	// it would end streams. Default: a client of its own, which follows no
	// redirects.
	HTTPClient *http.Client
	// Logger gets the failures that were worked around, at level Debug.
	// Default: none.
	Logger *slog.Logger

	// AttemptTimeout is how long one node may take to answer before the next
	// one is tried. Default 10 s.
	AttemptTimeout time.Duration
	// IdleTimeout is how long a stream may be silent before it is taken for
	// dead. Nodes send something every 30 s. Default 75 s.
	IdleTimeout time.Duration
}

// Client is a connection to a cluster. Make one with [New] and keep it.
type Client struct {
	http      *http.Client
	transport *http.Transport // to be closed by Close; nil when the http.Client is the caller's
	endpoints *endpoints
	user      string
	log       *slog.Logger

	attemptTimeout time.Duration
	idleTimeout    time.Duration
}

// New checks o and returns a Client. Nothing is connected yet.
func New(o Options) (*Client, error) {
	list, err := newEndpoints(o.Endpoints)
	if err != nil {
		return nil, err
	}
	if o.AttemptTimeout < 0 || o.IdleTimeout < 0 {
		return nil, errors.New("client: a timeout is less than 0")
	}
	c := &Client{
		endpoints: list, user: o.User, log: o.Logger,
		attemptTimeout: orDefault(o.AttemptTimeout, 10*time.Second),
		idleTimeout:    orDefault(o.IdleTimeout, 75*time.Second),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if o.HTTPClient != nil {
		own := *o.HTTPClient
		own.Timeout = 0
		c.http = &own
		return c, nil
	}
	c.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     45 * time.Second, // shorter than a node's, so that a node seldom closes one in use
	}
	c.http = &http.Client{
		Transport: c.transport,
		// A redirect would turn a POST into a GET; nodes answer themselves.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close closes idle connections, unless they belong to an HTTPClient that was
// given. Calls under way are not ended; their contexts do that.
func (c *Client) Close() {
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		return standard
	}
	return d
}
