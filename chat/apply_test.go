package chat

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// randomEntries makes entries that hit every path of apply: few rooms and
// client ids, so that repeats and conflicts are common.
func randomEntries(seed uint64, n int) [][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	entries := make([][]byte, n)
	for i := range entries {
		if r.IntN(8) == 0 {
			entries[i] = encodeEntry(int64(i), createRoom("", "assigned"))
			continue
		}
		commands := make([][]byte, 1+r.IntN(6))
		for j := range commands {
			room := fmt.Sprintf("room-%d", r.IntN(5))
			switch r.IntN(8) {
			case 0:
				commands[j] = createRoom(room, "made")
			case 2:
				commands[j] = trim(room, uint64(r.IntN(i+2)))
			case 1:
				c := postCommand{room: fmt.Sprintf("room-%d", r.IntN(9)), user: "u", payload: []byte("p"), mustExist: true}
				commands[j] = c.encode()
			default:
				id := ""
				if r.IntN(2) == 0 {
					id = fmt.Sprint(r.IntN(10))
				}
				commands[j] = post(room, fmt.Sprintf("user-%d", r.IntN(2)), strings.Repeat("x", r.IntN(3)), id)
			}
		}
		entries[i] = encodeEntry(int64(r.IntN(1000)), commands...)
	}
	return entries
}

// Equal logs give equal stores and equal answers, however entries are grouped
// into calls of Apply, and also if the rooms' cache is cut short.
func TestApplyIsDeterministic(t *testing.T) {
	for seed := range uint64(10) {
		entries := randomEntries(seed, 100)
		one, other := memStore(t), memStore(t)
		other.applier.rooms.max = 2
		var answers, otherAnswers []string
		for _, e := range entries {
			for _, res := range apply(t, one, e)[0] {
				answers = append(answers, describe(res))
			}
		}
		r := rand.New(rand.NewPCG(seed, 2))
		for rest := entries; len(rest) > 0; {
			n := 1 + r.IntN(min(len(rest), 20))
			for _, results := range apply(t, other, rest[:n]...) {
				for _, res := range results {
					otherAnswers = append(otherAnswers, describe(res))
				}
			}
			rest = rest[n:]
		}
		if a, b := strings.Join(answers, "\n"), strings.Join(otherAnswers, "\n"); a != b {
			t.Errorf("seed %d: answers differ:\n%s\n---\n%s", seed, a, b)
		}
		i, h := one.StateHash()
		oi, oh := other.StateHash()
		if i != oi || h != oh {
			t.Errorf("seed %d: state hash %d/%x and %d/%x", seed, i, h, oi, oh)
		}
		if a, b := fullHash(t, one), fullHash(t, other); a != b {
			t.Errorf("seed %d: full hash %x and %x", seed, a, b)
		}
	}
}

// The hashes notice every kind of difference.
func TestHashesDiffer(t *testing.T) {
	entries := map[string][]byte{
		"base":    encodeEntry(5, post("a", "u", "p", "")),
		"payload": encodeEntry(5, post("a", "u", "q", "")),
		"user":    encodeEntry(5, post("a", "v", "p", "")),
		"room":    encodeEntry(5, post("b", "u", "p", "")),
		"time":    encodeEntry(6, post("a", "u", "p", "")),
		"id":      encodeEntry(5, post("a", "u", "p", "1")),
		"made":    encodeEntry(5, createRoom("a", "")),
		"display": encodeEntry(5, createRoom("a", "x")),
		"none":    encodeEntry(5, createRoom("a", ""), post("", "u", "p", "")),
	}
	rolling, full := map[uint64]string{}, map[uint64]string{}
	for name, e := range entries {
		s := memStore(t)
		apply(t, s, e)
		_, h := s.StateHash()
		if was := rolling[h]; was != "" && was+name != "madenone" && was+name != "nonemade" {
			t.Errorf("%s and %s have one state hash", was, name)
		}
		rolling[h] = name
		h = fullHash(t, s)
		if was := full[h]; was != "" && was+name != "madenone" && was+name != "nonemade" {
			t.Errorf("%s and %s have one full hash", was, name)
		}
		full[h] = name
	}
}

