package chat

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// One command drops a bounded number of messages and of bytes.
func TestTrimIsBounded(t *testing.T) {
	s := memStore(t)
	for range 40 {
		var commands [][]byte
		for range 256 {
			commands = append(commands, post("a", "u", "p", ""))
		}
		apply(t, s, encodeEntry(1, commands...))
	}
	text := strings.Repeat("x", 64<<10)
	for range 200 {
		apply(t, s, encodeEntry(1, post("long", "u", text, "")))
	}
	for _, want := range []uint64{4097, 8193, 10_001, 10_001} {
		if got := apply(t, s, encodeEntry(1, trim("a", 10_001)))[0][0].room; got.FirstSeq != want || got.Messages != 10_240-want+1 {
			t.Errorf("first is %d of %d, want %d", got.FirstSeq, got.Messages, want)
		}
	}
	first := uint64(1)
	for n := 0; first < 201; n++ {
		got := apply(t, s, encodeEntry(1, trim("long", 201)))[0][0].room.FirstSeq
		if got <= first || (got-first)*uint64(len(text)) > maxDropBytes || n > 10 {
			t.Fatalf("step %d went from %d to %d", n, first, got)
		}
		first = got
	}
}

// Nothing is left of rooms that were emptied and whose client message ids were
// forgotten but the rooms themselves. One purge forgets a bounded number.
func TestTrimLeavesNothing(t *testing.T) {
	s := memStore(t)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 200 {
		var commands [][]byte
		for j := range 1 + r.IntN(8) {
			commands = append(commands, post(fmt.Sprintf("room-%d", r.IntN(5)), "u", "p", fmt.Sprint(i, j)))
		}
		apply(t, s, encodeEntry(1, commands...))
		if r.IntN(4) == 0 {
			apply(t, s, encodeEntry(1, trim(fmt.Sprintf("room-%d", r.IntN(5)), uint64(r.IntN(i+1)))))
		}
	}
	apply(t, s, encodeEntry(1, post("room-0", "u", "p", ""), post("room-1", "u", "p", ""), trim("room-1", 1<<40), trim("room-0", 1<<40)))
	for i := range 5 {
		apply(t, s, encodeEntry(1, trim(fmt.Sprintf("room-%d", i), 1<<40)))
	}
	hour := DefaultDedupWindow.Microseconds()
	if got := apply(t, s, encodeEntry(hour+1, purge(1)))[0][0].purged; got != 0 {
		t.Errorf("%d forgotten within the window", got)
	}
	var many [][]byte
	for i := range maxPurge {
		many = append(many, post("many", "u", "p", fmt.Sprint(i)))
	}
	apply(t, s, encodeEntry(1, many...), encodeEntry(1, trim("many", 1<<40)))
	apply(t, s, encodeEntry(hour+2, purge(2)), encodeEntry(hour+2, purge(2)))
	if got := apply(t, s, encodeEntry(hour+2, purge(2)))[0][0].purged; got != 0 {
		t.Errorf("two purges left at least %d", got)
	}
	var out strings.Builder
	dump(t, s, &out)
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		switch kind := strings.Fields(line)[1]; kind {
		case "counters", "trims", "room", "name", "state":
		case "dropped":
			if n := strings.Count(out.String(), "= dropped "); n != 6 {
				t.Fatalf("%d rooms have a last dropped ID, want 6", n)
			}
		default:
			t.Errorf("left: %s", line)
		}
	}
}

// A trimmed store is snapshotted, restored and reopened like any other.
func TestTrimmedSnapshot(t *testing.T) {
	from, to := memStore(t), memStore(t)
	apply(t, from, encodeEntry(1, post("a", "u", "1", "x"), post("a", "u", "2", "y"), post("b", "u", "1", "x")))
	apply(t, from, encodeEntry(2, trim("a", 2)), encodeEntry(3, trim("b", 2)))
	if err := to.Restore(bytes.NewReader(content(t, from))); err != nil {
		t.Fatal(err)
	}
	for _, e := range [][]byte{
		encodeEntry(4, post("a", "u", "1", "x"), post("a", "u", "2", "y"), post("b", "u", "2", "")),
		encodeEntry(5, trim("a", 99), trim("b", 99), post("a", "u", "9", "")),
	} {
		want, got := apply(t, from, e)[0], apply(t, to, e)[0]
		for i := range want {
			if a, b := describe(want[i]), describe(got[i]); a != b {
				t.Errorf("restored: %s, want %s", b, a)
			}
		}
	}
	if fullHash(t, from) != fullHash(t, to) {
		t.Error("the restored store goes on differently")
	}
}

