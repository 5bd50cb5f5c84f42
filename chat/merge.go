package chat

import (
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// deliverRooms delivers the next messages with an ID up to until of the rooms that
// are behind, or of the others.
func (st *Stream) deliverRooms(behind bool, until uint64) (d Delivery, err error) {
	page, ok := st.recent(behind, until)
	if ok {
		return Delivery{Messages: page}, nil
	}
	err = st.store.readAtOnce(func(r pebble.Reader) (err error) {
		d, err = st.merge(r, behind, until)
		return err
	})
	return d, err
}

// takes reports whether a delivery of the rooms that are behind, or of the others,
// up to an ID is for the room.
func (f *followed) takes(behind bool, until uint64) bool {
	return f.behind == behind && f.after <= until
}

// recent gives the next messages if all that rooms have to deliver is among the
// recent ones; ok is false if it is not, or nobody knows.
func (st *Stream) recent(behind bool, until uint64) (page []*Message, ok bool) {
	lists := 0
	for _, f := range st.rooms {
		if !f.takes(behind, until) {
			continue
		}
		newest := f.topic.newest.Load()
		if newest == nil {
			return nil, false
		}
		if f.next == 0 && newest.id <= st.place(f) {
			f.next = newest.seq + 1
		}
		if f.next > newest.seq {
			continue
		}
		if f.next == 0 || newest.seq-f.next >= maxWalk {
			return nil, false
		}
		walk, ok := st.store.recent.room(*newest, f.next)
		if !ok {
			return nil, false
		}
		if lists++; lists == 1 {
			page = walk
		} else {
			page = append(page, walk...)
		}
	}
	if lists > 1 {
		slices.SortFunc(page, func(a, b *Message) int { return cmp.Compare(a.ID, b.ID) })
	}
	page = cut(page, until)
	for _, m := range page {
		f := st.room(m.Room)
		f.next, f.id = m.Seq+1, 0
	}
	return page, true
}

// cut takes the part of an ascending list that has ID <= until, of it at most a
// page.
func cut(list []*Message, until uint64) []*Message {
	bytes := 0
	for i, m := range list {
		bytes += m.size()
		if m.ID > until || i == maxStreamMessages || (i > 0 && bytes > maxStreamBytes) {
			clear(list[i:])
			return list[:i]
		}
	}
	return list
}

// room finds a room of the stream.
func (st *Stream) room(name string) *followed {
	i := 0
	if len(st.rooms) > 1 {
		i, _ = slices.BinarySearchFunc(st.rooms, name, func(f *followed, name string) int {
			return strings.Compare(f.name, name)
		})
	}
	return st.rooms[i]
}

// merge gives the next messages from the store. Of each room it knows the ID of
// the next message, so it reads little more than it gives.
func (st *Stream) merge(r pebble.Reader, behind bool, until uint64) (d Delivery, err error) {
	m := merger{r: r, until: until, rooms: st.queue[:0]}
	defer func() { st.queue = m.rooms[:0] }()
	var gaps []Gap
	for _, f := range st.rooms {
		if !f.takes(behind, until) {
			continue
		}
		gap, err := f.locate(r, st.place(f))
		if err != nil {
			return Delivery{}, err
		}
		if gap.dropped > 0 {
			gaps = append(gaps, gap)
		}
		if f.id != 0 {
			m.rooms = append(m.rooms, f)
		}
	}
	m.it, err = r.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixMessage}, UpperBound: []byte{prefixMessage + 1},
	})
	if err != nil {
		return Delivery{}, err
	}
	defer func() { err = errors.Join(err, m.it.Close()) }()
	heap.Init(&m.rooms)
	for !m.full && len(m.rooms) > 0 && m.rooms[0].id <= until {
		gap, err := m.read()
		if err != nil {
			return Delivery{}, errors.Join(err, m.it.Error())
		}
		if gap.dropped > 0 {
			gaps = append(gaps, gap)
		}
	}
	if len(m.page) > 0 {
		until = m.page[0].ID - 1
	}
	place(gaps, until)
	return Delivery{Gaps: gaps, Messages: m.page}, m.it.Error()
}

