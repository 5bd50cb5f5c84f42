package chat

import (
	"sync/atomic"
	"time"

	"github.com/raft-chat/raft-chat/internal/budget"
)

// Message is one stored message. It is immutable, shared between readers and
// always passed as a pointer: nobody changes a field or a byte of Payload.
type Message struct {
	// Room is the name of the room.
	Room string
	// Seq counts the messages of the room: 1, 2, 3 …
	Seq uint64
	// ID counts the messages of the cluster in commit order: 1, 2, 3 …
	ID uint64
	// User is who wrote it.
	User string
	// Payload is the message itself. Not every payload is UTF-8.
	Payload []byte
	// PostedAt is in UTC with microseconds. It never decreases along ID.
	PostedAt time.Time
	// ClientMessageID is the id the client gave, or "".
	ClientMessageID string
	// Trimmed says that the message was dropped: this is the answer to a repeat of
	// its post, and Payload is nil. No stored message is Trimmed.
	Trimmed bool

	// prev is the ID of the message before this one in the same room. 0: there
	// is none, or this message was read from the store. It lets a stream of one
	// room walk back through the recent messages without meeting other rooms'.
	prev uint64

	encoded   [forms]atomic.Pointer[[]byte]
	encodings *encodings // nil: not a recent message, and its encodings go with it
}

// forms is the number of encodings a message can remember.
const forms = 4

// Encoded returns form's encoding of m, made by encode and shared by all later
// callers, who must not change it; when memory is short it is not kept. form is 0
// to 3; who uses which is agreed between the APIs. Concurrent first calls may each
// encode, but all return the same bytes.
func (m *Message) Encoded(form int, encode func(m *Message) []byte) []byte {
	slot := &m.encoded[form]
	if p := slot.Load(); m.kept(p) {
		return *p
	}
	b := encode(m)
	if !m.encodings.take(b) {
		return b
	}
	if !slot.CompareAndSwap(nil, &b) {
		m.encodings.give(b)
		if p := slot.Load(); m.kept(p) {
			return *p
		}
	}
	return b
}

// Recent reports whether m was among the newest messages when it was read, so that
// others are likely to ask for its encodings as well.
func (m *Message) Recent() bool { return m.encodings != nil }

// kept reports whether p, of a slot, is an encoding.
func (m *Message) kept(p *[]byte) bool {
	return p != nil && (m.encodings == nil || p != &m.encodings.none)
}

// forget drops the encodings of a message that is no longer recent, and keeps no
// more.
func (m *Message) forget() {
	for i := range m.encoded {
		if p := m.encoded[i].Swap(&m.encodings.none); m.kept(p) {
			m.encodings.give(*p)
		}
	}
}

// encodings bounds the bytes of the encodings of recent messages. A nil one bounds
// nothing.
type encodings struct {
	account *budget.Account
	max     int64
	used    atomic.Int64
	none    []byte // in the slots of messages whose encodings are not kept
}

func (e *encodings) take(b []byte) bool {
	n := int64(len(b))
	if e == nil {
		return true
	}
	if e.used.Add(n) > e.max || !e.account.Take(n) {
		e.used.Add(-n)
		return false
	}
	return true
}

func (e *encodings) give(b []byte) {
	if e != nil {
		e.used.Add(-int64(len(b)))
		e.account.Give(int64(len(b)))
	}
}

// size is about the memory m holds, for the bounds of caches and pages.
func (m *Message) size() int {
	return len(m.Payload) + len(m.User) + len(m.ClientMessageID) + messageOverhead
}

// messageOverhead is the struct itself plus its share of bookkeeping.
const messageOverhead = 192

// RoomInfo describes a room.
type RoomInfo struct {
	Name string
	// DisplayName is the title given when the room was made, or "".
	DisplayName string
	// Messages is how many messages are stored; FirstSeq and LastSeq are the
	// first and last of them, both 0 while the room never had one. What Trim
	// dropped is not stored any more, but Seqs go on: FirstSeq is LastSeq+1 when
	// all of them were dropped.
	Messages, FirstSeq, LastSeq uint64
	CreatedAt                   time.Time
	// LastPostedAt is that of the message LastSeq, also if it was dropped. It is
	// the zero time while the room never had a message.
	LastPostedAt time.Time
}
