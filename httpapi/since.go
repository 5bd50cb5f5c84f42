package httpapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/raft-chat/raft-chat/chat"
)

// place is where a stream shall begin, in a client's words.
type place struct {
	// cursor counts unless one of the others is set.
	cursor chat.Cursor
	// before is the time of the oldest message that is wanted; the zero time: not given.
	before time.Time
	// after is a Seq in the only room of the stream; nil: not given.
	after *uint64
}

// exact reports whether the place is a cursor already.
func (at place) exact() bool { return at.after == nil && at.before.IsZero() }

const sinceDetail = "since is an ID, a duration such as 10m, a time in RFC 3339 or as @SECONDS since 1970, all or latest"

// parseSince reads the value of since: a decimal ID, a duration back from now, a time, "all" or "latest". A bare number
// is always an ID; a Unix time has an @ before it.
func parseSince(text string, now time.Time) (place, bool) {
	switch text {
	case "all":
		return place{}, true
	case "latest":
		return place{cursor: chat.Cursor{Latest: true}}, true
	}
	if id, ok := parseUint(text); ok {
		return place{cursor: chat.Cursor{ID: id}}, true
	}
	if seconds, unix := strings.CutPrefix(text, "@"); unix {
		at, ok := parseUnix(seconds)
		return place{before: at}, ok
	}
	if back, err := time.ParseDuration(text); err == nil {
		return place{before: now.Add(-back)}, back >= 0
	}
	// In a query the plus of a zone is a space unless it is escaped, which nobody does by hand.
	at, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "+", 1))
	if err != nil || at.IsZero() {
		return place{}, false
	}
	return place{before: at}, true
}

// lastUnix is the last second of the year 9999, the last that RFC 3339 can write.
const lastUnix = 253402300799

// parseUnix reads seconds since 1970, with up to nine decimal places.
func parseUnix(text string) (at time.Time, ok bool) {
	whole, fraction, parted := strings.Cut(text, ".")
	seconds, ok := parseUint(whole)
	if !ok || seconds > lastUnix || parted && (fraction == "" || len(fraction) > 9) {
		return time.Time{}, false
	}
	nanoseconds := uint64(0)
	if parted {
		if nanoseconds, ok = parseUint((fraction + "000000000")[:9]); !ok {
			return time.Time{}, false
		}
	}
	return time.Unix(int64(seconds), int64(nanoseconds)), true
}

// placeOf reads where a stream of a number of rooms begins from its request. Without a word about it that is the newest
// message. Last-Event-ID, which a browser sends on its own when it connects again, wins over what the URL says.
func placeOf(q query, rooms int, lastEventID string, now time.Time) (place, *problem) {
	at := place{cursor: chat.Cursor{Latest: true}}
	after, p := q.cursor("after")
	if p != nil {
		return at, p
	}
	switch {
	case after != nil && q.values.Has("since"):
		return at, newProblem(codeCursorInvalid, "after and since exclude each other")
	case after != nil && rooms != 1: // none: every room
		return at, newProblem(codeCursorInvalid, "after is a number in one room; several rooms take since")
	case after != nil:
		at = place{after: after}
	case q.values.Has("since"):
		var ok bool
		if at, ok = parseSince(q.values.Get("since"), now); !ok {
			return at, newProblem(codeCursorInvalid, sinceDetail)
		}
	}
	if lastEventID == "" {
		return at, nil
	}
	id, ok := parseUint(lastEventID)
	if !ok {
		return at, newProblem(codeCursorInvalid, "Last-Event-ID is the id of an event of this stream")
	}
	return place{cursor: chat.Cursor{ID: id}}, nil
}

// beginning is where a stream shall begin, and how that is judged.
type beginning struct {
	place
	poll  bool
	stale bool // nobody is asked for what this node does not know
	tells bool // the form has a word for a cursor beyond the newest message
}

// cursorOf turns a beginning into the cursor of a stream of rooms. A poll reads everything that was acknowledged before
// it. What is beyond the newest message is refused where a stream would end without a word about it.
func (s *Server) cursorOf(ctx context.Context, rooms []string, b beginning) (chat.Cursor, error) {
	service := s.options.Chat
	if b.poll && !b.stale {
		if err := service.Barrier(ctx); err != nil {
			return chat.Cursor{}, err
		}
	}
	cursor, err := b.cursor, error(nil)
	switch {
	case b.after != nil:
		cursor, err = service.CursorAfterSeq(ctx, chat.Actor{}, rooms[0], *b.after, b.stale)
	case !b.before.IsZero():
		cursor, err = service.CursorAtTime(ctx, chat.Actor{}, b.before, b.stale)
	case !cursor.Latest && (b.poll || !b.tells):
		cursor, err = service.CursorAfterID(ctx, chat.Actor{}, b.cursor.ID, b.stale)
		if err != nil && !b.poll {
			return b.cursor, nil // the stream waits, and asks again
		}
	}
	if err == nil && b.poll && !b.tells {
		err = cursor.Beyond()
	}
	return cursor, err
}

// roomsOf returns the rooms that the URL names, separated by commas, in the form that the service knows them by.
func roomsOf(r *http.Request) ([]string, *problem) {
	list, ok := pathParam(r, "room")
	if !ok {
		return nil, newProblem(codeRoomNameInvalid, "the room names in the URL are not percent-encoded UTF-8")
	}
	return normalRooms(strings.Split(list, ","))
}

// normalRooms normalises room names and leaves out repeats. A stream has at most maxStreamRooms.
func normalRooms(names []string) ([]string, *problem) {
	if len(names) > maxStreamRooms {
		return nil, newProblem(codeLimitInvalid, "a stream has at most 1000 rooms")
	}
	rooms := make([]string, 0, len(names))
	known := make(map[string]struct{}, len(names))
	for _, name := range names {
		room, err := chat.NormalizeRoomName(name)
		if err != nil {
			return nil, nameProblem(err)
		}
		if _, repeated := known[room]; !repeated {
			known[room] = struct{}{}
			rooms = append(rooms, room)
		}
	}
	return rooms, nil
}
