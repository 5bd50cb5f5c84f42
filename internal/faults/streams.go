//go:build linux

package faults

import (
	"net/http"
	"strings"
	"sync/atomic"
)

// counter sends requests on and counts the streams that were opened.
type counter struct {
	*http.Transport
	streams atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := c.Transport.RoundTrip(r)
	if err != nil || answer.StatusCode >= http.StatusBadRequest {
		return answer, err
	}
	switch path := r.URL.Path; path[strings.LastIndexByte(path, '/')+1:] {
	case "ws", "events", "json", "raw":
		c.streams.Add(1)
	}
	return answer, nil
}
