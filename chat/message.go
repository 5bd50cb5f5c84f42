package chat

import (
	"sync/atomic"
	"time"
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

	// prev is the ID of the message before this one in the same room. 0: there
	// is none, or this message was read from the store. It lets a stream of one
	// room walk back through the recent messages without meeting other rooms'.
	prev uint64

	encoded [forms]atomic.Pointer[[]byte]
}

// forms is the number of encodings a message can remember.
const forms = 4

// Encoded returns form's encoding of m, made by encode on the first call and
// shared by all later callers, who must not change it. form is 0 to 3; who uses
// which is agreed between the APIs. Concurrent first calls may each encode, but
// all return the same bytes.
func (m *Message) Encoded(form int, encode func(m *Message) []byte) []byte {
	slot := &m.encoded[form]
	if p := slot.Load(); p != nil {
		return *p
	}
	b := encode(m)
	if !slot.CompareAndSwap(nil, &b) {
		return *slot.Load()
	}
	return b
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
