package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/raft-chat/raft-chat/chat"
)

// reading returns the context of a read: the client's, bounded by RequestTimeout.
func (s *Server) reading(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), s.options.RequestTimeout)
}

// getMessages is GET /rooms/{room}.
func (s *Server) getMessages(w http.ResponseWriter, r *http.Request) *problem {
	w.Header().Add("Vary", varyByPage)
	room, p := roomOf(r)
	if p != nil {
		return p
	}
	if wantsHTML(r) {
		return s.getClient(w, r)
	}
	q, page, p := pageOf(r)
	if p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	page.Part = pagePart
	found, err := s.options.Chat.Messages(ctx, chat.Actor{}, room, page)
	if err != nil {
		return s.problemOf(err)
	}
	size := sizeOf(found.Messages)
	answer, p := s.newPage(w, http.StatusOK, size+len("[]\n"), size)
	if p != nil {
		return p
	}
	defer answer.close()
	answer.b = append(answer.b, '[')
	if found.Last > 0 {
		path := "/rooms/" + url.PathEscape(room) + "?"
		if found.Earlier {
			first := strconv.FormatUint(found.First, 10)
			addLink(w, path+q.with(map[string]string{"before": first, "after": ""}), "prev")
		}
		if found.Later {
			last := strconv.FormatUint(found.Last, 10)
			changes := map[string]string{"after": last}
			if page.After == nil {
				changes["before"] = ""
			}
			addLink(w, path+q.with(changes), "next")
		}
	}
	for first := true; len(found.Messages) > 0; {
		for _, m := range found.Messages {
			if !first {
				answer.b = append(answer.b, ',')
			}
			first = false
			answer.message(m)
		}
		if err := s.options.Chat.NextPart(ctx, chat.Actor{}, &found, pagePart); err != nil {
			answer.cut()
		}
		answer.hold(sizeOf(found.Messages))
	}
	answer.b = append(answer.b, "]\n"...)
	answer.finish()
	return nil
}

// pageOf reads the page that the query asks for.
func pageOf(r *http.Request) (q query, page chat.Page, p *problem) {
	if q, p = queryOf(r); p != nil {
		return q, page, p
	}
	if page.After, p = q.cursor("after"); p != nil {
		return q, page, p
	}
	if page.Before, p = q.cursor("before"); p != nil {
		return q, page, p
	}
	if page.Limit, p = q.limit(); p != nil {
		return q, page, p
	}
	page.Stale, p = q.stale()
	return q, page, p
}

// getMessage is GET /rooms/{room}/{seq}.
func (s *Server) getMessage(w http.ResponseWriter, r *http.Request) *problem {
	w.Header().Add("Vary", varyByPage)
	room, p := roomOf(r)
	if p != nil {
		return p
	}
	seq, p := seqOf(r)
	if p != nil {
		return p
	}
	if wantsHTML(r) {
		return s.getClient(w, r)
	}
	q, p := queryOf(r)
	if p != nil {
		return p
	}
	stale, p := q.stale()
	if p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	m, err := s.options.Chat.Message(ctx, chat.Actor{}, room, seq, stale)
	if err != nil {
		return s.problemOf(err)
	}
	size := messageSize(m)
	answer, p := s.newPage(w, http.StatusOK, size, size)
	if p != nil {
		return p
	}
	defer answer.close()
	answer.message(m)
	answer.b = append(answer.b, '\n')
	answer.finish()
	return nil
}

// getRooms is GET /rooms.
func (s *Server) getRooms(w http.ResponseWriter, r *http.Request) *problem {
	w.Header().Add("Vary", varyByPage)
	if wantsHTML(r) {
		return s.getClient(w, r)
	}
	q, p := queryOf(r)
	if p != nil {
		return p
	}
	var ask chat.RoomsQuery
	if ask.Prefix, p = q.text("prefix"); p != nil {
		return p
	}
	if ask.After, p = q.text("after"); p != nil {
		return p
	}
	if ask.Limit, p = q.limit(); p != nil {
		return p
	}
	if ask.Stale, p = q.stale(); p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	rooms, err := s.options.Chat.RoomPage(ctx, chat.Actor{}, ask, roomsPart)
	if err != nil {
		return s.problemOf(err)
	}
	details := q.flag("details")
	size := sizeOfRooms(rooms.Rooms)
	answer, p := s.newPage(w, http.StatusOK, size, size)
	if p != nil {
		return p
	}
	defer answer.close()
	if rooms.More {
		addLink(w, "/rooms?"+q.with(map[string]string{"after": rooms.Last}), "next")
	}
	answer.b = append(answer.b, '[')
	for first := true; len(rooms.Rooms) > 0; {
		for i := range rooms.Rooms {
			if !first {
				answer.b = append(answer.b, ',')
			}
			first = false
			if details {
				answer.b = appendRoom(answer.b, &rooms.Rooms[i])
			} else {
				answer.b = appendString(answer.b, rooms.Rooms[i].Name)
			}
			answer.step()
		}
		if err := s.options.Chat.NextRooms(ctx, chat.Actor{}, &rooms, roomsPart); err != nil {
			answer.cut()
		}
		answer.hold(sizeOfRooms(rooms.Rooms))
	}
	answer.b = append(answer.b, "]\n"...)
	answer.finish()
	return nil
}

// sizeOfRooms is about what rooms hold, and the length of their lines when encoded.
func sizeOfRooms(rooms []chat.RoomInfo) int {
	size := len("[]\n")
	for i := range rooms {
		size += len(rooms[i].Name) + len(rooms[i].DisplayName) + 160
	}
	return size
}

// redirectToRoom is GET /{room}, the short form of /rooms/{room} for a room that exists. Anything else at the root is an
// error: a health check with a mistyped path must not look well.
func (s *Server) redirectToRoom(w http.ResponseWriter, r *http.Request) *problem {
	room, p := roomOf(r)
	if p != nil {
		return p
	}
	q, p := queryOf(r)
	if p != nil {
		return p
	}
	stale, p := q.stale()
	if p != nil {
		return p
	}
	ctx, cancel := s.reading(r)
	defer cancel()
	// A name sorts before all that begin with it.
	found, _, err := s.options.Chat.Rooms(ctx, chat.Actor{}, chat.RoomsQuery{Prefix: room, Limit: 1, Stale: stale})
	if err != nil {
		return s.problemOf(err)
	}
	if len(found) == 0 || found[0].Name != room {
		return newProblem(codeNotFound, "nothing is served at this URL, and no room has this name")
	}
	target := "/rooms/" + url.PathEscape(room)
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusFound)
	return nil
}

// addLink adds one RFC 8288 link. target is escaped already.
func addLink(w http.ResponseWriter, target, rel string) {
	w.Header().Add("Link", "<"+target+`>; rel="`+rel+`"`)
}

// writeJSON answers 200 with b.
func (s *Server) writeJSON(w http.ResponseWriter, b []byte) {
	h := w.Header()
	h["Content-Type"] = s.headers.json
	h["Cache-Control"] = s.headers.noStore
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b)
}
