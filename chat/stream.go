package chat

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Bounds of what NextDelivery returns at once.
const (
	maxStreamMessages = 256
	maxStreamGaps     = 256
	maxStreamBytes    = 256 << 10
	// maxTold bounds the rooms whose gaps a stream of every room remembers;
	// beyond it they are forgotten, which costs exactness and nothing else.
	maxTold = 4096
	// maxFollowedRooms bounds the rooms of one stream.
	maxFollowedRooms = 1000
	// maxWalk is how far behind its room's newest message a stream may be to
	// look for what is new from there on; from further away it reads the store.
	maxWalk = 512
)

// Stream delivers messages in ID order, each exactly once. A stream nobody
// reads costs its cursor and nothing else. Next and NextDelivery are called by
// one goroutine; the other methods by any.
type Stream struct {
	service *Service
	store   *Store
	sub     *subscriber
	rooms   []followed // nil: every room
	gaps    gapScan    // of a stream of every room

	mu     sync.Mutex
	cursor uint64

	closing sync.Once
	closed  chan struct{}
}

// followed is a stream's place in one room.
type followed struct {
	name  string
	topic *topic
	// next is the Seq of the first message that was not delivered; 0: not known
	// yet.
	next uint64
}

// Follow begins a stream of rooms, or of every room if rooms is nil. It is
// registered for new messages before anything is read, so nothing can fall in
// between. Rooms need not exist yet. Close the stream when done.
//
// Streams show what is applied here; they do not wait for a leader.
func (s *Service) Follow(ctx context.Context, _ Actor, rooms []string, from Cursor) (*Stream, error) {
	select {
	case <-s.stop:
		return nil, fail(CodeStopping, "this node is shutting down")
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, notSent(ctx)
	}
	names, err := followedRooms(rooms)
	if err != nil {
		return nil, err
	}
	st := &Stream{service: s, store: s.store, closed: make(chan struct{})}
	st.sub = s.store.hub.subscribe(names)
	for i, name := range names {
		f := followed{name: name, topic: st.sub.topics[i]}
		if name == from.room && !from.Latest {
			f.next = from.next
		}
		st.rooms = append(st.rooms, f)
	}
	st.cursor = from.ID
	if from.Latest {
		st.cursor = s.store.head()
	}
	return st, nil
}

