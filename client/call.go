package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// maxAnswer bounds the body of an answer, in bytes: a page of 1,000 messages
// of 64 KiB in which every byte is escaped does not reach it.
const maxAnswer = 512 << 20

// maxRefusal is how much of a refusal is read.
const maxRefusal = 64 << 10

// request is a call before it is known which node answers it.
type request struct {
	method, path string // path: with the query, from the base URL on
	body         []byte // nil for none
	contentType  string // of the body; "" is JSON
	// decode takes the answer. What it cannot read did not come from a node of
	// ours, so the next one is asked.
	decode func(header http.Header, body []byte) error
}

// attemptError is a failure after which another node is tried.
type attemptError struct {
	endpoint string
	err      error
	// uncertain: the node may have done what it was asked.
	uncertain bool
	// wait is how long the node asked to be left alone.
	wait time.Duration
}

func (e *attemptError) Error() string { return e.endpoint + ": " + e.err.Error() }
func (e *attemptError) Unwrap() error { return e.err }

// call makes r of one node after the other until one answers for good.
// uncertain reports whether an attempt that failed may have taken effect.
func (c *Client) call(ctx context.Context, r request) (uncertain bool, err error) {
	at, url := c.endpoints.start()
	var pace pacer
	var failure error
	for {
		if ctx.Err() != nil {
			return uncertain, unavailable(ctx, failure)
		}
		err := c.attempt(ctx, url, r)
		var again *attemptError
		if !errors.As(err, &again) {
			// A refusal, too, is the answer of a node that works.
			c.endpoints.worked(at)
			return uncertain, err
		}
		c.log.Debug("attempt failed", slog.String("endpoint", url), slog.String("path", r.path), slog.Any("error", again.err))
		uncertain = uncertain || again.uncertain
		if failure == nil || ctx.Err() == nil {
			failure = err // one that the end of ctx caused says less than the one before
		}
		c.endpoints.failed(at)
		at, url = c.endpoints.next(at)
		pace.failed(again.wait)
		pace.pause(ctx, c.endpoints.count())
	}
}

// unavailable is the error of a call that ran out of time; last, which may be
// nil, is why the last attempt failed.
func unavailable(ctx context.Context, last error) error {
	return &unavailableError{ctx: ctx.Err(), cause: context.Cause(ctx), last: last}
}

// unavailableError matches all of its parts, and ErrUnavailable.
type unavailableError struct{ ctx, cause, last error }

func (e *unavailableError) Error() string {
	s := ErrUnavailable.Error()
	switch {
	case !errors.Is(e.cause, e.ctx):
		s += " (" + e.cause.Error() + ")"
	case errors.Is(e.ctx, context.DeadlineExceeded):
		s += " in the time given"
	default:
		s += " before it was given up"
	}
	if e.last != nil {
		s += "; last tried " + e.last.Error()
	}
	return s
}

func (e *unavailableError) Unwrap() []error {
	errs := []error{ErrUnavailable, e.ctx, e.cause}
	if e.last != nil {
		errs = append(errs, e.last)
	}
	return errs
}

// attempt makes r of the node at endpoint. The error is an *Error for a
// refusal that counts and an *attemptError otherwise.
func (c *Client) attempt(ctx context.Context, endpoint string, r request) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.attemptTimeout, errNoAnswer)
	defer cancel()
	var connected atomic.Bool // the transport may still be dialling when Do returns
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	fail := func(err error) error {
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			err = errNoAnswer
		}
		return &attemptError{endpoint: endpoint, err: err, uncertain: connected.Load()}
	}
	req, err := http.NewRequestWithContext(traced, r.method, endpoint+r.path, bytes.NewReader(r.body))
	if err != nil {
		return refused("request_invalid", "%v", err)
	}
	req.Header.Set("Accept", "application/json")
	if r.body != nil {
		req.Header.Set("Content-Type", cmp.Or(r.contentType, "application/json"))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fail(shortened(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return refusal(endpoint, resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fail(fmt.Errorf("read answer: %w", err))
	}
	if err := r.decode(resp.Header, body); err != nil {
		return fail(err)
	}
	return nil
}

// refusal turns an answer that is no success into an *Error, or into an
// *attemptError around one when another node may answer otherwise.
func refusal(endpoint string, resp *http.Response) error {
	// What is missing of a body that breaks off is only the explanation.
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	e := problem(endpoint, resp.StatusCode, resp.Header, body)
	if !e.temporary() {
		return e
	}
	return &attemptError{endpoint: endpoint, err: e, uncertain: !harmless(e), wait: e.RetryAfter}
}

// harmless says that a node which refused so has changed nothing. An answer
// without a code may come from a proxy that gave up on a node.
func harmless(e *Error) bool {
	switch e.Code {
	case "no_leader", "stopping", "overloaded", "clock_skew", "timeout_not_sent", "disk_full", "not_ready", "rate_limited":
		return true
	}
	return false
}

var (
	errNoAnswer = errors.New("no answer in time")
	errIdle     = errors.New("nothing came in for too long")
)

// shortened drops the URL that net/http repeats in its errors.
func shortened(err error) error {
	var wrapped interface{ Unwrap() error }
	if errors.As(err, &wrapped) && wrapped.Unwrap() != nil {
		return wrapped.Unwrap()
	}
	return err
}

// The pauses between rounds through all nodes.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 3 * time.Second
)

// pacer decides how long to wait after a failure: not at all while there are
// nodes that were not tried in this round, then longer with every round.
type pacer struct {
	failures int
	// wait is the shortest time that a node of this round asked for. While one
	// of them may be asked at once it is 0.
	wait time.Duration
}

// failed counts a failure; wait is how long the node asked to be left alone.
func (p *pacer) failed(wait time.Duration) {
	if p.failures == 0 || wait < p.wait {
		p.wait = wait
	}
	p.failures++
}

// reset forgets the failures once something has worked.
func (p *pacer) reset() { *p = pacer{} }

// pause waits as long as is due among a number of nodes, or until ctx ends.
func (p *pacer) pause(ctx context.Context, nodes int) {
	if p.failures%nodes != 0 {
		return
	}
	d := max(p.backoff(p.failures/nodes), p.wait)
	p.wait = maxRetryAfter
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// backoff is the pause after a round, 1 or more. Half of it is random, so that
// clients that lost the same node do not come back together.
func (p *pacer) backoff(round int) time.Duration {
	d := min(firstPause<<min(round-1, 16), maxPause)
	return d/2 + rand.N(d/2+1)
}
