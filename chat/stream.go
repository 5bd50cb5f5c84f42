package chat

import (
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
	maxStreamBytes    = 32 << 10
	// maxTold bounds the rooms whose gaps a stream of every room remembers;
	// beyond it they are forgotten, which costs exactness and nothing else.
	maxTold = 4096
	// maxFollowedRooms bounds the rooms of one stream.
	maxFollowedRooms = 1000
	// maxWalk is how far behind its room's newest message a stream may be to
	// look for what is new from there on; from further away it reads the store.
	maxWalk = 512
	// maxSpread is how many IDs a room may be behind the others of a stream for
	// these to wait until it has caught up.
	maxSpread = 256
)

// Stream delivers messages in ID order, each exactly once. A stream nobody
// reads costs its cursors and nothing else. All methods are for one goroutine,
// but Wake and Close, which are for any.
//
// Rooms can be added and removed. One that begins far behind the others catches
// up beside them: they take turns, and until it is done messages are in ID order
// only within what it delivers and within what the others do.
type Stream struct {
	service *Service
	store   *Store
	sub     *subscriber
	all     bool        // of every room
	gaps    gapScan     // of a stream of every room
	rooms   []*followed // sorted by name
	behind  int         // how many of the rooms are behind cursor
	turn    bool        // of the rooms behind
	queue   nextFirst   // empty: what a merge needs, to be used again

	// Everything with an ID up to cursor was delivered, but of the rooms behind.
	cursor uint64

	doubts doubts

	mu     sync.Mutex // guards changes of sub's topics, and the next
	closed chan struct{}
}

// followed is a stream's place in one room.
type followed struct {
	name   string
	topic  *topic
	number uint64 // of the room in the store; 0: not known
	// next is the Seq of the first message that was not delivered; 0: not known
	// yet. id is the ID of that message if it is known to be stored, else 0. It may
	// have been dropped meanwhile.
	next, id uint64
	// Everything up to after was delivered or is not wanted. If the room is not
	// behind, so is everything up to the stream's cursor.
	after  uint64
	behind bool
	// doubt is the number of the round that tells whether there is a message
	// after at all; 0: there is. beyond is set if there is not, until that is told.
	doubt  uint64
	beyond *Error
}

// Follow begins a stream of rooms, or of every room if rooms is nil. It is
// registered for new messages before anything is read, so nothing can fall in
// between. Rooms need not exist yet. Close the stream when done.
//
// Streams show what is applied here; they do not wait for a leader.
func (s *Service) Follow(ctx context.Context, who Actor, rooms []string, from Cursor) (*Stream, error) {
	if rooms != nil {
		if len(rooms) == 0 {
			return nil, fail(CodeRoomNameInvalid, "a stream needs at least one room")
		}
		st, err := s.FollowLater(ctx, who)
		if err != nil {
			return nil, err
		}
		if err := st.Add(rooms, from); err != nil {
			st.Close()
			return nil, err
		}
		return st, nil
	}
	st, err := s.newStream(ctx)
	if err != nil {
		return nil, err
	}
	st.all = true
	st.sub = s.store.hub.subscribe(nil)
	head := s.store.head()
	if from.Latest {
		st.cursor = head
		return st, nil
	}
	st.cursor = from.ID
	if st.doubts.beyond = from.beyond; from.beyond != nil {
		st.doubts.untold = true
	}
	if from.ID > head {
		st.doubts.all = st.doubts.next()
	}
	return st, nil
}

// FollowLater begins a stream of no rooms, to which rooms are added.
func (s *Service) FollowLater(ctx context.Context, _ Actor) (*Stream, error) {
	st, err := s.newStream(ctx)
	if err != nil {
		return nil, err
	}
	st.cursor, st.sub = s.store.head(), s.store.hub.subscribe([]string{})
	return st, nil
}

func (s *Service) newStream(ctx context.Context) (*Stream, error) {
	select {
	case <-s.stop:
		return nil, fail(CodeStopping, "this node is shutting down")
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, notSent(ctx)
	}
	return &Stream{service: s, store: s.store, closed: make(chan struct{})}, nil
}

// Add makes the stream deliver rooms from a place. Rooms that it delivers already
// go on there. A stream has at most 1,000 rooms: CodeLimitInvalid.
func (st *Stream) Add(rooms []string, from Cursor) error {
	names, err := followedRooms(rooms)
	if err != nil {
		return err
	}
	st.remove(names)
	if len(st.rooms)+len(names) > maxFollowedRooms {
		return fail(CodeLimitInvalid, "a stream has at most 1000 rooms")
	}
	st.mu.Lock()
	select {
	case <-st.closed:
		st.mu.Unlock()
		return fail(CodeStopping, "the stream is closed")
	default:
	}
	topics := st.store.hub.join(st.sub, names)
	st.mu.Unlock()

	// After the registration, so that nothing falls in between.
	head := st.store.head()
	place := from.ID
	if from.Latest {
		place = head
	}
	if len(st.rooms) == 0 {
		st.cursor = min(place, head)
	}
	doubt := uint64(0)
	if place > head {
		doubt = st.doubts.next()
	}
	for i, name := range names {
		f := &followed{name: name, topic: topics[i], after: place, behind: place < st.cursor, doubt: doubt}
		if name == from.room && !from.Latest {
			f.next, f.beyond = from.next, from.beyond
		} else if from.room == "" {
			f.beyond = from.beyond
		}
		if f.behind {
			st.behind++
		}
		if f.beyond != nil {
			st.doubts.untold = true
		}
		st.rooms = append(st.rooms, f)
	}
	slices.SortFunc(st.rooms, func(a, b *followed) int { return strings.Compare(a.name, b.name) })
	return nil
}

