package chat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Cursor is where a stream begins.
type Cursor struct {
	// ID: after the message with this ID; 0: at the first message. It may be
	// ahead of this node, which then waits for what comes after it, and asks the
	// cluster whether there is such a message at all.
	ID uint64
	// Latest: after the newest message here, whatever ID is.
	Latest bool

	// If next is not 0, a stream of room, and maybe of others, begins in it with
	// the message next; that and what follows it have an ID above ID.
	room string
	next uint64

	beyond *Error
}

// Beyond returns nil, or an error with CodeCursorBeyondHead if what was asked for
// is beyond the newest message of the cluster. The cursor is then that of the
// newest message, and a stream from there tells of it first, see Gap.
func (c Cursor) Beyond() error {
	if c.beyond == nil {
		return nil
	}
	return c.beyond
}

// beyondID is the answer to a cursor beyond the newest ID.
func beyondID(id, head uint64) *Error {
	return fail(CodeCursorBeyondHead, fmt.Sprintf(
		"no message has the ID %d yet, the newest has %d; a Unix time is written since=@SECONDS", id, head))
}

// beyondSeq is the answer to a cursor beyond the newest message of a room.
func beyondSeq(seq, last uint64) *Error {
	return fail(CodeCursorBeyondHead, fmt.Sprintf(
		"the room has no message %d yet, its newest is %d", seq, last))
}

// CursorAfterID returns the cursor behind the message with an ID. What is not
// applied here is asked of the cluster (see Barrier for the errors), and if no
// message has the ID, the cursor is that of the newest and Beyond says so. If stale,
// nobody is asked, and a stream waits for what comes after the ID.
func (s *Service) CursorAfterID(ctx context.Context, _ Actor, id uint64, stale bool) (Cursor, error) {
	if ctx.Err() != nil {
		return Cursor{}, notSent(ctx)
	}
	if stale || id <= s.store.head() {
		return Cursor{ID: id}, nil
	}
	if err := s.Barrier(ctx); err != nil {
		return Cursor{}, err
	}
	if head := s.store.head(); id > head {
		return Cursor{ID: head, beyond: beyondID(id, head)}, nil
	}
	return Cursor{ID: id}, nil
}

// CursorAtTime returns the cursor behind the last message that was posted before
// t: a stream from there begins with the first message that was posted at t or
// later. Messages that were dropped do not count; if there are none that were
// posted before t, the cursor is 0. While all messages here are older, the
// cluster is asked whether it has others, unless stale; see Barrier for the errors.
func (s *Service) CursorAtTime(ctx context.Context, _ Actor, t time.Time, stale bool) (Cursor, error) {
	if ctx.Err() != nil {
		return Cursor{}, notSent(ctx)
	}
	for asked := false; ; asked = true {
		var c Cursor
		older := false // all that is here, and what is not here may be, too
		err := s.store.readAtOnce(func(r pebble.Reader) error {
			p, err := loadPublished(r)
			if err != nil {
				return err
			}
			us, inclusive := t.UnixMicro(), t.Nanosecond()%1000 > 0
			older = p.postedAtUS < us || (p.postedAtUS == us && inclusive)
			c.ID, err = lastIDBefore(r, p.id, us, inclusive)
			return err
		})
		if err != nil {
			return Cursor{}, wrap(err)
		}
		if !older || asked || stale {
			return c, nil
		}
		if err := s.Barrier(ctx); err != nil {
			return Cursor{}, err
		}
	}
}

// CursorAfterSeq returns the cursor from which a stream of room delivers the
// messages with a Seq above seq. 0 is for everything that is stored. If messages
// after seq were dropped, the stream tells of the gap first. If there is no
// message seq here, the cluster is asked (see Barrier for the errors), and if
// there is none at all, the cursor is that of the newest and Beyond says so. If
// stale, nobody is asked, and the stream waits for the message after it.
//
// All of that is in the Cursor itself. Its ID alone does as well only if the
// message seq exists.
func (s *Service) CursorAfterSeq(ctx context.Context, _ Actor, room string, seq uint64, stale bool) (Cursor, error) {
	if ctx.Err() != nil {
		return Cursor{}, notSent(ctx)
	}
	room, err := NormalizeRoomName(room)
	if err != nil {
		return Cursor{}, err
	}
	if seq+1 == 0 {
		return Cursor{}, fail(CodeCursorInvalid, "no message can come after this one")
	}
	if seq == 0 {
		return Cursor{room: room, next: 1}, nil
	}
	for asked := false; ; asked = true {
		c := Cursor{room: room, next: seq + 1}
		err := s.store.readAtOnce(func(r pebble.Reader) error {
			p, err := loadPublished(r)
			if err != nil {
				return err
			}
			rec, st, _, err := readRoom(r, room)
			switch {
			case err != nil:
			case seq > st.last && stale:
				c.ID = p.id
			case seq > st.last:
				// What the room does not have yet will get an ID above the head.
				c.ID, c.next, c.beyond = p.id, st.last+1, beyondSeq(seq, st.last)
			case seq+1 < st.first:
				// Whatever the ID of the message was, it was not lower than its Seq.
				c.ID = seq
			case seq+1 == st.first:
				c.ID = st.droppedID
			default:
				c.ID, err = readMessageID(r, rec.number, seq)
			}
			return err
		})
		if err != nil {
			return Cursor{}, wrap(err)
		}
		if c.beyond == nil || asked {
			return c, nil
		}
		if err := s.Barrier(ctx); err != nil {
			return Cursor{}, err
		}
	}
}

// lastIDBefore gives the ID of the last message of the last log entry that was
// posted before us (microseconds since the Unix epoch), or in it if inclusive; 0
// if there is none. r does not change meanwhile.
//
// All messages of an entry have one PostedAt, so entries are what it searches.
// head is the newest ID of r.
func lastIDBefore(r pebble.Reader, head uint64, us int64, inclusive bool) (id uint64, err error) {
	index, err := r.NewIter(&pebble.IterOptions{
		LowerBound: []byte{prefixIDIndex}, UpperBound: []byte{prefixIDIndex + 1},
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	var runs []run
	// Entries that begin before low were posted before us or dropped, those that
	// begin at high or later were not.
	low, high := uint64(1), head+1
	for low < high {
		mid := low + (high-low)/2
		if !index.SeekLT(appendIDKey(nil, mid+1)) {
			if err := index.Error(); err != nil {
				return 0, err
			}
			low = mid + 1
			continue
		}
		var first uint64
		if first, runs, err = iterRuns(index, runs); err != nil {
			return 0, err
		}
		posted, err := postedAt(r, runs)
		if err != nil {
			return 0, err
		}
		if posted > us || (posted == us && !inclusive) {
			high = first
			continue
		}
		id = first - 1
		for _, run := range runs {
			id += run.count
		}
		low = max(mid, id) + 1
	}
	return id, nil
}

// postedAt gives PostedAt in microseconds of a log entry, which is that of any of
// its messages that is stored.
func postedAt(r pebble.Reader, runs []run) (us int64, err error) {
	for i := len(runs) - 1; i >= 0; i-- {
		var buf [messageKeyLen]byte
		found := false
		last := runs[i].seq + runs[i].count - 1
		err := get(r, appendMessageKey(buf[:0], runs[i].room, last), func(value []byte) error {
			m, err := decodeMessageFields(value)
			us, found = m.postedUS, true
			return err
		})
		if err != nil || found {
			return us, err
		}
	}
	return 0, badRecord("ID index")
}
