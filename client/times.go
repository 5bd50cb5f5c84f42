package client

import (
	"encoding/json"
	"time"
)

// instant is a time in JSON as nodes write it: RFC 3339 in UTC with always six
// digits, so that text sorts as time does and every parser can read it.
type instant time.Time

func (t instant) MarshalJSON() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, `"2006-01-02T15:04:05.000000Z"`), nil
}

// IsZero leaves out what is not known.
func (t instant) IsZero() bool { return time.Time(t).IsZero() }

// MarshalJSON implements json.Marshaler with times as nodes write them.
func (m Message) MarshalJSON() ([]byte, error) {
	type fields Message
	return json.Marshal(struct {
		fields
		PostedAt instant
	}{fields(m), instant(m.PostedAt)})
}

// MarshalJSON implements json.Marshaler with times as nodes write them.
func (r Room) MarshalJSON() ([]byte, error) {
	type fields Room
	return json.Marshal(struct {
		fields
		CreatedAt    instant `json:",omitzero"`
		LastPostedAt instant `json:",omitzero"`
	}{fields(r), instant(r.CreatedAt), instant(r.LastPostedAt)})
}
