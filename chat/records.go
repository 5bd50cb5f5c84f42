package chat

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"
)

// Versions of the stored values, their first byte.
const (
	formatCounters  = 1
	formatMeta      = 1
	formatRoom      = 1
	formatRoomState = 1
	formatRoomName  = 1
	formatMessage   = 1
	formatRuns      = 1
	formatDedup     = 1
	formatDropped   = 1
	formatTrims     = 1

	formatSettings    = 1
	formatForgettable = 1

	// formatTombstone is the client message id of a message that was dropped.
	formatTombstone = 2

	// formatTrimmedState is that of rooms which messages were dropped from.
	formatTrimmedState = 2
)

// errRecord is the root of every error about a stored value that cannot be
// read: the store is damaged or was written by a newer build.
var errRecord = errors.New("stored record is damaged or of an unknown version")

func badRecord(what string) error { return fmt.Errorf("%s: %w", what, errRecord) }

// counters is the state that belongs to no room.
type counters struct {
	applied    uint64 // index of the last log entry in the store
	id         uint64 // newest ID given
	nextRoom   uint64 // number of the next room, from 1
	postedAtUS int64  // newest PostedAt given
	hash       uint64 // rolling hash over the effects of every entry
}

func (c *counters) append(b []byte) []byte {
	b = append(b, formatCounters)
	for _, v := range [...]uint64{c.applied, c.id, c.nextRoom, uint64(c.postedAtUS), c.hash} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func decodeCounters(b []byte) (counters, error) {
	if len(b) != 1+5*8 || b[0] != formatCounters {
		return counters{}, badRecord("counters")
	}
	v := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	c := counters{applied: v(0), id: v(1), nextRoom: v(2), postedAtUS: int64(v(3)), hash: v(4)}
	if c.nextRoom == 0 || c.postedAtUS < 0 {
		return counters{}, badRecord("counters")
	}
	return c, nil
}

// roomRecord is what is fixed when a room is made.
type roomRecord struct {
	number    uint64
	createdUS int64
	display   string
}

func (r *roomRecord) append(b []byte) []byte {
	b = append(b, formatRoom)
	b = binary.AppendUvarint(b, r.number)
	b = binary.AppendUvarint(b, uint64(r.createdUS))
	return append(b, r.display...)
}

func decodeRoom(b []byte) (r roomRecord, err error) {
	d := newDecoder(b, formatRoom)
	r.number = d.uvarint()
	r.createdUS = int64(d.uvarint())
	r.display = string(d.rest())
	if d.bad || r.number == 0 || r.createdUS < 0 {
		return roomRecord{}, badRecord("room")
	}
	return r, nil
}

// roomState is what a message changes in its room.
type roomState struct {
	// Seq of the first and last message, and how many there are. A room that
	// all messages were dropped from has first = last+1.
	first, last, messages uint64
	lastID                uint64 // ID of the last message
	lastPostedUS          int64
	droppedID             uint64 // ID of the last message that was dropped; 0: none was
}

const (
	roomStateLen    = 1 + 5*8
	trimmedStateLen = roomStateLen + 8
)

// len is the number of bytes that put fills.
func (r *roomState) len() int {
	if r.droppedID > 0 {
		return trimmedStateLen
	}
	return roomStateLen
}

func (r *roomState) put(b []byte) {
	b[0] = formatRoomState
	if r.droppedID > 0 {
		b[0] = formatTrimmedState
		binary.BigEndian.PutUint64(b[roomStateLen:], r.droppedID)
	}
	for i, v := range [...]uint64{r.first, r.last, r.messages, r.lastID, uint64(r.lastPostedUS)} {
		binary.BigEndian.PutUint64(b[1+8*i:], v)
	}
}

func decodeRoomState(b []byte) (roomState, error) {
	trimmed := len(b) == trimmedStateLen && b[0] == formatTrimmedState
	if !trimmed && (len(b) != roomStateLen || b[0] != formatRoomState) {
		return roomState{}, badRecord("room state")
	}
	v := func(i int) uint64 { return binary.BigEndian.Uint64(b[1+8*i:]) }
	r := roomState{first: v(0), last: v(1), messages: v(2), lastID: v(3), lastPostedUS: int64(v(4))}
	ok := r.first > 0 && r.last >= r.first
	if trimmed {
		r.droppedID = v(5)
		ok = r.first > 1 && r.last >= r.first-1 && r.droppedID > 0 && r.droppedID <= r.lastID
	}
	if !ok || r.lastPostedUS < 0 {
		return roomState{}, badRecord("room state")
	}
	return r, nil
}

// A message's record: version, ID, PostedAt in µs, length and bytes of user,
// length and bytes of client message id, then the payload to the end. Room and
// Seq are in the key.

func messageRecordLen(id uint64, postedUS int64, user, clientID string, payload []byte) int {
	return 1 + uvarintLen(id) + uvarintLen(uint64(postedUS)) +
		uvarintLen(uint64(len(user))) + len(user) +
		uvarintLen(uint64(len(clientID))) + len(clientID) + len(payload)
}

// putMessageRecord fills b, which has exactly messageRecordLen bytes.
func putMessageRecord(b []byte, id uint64, postedUS int64, user, clientID string, payload []byte) {
	b[0] = formatMessage
	n := 1
	n += binary.PutUvarint(b[n:], id)
	n += binary.PutUvarint(b[n:], uint64(postedUS))
	n += binary.PutUvarint(b[n:], uint64(len(user)))
	n += copy(b[n:], user)
	n += binary.PutUvarint(b[n:], uint64(len(clientID)))
	n += copy(b[n:], clientID)
	copy(b[n:], payload)
}

// messageFields are the parts of a message record, as parts of its bytes.
type messageFields struct {
	id                      uint64
	postedUS                int64
	user, clientID, payload []byte
}

func decodeMessageFields(b []byte) (f messageFields, err error) {
	d := newDecoder(b, formatMessage)
	f.id = d.uvarint()
	f.postedUS = int64(d.uvarint())
	f.user = d.bytes()
	f.clientID = d.bytes()
	f.payload = d.rest()
	if d.bad || f.id == 0 || f.postedUS < 0 {
		return messageFields{}, badRecord("message")
	}
	return f, nil
}

// decodeMessage reads a message record; the message shares nothing with b.
func decodeMessage(b []byte, room string, seq uint64) (*Message, error) {
	f, err := decodeMessageFields(b)
	if err != nil {
		return nil, err
	}
	// One copy holds both strings.
	names := string(f.user) + string(f.clientID)
	return &Message{
		Room: room, Seq: seq, ID: f.id,
		User: names[:len(f.user)], ClientMessageID: names[len(f.user):],
		Payload:  append(make([]byte, 0, len(f.payload)), f.payload...),
		PostedAt: timeOf(f.postedUS),
	}, nil
}

// decodeMessageID reads only the ID of a message record.
func decodeMessageID(b []byte) (uint64, error) {
	d := newDecoder(b, formatMessage)
	id := d.uvarint()
	if d.bad || id == 0 {
		return 0, badRecord("message")
	}
	return id, nil
}

// run is consecutive messages of one room within one log entry.
type run struct {
	room, seq, count uint64
}

func appendRuns(b []byte, runs []run) []byte {
	b = append(b, formatRuns)
	for _, r := range runs {
		b = binary.AppendUvarint(b, r.room)
		b = binary.AppendUvarint(b, r.seq)
		b = binary.AppendUvarint(b, r.count)
	}
	return b
}

func decodeRuns(b []byte, into []run) ([]run, error) {
	d := newDecoder(b, formatRuns)
	into = into[:0]
	for !d.bad && len(d.b) > 0 {
		r := run{room: d.uvarint(), seq: d.uvarint(), count: d.uvarint()}
		if r.room == 0 || r.seq == 0 || r.count == 0 || r.seq+r.count < r.seq {
			d.bad = true
		}
		into = append(into, r)
	}
	if d.bad || len(into) == 0 {
		return nil, badRecord("ID index")
	}
	return into, nil
}

// droppedRecord is of a room that messages were dropped from.
type droppedRecord struct {
	room    uint64
	trimmed uint64 // index of the log entry that did so last
}

func (r *droppedRecord) append(b []byte) []byte {
	b = append(b, formatDropped)
	b = binary.BigEndian.AppendUint64(b, r.room)
	return binary.BigEndian.AppendUint64(b, r.trimmed)
}

func decodeDropped(b []byte) (r droppedRecord, err error) {
	if len(b) != 1+2*8 || b[0] != formatDropped {
		return droppedRecord{}, badRecord("dropped messages")
	}
	r = droppedRecord{room: binary.BigEndian.Uint64(b[1:]), trimmed: binary.BigEndian.Uint64(b[9:])}
	if r.room == 0 || r.trimmed == 0 {
		return droppedRecord{}, badRecord("dropped messages")
	}
	return r, nil
}

func appendTrims(b []byte, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, formatTrims), index)
}