// Remove ends the delivery of rooms. Those that are not delivered are overlooked.
func (st *Stream) Remove(rooms []string) error {
	names, err := followedRooms(rooms)
	if err != nil {
		return err
	}
	st.remove(names)
	return nil
}

// remove is Remove for names as followedRooms gives them.
func (st *Stream) remove(names []string) {
	var topics []*topic
	st.rooms = slices.DeleteFunc(st.rooms, func(f *followed) bool {
		if _, found := slices.BinarySearch(names, f.name); !found {
			return false
		}
		topics = append(topics, f.topic)
		if f.behind {
			st.behind--
		}
		return true
	})
	if len(topics) == 0 {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	select {
	case <-st.closed: // it has left all of them
	default:
		st.store.hub.leave(st.sub, topics)
	}
}

// followedRooms normalises names, sorts them and removes repeats.
func followedRooms(rooms []string) ([]string, error) {
	if len(rooms) > maxFollowedRooms {
		return nil, fail(CodeLimitInvalid, "a stream has at most 1000 rooms")
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
// messages and about 32 KiB of them. The slices are the caller's, the messages
// are shared. Meanwhile it asks the cluster whether cursors that are ahead of this
// node are beyond its newest message.
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
		d, err := st.Poll()
		if err != nil || !d.Empty() {
			return d, err
		}
		answer, again := st.ask()
		select {
		case <-st.sub.wake:
		case err := <-answer:
			st.answered(err)
		case <-again:
			st.doubts.pause = nil
		case <-ctx.Done():
		case <-st.closed:
		case <-st.service.stop:
		case <-st.store.closed:
			return Delivery{}, fail(CodeStopping, "the store is closed")
		}
	}
}

// Poll is NextDelivery without the wait: what it returns is empty if there is
// nothing. After that, something can be read once Wake delivers. It asks nobody
// whether a cursor is beyond the newest message.
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
// delivered, or where the stream began. While rooms are at different places it is
// the least of them.
func (st *Stream) Cursor() uint64 {
	if len(st.rooms) == 0 {
		return st.cursor
	}
	cursor := st.place(st.rooms[0])
	for _, f := range st.rooms[1:] {
		cursor = min(cursor, st.place(f))
	}
	return cursor
}

// Cursors calls f with each room and the ID to go on after in it.
func (st *Stream) Cursors(f func(room string, cursor uint64)) {
	for _, r := range st.rooms {
		f(r.name, st.place(r))
	}
}

func (st *Stream) place(f *followed) uint64 {
	if f.behind {
		return f.after
	}
	return max(f.after, st.cursor)
}

// Close ends the stream; a Next that waits returns. A second Close does nothing.
func (st *Stream) Close() {
	st.mu.Lock()
	select {
	case <-st.closed:
	default:
		close(st.closed)
		st.store.hub.unsubscribe(st.sub)
		if st.doubts.cancel != nil {
			st.doubts.cancel()
		}
	}
	st.mu.Unlock()
	st.doubts.asking.Wait()
}

// deliver reads what is there after the cursor, if anything.
func (st *Stream) deliver() (d Delivery, err error) {
	if st.doubts.untold {
		if d, err = st.tellBeyond(); err != nil || !d.Empty() {
			return d, err
		}
	}
	head := st.store.head()
	first := st.behindFirst(head)
	if first {
		if d, err = st.deliverBehind(); err != nil || !d.Empty() {
			return d, err
		}
	}
	if d, err = st.deliverNext(head); err != nil || !d.Empty() || first {
		return d, err
	}
	return st.deliverBehind()
}

// deliverNext delivers from the stream's cursor on.
func (st *Stream) deliverNext(head uint64) (d Delivery, err error) {
	if head <= st.cursor {
		return Delivery{}, nil
	}
	if st.all {
		d, err = st.deliverAll(st.cursor, head)
	} else {
		d, err = st.deliverRooms(false, head)
	}
	if err != nil {
		return Delivery{}, err
	}
	switch {
	case len(d.Messages) > 0:
		st.cursor = d.Messages[len(d.Messages)-1].ID
	case len(d.Gaps) > 0:
		st.cursor = d.Gaps[len(d.Gaps)-1].ID
	}
	return d, nil
}

// behindFirst reports whether it is the turn of the rooms behind: every second
// time, or always if there is little that they have to catch up with.
func (st *Stream) behindFirst(head uint64) bool {
	if st.behind == 0 {
		return false
	}
	least := st.cursor
	for _, f := range st.rooms {
		if f.behind {
			least = min(least, f.after)
		}
	}
	if st.behind == len(st.rooms) {
		// The others are gone, and nobody has to catch up any more.
		st.cursor = least
		st.join()
		return false
	}
	st.turn = !st.turn
	return st.turn || st.cursor-least <= maxSpread
}

// join lets the rooms behind go on with the others.
func (st *Stream) join() {
	for _, f := range st.rooms {
		f.behind = false
	}
	st.behind = 0
}

// deliverBehind delivers to the rooms behind what the others are ahead of them.
func (st *Stream) deliverBehind() (Delivery, error) {
	if st.behind == 0 {
		return Delivery{}, nil
	}
	d, err := st.deliverRooms(true, st.cursor)
	if err != nil {
		return Delivery{}, err
	}
	if d.Empty() {
		st.join()
		return d, nil
	}
	done := uint64(0)
	if n := len(d.Messages); n > 0 {
		done = d.Messages[n-1].ID
	} else {
		done = d.Gaps[len(d.Gaps)-1].ID
	}
	for _, f := range st.rooms {
		if f.behind {
			f.after = max(f.after, done)
		}
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
