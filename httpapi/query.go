package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"github.com/raft-chat/raft-chat/chat"
)

// maxLimit is the largest page, in messages or rooms.
const maxLimit = 1000

// pathParam returns a parameter of the route, percent-decoded once: chi matches against the escaped path when there is
// one that differs from the standard escaping, and against the decoded path otherwise.
func pathParam(r *http.Request, name string) (value string, ok bool) {
	value = chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return value, true
	}
	value, err := url.PathUnescape(value)
	return value, err == nil
}

// roomOf returns the room that the URL names, in the form that the service knows it by.
func roomOf(r *http.Request) (string, *problem) {
	room, ok := pathParam(r, "room")
	if !ok {
		return "", newProblem(codeRoomNameInvalid, "the room name in the URL is not percent-encoded UTF-8")
	}
	room, err := chat.NormalizeRoomName(room)
	if err != nil {
		return "", nameProblem(err)
	}
	return room, nil
}

// seqOf returns the message number in the URL. A number that cannot be one is a message that does not exist.
func seqOf(r *http.Request) (uint64, *problem) {
	text, _ := pathParam(r, "seq")
	seq, ok := parseUint(text)
	if !ok || seq == 0 {
		return 0, newProblem(codeMessageNotFound, "messages are numbered 1, 2, 3 and so on")
	}
	return seq, nil
}

// parseUint reads a decimal number without sign, space or underscore.
func parseUint(text string) (uint64, bool) {
	if text == "" || text[0] < '0' || text[0] > '9' {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// query is the parsed query of a request; the first of several equal keys counts.
type query struct{ values url.Values }

func queryOf(r *http.Request) (query, *problem) {
	if r.URL.RawQuery == "" {
		return query{}, nil
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, newProblem(codeQueryInvalid, "the query of the URL cannot be read")
	}
	return query{values}, nil
}

// text returns a parameter that must be UTF-8.
func (q query) text(key string) (string, *problem) {
	value := q.values.Get(key)
	if !utf8.ValidString(value) {
		return "", newProblem(codeQueryInvalid, key+" is not valid UTF-8")
	}
	return value, nil
}

// cursor returns a numeric cursor, nil when it is absent.
func (q query) cursor(key string) (*uint64, *problem) {
	if !q.values.Has(key) {
		return nil, nil
	}
	n, ok := parseUint(q.values.Get(key))
	if !ok {
		return nil, newProblem(codeCursorInvalid, key+" is a decimal number")
	}
	return &n, nil
}

// limit returns the page size, 0 when it is absent.
func (q query) limit() (int, *problem) {
	if !q.values.Has("limit") {
		return 0, nil
	}
	n, ok := parseUint(q.values.Get("limit"))
	if !ok || n < 1 || n > maxLimit {
		return 0, newProblem(codeLimitInvalid, "limit is a number from 1 to 1000")
	}
	return int(n), nil
}

// stale reports whether the reader asked for the local state.
func (q query) stale() (bool, *problem) {
	if !q.values.Has("consistency") {
		return false, nil
	}
	switch q.values.Get("consistency") {
	case "linearizable":
		return false, nil
	case "stale":
		return true, nil
	}
	return false, newProblem(codeConsistencyInvalid, "consistency is linearizable or stale")
}

// flag reports whether a switch is on: present and neither "false" nor "0".
func (q query) flag(key string) bool {
	if !q.values.Has(key) {
		return false
	}
	value := q.values.Get(key)
	return value != "false" && value != "0"
}

// with returns the query string with some parameters replaced; an empty value removes the parameter.
func (q query) with(changes map[string]string) string {
	values := make(url.Values, len(q.values)+len(changes))
	for key, all := range q.values {
		values[key] = all[:1]
	}
	for key, value := range changes {
		if value == "" {
			delete(values, key)
			continue
		}
		values.Set(key, value)
	}
	return values.Encode()
}
