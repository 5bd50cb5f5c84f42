package testcluster

import (
	"net/http"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/workload"
)

// What a test says and hears over REST.
type (
	// Client speaks the REST API.
	Client = workload.Client
	// Message is one message as the REST API writes it.
	Message = workload.Message
	// Refusal is an answer of 400 and above, as an error.
	Refusal = workload.Refusal
)

// CodeOf returns the code of a Refusal that is or is wrapped by err, or "".
func CodeOf(err error) string { return workload.CodeOf(err) }

// NewClient returns a client whose connections are closed when the test ends.
func NewClient(t testing.TB) *Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return workload.NewClient(&http.Client{Transport: transport, Timeout: 30 * time.Second})
}
