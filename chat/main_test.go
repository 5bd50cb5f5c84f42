package chat

import (
	"bytes"
	"iter"
	"os"
	"os/exec"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(leavesBehind) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// leavesBehind is set in the process of a test that leaves goroutines behind, as
// a failed store does: nothing ends those but the end of their process.
const leavesBehind = "CHAT_TEST_LEAVES_BEHIND"

// inOwnProcess runs the test that calls it in a process of its own, and returns
// true there.
func inOwnProcess(t *testing.T) bool {
	if os.Getenv(leavesBehind) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), leavesBehind+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// openTestStore opens a store in dir of fs and closes it with the test.
func openTestStore(t testing.TB, fs vfs.FS, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir, StoreOptions{FS: fs, Fatal: func(err error) { t.Errorf("store failed: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func memStore(t testing.TB) *Store { return openTestStore(t, vfs.NewMem(), "data") }

// encodeEntry makes the payload of a log entry.
func encodeEntry(timeUS int64, commands ...[]byte) []byte {
	return append(appendHeader(nil, timeUS), bytes.Join(commands, nil)...)
}

func post(room, user, payload, clientID string) []byte {
	c := postCommand{room: room, user: user, payload: []byte(payload), clientID: clientID}
	return c.encode()
}

func createRoom(room, name string) []byte {
	c := createRoomCommand{room: room, name: name}
	return c.encode()
}

func purge(beforeUS int64) []byte {
	c := purgeCommand{beforeUS: beforeUS}
	return c.encode()
}

func window(us int64) []byte {
	c := settingsCommand{dedupWindowUS: us}
	return c.encode()
}

func trim(room string, below uint64) []byte {
	c := trimCommand{room: room, below: below}
	return c.encode()
}

// from numbers entries from index on.
func from(index uint64, entries ...[]byte) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i, e := range entries {
			if !yield(index+uint64(i), e) {
				return
			}
		}
	}
}

// apply applies entries after what the store holds, in one Apply.
func apply(t testing.TB, s *Store, entries ...[]byte) [][]commandResult {
	t.Helper()
	last, _ := s.Applied()
	results, err := s.Apply(from(last+1, entries...), last+uint64(len(entries)), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]commandResult, len(results))
	for i, r := range results {
		out[i] = r.([]commandResult)
	}
	return out
}

func fullHash(t testing.TB, s *Store) uint64 {
	t.Helper()
	_, h, err := s.FullHash()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// seqs gives the Seqs of messages.
func seqs(messages []*Message) []uint64 {
	out := []uint64{}
	for _, m := range messages {
		out = append(out, m.Seq)
	}
	return out
}
