package chat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
)

// commandResult is the answer to one command. Apply gives one []commandResult
// for an entry, in the order of its commands.
type commandResult struct {
	// code says why the command was rejected; "" if it was not. A rejection
	// changes nothing.
	code Code
	// message was appended or, if repeated, was there before.
	message  *Message
	repeated bool
	// room and created answer a creation.
	room    *RoomInfo
	created bool
	// seq is the message that holds the client message id, for
	// CodeClientMessageIDConflict.
	seq uint64
	// purged is how many client message ids a purge has forgotten.
	purged int
}

// Kinds of effects in the rolling hash.
const (
	effectMessage  = 1
	effectRoom     = 2
	effectTrim     = 3
	effectPurge    = 4
	effectSettings = 5
)

// applier is the deterministic core: it turns log entries into one batch of
// writes. It reads the store but never writes it, knows no clock, and is used
// by one goroutine at a time.
type applier struct {
	db       *pebble.DB
	batch    *pebble.Batch
	indexed  bool     // batch can be read, together with what is stored
	now      counters // after what the running Apply decided so far
	rooms    *roomCache
	touched  []*room                  // rooms whose state the running Apply changed, in order
	messages []*Message               // messages it appended, in ID order
	priors   map[dedupKey]dedupRecord // client message ids it stored or, with seq 0, forgot
	bySeq    map[messageKey]*Message  // messages with such an id, for repeats
	ids      *pebble.Iterator         // over stored client message ids, nil until needed
	entry    entry
	slab     []Message // messages of the entry, allocated together
	runs     []run
	index    uint64 // of the entry
	first    uint64 // ID of the first message of the entry, if it has any
	dropped  uint64 // newest ID that the running Apply dropped
	trimmed  bool   // the entry dropped messages
	hash     xxhash.Digest
	hashes   []hashMark // after each entry of the running Apply
	key      []byte
	scratch  []byte
	postedUS int64  // PostedAt of everything in the entry
	data     []byte // of the entry

	// poison is told of each panic that was survived.
	poison func(index uint64, command int, reason any)
	// planted makes decisions panic, for tests. It gets the data of the entry and
	// the command, nil while the entry is decoded. nil: nothing is planted.
	planted func(data []byte, c *command)
}

type dedupKey struct {
	room     uint64
	clientID string
}

type messageKey struct{ room, seq uint64 }

func newApplier(db *pebble.DB, now counters, poison func(index uint64, command int, reason any)) *applier {
	return &applier{
		db: db, now: now, poison: poison,
		rooms:  newRoomCache(maxCachedRooms),
		priors: make(map[dedupKey]dedupRecord),
		bySeq:  make(map[messageKey]*Message),
	}
}

// run decides all entries into a.batch. After an error the caller must abandon
// the batch and call rollback.
func (a *applier) run(entries iter.Seq2[uint64, []byte], last uint64) (results []any, err error) {
	for index, data := range entries {
		if index <= a.now.applied || index > last {
			return nil, fmt.Errorf("entry %d is out of order: after %d, up to %d", index, a.now.applied, last)
		}
		var res any
		var err error
		if res, err = a.applyEntry(index, data); err != nil {
			return nil, fmt.Errorf("entry %d: %w", index, err)
		}
		a.now.applied = index
		results = append(results, res)
	}
	if last < a.now.applied {
		return nil, fmt.Errorf("last index %d is behind the applied index %d", last, a.now.applied)
	}
	a.now.applied = last
	for _, rm := range a.touched {
		op := a.batch.SetDeferred(idKeyLen, rm.roomState.len())
		appendRoomStateKey(op.Key[:0], rm.number)
		rm.roomState.put(op.Value)
		if err := op.Finish(); err != nil {
			return nil, err
		}
	}
	return results, a.batch.Set(countersKey(), a.now.append(nil), nil)
}

// finish forgets what was only needed until the batch was committed.
func (a *applier) finish() {
	for _, rm := range a.touched {
		rm.touched = false
	}
	clear(a.touched)
	clear(a.messages)
	a.touched, a.messages, a.hashes = a.touched[:0], a.messages[:0], a.hashes[:0]
	clear(a.priors)
	clear(a.bySeq)
	clear(a.entry.commands)
	a.slab = nil
	a.rooms.trim()
	a.batch, a.indexed, a.dropped, a.data = nil, false, 0, nil
	if a.ids != nil {
		// A failed read was reported when it happened.
		_ = a.ids.Close()
		a.ids = nil
	}
}