// locate finds the next message of a room in which everything up to an ID was
// delivered, and the gap before it.
func (f *followed) locate(r pebble.Reader, place uint64) (gap Gap, err error) {
	newest := f.topic.newest.Load()
	if f.id != 0 || (newest != nil && f.next > newest.seq) {
		return Gap{}, nil
	}
	rec, st, _, err := readRoom(r, f.name)
	if err != nil {
		return Gap{}, err
	}
	f.number = rec.number
	// Spares an idle room the next look at the store. If Apply knows better by
	// now, that stays; Restore cannot come in between.
	f.topic.newest.CompareAndSwap(nil, &position{st.last, st.lastID})
	switch {
	case f.next == 0 && place < st.droppedID:
		f.next = missedFrom(st, place)
	case f.next == 0:
		if f.next, err = seqAfterID(r, rec.number, st, place); err != nil {
			return Gap{}, err
		}
	}
	return f.begin(r, st)
}

// begin finds the message next, and the gap before it.
func (f *followed) begin(r pebble.Reader, st roomState) (gap Gap, err error) {
	if f.next < st.first {
		gap = gapOf(f.name, st, f.next)
		f.next = st.first
	}
	f.id = 0
	if f.next <= st.last {
		f.id, err = readMessageID(r, f.number, f.next)
	}
	return gap, err
}

// merger merges the messages of rooms by ID.
type merger struct {
	r     pebble.Reader
	it    *pebble.Iterator // over all messages
	until uint64
	rooms nextFirst

	page  []*Message
	bytes int
	full  bool
	key   []byte
}

// read takes messages of the first room as long as no other has one before them.
func (m *merger) read() (gap Gap, err error) {
	f := m.rooms[0]
	if gap, err = m.readRoom(f, m.limit()); err != nil {
		return Gap{}, err
	}
	if f.id == 0 {
		heap.Pop(&m.rooms)
	} else {
		heap.Fix(&m.rooms, 0)
	}
	return gap, nil
}

// limit is the last ID that can be taken of the first room.
func (m *merger) limit() uint64 {
	limit := m.until
	for _, other := range m.rooms[1:min(3, len(m.rooms))] {
		limit = min(limit, other.id-1)
	}
	return limit
}

func (m *merger) readRoom(f *followed, limit uint64) (gap Gap, err error) {
	m.key = appendMessageKey(m.key[:0], f.number, f.next)
	if !m.it.SeekGE(m.key) || !bytes.Equal(m.it.Key(), m.key) {
		st, err := readRoomState(m.r, f.number)
		if err == nil && st.first <= f.next {
			err = badRecord("messages of a room")
		}
		if err != nil {
			return Gap{}, err
		}
		return f.begin(m.r, st)
	}
	for {
		value, err := m.it.ValueAndErr()
		if err != nil {
			return Gap{}, err
		}
		id, err := decodeMessageID(value)
		if err == nil && f.id != 0 && id != f.id {
			err = badRecord("message")
		}
		if err != nil {
			return Gap{}, err
		}
		f.id = id
		size := len(value) + messageOverhead
		if m.full = len(m.page) == maxStreamMessages || (len(m.page) > 0 && m.bytes+size > maxStreamBytes); m.full || id > limit {
			return Gap{}, nil
		}
		message, err := decodeMessage(value, f.name, f.next)
		if err != nil {
			return Gap{}, err
		}
		m.page, m.bytes = append(m.page, message), m.bytes+size
		f.next, f.id = f.next+1, 0
		if !m.it.Next() || binary.BigEndian.Uint64(m.it.Key()[1:]) != f.number {
			return Gap{}, nil
		}
		if binary.BigEndian.Uint64(m.it.Key()[9:]) != f.next {
			return Gap{}, badRecord("messages of a room")
		}
	}
}

// nextFirst is a heap of rooms with their next message, by its ID.
type nextFirst []*followed

func (h nextFirst) Len() int           { return len(h) }
func (h nextFirst) Less(i, j int) bool { return h[i].id < h[j].id }
func (h nextFirst) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *nextFirst) Push(x any) { *h = append(*h, x.(*followed)) }

// Pop implements heap.Interface.
func (h *nextFirst) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
