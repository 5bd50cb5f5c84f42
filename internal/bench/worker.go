package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

const (
	// retryPause keeps a worker whose request failed from spinning.
	retryPause = 10 * time.Millisecond
	// maxErrorKinds bounds the table of errors; later kinds are counted as other.
	maxErrorKinds = 32
	otherErrors   = "other"
	// connectionClosed is the kind of all ways in which a server ends a
	// connection without a word.
	connectionClosed = "connection closed by the server"
)

// tally is what one worker counted.
type tally struct {
	acknowledged uint64 // answers 2xx that arrived inside the window
	repeated     uint64 // of these, answers 200: the message was there already
	latency      Histogram
	errors       map[string]uint64
	perEndpoint  []uint64
}

func newTally(endpoints int) *tally {
	return &tally{errors: make(map[string]uint64), perEndpoint: make([]uint64, endpoints)}
}

func (t *tally) countError(kind string, n uint64) {
	if _, known := t.errors[kind]; !known && len(t.errors) >= maxErrorKinds {
		kind = otherErrors
	}
	t.errors[kind] += n
}

func (t *tally) merge(other *tally) {
	t.acknowledged += other.acknowledged
	t.repeated += other.repeated
	t.latency.Merge(&other.latency)
	for kind, n := range other.errors {
		t.countError(kind, n)
	}
	for i, n := range other.perEndpoint {
		t.perEndpoint[i] += n
	}
}

// window is the time that is measured: from open up to and without end.
type window struct{ open, end time.Time }

func (w window) contains(t time.Time) bool { return !t.Before(w.open) && t.Before(w.end) }

// worker sends one message after the other over one connection.
type worker struct {
	addrs    []string
	endpoint int // index into addrs of the node in use
	requests *requestWriter
	timeout  time.Duration
	retry    bool // send what was not acknowledged again under the same id
	window   window

	conn *conn
	*tally
}

// run works until the window ends or ctx does.
func (w *worker) run(ctx context.Context) {
	defer w.disconnect()
	for n := uint64(0); ctx.Err() == nil && time.Now().Before(w.window.end); {
		again, failed := w.sendOne(ctx, n)
		if !again {
			n++
		}
		if failed && !pause(ctx, retryPause) {
			return
		}
	}
}

// sendOne sends message n and waits for its answer. It reports whether the
// message is to be sent again and whether the attempt failed.
func (w *worker) sendOne(ctx context.Context, n uint64) (again, failed bool) {
	if w.conn == nil {
		c, err := dial(ctx, w.addrs[w.endpoint], w.timeout)
		if err != nil {
			w.transportError(ctx, err, time.Now())
			return true, true
		}
		w.conn = c
	}
	w.requests.host = w.addrs[w.endpoint]
	request := w.requests.request(n)
	begun := time.Now()
	resp, err := w.conn.roundTrip(request, begun)
	done := time.Now()
	if err != nil {
		w.transportError(ctx, err, begun)
		return w.retry, true
	}
	if resp.closing {
		w.disconnect()
	}
	if resp.status < 200 || resp.status > 299 {
		if w.window.contains(begun) {
			w.countError(resp.kind(), 1)
		}
		return w.retry && (resp.status == 429 || resp.status == 503), true
	}
	if w.window.contains(done) {
		w.acknowledged++
		w.perEndpoint[w.endpoint]++
		if resp.status == 200 {
			w.repeated++
		}
	}
	if w.window.contains(begun) {
		w.latency.Record(done.Sub(begun))
	}
	return false, false
}

// transportError counts err and moves on to the next node, as a client that
// knows several would. What fails because the run was called off is no error
// of the server.
func (w *worker) transportError(ctx context.Context, err error, begun time.Time) {
	if w.window.contains(begun) && ctx.Err() == nil {
		w.countError(transportKind(err), 1)
	}
	w.disconnect()
	w.endpoint = (w.endpoint + 1) % len(w.addrs)
}

func (w *worker) disconnect() {
	if w.conn != nil {
		w.conn.close()
		w.conn = nil
	}
}

// transportKind names a failure below HTTP without addresses and ports, so
// that equal failures are counted together.
func transportKind(err error) string {
	var timeout net.Error
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return "host not found"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return connectionClosed
	case errors.As(err, &op) && op.Err != nil:
		return op.Err.Error()
	}
	return err.Error()
}

// pause waits for d; it returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
