package chat

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logOf makes a log of arbitrary bytes: each entry takes one byte for its time
// and the number of its commands, each command three. It is bounded, so that
// the fuzzer looks for strange logs and not for long ones.
func logOf(data []byte) (log [][]byte) {
	next := func() (b byte) {
		if len(data) > 0 {
			b, data = data[0], data[1:]
		}
		return b
	}
	for len(data) > 0 && len(log) < 40 {
		head := next()
		var commands [][]byte
		for range 1 + int(head&7) {
			kind, where, what := next(), next(), next()
			room := fmt.Sprint("room-", where&3)
			id := ""
			if where&4 != 0 {
				id = fmt.Sprint("id-", what&7)
			}
			switch kind % 10 {
			case 0:
				commands = append(commands, createRoom(room, fmt.Sprint(what&1)))
			case 1:
				commands = append(commands, trim(room, uint64(what)))
			case 2:
				commands = append(commands, createRoom("", "unnamed"))
			case 3:
				c := postCommand{room: room, user: "u", payload: []byte{what}, clientID: id, mustExist: true}
				commands = append(commands, c.encode())
			case 4:
				commands = append(commands, post(room, "u", poison, id))
			case 8:
				commands = append(commands, purge(int64(what)<<26)) // half an hour and more each 30
			case 9:
				commands = append(commands, window(DefaultDedupWindow.Microseconds()+int64(what&3)<<28))
			default:
				commands = append(commands, post(room, fmt.Sprint("user-", what&1), strings.Repeat("x", int(what>>4)), id))
			}
		}
		log = append(log, encodeEntry(int64(head>>3)<<29, commands...))
	}
	return log
}

// FuzzApply: whatever the log, its entries lead to the same state and answers
// one by one and in batches, on a replica that restarts after a crash in the
// midst of it, and on one that gets its beginning as a snapshot.
func FuzzApply(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("\x01\x05\x04\x21\x06\x04\x21\x02\x01\x00\xff\x05\x00\x40\x03\x04\x07"), []byte{2, 1})
	f.Add(bytes.Repeat([]byte{7, 5, 5, 9, 1, 1, 3, 6, 2, 90, 4, 4, 4, 0, 3, 1}, 12), []byte{3, 1, 4, 1, 5})
	f.Add(bytes.Repeat([]byte{0xf8, 2, 0, 0, 0x00, 1, 1, 255, 0x0b, 5, 6, 1, 5, 6, 1, 1, 2, 1}, 9), []byte{39})
	f.Fuzz(func(t *testing.T, data, sizes []byte) {
		log := logOf(data)
		size := func(i int) int {
			if len(sizes) == 0 {
				return len(log)
			}
			return 1 + int(sizes[i%len(sizes)])%8
		}
		open := func(fs vfs.FS) *Store {
			s, err := OpenStore("data", PlantPoison(StoreOptions{FS: fs}, poison, poisonWhole))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		closing := func(s *Store) {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		one := open(vfs.NewMem())
		defer closing(one)
		want := applyAll(t, one, log, 1)

		// The other stops twice, at places of the fuzzer's choice.
		fs := vfs.NewCrashableMem()
		other := open(fs)
		var got []string
		for at, batch := 0, 0; at < len(log); batch++ {
			n := min(size(batch), len(log)-at)
			got = append(got[:at], applyAll(t, other, log[:at+n], n)...)
			at += n
			switch batch {
			case 1:
				if _, err := other.Flush(); err != nil {
					t.Fatal(err)
				}
			case 2:
				lost := fs.CrashClone(vfs.CrashCloneCfg{})
				closing(other)
				fs, other = lost, open(lost)
				index, _ := other.Applied()
				at = int(index)
			case 4:
				fresh := open(vfs.NewMem())
				if err := fresh.Restore(bytes.NewReader(content(t, other))); err != nil {
					t.Fatal(err)
				}
				closing(other)
				other = fresh
			}
		}
		defer closing(other)
		sameState(t, "in batches", other, one)
		if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
			t.Errorf("answers in batches:\n%s\nentry by entry:\n%s", a, b)
		}
	})
}
