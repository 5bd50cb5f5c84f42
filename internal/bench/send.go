package bench

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

const defaultRequestTimeout = 10 * time.Second

// Send posts messages as o says and reports what was measured. When ctx ends
// early, the report covers the time up to then and says Interrupted. The error
// is about o alone: what goes wrong on the way is in the report.
func Send(ctx context.Context, o Options) (Report, error) {
	if err := o.Validate(); err != nil {
		return Report{}, err
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = defaultRequestTimeout
	}
	addrs, err := dialAddresses(o.Endpoints)
	if err != nil {
		return Report{}, err
	}

	run, text := rand.Text()[:8], messageText(o.Bytes)
	open := time.Now().Add(o.Warmup)
	win := window{open: open, end: open.Add(o.Duration)}
	workers := make([]*worker, o.Concurrency)
	var wg sync.WaitGroup
	for i := range workers {
		w := &worker{
			addrs: addrs, endpoint: i % len(addrs), timeout: o.RequestTimeout, retry: o.ClientIDs, window: win,
			requests: &requestWriter{rooms: o.Rooms, text: text, run: run, worker: i, withID: o.ClientIDs},
			tally:    newTally(len(addrs)),
		}
		workers[i] = w
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()

	total := newTally(len(addrs))
	for _, w := range workers {
		total.merge(w.tally)
	}
	measured := o.Duration
	interrupted := ctx.Err() != nil && time.Now().Before(win.end)
	if interrupted {
		measured = max(time.Since(win.open), 0)
	}
	return newReport(o, total, measured, interrupted), nil
}
