package chat

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// BenchmarkApply measures a message of an entry of 256, by whether it carries a
// client message id.
func BenchmarkApply(b *testing.B) {
	for _, withID := range []bool{false, true} {
		b.Run(fmt.Sprintf("clientID=%v", withID), func(b *testing.B) {
			s := openTestStore(b, nil, b.TempDir())
			payload := strings.Repeat("x", 100)
			n := 0
			entry := func() []byte {
				commands := make([][]byte, 256)
				for i := range commands {
					id := ""
					if withID {
						id = fmt.Sprintf("%016x-%d", uint64(n)*0x9e3779b97f4a7c15, n)
					}
					commands[i] = post(fmt.Sprintf("room-%d", n%20), "user", payload, id)
					n++
				}
				return encodeEntry(int64(n), commands...)
			}
			b.ReportAllocs()
			for i := 0; i < b.N; i += 256 {
				b.StopTimer()
				e := entry()
				b.StartTimer()
				apply(b, s, e)
			}
		})
	}
}

// BenchmarkTrim measures a dropped message of a command that drops 4,096, in
// entries that other rooms share.
func BenchmarkTrim(b *testing.B) {
	s := memStore(b)
	n := 0
	for i := 0; i < b.N; i += maxTrimMessages {
		b.StopTimer()
		for range 2 * maxTrimMessages / 256 {
			commands := make([][]byte, 256)
			for j := range commands {
				n++
				commands[j] = post(fmt.Sprintf("room-%d", j%2), "user", "hello, this is a message", fmt.Sprint(n))
			}
			apply(b, s, encodeEntry(1, commands...))
		}
		b.StartTimer()
		info := apply(b, s, encodeEntry(1, trim("room-0", 1<<40)))[0][0].room
		if info.Messages != 0 {
			b.Fatalf("%d messages are left", info.Messages)
		}
	}
}

// BenchmarkFirehose measures a message of a stream of all rooms, read from the
// recent messages and from the store.
func BenchmarkFirehose(b *testing.B) {
	s := memStore(b)
	const stored = 256 * 256
	for i := 0; i < stored; i += 256 {
		commands := make([][]byte, 256)
		for j := range commands {
			commands[j] = post(fmt.Sprintf("room-%d", j%20), "user", "hello, this is a message", "")
		}
		apply(b, s, encodeEntry(int64(i), commands...))
	}
	b.Run("recent", func(b *testing.B) {
		head := s.head()
		for i := 0; i < b.N; {
			page, ok := s.recent.after(head-2048, head, maxStreamMessages, maxStreamBytes)
			if !ok {
				b.Fatal("not in the recent messages")
			}
			i += len(page)
		}
	})
	b.Run("store", func(b *testing.B) {
		after := uint64(0)
		for i := 0; i < b.N; {
			var page []*Message
			err := s.read(func(r pebble.Reader) (err error) {
				page, err = scan{maxStreamMessages, maxStreamBytes}.cluster(r, after, stored)
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
			i += len(page)
			if after += uint64(len(page)); after == stored {
				after = 0
			}
		}
	})
}

// BenchmarkBackfill reads 1,000 rooms with 200 KB each from the start, by how they
// were written and how long messages are. An operation is all of it.
func BenchmarkBackfill(b *testing.B) {
	for _, size := range []int{500, 5000, 60_000} {
		for _, order := range []string{"mixed", "room after room"} {
			b.Run(fmt.Sprintf("%d bytes, %s", size, order), func(b *testing.B) {
				s := openTestStore(b, nil, b.TempDir())
				const rooms = 1000
				each := 200_000 / size
				names := make([]string, rooms)
				for i := range names {
					names[i] = fmt.Sprint("room-", i)
				}
				payload := strings.Repeat("x", size)
				var commands [][]byte
				for i := range rooms * each {
					room := i / each
					if order == "mixed" {
						room = i % rooms
					}
					commands = append(commands, post(names[room], "user", payload, ""))
					if len(commands) == 64 || i == rooms*each-1 {
						apply(b, s, encodeEntry(int64(i), commands...))
						commands = nil
					}
				}
				if _, err := s.Flush(); err != nil {
					b.Fatal(err)
				}
				service := NewService(NewStuckLog(0), s, ServiceOptions{})
				defer service.Close()
				b.ReportAllocs()
				for b.Loop() {
					st, err := service.Follow(b.Context(), Actor{}, names, Cursor{})
					if err != nil {
						b.Fatal(err)
					}
					for n := 0; n < rooms*each; {
						page, err := st.Next(b.Context())
						if err != nil {
							b.Fatal(err)
						}
						n += len(page)
					}
					st.Close()
				}
			})
		}
	}
}
