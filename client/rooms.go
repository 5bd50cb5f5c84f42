package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Room describes a room.
type Room struct {
	Name        string
	DisplayName string `json:",omitempty"`
	// Messages is how many are stored; FirstSeq and LastSeq are the first and
	// the last of them.
	Messages, FirstSeq, LastSeq uint64
	CreatedAt                   time.Time `json:",omitzero"`
	LastPostedAt                time.Time `json:",omitzero"`
}

// RoomsQuery says which rooms to list. The zero value is the first 100.
type RoomsQuery struct {
	// Prefix keeps to rooms whose names begin with it.
	Prefix string
	// After begins behind this name.
	After string
	// Limit is how many rooms to list at most, 1 to 1,000; 0 means 100.
	Limit int
	// Stale lists what the asked node has, in place of making sure of it.
	Stale bool
}

// Rooms lists rooms in order of their names. more says that the list goes on
// behind the last one.
func (c *Client) Rooms(ctx context.Context, q RoomsQuery) (rooms []Room, more bool, err error) {
	query := url.Values{"details": {"true"}}
	if q.Prefix != "" {
		query.Set("prefix", q.Prefix)
	}
	if q.After != "" {
		query.Set("after", q.After)
	}
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Stale {
		query.Set("consistency", "stale")
	}
	_, err = c.call(ctx, request{
		method: http.MethodGet, path: "/rooms" + withQuery(query),
		decode: func(header http.Header, body []byte) error {
			rooms = nil
			if err := json.Unmarshal(body, &rooms); err != nil {
				return fmt.Errorf("decode rooms: %w", err)
			}
			more = hasLink(header, "next")
			return nil
		},
	})
	if err != nil {
		return nil, false, err
	}
	return rooms, more, nil
}
