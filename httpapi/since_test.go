package httpapi

import (
	"encoding/json"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/chat"
)

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC)
	for text, want := range map[string]place{
		"all":                            {},
		"latest":                         {cursor: chat.Cursor{Latest: true}},
		"0":                              {},
		"18446744073709551615":           {cursor: chat.Cursor{ID: 1<<64 - 1}},
		"10m":                            {before: now.Add(-10 * time.Minute)},
		"1h30m":                          {before: now.Add(-90 * time.Minute)},
		"0s":                             {before: now},
		"2026-01-02T14:00:00Z":           {before: now.Add(-time.Hour)},
		"2026-01-02T16:00:00.5+02:00":    {before: now.Add(-time.Hour + time.Second/2)},
		"2026-01-02T16:00:00 02:00":      {before: now.Add(-time.Hour)},
		"2026-01-02T14:00:00.000000000Z": {before: now.Add(-time.Hour)},
		"@0":                             {before: time.Unix(0, 0)},
		"@1767362400":                    {before: now.Add(-time.Hour)},
		"@1767362400.25":                 {before: now.Add(-time.Hour + time.Second/4)},
		"@1767362400.000000001":          {before: now.Add(-time.Hour + 1)},
		"@253402300799":                  {before: time.Unix(253402300799, 0)},
	} {
		got, ok := parseSince(text, now)
		if !ok || got.cursor != want.cursor || !got.before.Equal(want.before) {
			t.Errorf("%s is %+v, want %+v", text, got, want)
		}
	}
}

func TestParseSinceRefuses(t *testing.T) {
	for _, text := range []string{
		"", "x", "-1", "+1", "1_000", " 1", "-10m", "10x", "yesterday", "@", "@x", "@-1", "@+1", "@ 1", "@1.", "@.5", "@1.x", "@1.-5", "@1e9",
		"@0x10", "@1.0000000001", "@253402300800", "@18446744073709551616", "18446744073709551616", "@@1", "2026-13-01T00:00:00Z",
	} {
		if at, ok := parseSince(text, time.Now()); ok {
			t.Errorf("%q is %+v", text, at)
		}
	}
}

// Whatever since is, it is one place or refused, and a number is always that ID.
func FuzzParseSince(f *testing.F) {
	for _, text := range []string{"", "all", "latest", "12", "10m", "-1s", "2026-01-02T14:00:00Z", "0001-01-01T00:00:00Z", "9999999h", "@1700000000", "@1.5", "@", "@-1", "@253402300800", "@1.0000000001"} {
		f.Add(text)
	}
	now := time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := parseSince(text, now)
		id, number := parseUint(text)
		switch {
		case number && (!ok || at.cursor != chat.Cursor{ID: id} || !at.before.IsZero()):
			t.Errorf("%q is %+v", text, at)
		case !ok:
		case at.after != nil || !at.before.IsZero() && at.cursor != chat.Cursor{}:
			t.Errorf("%q is two places: %+v", text, at)
		case text != "all" && text != "latest" && !number && at.before.IsZero():
			t.Errorf("%q is %+v", text, at)
		}
	})
}

// Whatever a client sends is decoded or refused with a code that has a status, and what is repeated of it is UTF-8.
func FuzzDecodeRequest(f *testing.F) {
	for _, test := range sessionRefusals {
		f.Add([]byte(test.frame))
	}
	f.Add([]byte(`{"Type":"send","Id":"1","Room":"r","User":"u","Message":"m","ClientMessageID":"c"}`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r, p := decodeRequest(frame)
		if len(r.ID) > maxRequestID || !utf8.ValidString(r.ID) {
			t.Errorf("%q has id %q", frame, r.ID)
		}
		if p == nil {
			if !json.Valid(frame) {
				t.Errorf("%q was taken", frame)
			}
			return
		}
		if p.status == 0 || p.detail == "" {
			t.Errorf("%q is refused with %+v", frame, p)
		}
		answer := appendError(nil, r.ID, p)
		length := int(answer[1])
		if header := 2; length < 126 && !json.Valid(answer[header:]) || length == 126 && !json.Valid(answer[header+2:]) {
			t.Errorf("%q is answered with %q", frame, answer)
		}
	})
}

func TestChunks(t *testing.T) {
	if b := chunkOf(""); len(b) != 0 {
		t.Errorf("an empty chunk, which ends the body, is %q", b)
	}
	b := append([]byte("before"), chunkOf("0123456789abcdef")...)
	if string(b) != "before000010\r\n0123456789abcdef\r\n" {
		t.Errorf("got %q", b)
	}
}

// A ring that comes before the wait ends it, and rearm takes it back; an end stays.
func TestWaiter(t *testing.T) {
	w := newWaiter()
	w.ring()
	w.ring()
	<-w.Done()
	if w.Err() == nil || w.ended() != nil {
		t.Error("a ring is no end")
	}
	if err := w.rearm(); err != nil || w.Err() != nil {
		t.Errorf("after rearm: %v, %v", err, w.Err())
	}
	select {
	case <-w.Done():
		t.Error("done after rearm")
	default:
	}
	w.end(errSlow)
	w.end(errGone)
	<-w.Done()
	if w.rearm() != errSlow || w.Err() == nil {
		t.Errorf("ended with %v", w.ended())
	}
}
