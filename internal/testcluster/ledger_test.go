package testcluster

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A ledger that finds nothing wrong is only worth something if it finds each
// of the things that can be wrong.
func TestLedgerFindsEveryFault(t *testing.T) {
	at := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	good := []Message{
		{Room: "a", Seq: 1, ID: 1, User: "u", Message: "one", ClientMessageID: "1", PostedAt: at},
		{Room: "a", Seq: 2, ID: 3, User: "u", Message: "two", ClientMessageID: "2", PostedAt: at.Add(time.Second)},
		{Room: "b", Seq: 1, ID: 2, User: "u", Message: "one", ClientMessageID: "1", PostedAt: at},
	}
	for name, tt := range map[string]struct {
		stored func(m []Message) []Message
		want   string
	}{
		"nothing":   {func(m []Message) []Message { return m }, ""},
		"lost":      {func(m []Message) []Message { return m[:2] }, "acknowledged and not there"},
		"twice":     {func(m []Message) []Message { m[1] = m[0]; m[1].Seq, m[1].ID = 2, 3; return m }, "stored twice"},
		"gap":       {func(m []Message) []Message { m[1].Seq = 3; return m }, "Seq 3 stands where 2 should"},
		"moved":     {func(m []Message) []Message { m[1].ID, m[2].ID = 2, 3; return m }, "acknowledged as"},
		"changed":   {func(m []Message) []Message { m[2].Message = "three"; return m }, "acknowledged as"},
		"other id":  {func(m []Message) []Message { m[2].ID = 3; return m }, "out of range or there twice"},
		"id beyond": {func(m []Message) []Message { m[2].ID = 9; return m }, "out of range or there twice"},
		"invented": {func(m []Message) []Message {
			return append(m, Message{Room: "b", Seq: 2, ID: 4, User: "u", Message: "x", ClientMessageID: "3", PostedAt: at.Add(time.Minute)})
		}, "nobody was told"},
		"time": {func(m []Message) []Message { m[2].PostedAt = at.Add(time.Hour); return m }, "was posted at"},
	} {
		t.Run(name, func(t *testing.T) {
			var l Ledger
			for _, m := range good {
				if err := l.Acknowledged(m, m); err != nil {
					t.Fatal(err)
				}
			}
			err := l.Check(tt.stored(slices.Clone(good)))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
		})
	}
}

func TestLedgerRefusesAcknowledgements(t *testing.T) {
	m := Message{Room: "a", Seq: 2, ID: 3, User: "u", Message: "m", ClientMessageID: "c"}
	for name, change := range map[string]func(m *Message){
		"other message": func(m *Message) { m.Message = "x" },
		"other author":  func(m *Message) { m.User = "x" },
		"no Seq":        func(m *Message) { m.Seq = 0 },
		"Seq above ID":  func(m *Message) { m.Seq = 4 },
		"another place": func(m *Message) { m.Seq = 1 },
	} {
		var l Ledger
		if err := l.Acknowledged(m, m); err != nil {
			t.Fatal(err)
		}
		told := m
		change(&told)
		if err := l.Acknowledged(m, told); err == nil {
			t.Errorf("%s: %+v was taken for an answer to %+v", name, told, m)
		}
	}
}

func TestTail(t *testing.T) {
	for _, tt := range []struct {
		text string
		n    int
		want string
	}{
		{"", 2, ""}, {"a\n", 2, "a\n"}, {"a\nb\nc\n", 2, "b\nc\n"}, {"a\nb\n", 2, "a\nb\n"}, {"a\nb\nc\nd", 2, "b\nc\nd"},
	} {
		if got := Tail(tt.text, tt.n); got != tt.want {
			t.Errorf("the last %d lines of %q: %q, want %q", tt.n, tt.text, got, tt.want)
		}
	}
}
