package httpapi

import (
	"context"
	"time"
)

// startTimer begins pinging a WebSocket, or keeping the connection of an HTTP form alive.
func (f *stream) startTimer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.parted {
		f.timer = time.AfterFunc(f.interval(), f.keepAlive)
	}
}

func (f *stream) interval() time.Duration {
	if f.conn == nil {
		return f.server.options.KeepaliveInterval
	}
	return f.server.options.PingInterval
}

// keepAlive runs when the timer does: it sends a ping or a keepalive, or ends a stream whose last ping had no answer.
func (f *stream) keepAlive() {
	f.mu.Lock()
	if f.parted {
		f.mu.Unlock()
		return
	}
	if f.awaiting {
		if f.held.Load() {
			// The pong may be behind requests whose answers the client has not taken yet; the write of those has its
			// own deadline.
			f.timer.Reset(f.server.options.PongTimeout)
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		f.wait.end(errNoPong)
		return
	}
	word, next := []byte(f.form.keepalive), f.interval()
	if f.chunked {
		word = chunkOf(f.form.keepalive)
	}
	if f.conn != nil {
		f.awaiting = true
		word, next = []byte{0x89, 0}, f.server.options.PongTimeout // an empty ping
	}
	f.pings.Add(1)
	f.mu.Unlock()
	defer f.pings.Done()
	if _, err := f.frames.Write(word); err != nil {
		f.wait.end(errGone)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if (f.awaiting || f.conn == nil) && !f.parted {
		f.timer.Reset(next)
	}
}

// pong notes the answer to a ping.
func (f *stream) pong(context.Context, []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.awaiting && !f.parted {
		f.awaiting = false
		f.timer.Reset(f.server.options.PingInterval)
	}
}

// stopTimer keeps further pings from being sent. One that is being written goes on; f.pings counts it.
func (f *stream) stopTimer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parted = true
	if f.timer != nil {
		f.timer.Stop()
	}
}
