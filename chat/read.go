package chat

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2"
)

// get calls f with the value of key, which is only valid during the call; it
// does not call f if there is none.
func get(r pebble.Reader, key []byte, f func(value []byte) error) error {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer closer.Close()
	return f(value)
}

// readRoom finds a room by name.
func readRoom(r pebble.Reader, name string) (rec roomRecord, st roomState, ok bool, err error) {
	var buf [1 + MaxRoomName]byte
	err = get(r, appendRoomKey(buf[:0], name), func(value []byte) (err error) {
		rec, err = decodeRoom(value)
		return err
	})
	if err != nil || rec.number == 0 {
		return rec, st, false, err
	}
	st, err = readRoomState(r, rec.number)
	return rec, st, err == nil, err
}

// readRoomState gives the counters of a room, all 0 if it never had a message.
func readRoomState(r pebble.Reader, number uint64) (st roomState, err error) {
	var buf [idKeyLen]byte
	err = get(r, appendRoomStateKey(buf[:0], number), func(value []byte) (err error) {
		st, err = decodeRoomState(value)
		return err
	})
	return st, err
}

// readRoomName gives the name of a room that exists.
func readRoomName(r pebble.Reader, number uint64) (name string, err error) {
	var buf [idKeyLen]byte
	err = get(r, appendRoomNameKey(buf[:0], number), func(value []byte) error {
		if len(value) < 2 || value[0] != formatRoomName {
			return badRecord("room name")
		}
		name = string(value[1:])
		return nil
	})
	if err == nil && name == "" {
		err = badRecord("room name")
	}
	return name, err
}

// readMessage gives one message, nil if it is absent.
func readMessage(r pebble.Reader, number uint64, name string, seq uint64) (m *Message, err error) {
	var buf [messageKeyLen]byte
	err = get(r, appendMessageKey(buf[:0], number, seq), func(value []byte) (err error) {
		m, err = decodeMessage(value, name, seq)
		return err
	})
	return m, err
}

// scan bounds a page: it ends before maxMessages or, after its first message,
// maxBytes are exceeded.
type scan struct {
	maxMessages, maxBytes int
}

// room gives the messages of a room with from <= Seq <= to in ascending order;
// if not all fit, the first ones, or the last ones if newest is set.
func (s scan) room(r pebble.Reader, number uint64, name string, from, to uint64, newest bool) (page []*Message, err error) {
	if from > to || s.maxMessages <= 0 {
		return nil, nil
	}
	it, err := newMessageIter(r, number, from, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	first, next := it.First, it.Next
	if newest {
		first, next = it.Last, it.Prev
	}
	if n := to - from; n < uint64(s.maxMessages) {
		page = make([]*Message, 0, n+1)
	}
	bytes := 0
	for ok := first(); ok && len(page) < s.maxMessages; ok = next() {
		m, err := iterMessage(it, name)
		if err != nil {
			return nil, err
		}
		if bytes += m.size(); bytes > s.maxBytes && len(page) > 0 {
			break
		}
		page = append(page, m)
	}
	if newest {
		slices.Reverse(page)
	}
	return page, it.Error()
}

// iterMessage decodes the message an iterator is at.
func iterMessage(it *pebble.Iterator, name string) (*Message, error) {
	key := it.Key()
	if len(key) != messageKeyLen || key[0] != prefixMessage {
		return nil, badRecord("message key")
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	return decodeMessage(value, name, binary.BigEndian.Uint64(key[9:]))
}

// iterRuns decodes the log entry an iterator over the ID index is at: the ID of
// its first message, and its runs.
func iterRuns(it *pebble.Iterator, into []run) (id uint64, runs []run, err error) {
	if len(it.Key()) != idKeyLen {
		return 0, into, badRecord("ID index key")
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return 0, into, err
	}
	runs, err = decodeRuns(value, into)
	return binary.BigEndian.Uint64(it.Key()[1:]), runs, err
}

// cluster gives the messages of all rooms with after < ID <= head in ID order. r
// does not change meanwhile.
func (s scan) cluster(r pebble.Reader, after, head uint64) (page []*Message, err error) {
	if after >= head {
		return nil, nil
	}
	index, err := r.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixIDIndex}, UpperBound: []byte{prefixIDIndex + 1},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	messages, err := r.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixMessage}, UpperBound: []byte{prefixMessage + 1},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, messages.Close()) }()

	// Where nothing was ever dropped, no room needs to be asked for it.
	trimmed, err := readTrims(r)
	if err != nil {
		return nil, err
	}

	// The entry that holds ID after+1 is the last one that does not begin after
	// it; if that was dropped, the first one that is left.
	ok := index.SeekLT(appendIDKey(nil, after+2))
	if !ok {
		ok = index.First()
	}
	type place struct {
		name  string
		first uint64 // what is before was dropped
	}
	places := make(map[uint64]place)
	var runs []run
	var key []byte
	bytes := 0
	for ; ok; ok = index.Next() {
		var id uint64
		if id, runs, err = iterRuns(index, runs); err != nil {
			return nil, err
		}
		for _, run := range runs {
			if id+run.count <= after+1 {
				id += run.count
				continue
			}
			if id <= after {
				run.seq += after + 1 - id
				run.count -= after + 1 - id
				id = after + 1
			}
			room, known := places[run.room]
			if !known {
				if room.name, err = readRoomName(r, run.room); err != nil {
					return nil, err
				}
				if trimmed > 0 {
					st, err := readRoomState(r, run.room)
					if err != nil {
						return nil, err
					}
					room.first = st.first
				}
				places[run.room] = room
			}
			if run.seq < room.first {
				n := min(run.count, room.first-run.seq)
				run.seq, run.count, id = run.seq+n, run.count-n, id+n
				if run.count == 0 {
					continue
				}
			}
			key = appendMessageKey(key[:0], run.room, run.seq)
			found := messages.SeekGE(key)
			for ; run.count > 0; run.count-- {
				if id > head || len(page) == s.maxMessages {
					return page, nil
				}
				if !found {
					return nil, errors.Join(badRecord("message of the ID index"), messages.Error())
				}
				m, err := iterMessage(messages, room.name)
				if err != nil {
					return nil, err
				}
				if m.ID != id {
					return nil, badRecord("ID index")
				}
				if bytes += m.size(); bytes > s.maxBytes && len(page) > 0 {
					return page, nil
				}
				page = append(page, m)
				id++
				found = messages.Next()
			}
		}
		if id > head || len(page) == s.maxMessages {
			break
		}
	}
	return page, index.Error()
}

