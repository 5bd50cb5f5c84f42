package chat

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// The dedup window: how long after its post a client message id is remembered at
// least. It is a part of the replicated state, so that replicas agree on it.
const (
	DefaultDedupWindow = time.Hour
	MaxDedupWindow     = 365 * 24 * time.Hour
)

// dedupRecord says which message holds a client message id.
type dedupRecord struct {
	seq  uint64
	hash authorHash

	// Of a message that was dropped: all that is left of it.
	dropped  bool
	id       uint64
	postedUS int64
}

const (
	dedupLen     = 1 + 8 + 16
	tombstoneLen = dedupLen + 2*8
)

// len is the number of bytes that put fills.
func (r *dedupRecord) len() int {
	if r.dropped {
		return tombstoneLen
	}
	return dedupLen
}

func (r *dedupRecord) put(b []byte) {
	b[0] = formatDedup
	binary.BigEndian.PutUint64(b[1:], r.seq)
	copy(b[9:], r.hash[:])
	if r.dropped {
		b[0] = formatTombstone
		binary.BigEndian.PutUint64(b[dedupLen:], r.id)
		binary.BigEndian.PutUint64(b[dedupLen+8:], uint64(r.postedUS))
	}
}

func decodeDedup(b []byte) (r dedupRecord, err error) {
	r.dropped = len(b) == tombstoneLen && b[0] == formatTombstone
	if !r.dropped && (len(b) != dedupLen || b[0] != formatDedup) {
		return dedupRecord{}, badRecord("client message id")
	}
	r.seq = binary.BigEndian.Uint64(b[1:])
	copy(r.hash[:], b[9:])
	if r.dropped {
		r.id = binary.BigEndian.Uint64(b[dedupLen:])
		r.postedUS = int64(binary.BigEndian.Uint64(b[dedupLen+8:]))
	}
	if r.seq == 0 || r.dropped && (r.id == 0 || r.postedUS < 0) {
		return dedupRecord{}, badRecord("client message id")
	}
	return r, nil
}

// message is what is told of a dropped message: no text, which is gone. A repeat
// has the author of the first.
func (r *dedupRecord) message(rm *room, c *postCommand) *Message {
	return &Message{
		Room: rm.name, Seq: r.seq, ID: r.id, User: c.user,
		PostedAt: timeOf(r.postedUS), ClientMessageID: c.clientID, Trimmed: true,
	}
}

// forgettable is the client message id of a dropped message, under its ID: since
// PostedAt never decreases along ID, the oldest come first.
type forgettable struct {
	postedUS int64
	room     uint64
	clientID []byte
}

func (f *forgettable) append(b []byte) []byte {
	b = append(b, formatForgettable)
	b = binary.BigEndian.AppendUint64(b, uint64(f.postedUS))
	b = binary.BigEndian.AppendUint64(b, f.room)
	return append(b, f.clientID...)
}

// decodeForgettable gives a record that shares memory with b.
func decodeForgettable(b []byte) (f forgettable, err error) {
	if len(b) <= 1+2*8 || b[0] != formatForgettable {
		return forgettable{}, badRecord("forgettable id")
	}
	f = forgettable{postedUS: int64(binary.BigEndian.Uint64(b[1:])), room: binary.BigEndian.Uint64(b[9:]), clientID: b[17:]}
	if f.postedUS < 0 || f.room == 0 {
		return forgettable{}, badRecord("forgettable id")
	}
	return f, nil
}

// bury leaves of a dropped message what a repeat of its post is answered with.
func (a *applier) bury(rm *room, seq uint64, m *messageFields) error {
	r := dedupRecord{seq: seq, dropped: true, id: m.id, postedUS: m.postedUS}
	// Made again instead of read: ids lie in no order, and a trim must not wait for
	// thousands of them.
	r.hash, a.scratch = hashAuthor(a.scratch, string(m.user), m.payload)
	var value [tombstoneLen]byte
	r.put(value[:])
	clientID := string(m.clientID)
	a.key = appendDedupKey(a.key[:0], rm.number, clientID)
	if err := a.batch.Set(a.key, value[:], nil); err != nil {
		return err
	}
	a.priors[dedupKey{rm.number, clientID}] = r
	f := forgettable{postedUS: m.postedUS, room: rm.number, clientID: m.clientID}
	a.key = appendForgetKey(a.key[:0], m.id)
	a.scratch = f.append(a.scratch[:0])
	return a.batch.Set(a.key, a.scratch, nil)
}

// settings are the replicated settings.
type settings struct {
	dedupWindow time.Duration // whole microseconds
}

func (s *settings) append(b []byte) []byte {
	return binary.BigEndian.AppendUint64(append(b, formatSettings), uint64(s.dedupWindow.Microseconds()))
}

// decodeSettings reads settings; a window that no command can set is damage.
func decodeSettings(b []byte) (s settings, err error) {
	if len(b) != 1+8 || b[0] != formatSettings {
		return settings{}, badRecord("settings")
	}
	us := binary.BigEndian.Uint64(b[1:])
	if !windowAllowed(int64(us)) {
		return settings{}, badRecord("settings")
	}
	return settings{dedupWindow: time.Duration(us) * time.Microsecond}, nil
}

func windowAllowed(us int64) bool {
	return us >= DefaultDedupWindow.Microseconds() && us <= MaxDedupWindow.Microseconds()
}

// readSettings gives the settings of a store, the defaults while nobody set any.
func readSettings(r pebble.Reader) (settings, error) {
	s := settings{dedupWindow: DefaultDedupWindow}
	err := get(r, settingsKey(), func(value []byte) (err error) {
		s, err = decodeSettings(value)
		return err
	})
	return s, err
}

// oldestForgettable gives when the oldest client message id of a dropped message
// was posted; ok is false if there is none.
func oldestForgettable(r pebble.Reader) (postedUS int64, ok bool, err error) {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixForget}, UpperBound: []byte{prefixForget + 1}})
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() {
		return 0, false, it.Error()
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return 0, false, err
	}
	f, err := decodeForgettable(value)
	return f.postedUS, err == nil, err
}