// A store in which messages are missing that were not dropped says so.
func TestMissingMessagesAreDamage(t *testing.T) {
	for _, seq := range []uint64{2, 3, 5} {
		s := memStore(t)
		apply(t, s, encodeEntry(1, post("a", "u", "1", ""), post("a", "u", "2", ""), post("a", "u", "3", ""), post("a", "u", "4", ""), post("a", "u", "5", "")))
		apply(t, s, encodeEntry(1, trim("a", 2)))
		if err := s.db.Delete(appendMessageKey(nil, 1, seq), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		s.recent.reset()
		service := NewService(NewStuckLog(0), s, ServiceOptions{})
		for _, rooms := range [][]string{nil, {"a"}} {
			st, err := service.Follow(t.Context(), Actor{}, rooms, Cursor{ID: seq - 1})
			if err != nil {
				t.Fatal(err)
			}
			if d, err := st.deliver(); err == nil {
				t.Errorf("message %d is missing; a stream of %v got %v", seq, rooms, d)
			}
			st.Close()
		}
		service.Close()
		if _, err := s.Apply(from(3, encodeEntry(1, trim("a", 9))), 3, nil); err == nil {
			t.Errorf("message %d is missing, and was dropped", seq)
		}
	}
}

// reader is a stream and what it has seen, for TestStreamsOverTrims.
type reader struct {
	what  string
	rooms []string
	*Stream
	cursor  uint64
	next    map[string]uint64 // first Seq of a room not delivered and not told as a gap
	resumed bool              // since then not every Seq is known to the stream
}

// Streams of all kinds, read now and then and resumed now and then, account for
// every message in the face of posts and trims: it is delivered, or it is in a
// gap that comes once and before what is behind it.
func TestStreamsOverTrims(t *testing.T) {
	gaps := 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 9))
		s := memStore(t)
		s.recent = newRecent(1+r.IntN(60), 1<<20, nil)
		service := NewService(NewStuckLog(0), s, ServiceOptions{})
		const rooms = 4
		last, firsts := map[string]uint64{}, map[string]uint64{}
		name := func() string { return fmt.Sprintf("room-%d", r.IntN(rooms)) }
		var readers []*reader
		follow := func(rd *reader, from Cursor) {
			var err error
			if rd.Stream, err = service.Follow(t.Context(), Actor{}, rd.rooms, from); err != nil {
				t.Fatal(err)
			}
			rd.cursor = rd.Cursor()
		}
		for _, rooms := range [][]string{nil, {"room-0"}, {"room-1"}, {"room-0", "room-2"}, {"room-0", "room-1", "room-2", "room-3"}} {
			for i := range 2 {
				rd := &reader{what: fmt.Sprintf("seed %d, reader %d of %v", seed, i, rooms), rooms: rooms, next: map[string]uint64{}}
				follow(rd, Cursor{})
				readers = append(readers, rd)
			}
		}
		step := func(rd *reader) bool {
			d, err := rd.deliver()
			if err != nil {
				t.Fatalf("%s: %v", rd.what, err)
			}
			for _, g := range d.Gaps {
				gaps++
				want := rd.next[g.Room] + 1
				// With an ID alone, or for all rooms, the beginning is an estimate.
				exact := rd.rooms != nil && !rd.resumed
				if rd.resumed && g.LastSeq+1 == want {
					want-- // told of by the stream before, and again
				}
				if g.FirstSeq > want || g.FirstSeq == 0 || g.LastSeq < want || g.LastSeq >= firsts[g.Room] || (exact && g.FirstSeq != want) {
					t.Fatalf("%s: gap %+v, expected %d", rd.what, g, want)
				}
				if g.ID < rd.cursor || (len(rd.rooms) == 1 && g.ID == rd.cursor) {
					t.Fatalf("%s: gap %+v after %d", rd.what, g, rd.cursor)
				}
				rd.cursor, rd.next[g.Room] = g.ID, g.LastSeq
			}
			for _, m := range d.Messages {
				if m.Seq != rd.next[m.Room]+1 || m.Seq < firsts[m.Room] || m.ID <= rd.cursor {
					t.Fatalf("%s: message %s/%d ID %d after %d and %d", rd.what, m.Room, m.Seq, m.ID, rd.next[m.Room], rd.cursor)
				}
				rd.cursor, rd.next[m.Room] = m.ID, m.Seq
			}
			if rd.Cursor() != rd.cursor {
				t.Fatalf("%s: cursor %d, want %d", rd.what, rd.Cursor(), rd.cursor)
			}
			return len(d.Gaps)+len(d.Messages) > 0
		}
		for range 400 {
			var entries [][]byte
			for range r.IntN(3) {
				var commands [][]byte
				for range 1 + r.IntN(6) {
					room := name()
					if r.IntN(6) > 0 {
						last[room]++
						commands = append(commands, post(room, "u", strings.Repeat("x", r.IntN(100)), ""))
						continue
					}
					below := firsts[room] + uint64(r.IntN(int(last[room]-min(firsts[room], last[room]))+3))
					if r.IntN(10) > 0 {
						below = firsts[room] + (below-firsts[room])/2
					}
					if last[room] > 0 {
						firsts[room] = max(firsts[room], min(below, last[room]+1))
					}
					commands = append(commands, trim(room, below))
				}
				entries = append(entries, encodeEntry(1, commands...))
			}
			apply(t, s, entries...)
			for _, rd := range readers {
				if r.IntN(8) == 0 {
					step(rd)
				}
				if r.IntN(40) == 0 {
					rd.Close()
					follow(rd, Cursor{ID: rd.cursor})
					rd.resumed = true
				}
				if len(rd.rooms) == 1 && r.IntN(40) == 0 {
					rd.Close()
					c, err := service.CursorAfterSeq(t.Context(), Actor{}, rd.rooms[0], rd.next[rd.rooms[0]], false)
					if err != nil {
						t.Fatal(err)
					}
					follow(rd, c)
					rd.resumed = false
				}
			}
		}
		for _, rd := range readers {
			for step(rd) {
			}
			for room, n := range last {
				follows := rd.rooms == nil
				for _, f := range rd.rooms {
					follows = follows || f == room
				}
				if follows && rd.next[room] != n {
					t.Errorf("%s: has %d of %s, which has %d", rd.what, rd.next[room], room, n)
				}
			}
			rd.Close()
		}
		service.Close()
	}
	if gaps < 100 {
		t.Errorf("only %d gaps were met", gaps)
	}
}
