package chat

import (
	"context"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Bounds of what Next returns at once.
const (
	maxStreamMessages = 256
	maxStreamBytes    = 256 << 10
	// maxFollowedRooms bounds the rooms of one stream.
	maxFollowedRooms = 1000
	// maxWalk is how far behind its room's newest message a stream may be to
	// look for what is new from there on; from further away it reads the store.
	maxWalk = 512
)

// Cursor is where a stream begins.
type Cursor struct {
	// ID: after the message with this ID; 0: at the first message. It may be
	// ahead of this node, which then waits for what comes after it.
	ID uint64
	// Latest: after the newest message here, whatever ID is.
	Latest bool
}

// Stream delivers messages in ID order, each exactly once. A stream nobody
// reads costs its cursor and nothing else. Next is called by one goroutine; the
// other methods by any.
type Stream struct {
	service *Service
	store   *Store
	sub     *subscriber
	rooms   []followed // nil: every room

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
		st.rooms = append(st.rooms, followed{name: name, topic: st.sub.topics[i]})
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

// Next returns the messages after the cursor and moves it behind them. It waits
// until there is at least one, and returns at most 256 and about 256 KiB. The
// slice is the caller's, the messages are shared.
//
// The error is ctx's when that ends, else an *Error: CodeStopping after Close of
// the stream, the service or the store, CodeInternal if the store is broken. The
// cursor is then where it was.
func (st *Stream) Next(ctx context.Context) ([]*Message, error) {
	for {
		select {
		case <-st.closed:
			return nil, fail(CodeStopping, "the stream is closed")
		case <-st.service.stop:
			return nil, fail(CodeStopping, "this node is shutting down")
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		page, err := st.page()
		if err != nil {
			return nil, wrap(err)
		}
		if len(page) > 0 {
			return page, nil
		}
		select {
		case <-st.sub.wake:
		case <-ctx.Done():
		case <-st.closed:
		case <-st.service.stop:
		case <-st.store.closed:
			return nil, fail(CodeStopping, "the store is closed")
		}
	}
}

// Cursor returns the ID to go on after: that of the last message delivered, or
// where the stream began.
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

// page reads what is there after the cursor, if anything.
func (st *Stream) page() ([]*Message, error) {
	cursor, head := st.Cursor(), st.store.head()
	if head <= cursor {
		return nil, nil
	}
	var page []*Message
	var err error
	if st.rooms == nil {
		page, err = st.pageOfAll(cursor, head)
	} else {
		page, err = st.pageOfRooms(cursor, head)
	}
	if err != nil || len(page) == 0 {
		return nil, err
	}
	st.moveTo(page[len(page)-1].ID)
	return page, nil
}

func (st *Stream) pageOfAll(cursor, head uint64) (page []*Message, err error) {
	page, ok := st.store.recent.after(cursor, head, maxStreamMessages, maxStreamBytes)
	if ok {
		return page, nil
	}
	err = st.store.read(func(r pebble.Reader) (err error) {
		page, err = scan{maxStreamMessages, maxStreamBytes}.cluster(r, cursor, head)
		return err
	})
	return page, err
}

// pageOfRooms merges what is new in each room. A room that has more than fits
// limits the page to the IDs up to the last message read from it: what lies
// beyond might come before another room's next message.
func (st *Stream) pageOfRooms(cursor, head uint64) (page []*Message, err error) {
	until := head
	lists := 0
	for i := range st.rooms {
		part, more, err := st.rooms[i].page(st.store, cursor, until)
		if err != nil {
			return nil, err
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
		slices.SortFunc(page, func(a, b *Message) int {
			if a.ID < b.ID {
				return -1
			}
			return 1 // IDs differ
		})
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
	for _, m := range page {
		st.delivered(m)
	}
	return page, nil
}

// delivered moves the place in m's room behind m.
func (st *Stream) delivered(m *Message) {
	i := 0
	if len(st.rooms) > 1 {
		i, _ = slices.BinarySearchFunc(st.rooms, m.Room, func(f followed, name string) int {
			switch {
			case f.name < name:
				return -1
			case f.name > name:
				return 1
			}
			return 0
		})
	}
	st.rooms[i].next = m.Seq + 1
}

// page gives the messages of the room that were not delivered and have
// ID <= until, ascending and bounded; more says that not all of them are in it.
// Everything up to cursor was delivered, and everything up to until can be read.
func (f *followed) page(s *Store, cursor, until uint64) (page []*Message, more bool, err error) {
	newest := f.topic.newest.Load()
	if newest != nil && f.next > newest.seq {
		return nil, false, nil
	}
	if newest != nil && f.next > 0 && newest.seq-f.next < maxWalk {
		if walk, ok := s.recent.room(*newest, f.next); ok {
			page, more = cut(walk, until)
			return page, more, nil
		}
	}
	err = s.read(func(r pebble.Reader) error {
		rec, st, _, err := readRoom(r, f.name)
		if err != nil {
			return err
		}
		if f.next == 0 {
			if f.next, err = seqAfterID(r, rec.number, st, cursor); err != nil {
				return err
			}
		}
		// Spares an idle room the next look at the store. If Apply knows better
		// by now, that stays; Restore cannot come in between.
		f.topic.newest.CompareAndSwap(nil, &position{st.last, st.lastID})
		f.next = max(f.next, st.first)
		page, err = scan{maxStreamMessages, maxStreamBytes}.room(r, rec.number, f.name, f.next, st.last, false)
		if err != nil {
			return err
		}
		more = len(page) > 0 && page[len(page)-1].Seq < st.last
		return nil
	})
	if n := len(page); n > 0 && page[n-1].ID > until {
		more = false // all that is not in the page is beyond until, too
	}
	page, over := cut(page, until)
	return page, more || over, err
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