// rollback returns to the committed state.
func (a *applier) rollback(committed counters) {
	a.finish()
	a.rooms.clear()
	a.now = committed
}

// poisonedEntry is the result of an entry that made the decoder panic: nobody
// knows how many commands it has. Each of them is rejected.
type poisonedEntry struct{}

// applyEntry gives the []commandResult of the entry, or poisonedEntry.
func (a *applier) applyEntry(index uint64, data []byte) (any, error) {
	a.index, a.first, a.trimmed, a.data = index, a.now.id+1, false, data
	var refused error
	decoded := a.guard(nil, func() { refused = a.entry.reset(data) })
	if refused != nil {
		return nil, refused
	}
	if !decoded {
		a.entry.commands = a.entry.commands[:0]
	}
	commands := a.entry.commands
	a.postedUS = max(a.now.postedAtUS, a.entry.timeUS)
	a.slab = make([]Message, 0, len(commands))
	a.runs = a.runs[:0]

	// The rolling hash is taken entry by entry, so that it does not depend on
	// how entries are grouped into calls.
	a.hash.Reset()
	var head [16]byte
	binary.BigEndian.PutUint64(head[:], a.now.hash)
	binary.BigEndian.PutUint64(head[8:], index)
	a.hash.Write(head[:])

	results := make([]commandResult, len(commands))
	for i := range commands {
		var err error
		switch c := &commands[i]; c.kind {
		case kindPost:
			results[i], err = a.post(c)
		case kindCreateRoom:
			results[i], err = a.createRoom(c, index, len(commands) == 1)
		case kindTrim:
			results[i], err = a.trim(c)
		case kindPurge:
			results[i], err = a.purge(c)
		case kindSettings:
			results[i], err = a.settings(c)
		default:
			err = badEntry("command kind %d", c.kind)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := a.putRuns(); err != nil {
		return nil, err
	}
	a.now.hash = a.hash.Sum64()
	a.hashes = append(a.hashes, hashMark{index, a.now.hash})
	if !decoded {
		return poisonedEntry{}, nil
	}
	return results, nil
}

// putRuns stores where the messages of the entry are.
func (a *applier) putRuns() error {
	if len(a.runs) == 0 {
		return nil
	}
	if a.trimmed {
		gone, err := a.firstSeqs().allDropped(a.runs)
		if err != nil || gone {
			return err
		}
	}
	a.scratch = appendRuns(a.scratch[:0], a.runs)
	a.key = appendIDKey(a.key[:0], a.first)
	return a.batch.Set(a.key, a.scratch, nil)
}

// touch remembers that the state of rm is to be stored.
func (a *applier) touch(rm *room) {
	if !rm.touched {
		rm.touched = true
		a.touched = append(a.touched, rm)
	}
}

// guard runs a step that depends on the entry and the replicated state alone
// and changes neither: decoding, or the decision on one command. It survives a
// panic of it, since the same entry would panic on every replica and again at
// every start, and reports false; what the caller preset then stays, a rejection.
//
// Whatever touches the store stays outside: a panic there can be this node's own,
// and to reject on one replica what another accepts is worse than to stop.
func (a *applier) guard(c *command, step func()) (ok bool) {
	defer func() {
		if ok {
			return
		}
		number := -1
		for i := range a.entry.commands {
			if c == &a.entry.commands[i] {
				number = i
			}
		}
		a.poison(a.index, number, recover())
	}()
	if a.planted != nil {
		a.planted(a.data, c)
	}
	step()
	return true
}

// room finds a room; nil if there is none.
func (a *applier) room(name string) (*room, error) {
	if rm := a.rooms.get(name); rm != nil {
		return rm, nil
	}
	rec, st, ok, err := readRoom(a.db, name)
	if err != nil || !ok {
		return nil, err
	}
	// name is a part of the entry's strings, which the cache must not keep.
	rm := &room{name: strings.Clone(name), roomRecord: rec, roomState: st}
	a.rooms.add(rm)
	return rm, nil
}

// prior finds the message that holds a client message id in rm; seq 0 if there
// is none.
func (a *applier) prior(rm *room, clientID string) (dedupRecord, error) {
	if rm.last == 0 {
		return dedupRecord{}, nil
	}
	if len(a.priors) > 0 {
		if r, ok := a.priors[dedupKey{rm.number, clientID}]; ok {
			return r, nil
		}
	}
	// Nearly every id is new, and only an iterator may use the filters of the
	// last level, where nearly everything is: one serves the whole Apply, since
	// what that itself stores is in priors.
	if a.ids == nil {
		it, err := a.db.NewIter(&pebble.IterOptions{
			LowerBound: []byte{prefixDedup}, UpperBound: []byte{prefixDedup + 1},
			UseL6Filters: true,
		})
		if err != nil {
			return dedupRecord{}, err
		}
		a.ids = it
	}
	// With the default comparer the prefix of a key is all of it.
	a.key = appendDedupKey(a.key[:0], rm.number, clientID)
	if !a.ids.SeekPrefixGE(a.key) {
		return dedupRecord{}, a.ids.Error()
	}
	if !bytes.Equal(a.ids.Key(), a.key) {
		return dedupRecord{}, nil
	}
	value, err := a.ids.ValueAndErr()
	if err != nil {
		return dedupRecord{}, err
	}
	return decodeDedup(value)
}

// stored gives a message that is in the store or in the running Apply.
func (a *applier) stored(rm *room, seq uint64) (*Message, error) {
	if m := a.bySeq[messageKey{rm.number, seq}]; m != nil {
		return m, nil
	}
	m, err := readMessage(a.db, rm.number, rm.name, seq)
	if err == nil && m == nil {
		return nil, badRecord("client message id of an absent message")
	}
	return m, err
}

func (a *applier) makeRoom(name, display string) *room {
	rm := &room{name: strings.Clone(name), roomRecord: roomRecord{
		number: a.now.nextRoom, createdUS: a.postedUS, display: strings.Clone(display),
	}}
	a.now.nextRoom++
	a.rooms.add(rm)

	// Set copies, and fails only for a batch that is closed or overfull, which
	// the commit reports as well.
	a.key = appendRoomKey(a.key[:0], name)
	a.scratch = rm.roomRecord.append(a.scratch[:0])
	_ = a.batch.Set(a.key, a.scratch, nil)
	a.effect(effectRoom, a.key, a.scratch)
	a.key = appendRoomNameKey(a.key[:0], rm.number)
	a.scratch = append(append(a.scratch[:0], formatRoomName), name...)
	_ = a.batch.Set(a.key, a.scratch, nil)
	return rm
}

// appendMessage stores c as the next message of rm.
func (a *applier) appendMessage(rm *room, c *postCommand, hash authorHash) *Message {
	a.now.id++
	a.now.postedAtUS = a.postedUS
	id, prev := a.now.id, rm.lastID
	rm.last++
	rm.messages++
	if rm.first == 0 {
		rm.first = rm.last
	}
	rm.lastID, rm.lastPostedUS = id, a.postedUS
	a.touch(rm)

	op := a.batch.SetDeferred(messageKeyLen, messageRecordLen(id, a.postedUS, c.user, c.clientID, c.payload))
	appendMessageKey(op.Key[:0], rm.number, rm.last)
	putMessageRecord(op.Value, id, a.postedUS, c.user, c.clientID, c.payload)
	a.effect(effectMessage, op.Key, op.Value)
	_ = op.Finish()

	if n := len(a.runs); n > 0 && a.runs[n-1].room == rm.number {
		a.runs[n-1].count++ // the entry has nothing between this message and the one before
	} else {
		a.runs = append(a.runs, run{room: rm.number, seq: rm.last, count: 1})
	}

	a.slab = a.slab[:len(a.slab)+1]
	m := &a.slab[len(a.slab)-1]
	m.Room, m.Seq, m.ID, m.User = rm.name, rm.last, id, c.user
	m.Payload, m.PostedAt, m.ClientMessageID, m.prev = c.payload, timeOf(a.postedUS), c.clientID, prev
	a.messages = append(a.messages, m)

	if c.clientID != "" {
		rec := dedupRecord{seq: rm.last, hash: hash}
		op := a.batch.SetDeferred(idKeyLen+len(c.clientID), dedupLen)
		appendDedupKey(op.Key[:0], rm.number, c.clientID)
		rec.put(op.Value)
		_ = op.Finish()
		a.priors[dedupKey{rm.number, c.clientID}] = rec
		a.bySeq[messageKey{rm.number, rm.last}] = m
	}
	return m
}

// effect adds something that was stored to the rolling hash of the entry.
func (a *applier) effect(kind byte, key, value []byte) {
	var head [9]byte
	head[0] = kind
	binary.BigEndian.PutUint64(head[1:], uint64(len(key))<<32|uint64(len(value)))
	a.hash.Write(head[:])
	a.hash.Write(key)
	a.hash.Write(value)
}