// readMessageID gives the ID of a message that exists.
func readMessageID(r pebble.Reader, number, seq uint64) (id uint64, err error) {
	var buf [messageKeyLen]byte
	err = get(r, appendMessageKey(buf[:0], number, seq), func(value []byte) (err error) {
		id, err = decodeMessageID(value)
		return err
	})
	if err == nil && id == 0 {
		err = badRecord("message")
	}
	return id, err
}

// seqAfterID gives the Seq of the first stored message of a room with an ID above
// id, last+1 if there is none. r does not change meanwhile.
func seqAfterID(r pebble.Reader, number uint64, st roomState, id uint64) (seq uint64, err error) {
	if st.last == 0 || st.first > st.last || id >= st.lastID {
		return st.last + 1, nil
	}
	if id == 0 {
		return st.first, nil
	}
	n := sort.Search(int(st.last-st.first), func(i int) bool {
		at, e := readMessageID(r, number, st.first+uint64(i))
		err = errors.Join(err, e)
		return at > id
	})
	// The last message is known to be above id.
	return st.first + uint64(n), err
}

// read calls f with the database as it is now. f must not wait for anybody.
func (s *Store) read(f func(r pebble.Reader) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return ErrClosed
	}
	if err := f(s.db); err != nil {
		return err
	}
	// Damage found by this read may have been reported to trouble alone.
	return s.trouble.err()
}

// readAtOnce is read with the database as it is at one moment, for what reads
// several records that depend on each other.
func (s *Store) readAtOnce(f func(r pebble.Reader) error) error {
	return s.read(func(pebble.Reader) (err error) {
		snap := s.db.NewSnapshot()
		defer func() { err = errors.Join(err, snap.Close()) }()
		return f(snap)
	})
}

// StateHash gives the applied index and the rolling hash over the effects of
// every entry up to it. Replicas with the same applied index have the same hash;
// it costs nothing, but trusts that the store holds what was applied.
func (s *Store) StateHash() (index, hash uint64) {
	p := s.published.Load()
	return p.applied, p.hash
}

// FullHash reads the whole store and gives its applied index and a hash of all
// of its content, member records included. Replicas with the same applied index
// have the same hash. It takes as long as reading everything does, and may run
// concurrently with Apply.
func (s *Store) FullHash() (index, hash uint64, err error) {
	err = s.Snapshot(func(i uint64, _ []byte, content io.WriterTo) error {
		d := xxhash.New()
		_, err := content.WriteTo(d)
		index, hash = i, d.Sum64()
		return err
	})
	return index, hash, err
}
