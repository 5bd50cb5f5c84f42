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
	// MaxBytes bounds the page besides Limit, about; 0, and what is more, means 4 MiB.
	MaxBytes int
	// Part bounds the bytes of messages that are given at once, or it is one message;
	// NextPart gives the rest. 0: the page is given whole.
	Part int
	// Stale reads what this node has, without asking whether it is the latest.
	Stale bool
}

// MessagePage is a part of a room.
type MessagePage struct {
	// Messages are the page, or a part of it. They ascend by Seq.
	Messages []*Message
	// First and Last are the Seqs of the page's first and last message, both 0 if
	// there is none.
	First, Last uint64
	// Earlier and Later say whether the room holds messages before and after
	// the page; the page of a Before begins and that of an After ends there,
	// even if it is empty.
	Earlier, Later bool
	// FirstSeq and LastSeq are the first and last message of the room, as in
	// RoomInfo: between the ends of an empty page there is nothing.
	FirstSeq, LastSeq uint64
	// Exists is false if there is no such room.
	Exists bool

	room string
	next uint64 // what NextPart begins with
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
	bounds := scan{limit, maxPageBytes}
	if p.MaxBytes > 0 {
		bounds.maxBytes = min(p.MaxBytes, maxPageBytes)
	}
	part := cmp.Or(p.Part, maxPageBytes)
	page.room = room
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
		page.Messages, page.First, page.Last, err = bounds.part(r, rec.number, room, lo, hi, newest, part)
		if err != nil {
			return err
		}
		if page.Last > 0 {
			lo, hi = page.First, page.Last
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
func (s *Service) Rooms(ctx context.Context, a Actor, q RoomsQuery) (rooms []RoomInfo, more bool, err error) {
	page, err := s.RoomPage(ctx, a, q, MaxLimit)
	return page.Rooms, page.More, err
}

// partOfName normalises what is compared with names but need not be one.
func partOfName(s string) (string, error) {
	if len(s) > maxRawName || !utf8.ValidString(s) {
		return "", fail(CodeRoomNameInvalid, "a part of a room name must be valid UTF-8 of a sensible length")
	}
	return norm.NFC.String(s), nil
}
