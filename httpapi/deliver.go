package httpapi

import (
	"context"
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
	for {
		if err := f.attend(); err != nil {
			return err
		}
		d, from, err := f.next()
		switch {
		case errors.Is(err, errRung):
			continue
		case f.wait.ended() != nil:
			return f.wait.ended()
		case err != nil:
			return err
		}
		if err := f.write(d, from); err != nil {
			return err
		}
	}
}

// attend writes what is to be said between messages: that the leader was lost or is back, and a session's answers.
func (f *stream) attend() error {
	if err := f.wait.rearm(); err != nil {
		return err
	}
	var words []byte
	if lost := f.server.lost.Load(); lost != f.lostTold {
		f.lostTold = lost
		words = f.encoding.status(words, !lost, f.server.leaderURL(lost))
	}
	if f.session != nil {
		words = f.session.takeAnswers(words)
	}
	if len(words) == 0 {
		return nil
	}
	if err := f.frames.WriteFrames(words); err != nil {
		f.torn = !errors.Is(err, errSlow)
		return err
	}
	return nil
}

// next waits for messages; from is where they come from in a session. errRung means that attend has something to do.
func (f *stream) next() (d chat.Delivery, from *source, err error) {
	switch {
	case f.session != nil:
		d, from, err = f.session.next(f.wait)
	case f.poll:
		var empty bool
		if d, empty, err = f.server.waiting(f.source); empty {
			err = errDrained
		}
	default:
		if d, err = f.source.NextDelivery(f.wait); err != nil && f.wait.Err() != nil {
			err = errRung
		}
	}
	return d, from, err
}

// waiting reads what a source has without waiting for more; empty says that there is nothing.
func (s *Server) waiting(source *chat.Stream) (d chat.Delivery, empty bool, err error) {
	unwilling := unwilling{Context: context.Background(), never: s.never}
	d, err = source.NextDelivery(&unwilling)
	if err != nil && unwilling.empty && !hasCode(err) {
		return chat.Delivery{}, true, nil
	}
	return d, false, err
}

// hasCode reports whether an error is one of the service, and not just that of a context.
func hasCode(err error) bool {
	var coded interface{ ErrorCode() string }
	return errors.As(err, &coded)
}

// write writes one delivery: its gaps, which come before all of its messages, and those in writes of bounded size.
func (f *stream) write(d chat.Delivery, from *source) error {
	defer f.writing.Store(0)
	page, gaps := d.Messages, d.Gaps
	for len(page) > 0 || len(gaps) > 0 {
		buffer := f.server.batches.Get().(*[]byte)
		batch := (*buffer)[:0]
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
		var err error
		if len(batch) > 0 {
			err = f.frames.WriteFrames(batch)
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
		if f.session != nil {
			f.session.wrote(from, gaps, page[:n])
		}
		if err != nil {
			return err
		}
		if err := f.wait.ended(); err != nil {
			return err
		}
		page, gaps = page[n:], nil
	}
	if f.session != nil {
		f.session.finished(from)
	}
	return nil
}
