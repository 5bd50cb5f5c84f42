package chat

import "encoding/binary"

// The keys of the store. BE8 is a big-endian uint64, so that keys sort as their
// numbers do. Every value starts with a version byte; a reader refuses versions
// it does not know.
//
//	key                          value                                                   written
//	0x00 'a'                     counters: applied index, newest ID, next room number,   every Apply
//	                             newest PostedAt, rolling hash (formatCounters)
//	0x00 'm'                     member records of the log, opaque (formatMeta)          when given to Apply
//	0x00 's'                     settings (formatSettings)                               when they are changed
//	0x00 't'                     index of the last log entry that dropped messages       when messages are dropped
//	                             (formatTrims)
//	0x01 name                    number, created, display name (formatRoom)              when the room is made
//	0x02 room BE8                counters of the room (formatRoomState)                  once an Apply that changes them
//	0x03 room BE8                name (formatRoomName)                                   when the room is made
//	0x04 room BE8, seq BE8       the message (formatMessage)                             once a message
//	0x05 first ID BE8            runs of (room, first seq, count) (formatRuns)           once a log entry that posts
//	0x06 room BE8, client id     seq, hash of author and payload (formatDedup)           once a message with a client id
//	                             and, when the message was dropped, ID and PostedAt      when that is dropped
//	                             (formatTombstone)
//	0x07 room BE8, ID BE8        reserved: events of a room that are no messages
//	0x08 ID BE8                  room whose last dropped message had the ID, index of    when messages are dropped
//	                             the log entry that dropped it (formatDropped)
//	0x09                         reserved: newest changes of messages
//	0x0a ID BE8                  PostedAt, room and client id of a dropped message       when that is dropped
//	                             (formatForgettable)
//
// Dropping messages deletes their records and the runs of log entries of which
// nothing is left; every stored record of runs has a message that is stored. Their
// client ids stay for the dedup window, in the order in which they can be forgotten.
//
// A message's records, its room's counters and the applied index are written in
// one batch, so a crash leaves all of an Apply or nothing.
const (
	prefixMeta      = 0x00
	prefixRoom      = 0x01
	prefixRoomState = 0x02
	prefixRoomName  = 0x03
	prefixMessage   = 0x04
	prefixIDIndex   = 0x05
	prefixDedup     = 0x06
	prefixEvent     = 0x07 // reserved
	prefixDropped   = 0x08
	prefixForget    = 0x0a
	prefixEnd       = 0x0b // first byte that no key has
)

const (
	messageKeyLen = 1 + 8 + 8
	idKeyLen      = 1 + 8
)

func countersKey() []byte { return []byte{prefixMeta, 'a'} }
func settingsKey() []byte { return []byte{prefixMeta, 's'} }
func trimsKey() []byte    { return []byte{prefixMeta, 't'} }
func metaKey() []byte     { return []byte{prefixMeta, 'm'} }

func appendRoomKey(b []byte, name string) []byte {
	return append(append(b, prefixRoom), name...)
}

func appendRoomStateKey(b []byte, room uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, prefixRoomState), room)
}

func appendRoomNameKey(b []byte, room uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, prefixRoomName), room)
}

func appendMessageKey(b []byte, room, seq uint64) []byte {
	b = binary.BigEndian.AppendUint64(append(b, prefixMessage), room)
	return binary.BigEndian.AppendUint64(b, seq)
}

func appendIDKey(b []byte, first uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, prefixIDIndex), first)
}

func appendDroppedKey(b []byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, prefixDropped), id)
}

func appendForgetKey(b []byte, id uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, prefixForget), id)
}

func appendDedupKey(b []byte, room uint64, clientID string) []byte {
	b = binary.BigEndian.AppendUint64(append(b, prefixDedup), room)
	return append(b, clientID...)
}
