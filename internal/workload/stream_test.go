package workload

import (
	"errors"
	"testing"
)

func TestWhatStreamsMayNotSay(t *testing.T) {
	const message = `{"Room":"a","Seq":1,"ID":2,"User":"ann","Message":"m","PostedAt":"2026-01-02T03:04:05Z"}`
	for name, tt := range map[string]struct {
		decode func([]byte) ([]Event, error)
		data   string
		want   error
		events int
	}{
		"a message":                {decodeMessage, message, nil, 1},
		"no message":               {decodeMessage, `{"Room":"a"}`, ErrSenseless, 0},
		"no JSON":                  {decodeMessage, `{`, ErrSenseless, 0},
		"a post":                   {decodeFirehose, `{"RoomName":"a","Post":` + message + `}`, nil, 1},
		"a post of two rooms":      {decodeFirehose, `{"RoomName":"b","Post":` + message + `}`, ErrSenseless, 0},
		"an event":                 {decodeServerEvent, "id: 2\ndata: " + message, nil, 1},
		"an event of another id":   {decodeServerEvent, "id: 3\ndata: " + message, ErrSenseless, 0},
		"a comment":                {decodeServerEvent, ": still here", nil, 0},
		"a status":                 {decodeServerEvent, "event: status\ndata: {}", nil, 0},
		"a gap":                    {decodeServerEvent, "event: gap\nid: 7\ndata: " + `{"Room":"a","FirstSeq":1,"LastSeq":3}`, nil, 1},
		"a gap without a place":    {decodeServerEvent, "event: gap\ndata: {}", ErrSenseless, 0},
		"the end":                  {decodeServerEvent, "event: end\ndata: {}", ErrOver, 0},
		"an event nobody knows of": {decodeServerEvent, "event: x\ndata: {}", ErrSenseless, 0},
	} {
		events, err := tt.decode([]byte(tt.data))
		if !errors.Is(err, tt.want) || len(events) != tt.events {
			t.Errorf("%s: %+v, error %v, want %d events and the error %v", name, events, err, tt.events, tt.want)
		}
	}
}
