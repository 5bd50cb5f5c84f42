package bench

import (
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// errDeadline is what a read past its deadline fails with.
var errDeadline = os.ErrDeadlineExceeded

// cutCheck is how long it is looked whether a stalled socket was cut.
const cutCheck = time.Second

// send posts the messages of the whole run. Each is due at a time that was
// fixed beforehand: when the cluster falls behind, messages wait for a free
// sender, and that wait is part of their latency.
func (f *fanout) send(ctx context.Context) {
	total := f.options.Warmup + f.options.Duration
	count := uint64(float64(total) / float64(time.Second) * f.options.Rate)
	var next atomic.Uint64
	var wg sync.WaitGroup
	for i := range int(min(uint64(senders), max(count, 1))) {
		wg.Go(func() {
			s := sender{fanout: f, endpoint: i % len(f.addrs)}
			defer s.disconnect()
			for {
				n := next.Add(1) - 1
				if n >= count {
					return
				}
				due := time.Duration(float64(n) / f.options.Rate * float64(time.Second))
				if !pauseUntil(ctx, f.begin.Add(due)) {
					return
				}
				if !s.post(ctx, stamp{number: n, due: due}) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// pauseUntil waits for t; it returns false when ctx ended first.
func pauseUntil(ctx context.Context, t time.Time) bool {
	if ctx.Err() != nil {
		return false
	}
	d := time.Until(t)
	return d <= 0 || pause(ctx, d)
}

// sender posts messages over one connection, one at a time.
type sender struct {
	fanout   *fanout
	endpoint int
	conn     *conn
	body     []byte
	request  []byte
}

// post posts a message until it is acknowledged or refused for good. It
// returns false when ctx has ended.
func (s *sender) post(ctx context.Context, st stamp) bool {
	f := s.fanout
	room := int(st.number % uint64(f.options.Rooms))
	for ctx.Err() == nil {
		begun := time.Now()
		resp, err := s.attempt(ctx, room, st)
		switch {
		case err != nil:
			if ctx.Err() != nil {
				return false
			}
			f.countError(transportKind(err))
			s.disconnect()
			s.endpoint = (s.endpoint + 1) % len(f.addrs)
		case resp.status >= 200 && resp.status <= 299:
			f.posted[room].acknowledged.Add(1)
			if due := f.begin.Add(st.due); f.window.contains(due) {
				f.posted[room].measured.Add(1)
				f.mu.Lock()
				f.sent.latency.Record(time.Since(due))
				f.mu.Unlock()
			}
			return true
		default:
			f.countError(resp.kind())
			if resp.status != 429 && resp.status < 500 {
				return true
			}
		}
		if !pause(ctx, max(retryPause-time.Since(begun), time.Millisecond)) {
			return false
		}
	}
	return false
}

// attempt posts once. Every attempt has the same client message id.
func (s *sender) attempt(ctx context.Context, room int, st stamp) (response, error) {
	f := s.fanout
	addr := f.addrs[s.endpoint]
	if s.conn == nil {
		c, err := dial(ctx, addr, f.options.RequestTimeout)
		if err != nil {
			return response{}, err
		}
		s.conn = c
	}
	b := append(s.body[:0], bodyHead...)
	b = appendStamped(b, f.run, st, f.options.Bytes)
	b = append(b, bodyID...)
	b = append(b, f.run...)
	b = append(b, '-')
	b = strconv.AppendUint(b, st.number, 10)
	b = append(b, bodyTail...)
	s.body = b
	r := append(s.request[:0], "POST /rooms/"...)
	r = append(r, f.roomName(room)...)
	r = append(r, " HTTP/1.1\r\nHost: "...)
	r = append(r, addr...)
	r = append(r, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	r = strconv.AppendInt(r, int64(len(b)), 10)
	r = append(r, "\r\n\r\n"...)
	r = append(r, b...)
	s.request = r
	resp, err := s.conn.roundTrip(r, time.Now())
	if err == nil && resp.closing {
		s.disconnect()
	}
	return resp, err
}

func (s *sender) disconnect() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

func (f *fanout) countError(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent.countError(kind, 1)
}
