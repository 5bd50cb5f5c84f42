package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Page says which messages of a room to read. The zero value is the newest 100.
type Page struct {
	// After, if set, begins right behind this Seq; 0 begins with the oldest.
	After *uint64
	// Before, if set, ends right before this Seq.
	Before *uint64
	// Limit is how many messages to read at most, 1 to 1,000; 0 means 100.
	Limit int
	// Stale reads what the asked node has, which may lack the newest messages,
	// in place of making sure of them.
	Stale bool
}

// History is a page of a room, in ascending order of Seq.
type History struct {
	Messages []Message
	// Earlier and Later say whether the room goes on before and after the page.
	Earlier, Later bool
}

// History reads messages of a room. A room that does not exist has none.
func (c *Client) History(ctx context.Context, room string, page Page) (History, error) {
	path, err := roomPath(room)
	if err != nil {
		return History{}, err
	}
	query := make(url.Values)
	if page.After != nil {
		query.Set("after", strconv.FormatUint(*page.After, 10))
	}
	if page.Before != nil {
		query.Set("before", strconv.FormatUint(*page.Before, 10))
	}
	if page.Limit != 0 {
		query.Set("limit", strconv.Itoa(page.Limit))
	}
	if page.Stale {
		query.Set("consistency", "stale")
	}
	var h History
	_, err = c.call(ctx, request{
		method: http.MethodGet, path: path + withQuery(query),
		decode: func(header http.Header, body []byte) (err error) {
			h.Messages, err = decodeMessages(body)
			h.Earlier, h.Later = hasLink(header, "prev"), hasLink(header, "next")
			return err
		},
	})
	return h, err
}

func withQuery(query url.Values) string {
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}

// hasLink reports whether a Link header (RFC 8288) has a link of the relation.
func hasLink(header http.Header, rel string) bool {
	for _, list := range header.Values("Link") {
		for {
			// The target may hold commas and semicolons.
			_, behind, found := strings.Cut(list, ">")
			if !found {
				break
			}
			params, rest := cutUnquoted(behind, ',')
			for params != "" {
				var param string
				param, params = cutUnquoted(params, ';')
				name, value, _ := strings.Cut(strings.Trim(param, " \t"), "=")
				if strings.EqualFold(name, "rel") && strings.Trim(value, `"`) == rel {
					return true
				}
			}
			list = rest
		}
	}
	return false
}

// cutUnquoted cuts s at the first separator outside of double quotes.
func cutUnquoted(s string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '\\' && quoted:
			i++
		case s[i] == separator && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
