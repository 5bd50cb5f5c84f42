package httpapi

import (
	"errors"

	"github.com/raft-chat/raft-chat/chat"
)

// keptBatch is the largest batch buffer that goes back to the pool, in bytes.
const keptBatch = 2 * joinedBytes

// errRung says that a wait ended for something else than a message.
var errRung = errors.New("something is to be looked at")

// deliver is the one delivery loop of all forms: it writes what the sources have until the stream ends, and says why it
// did.
func (f *stream) deliver() error {
	if f.form.greets && !f.poll {
		if err := f.greet(); err != nil {
			return err
		}
	}
	for {
		if err := f.attend(); err != nil {
			return err
		}
		d, err := f.next()
		switch {
		case errors.Is(err, errRung):
			continue
		case f.wait.ended() != nil:
			return f.wait.ended()
		case err != nil:
			return err
		}
		if err := f.write(d); err != nil {
			return err
		}
	}
}

// greet gives a stream its first event: what waits, or else the state of the leader. Either has the cursor, so that a
// client which loses the stream at once can resume it all the same.
func (f *stream) greet() error {
	if f.server.leaderLost() {
		return nil // attend tells that
	}
	d, err := f.source.Poll()
	if err != nil {
		return err
	}
	if !d.Empty() {
		return f.write(d)
	}
	words, start := f.openBody(nil)
	return f.say(f.closeBody(f.encoding.status(words, true, f.server.leaderURL(false), f.cursor), start))
}

// attend writes what is to be said between messages: that the leader was lost or is back, and a session's answers.
func (f *stream) attend() error {
	if err := f.wait.rearm(); err != nil {
		return err
	}
	var words []byte
	if lost := f.server.leaderLost(); lost != f.lostTold {
		f.lostTold = lost
		opened, start := f.openBody(nil)
		words = f.closeBody(f.encoding.status(opened, !lost, f.server.leaderURL(lost), f.cursor), start)
	}
	if f.session == nil {
		return f.say(words)
	}
	words, paged := f.session.takeAnswers(words)
	err := f.say(words)
	f.session.said(words, paged)
	return err
}

// say writes whole units that are no messages.
func (f *stream) say(words []byte) error {
	if len(words) == 0 {
		return nil
	}
	if err := f.hold(len(words)); err != nil {
		return err
	}
	err := f.send(words)
	if f.torn = err != nil && !errors.Is(err, errSlow); err != nil {
		return err
	}
	return f.hold(0)
}

// send is a write that is charged for by hold.
func (f *stream) send(units []byte) error {
	f.holding.begin()
	err := f.frames.WriteFrames(units)
	f.holding.end()
	return err
}

// next waits for messages. errRung means that attend has something to do.
func (f *stream) next() (d chat.Delivery, err error) {
	if f.poll {
		if d, err = f.source.Poll(); err == nil && d.Empty() {
			err = errDrained
		}
		return d, err
	}
	if d, err = f.source.NextDelivery(f.wait); err != nil && f.wait.Err() != nil {
		err = errRung
	}
	return d, err
}

// openBody begins a chunk where the body of a stream has chunks, and closeBody ends it.
func (f *stream) openBody(b []byte) ([]byte, int) {
	if f.chunked {
		return openChunk(b)
	}
	return b, len(b)
}

func (f *stream) closeBody(b []byte, start int) []byte {
	if f.chunked {
		return closeChunk(b, start)
	}
	return b
}

// write writes one delivery: its gaps, which come before all of its messages, and those in writes of bounded size. It
// keeps no message that is encoded: a reader may take long, and the store has it.
func (f *stream) write(d chat.Delivery) error {
	defer f.writing.Store(0)
	page, gaps := d.Messages, d.Gaps
	for f.rest = page; len(page) > 0 || len(gaps) > 0; {
		buffer := f.server.batches.Get().(*[]byte)
		batch, start := f.openBody((*buffer)[:0])
		cursor, n := f.cursor, 0
		for _, g := range gaps {
			batch = f.encoding.gap(batch, g)
			cursor = g.ID
		}
		if len(page) > 0 {
			f.writing.Store(page[0].ID)
			batch, n = f.encoding.messages(batch, page)
			cursor = page[n-1].ID
		}
		batch = f.closeBody(batch, start)
		err := f.hold(cap(batch) + sizeOf(page[n:]))
		if err != nil {
			return err
		}
		clear(page[:n])
		page, gaps = page[n:], nil
		f.rest = page
		if len(batch) > 0 {
			err = f.send(batch)
		}
		if cap(batch) <= keptBatch {
			*buffer = batch
		}
		f.server.batches.Put(buffer)
		if err != nil && !errors.Is(err, errSlow) {
			f.torn = true
			return err
		}
		f.cursor = cursor
		f.server.metrics.messages.Add(float64(n))
		if err != nil {
			return err
		}
		if err := f.wait.ended(); err != nil {
			return err
		}
	}
	return f.hold(0)
}

// sizeOf is about the memory that messages hold, in bytes, and their length when encoded if nothing in them needs an
// escape.
func sizeOf(page []*chat.Message) (n int) {
	for _, m := range page {
		n += messageSize(m)
	}
	return n
}
