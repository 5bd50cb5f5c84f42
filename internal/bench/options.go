package bench

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	maxConcurrency  = 10_000
	maxMessageBytes = 16 << 20
)

// Options says what load to put on which nodes.
type Options struct {
	// Endpoints are the base URLs (http://host:port) of the nodes to send to.
	// Workers are spread over them in turn. At least one.
	Endpoints []string
	// Rooms is how many rooms the messages go to, 1 or more. They are called
	// bench-0, bench-1 and so on.
	Rooms int
	// Concurrency is the number of workers, 1 to 10,000. Each has one
	// connection and at most one request under way.
	Concurrency int
	// Bytes is the length of a message's text, 1 byte to 16 MiB.
	Bytes int
	// Duration is the length of the measured window, more than 0.
	Duration time.Duration
	// Warmup is how long the load runs before the window opens, 0 or more.
	Warmup time.Duration
	// RequestTimeout is how long a worker waits for a connection or an answer.
	// 0 means 10 s.
	RequestTimeout time.Duration
	// ClientIDs gives every message a client message id. A message whose
	// outcome is unknown or that was turned away for now is then sent again
	// under the same id until it is acknowledged, as a careful client does.
	ClientIDs bool
}

// Validate reports the first option that is out of range.
func (o *Options) Validate() error {
	if err := validEndpoints(o.Endpoints); err != nil {
		return err
	}
	switch {
	case o.Rooms < 1:
		return fmt.Errorf("rooms: %d is not 1 or more", o.Rooms)
	case o.Concurrency < 1 || o.Concurrency > maxConcurrency:
		return fmt.Errorf("concurrency: %d is not between 1 and %d", o.Concurrency, maxConcurrency)
	case o.Bytes < 1 || o.Bytes > maxMessageBytes:
		return fmt.Errorf("bytes: %d is not between 1 and %d", o.Bytes, maxMessageBytes)
	case o.Duration <= 0:
		return fmt.Errorf("duration: %s is not more than 0", o.Duration)
	case o.Warmup < 0:
		return fmt.Errorf("warmup: %s is less than 0", o.Warmup)
	case o.RequestTimeout < 0:
		return fmt.Errorf("request timeout: %s is less than 0", o.RequestTimeout)
	}
	return nil
}

// dialAddress returns the host:port that the base URL stands for.
func dialAddress(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not a URL of the form http://host:port", endpoint)
	}
	if u.Scheme != "http" {
		return "", fmt.Errorf("%q: only http is spoken here", endpoint)
	}
	if slices.ContainsFunc([]byte(u.Host), func(b byte) bool { return b <= ' ' || b >= 0x7f }) {
		return "", fmt.Errorf("%q: the host must be plain ASCII", endpoint)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}
