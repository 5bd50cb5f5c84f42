package chat

import (
	"sync"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// Bounds of the recent messages kept in memory: as stored, and their encodings.
const (
	maxRecentMessages = 4096
	maxRecentBytes    = 8 << 20
	maxEncodedBytes   = 2 * maxRecentBytes
)

// recent is the newest messages in ID order, without a gap. Apply fills it;
// streams at the head read it instead of the store and so share the encoded
// forms of each message.
//
// All of them are newer than any message that Trim dropped, so a stream that
// finds its place here has missed nothing.
type recent struct {
	maxBytes  int
	encodings encodings

	mu    sync.RWMutex
	ring  []*Message // a ring; the message with ID i is at (start+i-first) mod len
	start int
	n     int
	first uint64 // ID of the oldest
	bytes int
}

func newRecent(maxMessages, maxBytes int, cache *budget.Account) *recent {
	return &recent{
		maxBytes: maxBytes, encodings: encodings{account: cache, max: maxEncodedBytes}, ring: make([]*Message, maxMessages),
	}
}

// add appends messages in ID order.
func (r *recent) add(messages []*Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range messages {
		if r.n > 0 && m.ID != r.first+uint64(r.n) {
			r.resetLocked()
		}
		if r.n == 0 {
			r.first = m.ID
		}
		if r.n == len(r.ring) {
			r.dropLocked()
		}
		m.encodings = &r.encodings // nobody else knows the message yet
		r.ring[r.slot(r.n)] = m
		r.n++
		r.bytes += m.size()
		for r.bytes > r.maxBytes && r.n > 1 {
			r.dropLocked()
		}
	}
}

func (r *recent) slot(i int) int {
	i += r.start
	if i >= len(r.ring) {
		i -= len(r.ring)
	}
	return i
}

func (r *recent) dropLocked() {
	r.bytes -= r.ring[r.start].size()
	r.ring[r.start].forget()
	r.ring[r.start] = nil
	r.start = r.slot(1)
	r.n--
	r.first++
}

func (r *recent) resetLocked() {
	for r.n > 0 {
		r.dropLocked()
	}
	r.start, r.n, r.first, r.bytes = 0, 0, 0, 0
}

// cut forgets the messages up to id.
func (r *recent) cut(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.n > 0 && r.first <= id {
		r.dropLocked()
	}
}

// reset forgets everything.
func (r *recent) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resetLocked()
}

// after gives the messages with ID > id up to head, at most max of them and
// about maxBytes. ok is false if the message after id is no longer here.
func (r *recent) after(id, head uint64, max, maxBytes int) (page []*Message, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if id >= head {
		return nil, true
	}
	if r.n == 0 || id+1 < r.first || id+1 >= r.first+uint64(r.n) {
		return nil, false
	}
	from := int(id + 1 - r.first)
	count := min(r.n-from, max)
	if left := head - id; left < uint64(count) {
		count = int(left)
	}
	page = make([]*Message, 0, count)
	for i, bytes := from, 0; i < from+count; i++ {
		m := r.ring[r.slot(i)]
		if bytes += m.size(); bytes > maxBytes && len(page) > 0 {
			break
		}
		page = append(page, m)
	}
	return page, true
}

// room gives the messages from Seq from to newest, ascending, of the room that
// newest is in, walking back from there. ok is false if one of them is no longer
// here.
func (r *recent) room(newest position, from uint64) (page []*Message, ok bool) {
	n := newest.seq - from + 1
	page = make([]*Message, n)
	r.mu.RLock()
	defer r.mu.RUnlock()
	for id := newest.id; n > 0; n-- {
		if id < r.first || id >= r.first+uint64(r.n) {
			return nil, false
		}
		m := r.ring[r.slot(int(id-r.first))]
		page[n-1], id = m, m.prev
	}
	return page, true
}
