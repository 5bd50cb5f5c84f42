package client

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// maxLearned bounds the addresses taken over from nodes.
const maxLearned = 64

// endpoints is the list of nodes to try. Entries are only ever added at the
// end, so an index stays valid.
type endpoints struct {
	mu         sync.Mutex // guards the rest
	urls       []string
	configured int
	// preferred is where the next call begins.
	preferred int
}

func newEndpoints(list []string) (*endpoints, error) {
	if len(list) == 0 {
		return nil, errors.New("client: no endpoints")
	}
	e := &endpoints{}
	for _, given := range list {
		base, err := baseURL(given)
		if err != nil {
			return nil, fmt.Errorf("client: endpoint %w", err)
		}
		if !slices.Contains(e.urls, base) {
			e.urls = append(e.urls, base)
		}
	}
	e.configured = len(e.urls)
	return e, nil
}

// baseURL returns given without a slash at the end, or why it is no base URL.
func baseURL(given string) (string, error) {
	u, err := url.Parse(given)
	switch {
	case err != nil || u.Hostname() == "" || u.Opaque != "":
		return "", fmt.Errorf("%q is not a URL of the form http://host:port", given)
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("%q does not begin with http:// or https://", given)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", fmt.Errorf("%q has a query or a fragment", given)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// start returns the node to begin with.
func (e *endpoints) start() (i int, url string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.preferred, e.urls[e.preferred]
}

// next returns the node to try after node i.
func (e *endpoints) next(i int) (int, string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i = (i + 1) % len(e.urls)
	return i, e.urls[i]
}

// count returns how many nodes are known.
func (e *endpoints) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.urls)
}

// given returns the nodes that the caller named.
func (e *endpoints) given() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.urls[:e.configured])
}

// worked notes that node i has answered.
func (e *endpoints) worked(i int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.preferred = i
}

// failed notes that node i could not answer, so that other calls do not begin
// with it.
func (e *endpoints) failed(i int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.preferred == i {
		e.preferred = (i + 1) % len(e.urls)
	}
}

// learn adds the addresses of further members. One without TLS is not taken
// over by a client that was told to use TLS.
func (e *endpoints) learn(list []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	secure := slices.ContainsFunc(e.urls[:e.configured], func(u string) bool { return strings.HasPrefix(u, "https:") })
	for _, told := range list {
		base, err := baseURL(told)
		if err != nil || secure && !strings.HasPrefix(base, "https:") {
			continue
		}
		if len(e.urls)-e.configured < maxLearned && !slices.Contains(e.urls, base) {
			e.urls = append(e.urls, base)
		}
	}
}
