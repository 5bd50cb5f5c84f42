package chat

import (
	"cmp"
	"context"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/text/unicode/norm"
)

// Page says which messages of a room to read. Cursors are Seqs, exclusive. With
// none it is the newest Limit messages; with After the first Limit after it;
// with Before the last Limit before it; with both the first Limit between them.
type Page struct {
	After, Before *uint64
	// Limit is 1 to MaxLimit; 0 means DefaultLimit. A page may be shorter than
	// Limit although there is more, if its messages are very long.
	Limit int
	// MaxBytes bounds a page besides its limit: it ends before they are exceeded, but
	// has a message if there is one. 0 means 4 MiB.
	MaxBytes int
	// Stale reads what this node has, without asking whether it is the latest.
	Stale bool
}

// MessagePage is a part of a room.
type MessagePage struct {
	// Messages ascend by Seq.
	Messages []*Message
	// Earlier and Later say whether the room holds messages before and after
	// the page; the page of a Before begins and that of an After ends there,
	// even if it is empty.
	Earlier, Later bool
	// FirstSeq and LastSeq are the first and last message of the room, as in
	// RoomInfo: between the ends of an empty page there is nothing.
	FirstSeq, LastSeq uint64
	// Exists is false if there is no such room.
	Exists bool
}

// Messages reads a part of a room. A room that does not exist gives an empty
// page.
func (s *Service) Messages(ctx context.Context, _ Actor, room string, p Page) (page MessagePage, err error) {
	room, err = NormalizeRoomName(room)
	if err != nil {
		return page, err
	}
	limit, err := checkLimit(p.Limit)
	if err != nil {
		return page, err
	}
	err = s.read(ctx, p.Stale, func(r pebble.Reader) error {
		rec, st, ok, err := readRoom(r, room)
		if err != nil || !ok {
			return err
		}
		page.Exists, page.FirstSeq, page.LastSeq = true, st.first, st.last
		if st.last == 0 {
			return nil
		}
		// The page is within lo..hi, which are within first..last+1 and
		// first-1..last; an empty page has hi = lo-1.
		lo, hi := st.first, st.last
		if p.After != nil {
			lo = max(lo, min(*p.After, st.last)+1)
		}
		if p.Before != nil {
			hi = min(hi, max(*p.Before, st.first)-1)
		}
		hi = max(hi, lo-1)
		newest := p.After == nil
		page.Messages, err = scan{limit, cmp.Or(p.MaxBytes, maxPageBytes)}.room(r, rec.number, room, lo, hi, newest)
		if err != nil {
			return err
		}
		if n := len(page.Messages); n > 0 {
			lo, hi = page.Messages[0].Seq, page.Messages[n-1].Seq
		}
		page.Earlier, page.Later = lo > st.first, hi < st.last
		return nil
	})
	if err != nil {
		return MessagePage{}, err
	}
	return page, nil
}

// Message reads one message: CodeRoomNotFound or CodeMessageNotFound if it is
// absent.
func (s *Service) Message(ctx context.Context, _ Actor, room string, seq uint64, stale bool) (*Message, error) {
	room, err := NormalizeRoomName(room)
	if err != nil {
		return nil, err
	}
	var m *Message
	err = s.read(ctx, stale, func(r pebble.Reader) error {
		rec, _, ok, err := readRoom(r, room)
		if err != nil {
			return err
		}
		if !ok {
			return fail(CodeRoomNotFound, "there is no such room")
		}
		if m, err = readMessage(r, rec.number, room, seq); err == nil && m == nil {
			return fail(CodeMessageNotFound, "the room has no message with this number")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// RoomsQuery says which rooms to list.
type RoomsQuery struct {
	// Prefix is what names begin with; "" for all.
	Prefix string
	// After is the name to begin after; "" for the first.
	After string
	// Limit is 1 to MaxLimit; 0 means DefaultLimit.
	Limit int
	// Stale reads what this node has, without asking whether it is the latest.
	Stale bool
}

// Rooms lists rooms in the byte order of their names; more says that there are
// others after them.
func (s *Service) Rooms(ctx context.Context, _ Actor, q RoomsQuery) (rooms []RoomInfo, more bool, err error) {
	limit, err := checkLimit(q.Limit)
	if err != nil {
		return nil, false, err
	}
	prefix, err := partOfName(q.Prefix)
	if err != nil {
		return nil, false, err
	}
	after, err := partOfName(q.After)
	if err != nil {
		return nil, false, err
	}
	err = s.read(ctx, q.Stale, func(r pebble.Reader) (err error) {
		rooms, more, err = readRooms(r, prefix, after, limit)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return rooms, more, nil
}

// partOfName normalises what is compared with names but need not be one.
func partOfName(s string) (string, error) {
	if len(s) > maxRawName || !utf8.ValidString(s) {
		return "", fail(CodeRoomNameInvalid, "a part of a room name must be valid UTF-8 of a sensible length")
	}
	return norm.NFC.String(s), nil
}
