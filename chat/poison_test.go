package chat

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	poison      = "poison"
	poisonWhole = "poisonous entry"
	poisonBelow = uint64(len(poison)) + 1e6
)

// poisonStore opens a store whose decisions panic on what is called poison.
func poisonStore(t *testing.T, fs vfs.FS) (*Store, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	opts := PlantPoison(StoreOptions{FS: fs, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Fatal: func(err error) { t.Errorf("store failed: %v", err) }}, poison, poisonWhole)
	s, err := OpenStore("data", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, log
}

// rejectedCommand changes nothing and is refused in the ordinary way.
func rejectedCommand() []byte {
	c := postCommand{room: "absent", user: "u", payload: []byte("p"), mustExist: true}
	return c.encode()
}

// poisonLog is a log with every kind of poison between good commands, and the
// same log with an ordinary rejection in the place of each.
func poisonLog() (bad, good [][]byte, poisons int) {
	for i := range 12 {
		before := post("a", "u", fmt.Sprint("before ", i), fmt.Sprint("id-", i))
		after := post("b", "u", fmt.Sprint("after ", i), "")
		for _, p := range [][]byte{post("a", "u", poison, fmt.Sprint("x", i)), post("new", "u", poison, ""), createRoom("made", poison), trim("a", poisonBelow)} {
			bad = append(bad, encodeEntry(int64(i), before, p, after, trim("b", uint64(i))))
			good = append(good, encodeEntry(int64(i), before, rejectedCommand(), after, trim("b", uint64(i))))
			poisons++
		}
		bad = append(bad, encodeEntry(int64(i), post("a", "u", poisonWhole, ""), post("c", "u", "beside it", "")))
		good = append(good, encodeEntry(int64(i), rejectedCommand(), rejectedCommand()))
		poisons++
	}
	return bad, good, poisons
}

// answers are the results of an entry in words.
func answers(result any) string {
	results, ok := result.([]commandResult)
	if !ok {
		return fmt.Sprintf("%T", result)
	}
	var all []string
	for _, r := range results {
		all = append(all, describe(r))
	}
	return strings.Join(all, "; ")
}

// applyAll applies a log in calls of up to size entries.
func applyAll(t *testing.T, s *Store, log [][]byte, size int) (all []string) {
	t.Helper()
	for at, _ := s.Applied(); at < uint64(len(log)); at, _ = s.Applied() {
		n := min(uint64(size), uint64(len(log))-at)
		results, err := s.Apply(from(at+1, log[at:at+n]...), at+n, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			all = append(all, answers(r))
		}
	}
	return all
}

func sameState(t *testing.T, what string, got, want *Store) {
	t.Helper()
	i, h := got.StateHash()
	wi, wh := want.StateHash()
	if i != wi || h != wh || fullHash(t, got) != fullHash(t, want) {
		t.Errorf("%s: the state at %d differs from that at %d", what, i, wi)
	}
}

// A command that makes its decision panic is rejected at its place, on every
// replica alike: however entries are grouped, after a restore, and when a start
// replays it. What is beside it in the entry or the batch is as if it were not
// there.
func TestPoisonIsRejectedAlike(t *testing.T) {
	bad, good, poisons := poisonLog()
	clean := memStore(t)
	applyAll(t, clean, good, 1)

	one, log := poisonStore(t, vfs.NewMem())
	want := applyAll(t, one, bad, 1)
	sameState(t, "entry by entry", one, clean)
	for i, answer := range want {
		switch {
		case i%5 == 4 && answer != "chat.poisonedEntry", i%5 < 4 && strings.Count(answer, string(CodeCommandFailed)) != 1:
			t.Errorf("entry %d: %s", i+1, answer)
		}
	}
	if got := one.Poisoned(); got != uint64(poisons) {
		t.Errorf("%d poisonous commands counted, want %d", got, poisons)
	}
	if n := strings.Count(log.String(), "command rejected: it made apply panic"); n != poisons || !strings.Contains(log.String(), "index=1 command=1 panic=planted") ||
		!strings.Contains(log.String(), "index=5 command=-1") || !strings.Contains(log.String(), "poison_test.go") && !strings.Contains(log.String(), "export_test.go") {
		t.Errorf("%d of %d are in the log, which begins %.300s", n, poisons, log)
	}

	for _, size := range []int{2, 3, 7, len(bad)} {
		s, _ := poisonStore(t, vfs.NewMem())
		got := applyAll(t, s, bad, size)
		sameState(t, fmt.Sprint("in batches of ", size), s, clean)
		if a, b := strings.Join(got, "\n"), strings.Join(want, "\n"); a != b {
			t.Errorf("in batches of %d the answers are\n%s\nwant\n%s", size, a, b)
		}
	}

	// A replica that gets the first half as a snapshot.
	half := len(bad) / 2
	giver, _ := poisonStore(t, vfs.NewMem())
	applyAll(t, giver, bad[:half], 4)
	taker, _ := poisonStore(t, vfs.NewMem())
	if err := taker.Restore(bytes.NewReader(content(t, giver))); err != nil {
		t.Fatal(err)
	}
	applyAll(t, taker, bad, 5)
	sameState(t, "after a restore", taker, clean)

	// A crash in the midst of it, and a start that replays poison.
	fs := vfs.NewCrashableMem()
	crashing, _ := poisonStore(t, fs)
	applyAll(t, crashing, bad[:half/2], 3)
	if _, err := crashing.Flush(); err != nil {
		t.Fatal(err)
	}
	applyAll(t, crashing, bad, 3)
	again, _ := poisonStore(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	if at, _ := again.Applied(); at != uint64(half/2) {
		t.Fatalf("the crash left %d entries, want %d", at, half/2)
	}
	applyAll(t, again, bad, 6)
	sameState(t, "after a crash", again, clean)
	if again.Poisoned() == 0 {
		t.Error("nothing poisonous was replayed")
	}
}

// A panic of the engine is this node's own trouble and is not taken for a
// rejection, which other replicas would not agree with.
func TestPanicOfTheStoreIsNotSurvived(t *testing.T) {
	db, err := pebble.Open("data", &pebble.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	batch := db.NewBatch()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	a := newApplier(db, counters{nextRoom: 1}, func(uint64, int, any) { t.Error("counted as a poisonous command") })
	a.batch = batch
	defer func() {
		if recover() == nil {
			t.Error("a read of a closed engine did not stop apply")
		}
	}()
	results, err := a.applyEntry(1, encodeEntry(1, post("a", "u", "p", "")))
	t.Errorf("applied to a closed engine: %v, %v", results, err)
}

// What this build cannot understand still stops the node: it is no panic.
func TestUnknownEntryIsNoPoison(t *testing.T) {
	s, _ := poisonStore(t, vfs.NewMem())
	if _, err := s.Apply(from(1, []byte{0xff}), 1, nil); !errors.Is(err, errEntry) || s.Poisoned() != 0 {
		t.Errorf("%v, %d counted", err, s.Poisoned())
	}
}
