package chat

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// A step costs what it delivers, however much its rooms hold.
func TestStreamStepsCostWhatTheyDeliver(t *testing.T) {
	const rooms, each, size = 400, 20, 1000
	for _, mixed := range []bool{false, true} {
		s := memStore(t)
		names := make([]string, rooms)
		for i := range names {
			names[i] = fmt.Sprint("room-", i)
		}
		payload := strings.Repeat("x", size)
		var commands [][]byte
		for i := range rooms * each {
			room := i / each
			if mixed {
				room = i % rooms
			}
			if commands = append(commands, post(names[room], "u", payload, "")); len(commands) == 100 {
				apply(t, s, encodeEntry(int64(i), commands...))
				commands = nil
			}
		}
		s.recent.reset()
		service := NewService(NewStuckLog(0), s, ServiceOptions{})
		st, err := service.Follow(t.Context(), Actor{}, names, Cursor{})
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for n := 0; n < rooms*each; {
			page, err := st.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page {
				if n++; m.ID != uint64(n) {
					t.Fatalf("message %d is %d", n, m.ID)
				}
			}
		}
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(6*rooms*each*size); got > most {
			t.Errorf("mixed %v: %d bytes were made to deliver %d", mixed, got, rooms*each*size)
		}
		st.Close()
		service.Close()
	}
}

// Rooms are added and removed at any time and anywhere, in the face of posts and
// trims: what is delivered of each is what comes after its place, once and in
// order, and what is missing is told.
func TestStreamRoomsComeAndGo(t *testing.T) {
	caughtUp := 0
	seeds := uint64(30)
	if testing.Short() {
		seeds = 6
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 11))
		s := memStore(t)
		s.recent = newRecent(1+r.IntN(60), 1<<20, nil)
		service := NewService(NewStuckLog(0), s, ServiceOptions{})
		st, err := service.FollowLater(t.Context(), Actor{})
		if err != nil {
			t.Fatal(err)
		}
		const rooms = 6
		ids := map[string][]uint64{} // of each room's messages
		next := map[string]uint64{}  // Seq that must come next, of the rooms of st
		first := map[string]uint64{} // what is before was dropped
		name := func() string { return fmt.Sprintf("room-%d", r.IntN(rooms)) }
		step := func() bool {
			d, err := st.Poll()
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for _, g := range d.Gaps {
				if next[g.Room] == 0 || g.FirstSeq > next[g.Room] || g.LastSeq < next[g.Room] || g.LastSeq >= first[g.Room] {
					t.Fatalf("seed %d: gap %+v, next is %d, first is %d", seed, g, next[g.Room], first[g.Room])
				}
				next[g.Room] = g.LastSeq + 1
			}
			id := uint64(0)
			for _, m := range d.Messages {
				if m.Seq != next[m.Room] || m.ID != ids[m.Room][m.Seq-1] || m.ID <= id {
					t.Fatalf("seed %d: %s/%d with ID %d after ID %d, next is %d", seed, m.Room, m.Seq, m.ID, id, next[m.Room])
				}
				next[m.Room], id = next[m.Room]+1, m.ID
			}
			// Whoever goes on from a cursor misses nothing and sees nothing twice.
			st.Cursors(func(room string, cursor uint64) {
				for i, id := range ids[room] {
					if (id <= cursor) != (uint64(i)+1 < next[room]) && uint64(i)+1 >= first[room] {
						t.Fatalf("seed %d: cursor of %s is %d, and %d is to come with ID %d", seed, room, cursor, next[room], id)
					}
				}
			})
			return !d.Empty()
		}
		for range 600 {
			switch r.IntN(10) {
			case 0:
				var from Cursor
				names := []string{name(), name()}
				switch r.IntN(4) {
				case 0:
					from.Latest = true
				case 1:
					names = names[:1]
					seq := uint64(r.IntN(len(ids[names[0]]) + 1))
					if from, err = service.CursorAfterSeq(t.Context(), Actor{}, names[0], seq, false); err != nil {
						t.Fatal(err)
					}
				default:
					from.ID = r.Uint64N(s.head() + 1)
				}
				if err := st.Add(names, from); err != nil {
					t.Fatal(err)
				}
				for _, room := range names {
					next[room] = 1
					for _, id := range ids[room] {
						if from.next == 0 && (from.Latest || id <= from.ID) {
							next[room]++
						}
					}
					if from.next > 0 {
						next[room] = from.next
					}
				}
				if st.behind > 0 {
					caughtUp++
				}
			case 1:
				room := name()
				if err := st.Remove([]string{room}); err != nil {
					t.Fatal(err)
				}
				delete(next, room)
			case 2, 3:
				step()
			default:
				var commands [][]byte
				id := s.head()
				for range 1 + r.IntN(40) {
					room := name()
					if r.IntN(60) > 0 {
						id++
						ids[room] = append(ids[room], id)
						commands = append(commands, post(room, "u", "x", ""))
					} else if n := len(ids[room]); n > 0 {
						below := uint64(1 + r.IntN(n+1))
						first[room] = max(first[room], below)
						commands = append(commands, trim(room, below))
					}
				}
				apply(t, s, encodeEntry(1, commands...))
			}
		}
		for step() {
		}
		for room, seq := range next {
			if int(seq) != len(ids[room])+1 {
				t.Errorf("seed %d: %s stands before %d of %d", seed, room, seq, len(ids[room]))
			}
		}
		if st.behind != 0 {
			t.Errorf("seed %d: %d rooms are behind in the end", seed, st.behind)
		}
		st.Close()
		if len(s.hub.topics) != 0 {
			t.Errorf("seed %d: topics are left: %v", seed, s.hub.topics)
		}
		service.Close()
	}
	if caughtUp < 3*int(seeds) {
		t.Errorf("only %d rooms had to catch up", caughtUp)
	}
}

// Rooms that come and go leave nothing behind.
func TestStreamKeepsNothingOfRemovedRooms(t *testing.T) {
	s := memStore(t)
	apply(t, s, encodeEntry(1, post("a", "u", "x", ""), post("b", "u", "x", "")))
	service := NewService(NewStuckLog(0), s, ServiceOptions{})
	defer service.Close()
	st, err := service.FollowLater(t.Context(), Actor{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := st.Add([]string{"b"}, Cursor{Latest: true}); err != nil {
		t.Fatal(err)
	}
	for i := range 50_000 {
		if err := st.Add([]string{"a", fmt.Sprint(i % 3)}, Cursor{}); err != nil {
			t.Fatal(err)
		}
		if err := st.Remove([]string{"a", "0", "1", "2"}); err != nil {
			t.Fatal(err)
		}
	}
	if len(st.rooms) != 1 || st.behind != 0 || len(st.sub.topics) != 1 || len(s.hub.topics) != 1 {
		t.Errorf("left: %d rooms, %d behind, %d topics of the stream, %d of the hub", len(st.rooms), st.behind, len(st.sub.topics), len(s.hub.topics))
	}
}