func decodeTrims(b []byte) (index uint64, err error) {
	if len(b) != 1+8 || b[0] != formatTrims {
		return 0, badRecord("trims")
	}
	return binary.BigEndian.Uint64(b[1:]), nil
}

// authorHash identifies author and payload of a message. It is cryptographic,
// so that nobody can make two messages that pass for one.
type authorHash [16]byte

func hashAuthor(scratch []byte, user string, payload []byte) (authorHash, []byte) {
	scratch = binary.AppendUvarint(scratch[:0], uint64(len(user)))
	scratch = append(scratch, user...)
	scratch = append(scratch, payload...)
	sum := sha256.Sum256(scratch)
	return authorHash(sum[:16]), scratch
}

// decoder reads a value field by field; after a fault bad is set and every
// field is zero.
type decoder struct {
	b   []byte
	bad bool
}

func newDecoder(b []byte, version byte) decoder {
	if len(b) == 0 || b[0] != version {
		return decoder{bad: true}
	}
	return decoder{b: b[1:]}
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) rest() []byte {
	v := d.b
	d.b = nil
	return v
}

func uvarintLen(v uint64) int {
	return (bits.Len64(v|1) + 6) / 7
}

func timeOf(us int64) time.Time { return time.UnixMicro(us).UTC() }
