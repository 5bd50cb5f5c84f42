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
	found, err := s.options.Chat.Messages(ctx, chat.Actor{}, room, page)
	if err != nil {
		return s.problemOf(err)
	}

	size := 3
	for _, m := range found.Messages {
		size += len(messageJSON(m)) + 1
	}
	b := append(make([]byte, 0, size), '[')
	for i, m := range found.Messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, messageJSON(m)...)
	}
	b = append(b, "]\n"...)
	if n := len(found.Messages); n > 0 {
		path := "/rooms/" + url.PathEscape(room) + "?"
		if found.Earlier {
			first := strconv.FormatUint(found.Messages[0].Seq, 10)
			addLink(w, path+q.with(map[string]string{"before": first, "after": ""}), "prev")
		}
		if found.Later {
			last := strconv.FormatUint(found.Messages[n-1].Seq, 10)
			changes := map[string]string{"after": last}
			if page.After == nil {
				changes["before"] = ""
			}
			addLink(w, path+q.with(changes), "next")
		}
	}
	s.writeJSON(w, b)
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
	b := messageJSON(m)
	s.writeJSON(w, append(append(make([]byte, 0, len(b)+1), b...), '\n'))
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
	rooms, more, err := s.options.Chat.Rooms(ctx, chat.Actor{}, ask)
	if err != nil {
		return s.problemOf(err)
	}
	details := q.flag("details")
	b := []byte{'['}
	for i := range rooms {
		if i > 0 {
			b = append(b, ',')
		}
		if details {
			b = appendRoom(b, &rooms[i])
		} else {
			b = appendString(b, rooms[i].Name)
		}
	}
	b = append(b, "]\n"...)
	if more && len(rooms) > 0 {
		addLink(w, "/rooms?"+q.with(map[string]string{"after": rooms[len(rooms)-1].Name}), "next")
	}
	s.writeJSON(w, b)
	return nil
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
