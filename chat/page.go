package chat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// A page may be given in parts, so that whoever writes it to a slow client holds
// one part at a time, and no snapshot of the store meanwhile: each part is read
// when it is wanted, by its place. What was posted or made since the first part is
// not in the others; what was trimmed since is left out of them.

// part gives the first part of the page of a room with from <= Seq <= to, which is
// the newest messages that fit or else the first ones, and the Seqs of the page's
// first and last message. Both are 0 if there is none.
func (s scan) part(r pebble.Reader, number uint64, name string, from, to uint64, newest bool, partBytes int) (first []*Message, lo, hi uint64, err error) {
	if from > to || s.maxMessages <= 0 {
		return nil, 0, 0, nil
	}
	it, err := newMessageIter(r, number, from, to)
	if err != nil {
		return nil, 0, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	begin, next := it.First, it.Next
	if newest {
		begin, next = it.Last, it.Prev
	}
	if n := to - from; n < uint64(s.maxMessages) {
		first = make([]*Message, 0, min(n+1, uint64(partBytes)/messageOverhead+1))
	}
	size, n, whole := 0, 0, true
	for ok := begin(); ok && n < s.maxMessages; ok = next() {
		key := it.Key()
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, 0, 0, err
		}
		if len(key) != messageKeyLen || key[0] != prefixMessage {
			return nil, 0, 0, badRecord("message key")
		}
		if size += len(value) + messageOverhead; size > s.maxBytes && n > 0 {
			break
		}
		seq := binary.BigEndian.Uint64(key[9:])
		if n == 0 {
			lo, hi = seq, seq
		}
		lo, hi = min(lo, seq), max(hi, seq)
		n++
		if whole = whole && (size <= partBytes || n == 1); whole {
			m, err := decodeMessage(value, name, seq)
			if err != nil {
				return nil, 0, 0, err
			}
			first = append(first, m)
		}
	}
	if err := it.Error(); err != nil {
		return nil, 0, 0, err
	}
	switch {
	case newest && whole:
		slices.Reverse(first)
	case newest:
		// The last part was read, but the first one comes first.
		clear(first)
		first, err = scan{s.maxMessages, partBytes}.room(r, number, name, lo, hi, false)
	}
	return first, lo, hi, err
}

func newMessageIter(r pebble.Reader, number, from, to uint64) (*pebble.Iterator, error) {
	return r.NewIter(&pebble.IterOptions{
		LowerBound: appendMessageKey(nil, number, from),
		UpperBound: append(appendMessageKey(nil, number, to), 0), // the key after to's
	})
}

// NextPart replaces p's Messages by the part after them, at most part bytes or one
// message; there are none when the page is over. It reads what this node has, which
// is all of the page since Messages gave its first part.
func (s *Service) NextPart(ctx context.Context, _ Actor, p *MessagePage, part int) error {
	if n := len(p.Messages); n > 0 {
		p.next = p.Messages[n-1].Seq + 1
	}
	p.Messages = nil
	if p.next > p.Last {
		return nil
	}
	return s.read(ctx, true, func(r pebble.Reader) error {
		rec, _, ok, err := readRoom(r, p.room)
		if err != nil || !ok {
			return err
		}
		p.Messages, err = scan{MaxLimit, part}.room(r, rec.number, p.room, p.next, p.Last, false)
		return err
	})
}

// RoomPage is a part of the list of rooms.
type RoomPage struct {
	// Rooms are the page, or its first part, in the byte order of their names.
	Rooms []RoomInfo
	// Last is the name of the page's last room, "" if there is none; More says that
	// there are others after it.
	Last string
	More bool

	prefix, after string
	made          uint64 // rooms with this number and above are newer than the page
}

// RoomPage is Rooms for a page that is given in parts of at most part rooms.
func (s *Service) RoomPage(ctx context.Context, _ Actor, q RoomsQuery, part int) (page RoomPage, err error) {
	limit, err := checkLimit(q.Limit)
	if err != nil {
		return page, err
	}
	if page.prefix, err = partOfName(q.Prefix); err != nil {
		return page, err
	}
	if page.after, err = partOfName(q.After); err != nil {
		return page, err
	}
	err = s.read(ctx, q.Stale, func(r pebble.Reader) error {
		err := get(r, countersKey(), func(value []byte) error {
			c, err := decodeCounters(value)
			page.made = c.nextRoom
			return err
		})
		if err != nil {
			return err
		}
		var last []byte
		n := 0
		err = eachRoom(r, page.prefix, page.after, func(name []byte, rec roomRecord) (bool, error) {
			if page.More = n == limit; page.More {
				return false, nil
			}
			n++
			last = append(last[:0], name...)
			if n > part {
				return true, nil // only counted
			}
			return true, page.add(r, name, rec)
		})
		page.Last = string(last)
		return err
	})
	if err != nil {
		return RoomPage{}, err
	}
	return page, nil
}

// NextRooms replaces p's Rooms by the part after them, at most part rooms; there are
// none when the page is over. It reads what this node has.
func (s *Service) NextRooms(ctx context.Context, _ Actor, p *RoomPage, part int) error {
	if n := len(p.Rooms); n > 0 {
		p.after = p.Rooms[n-1].Name
	}
	p.Rooms = nil
	if p.after >= p.Last {
		return nil
	}
	return s.read(ctx, true, func(r pebble.Reader) error {
		return eachRoom(r, p.prefix, p.after, func(name []byte, rec roomRecord) (bool, error) {
			if string(name) > p.Last || len(p.Rooms) == part {
				return false, nil
			}
			if rec.number >= p.made {
				return true, nil
			}
			return true, p.add(r, name, rec)
		})
	})
}

func (p *RoomPage) add(r pebble.Reader, name []byte, rec roomRecord) error {
	st, err := readRoomState(r, rec.number)
	if err != nil {
		return err
	}
	p.Rooms = append(p.Rooms, roomInfo(string(name), rec, st))
	return nil
}

// eachRoom calls f for the rooms whose name begins with prefix and is above after,
// until it says false.
func eachRoom(r pebble.Reader, prefix, after string, f func(name []byte, rec roomRecord) (bool, error)) (err error) {
	lower := appendRoomKey(nil, prefix)
	if after >= prefix {
		lower = append(appendRoomKey(nil, after), 0) // the key after after's
	}
	it, err := r.NewIter(&pebble.IterOptions{
		LowerBound: lower, UpperBound: []byte{prefixRoom + 1},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		name := it.Key()[1:]
		if !bytes.HasPrefix(name, []byte(prefix)) {
			break
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		rec, err := decodeRoom(value)
		if err != nil {
			return err
		}
		if goOn, err := f(name, rec); err != nil || !goOn {
			return err
		}
	}
	return it.Error()
}
