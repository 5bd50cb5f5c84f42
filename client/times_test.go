package client

import (
	"encoding/json"
	"testing"
	"time"
)

// Times that end in zeros have their six digits all the same.
func TestTimesInJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 4, 4, 5, 120_000_000, time.FixedZone("", 3600))
	for want, value := range map[string]any{
		`{"Room":"r","Seq":1,"ID":2,"User":"u","Message":"m","PostedAt":"2026-01-02T03:04:05.120000Z"}`: Message{Room: "r", Seq: 1, ID: 2, User: "u", Text: "m", PostedAt: at},
		`{"Name":"r","Messages":0,"FirstSeq":0,"LastSeq":0,"CreatedAt":"2026-01-02T03:04:05.120000Z"}`:  Room{Name: "r", CreatedAt: at},
		`[{"Name":"r","Messages":1,"FirstSeq":1,"LastSeq":1,"CreatedAt":"2026-01-02T03:04:05.120000Z","LastPostedAt":"2026-01-02T03:04:05.000000Z"}]`: []Room{
			{Name: "r", Messages: 1, FirstSeq: 1, LastSeq: 1, CreatedAt: at, LastPostedAt: at.Truncate(time.Second)}},
	} {
		got, err := json.Marshal(value)
		if err != nil || string(got) != want {
			t.Errorf("got  %s (%v)\nwant %s", got, err, want)
		}
	}
	var back Message
	if err := json.Unmarshal([]byte(`{"PostedAt":"2026-01-02T03:04:05.12Z"}`), &back); err != nil || !back.PostedAt.Equal(at) {
		t.Errorf("read back %v: %v", back.PostedAt, err)
	}
}
