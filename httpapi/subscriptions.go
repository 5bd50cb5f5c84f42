package httpapi

import (
	"github.com/raft-chat/raft-chat/chat"
)

// subscribe begins to deliver rooms. A room that is subscribed already goes on at the new place.
func (v *session) subscribe(r request) *problem {
	server := v.stream.server
	rooms, p := requestRooms(r)
	if p != nil {
		return p
	}
	at := place{cursor: chat.Cursor{Latest: true}}
	switch {
	case r.After != nil && r.Since != nil:
		return newProblem(codeCursorInvalid, "After and Since exclude each other")
	case r.After != nil && len(rooms) != 1:
		return newProblem(codeCursorInvalid, "After is a number in one room; several rooms take Since")
	case r.After != nil:
		at = place{after: r.After}
	case r.Since != nil:
		var ok bool
		if at, ok = parseSince(*r.Since, server.options.Now()); !ok {
			return newProblem(codeCursorInvalid, sinceDetail)
		}
	}
	from, err := server.cursorOf(v.ctx, rooms, beginning{place: at, tells: true})
	if err != nil {
		return server.problemOf(err)
	}
	if from.Latest {
		from = chat.Cursor{ID: server.options.Chat.Head()}
	}
	// A client compares names, so each comes back as it was asked for.
	cursors := make(map[string]uint64, len(r.Rooms))
	asked := make(map[string]string, len(rooms))
	for _, name := range r.Rooms {
		room, err := chat.NormalizeRoomName(name)
		if err != nil {
			return nameProblem(err)
		}
		asked[room] = name
		cursors[name] = from.ID
	}
	frame := appendAnswer(nil, "subscribed", r.ID, func(b []byte) []byte {
		b = appendCursors(append(b, `,"Cursors":`...), cursors)
		return appendOtherNames(b, r.Rooms)
	})
	if p := v.name(asked); p != nil {
		return p
	}
	v.hand(handed{frame: frame, changes: []change{{rooms: rooms, from: from}}})
	return nil
}

// name notes the names that rooms are asked for by, unless there would be too many rooms.
func (v *session) name(asked map[string]string) *problem {
	v.mu.Lock()
	defer v.mu.Unlock()
	total := len(v.names)
	for room := range asked {
		if _, known := v.names[room]; !known {
			total++
		}
	}
	if total > maxStreamRooms {
		return newProblem(codeLimitInvalid, "a connection has at most 1000 rooms")
	}
	for room, name := range asked {
		v.names[room] = name
	}
	return nil
}

// unsubscribe ends the delivery of rooms. Rooms that are not subscribed are overlooked.
func (v *session) unsubscribe(r request) *problem {
	rooms, p := requestRooms(r)
	if p != nil {
		return p
	}
	v.mu.Lock()
	for _, room := range rooms {
		delete(v.names, room)
	}
	v.mu.Unlock()
	v.hand(handed{frame: appendAnswer(nil, "unsubscribed", r.ID, nil), changes: []change{{rooms: rooms, remove: true}}})
	return nil
}

// requestRooms returns the normalised rooms of a request, at least one.
func requestRooms(r request) ([]string, *problem) {
	if len(r.Rooms) == 0 {
		return nil, newProblem(codeRoomNameInvalid, "Rooms is a list of at least one room")
	}
	return normalRooms(r.Rooms)
}

// appendOtherNames appends the member Names: by each name that was asked for and is spelled otherwise in messages, how
// it is spelled there. Without such a name it appends nothing.
func appendOtherNames(b []byte, asked []string) []byte {
	separator := `,"Names":{`
	for _, name := range asked {
		room, err := chat.NormalizeRoomName(name)
		if err != nil || room == name {
			continue
		}
		b = append(b, separator...)
		b = appendString(b, name)
		b = append(b, ':')
		b = appendString(b, room)
		separator = ","
	}
	if separator == "," {
		b = append(b, '}')
	}
	return b
}