// followedRooms normalises names and removes repeats; nil stays nil.
func followedRooms(rooms []string) ([]string, error) {
	if rooms == nil {
		return nil, nil
	}
	if len(rooms) == 0 {
		return nil, fail(CodeRoomNameInvalid, "a stream needs at least one room")
	}
	if len(rooms) > maxFollowedRooms {
		return nil, fail(CodeLimitInvalid, "a stream may have at most 1000 rooms")
	}
	names := make([]string, len(rooms))
	for i, room := range rooms {
		var err error
		if names[i], err = NormalizeRoomName(room); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Next is NextDelivery for those who do not care for gaps: it returns at least
// one message, and skips what was dropped without a word.
func (st *Stream) Next(ctx context.Context) ([]*Message, error) {
	for {
		d, err := st.NextDelivery(ctx)
		if err != nil || len(d.Messages) > 0 {
			return d.Messages, err
		}
	}
}

// NextDelivery returns what is there after the cursor and moves it behind that.
// It waits until there is at least one message or gap, and returns at most 256
// messages and about 256 KiB of them. The slices are the caller's, the messages
// are shared.
//
// The error is ctx's when that ends, else an *Error: CodeStopping after Close of
// the stream, the service or the store, CodeInternal if the store is broken. The
// cursor is then where it was.
func (st *Stream) NextDelivery(ctx context.Context) (Delivery, error) {
	for {
		select {
		case <-st.closed:
			return Delivery{}, fail(CodeStopping, "the stream is closed")
		case <-st.service.stop:
			return Delivery{}, fail(CodeStopping, "this node is shutting down")
		default:
		}
		if err := ctx.Err(); err != nil {
			return Delivery{}, err
		}
		d, err := st.deliver()
		if err != nil {
			return Delivery{}, wrap(err)
		}
		if len(d.Messages) > 0 || len(d.Gaps) > 0 {
			return d, nil
		}
		select {
		case <-st.sub.wake:
		case <-ctx.Done():
		case <-st.closed:
		case <-st.service.stop:
		case <-st.store.closed:
			return Delivery{}, fail(CodeStopping, "the store is closed")
		}
	}
}

// Poll is NextDelivery without the wait: what it returns is empty if there is
// nothing. After that, something can be read once Wake delivers.
func (st *Stream) Poll() (Delivery, error) {
	d, err := st.deliver()
	if err != nil {
		return Delivery{}, wrap(err)
	}
	return d, nil
}

// Wake delivers a value after something was applied that the stream may have
// to deliver. It is for callers of Poll.
func (st *Stream) Wake() <-chan struct{} { return st.sub.wake }

// Cursor returns the ID to go on after: that of the last message or gap
// delivered, or where the stream began.
func (st *Stream) Cursor() uint64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.cursor
}

func (st *Stream) moveTo(id uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.cursor = id
}

// Close ends the stream; a Next that waits returns. A second Close does nothing.
func (st *Stream) Close() {
	st.closing.Do(func() {
		close(st.closed)
		st.store.hub.unsubscribe(st.sub)
	})
}

// deliver reads what is there after the cursor, if anything.
func (st *Stream) deliver() (d Delivery, err error) {
	cursor, head := st.Cursor(), st.store.head()
	if head <= cursor {
		return Delivery{}, nil
	}
	if st.rooms == nil {
		d, err = st.deliverAll(cursor, head)
	} else {
		d, err = st.deliverRooms(cursor, head)
	}
	if err != nil {
		return Delivery{}, err
	}
	switch {
	case len(d.Messages) > 0:
		st.moveTo(d.Messages[len(d.Messages)-1].ID)
	case len(d.Gaps) > 0:
		st.moveTo(d.Gaps[len(d.Gaps)-1].ID)
	}
	return d, nil
}

func (st *Stream) deliverAll(cursor, head uint64) (d Delivery, err error) {
	page, ok := st.store.recent.after(cursor, head, maxStreamMessages, maxStreamBytes)
	if ok {
		return Delivery{Messages: page}, nil
	}
	err = st.store.readAtOnce(func(r pebble.Reader) error {
		gaps, more, err := st.gaps.next(r, cursor)
		if err != nil {
			return err
		}
		until := cursor // as long as there are more gaps
		var page []*Message
		if !more {
			until = head
			if page, err = (scan{maxStreamMessages, maxStreamBytes}).cluster(r, cursor, head); err != nil {
				return err
			}
			if len(page) > 0 {
				until = page[0].ID - 1
			}
		}
		place(gaps, until)
		d = Delivery{Gaps: gaps, Messages: page}
		return nil
	})
	return d, err
}

// deliverRooms merges what is new in each room. A room that has more than fits
// limits the page to the IDs up to the last message read from it: what lies
// beyond might come before another room's next message.
func (st *Stream) deliverRooms(cursor, head uint64) (Delivery, error) {
	until := head
	lists := 0
	var page []*Message
	var gaps []Gap
	for i := range st.rooms {
		part, gap, more, err := st.rooms[i].page(st.store, cursor, until)
		if err != nil {
			return Delivery{}, err
		}
		if gap.dropped > 0 {
			gaps = append(gaps, gap)
		}
		if len(part) == 0 {
			continue
		}
		lists++
		if more {
			until = min(until, part[len(part)-1].ID)
		}
		page = append(page, part...)
	}
	if lists > 1 {
		slices.SortFunc(page, func(a, b *Message) int { return cmp.Compare(a.ID, b.ID) })
	}
	bytes := 0
	for i, m := range page {
		bytes += m.size()
		if m.ID > until || i == maxStreamMessages || (i > 0 && bytes > maxStreamBytes) {
			clear(page[i:])
			page = page[:i]
			break
		}
	}
	if len(page) > 0 {
		until = page[0].ID - 1
	}
	place(gaps, until)
	d := Delivery{Gaps: gaps, Messages: page}
	for _, g := range d.Gaps {
		st.delivered(g.Room, g.LastSeq)
	}
	for _, m := range d.Messages {
		st.delivered(m.Room, m.Seq)
	}
	return d, nil
}

// delivered moves the place in a room behind seq.
func (st *Stream) delivered(room string, seq uint64) {
	i := 0
	if len(st.rooms) > 1 {
		i, _ = slices.BinarySearchFunc(st.rooms, room, func(f followed, name string) int {
			return strings.Compare(f.name, name)
		})
	}
	st.rooms[i].next = seq + 1
}

// page gives the messages of the room that were not delivered and have
// ID <= until, ascending and bounded; more says that not all of them are in it.
// Everything up to cursor was delivered, and everything up to until can be read.
// A gap, if there is one, is before all of the room's messages.
func (f *followed) page(s *Store, cursor, until uint64) (page []*Message, gap Gap, more bool, err error) {
	newest := f.topic.newest.Load()
	if newest != nil && f.next > newest.seq {
		return nil, Gap{}, false, nil
	}
	if newest != nil && f.next > 0 && newest.seq-f.next < maxWalk {
		if walk, ok := s.recent.room(*newest, f.next); ok {
			page, more = cut(walk, until)
			return page, Gap{}, more, nil
		}
	}
	err = s.readAtOnce(func(r pebble.Reader) error {
		rec, st, _, err := readRoom(r, f.name)
		if err != nil {
			return err
		}
		switch {
		case f.next > 0 && f.next < st.first:
			gap = gapOf(f.name, st, f.next)
		case f.next == 0 && cursor < st.droppedID:
			gap = gapOf(f.name, st, missedFrom(st, cursor))
		case f.next == 0:
			if f.next, err = seqAfterID(r, rec.number, st, cursor); err != nil {
				return err
			}
		}
		// Spares an idle room the next look at the store. If Apply knows better
		// by now, that stays; Restore cannot come in between.
		f.topic.newest.CompareAndSwap(nil, &position{st.last, st.lastID})
		from := max(f.next, st.first)
		page, err = scan{maxStreamMessages, maxStreamBytes}.room(r, rec.number, f.name, from, st.last, false)
		if err != nil {
			return err
		}
		if from <= st.last && (len(page) == 0 || page[0].Seq != from) {
			return badRecord("messages of a room")
		}
		more = len(page) > 0 && page[len(page)-1].Seq < st.last
		return nil
	})
	if n := len(page); n > 0 && page[n-1].ID > until {
		more = false // all that is not in the page is beyond until, too
	}
	page, over := cut(page, until)
	return page, gap, more || over, err
}

// cut takes the part of an ascending list that has ID <= until, of it at most a
// page; more says that there is some of it after that.
func cut(list []*Message, until uint64) (part []*Message, more bool) {
	bytes := 0
	for i, m := range list {
		bytes += m.size()
		switch {
		case m.ID > until:
			return list[:i], false
		case i == maxStreamMessages || (i > 0 && bytes > maxStreamBytes):
			return list[:i], true
		}
	}
	return list, false
}