// An entry that is not understood is an error, changes nothing, also nothing of
// the entries before it in the same call, and the store can go on.
func TestApplyRefusesWhole(t *testing.T) {
	good := encodeEntry(1, post("a", "u", "p", "1"), createRoom("b", ""))
	bad := map[string][]byte{
		"empty":               {},
		"no commands":         appendHeader(nil, 1),
		"version":             append([]byte{8, 2, 16, 1}, post("a", "u", "p", "")...),
		"no version":          append([]byte{16, 1}, post("a", "u", "p", "")...),
		"level":               append([]byte{8, 1, 16, 2}, post("a", "u", "p", "")...),
		"no level":            append([]byte{8, 1}, post("a", "u", "p", "")...),
		"unknown kind":        append(appendHeader(nil, 1), 0x22, 2, 0x32, 0),
		"no kind":             append(appendHeader(nil, 1), 0x22, 0),
		"two kinds":           append(appendHeader(nil, 1), 0x22, 4, 0x0a, 0, 0x12, 0),
		"unknown field":       append(encodeEntry(1, post("a", "u", "p", "")), 0x28, 1),
		"torn":                encodeEntry(1, post("a", "u", "p", ""))[:12],
		"text not UTF-8":      encodeEntry(1, post("\xff", "u", "p", "")),
		"unknown in post":     append(appendHeader(nil, 1), 0x22, 4, 0x0a, 2, 0x30, 1),
		"unknown in trim":     append(appendHeader(nil, 1), 0x22, 4, 0x1a, 2, 0x18, 1),
		"unknown in purge":    append(appendHeader(nil, 1), 0x22, 4, 0x22, 2, 0x10, 1),
		"unknown in settings": append(appendHeader(nil, 1), 0x22, 4, 0x2a, 2, 0x10, 1),
	}
	s, want := memStore(t), memStore(t)
	apply(t, s, good)
	apply(t, want, good)
	for name, e := range bad {
		more := encodeEntry(2, post("a", "u", "more", "2"), post("new", "u", "more", ""), createRoom("c", ""), trim("a", 2), purge(1), window(2*DefaultDedupWindow.Microseconds()))
		if _, err := s.Apply(from(2, more, e), 3, []byte("meta")); err == nil {
			t.Errorf("%s: was applied", name)
		}
	}
	if _, err := s.Apply(from(1, good), 2, nil); err == nil {
		t.Error("an applied index was applied again")
	}
	if _, err := s.Apply(from(2, good), 1, nil); err == nil {
		t.Error("an entry beyond the last was applied")
	}
	if a, b := fullHash(t, s), fullHash(t, want); a != b {
		t.Error("a refused call left something behind")
	}
	next := encodeEntry(3, post("a", "u", "next", "2"), post("c", "u", "next", ""))
	if a, b := describe(apply(t, s, next)[0][0]), describe(apply(t, want, next)[0][0]); a != b {
		t.Errorf("after refusals: %s, want %s", a, b)
	}
	if a, b := fullHash(t, s), fullHash(t, want); a != b {
		t.Error("a refused call changed what came after it")
	}
}

// What the recent messages, a cached room and results keep is independent of the
// entry they came in.
func TestResultsOutliveTheEntry(t *testing.T) {
	s := memStore(t)
	e := encodeEntry(1, post("room", "user", "payload", "id"))
	m := apply(t, s, e)[0][0].message
	for i := range e {
		e[i] = 'X'
	}
	apply(t, s, encodeEntry(2, post("other", "someone", "overwritten", "else")))
	if m.Room != "room" || m.User != "user" || string(m.Payload) != "payload" || m.ClientMessageID != "id" {
		t.Errorf("message changed: %+v", m.Room)
	}
}
