package chat

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

var update = flag.Bool("update", false, "rewrite the golden output of testdata/*.txt")

// TestScripts runs the scripts of testdata against a fresh store each. A script
// is a list of commands; lines that begin with "= " are the expected output of
// the line before:
//
//	entry [time=US]                     begins a log entry
//	post ROOM USER TEXT [id=ID] [must]  adds a post to it
//	create ROOM|- [NAME]                adds a creation to it
//	trim ROOM BELOW                     adds a trim to it
//	purge US                            adds a purge to it
//	window US                           adds a change of the dedup window to it
//	apply                               applies the entries so far, in one Apply
//	skip N                              moves the applied index without entries
//	store                               prints all records
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(script))
			if got == string(script) {
				return
			}
			if !*update {
				t.Fatalf("%s differs; got:\n%s", file, got)
			}
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func runScript(t *testing.T, script string) string {
	s := memStore(t)
	var out strings.Builder
	var entries [][]byte
	for _, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		if strings.HasPrefix(line, "= ") {
			continue
		}
		out.WriteString(line + "\n")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		add := func(command []byte) {
			if len(entries) == 0 {
				t.Fatalf("%q outside of an entry", line)
			}
			entries[len(entries)-1] = append(entries[len(entries)-1], command...)
		}
		switch words[0] {
		case "entry":
			us := int64(0)
			for _, w := range words[1:] {
				us, _ = strconv.ParseInt(strings.TrimPrefix(w, "time="), 10, 64)
			}
			entries = append(entries, appendHeader(nil, us))
		case "post":
			c := postCommand{room: words[1], user: words[2], payload: []byte(words[3])}
			for _, w := range words[4:] {
				if id, ok := strings.CutPrefix(w, "id="); ok {
					c.clientID = id
				}
				c.mustExist = c.mustExist || w == "must"
			}
			add(c.encode())
		case "create":
			c := createRoomCommand{room: strings.TrimPrefix(words[1], "-"), name: strings.Join(words[2:], " ")}
			add(c.encode())
		case "trim":
			below, err := strconv.ParseUint(words[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			add(trim(words[1], below))
		case "purge":
			us, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			add(purge(us))
		case "window":
			us, err := strconv.ParseInt(words[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			add(window(us))
		case "apply":
			for i, results := range apply(t, s, entries...) {
				for j, r := range results {
					fmt.Fprintf(&out, "= %d.%d %s\n", i, j, describe(r))
				}
			}
			entries = nil
		case "skip":
			n, _ := strconv.ParseUint(words[1], 10, 64)
			last, _ := s.Applied()
			if _, err := s.Apply(nil, last+n, nil); err != nil {
				t.Fatal(err)
			}
		case "store":
			dump(t, s, &out)
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return out.String()
}

func describe(r commandResult) string {
	switch {
	case r.code != "":
		s := "rejected " + string(r.code)
		if r.seq > 0 {
			s += fmt.Sprintf(" seq=%d", r.seq)
		}
		return s
	case r.message != nil:
		m := r.message
		s := fmt.Sprintf("message %s seq=%d id=%d user=%s at=%d payload=%s", m.Room, m.Seq, m.ID, m.User, m.PostedAt.UnixMicro(), m.Payload)
		if m.ClientMessageID != "" {
			s += " client=" + m.ClientMessageID
		}
		if r.repeated {
			s += " repeated"
		}
		if m.Trimmed {
			s += " trimmed"
		}
		return s
	case r.room == nil:
		return fmt.Sprintf("done purged=%d", r.purged)
	}
	s := fmt.Sprintf("room %s display=%q created=%v messages=%d at=%d", r.room.Name, r.room.DisplayName, r.created, r.room.Messages, r.room.CreatedAt.UnixMicro())
	if r.room.FirstSeq > 1 {
		s += fmt.Sprintf(" first=%d last=%d", r.room.FirstSeq, r.room.LastSeq)
	}
	return s
}

func dump(t *testing.T, s *Store, out *strings.Builder) {
	err := s.read(func(r pebble.Reader) error {
		it, err := r.NewIter(nil)
		if err != nil {
			return err
		}
		defer it.Close()
		for ok := it.First(); ok; ok = it.Next() {
			fmt.Fprintf(out, "= %s\n", describeRecord(t, it.Key(), it.Value()))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func describeRecord(t *testing.T, key, value []byte) string {
	check := func(err error) {
		if err != nil {
			t.Fatalf("key %x: %v", key, err)
		}
	}
	num := func(at int) uint64 { return binary.BigEndian.Uint64(key[at:]) }
	switch key[0] {
	case prefixMeta:
		if key[1] == 'm' {
			return fmt.Sprintf("meta %q", value[1:])
		}
		if key[1] == 's' {
			s, err := decodeSettings(value)
			check(err)
			return fmt.Sprintf("settings window=%d", s.dedupWindow.Microseconds())
		}
		if key[1] == 't' {
			index, err := decodeTrims(value)
			check(err)
			return fmt.Sprintf("trims %d", index)
		}
		c, err := decodeCounters(value)
		check(err)
		return fmt.Sprintf("counters applied=%d id=%d nextRoom=%d postedAt=%d hash=%016x", c.applied, c.id, c.nextRoom, c.postedAtUS, c.hash)
	case prefixRoom:
		r, err := decodeRoom(value)
		check(err)
		return fmt.Sprintf("room %s: number=%d created=%d display=%q", key[1:], r.number, r.createdUS, r.display)
	case prefixRoomState:
		r, err := decodeRoomState(value)
		check(err)
		s := fmt.Sprintf("state %d: first=%d last=%d messages=%d lastID=%d lastPosted=%d", num(1), r.first, r.last, r.messages, r.lastID, r.lastPostedUS)
		if r.droppedID > 0 {
			s += fmt.Sprintf(" dropped=%d", r.droppedID)
		}
		return s
	case prefixRoomName:
		return fmt.Sprintf("name %d: %s", num(1), value[1:])
	case prefixMessage:
		m, err := decodeMessage(value, "", num(9))
		check(err)
		return fmt.Sprintf("message %d/%d: id=%d at=%d user=%s client=%q payload=%q", num(1), num(9), m.ID, m.PostedAt.UnixMicro(), m.User, m.ClientMessageID, m.Payload)
	case prefixIDIndex:
		runs, err := decodeRuns(value, nil)
		check(err)
		return fmt.Sprintf("ids %d: %v", num(1), runs)
	case prefixDedup:
		r, err := decodeDedup(value)
		check(err)
		s := fmt.Sprintf("client id %d/%s: seq=%d hash=%x", num(1), key[9:], r.seq, r.hash)
		if r.dropped {
			s += fmt.Sprintf(" dropped id=%d at=%d", r.id, r.postedUS)
		}
		return s
	case prefixForget:
		f, err := decodeForgettable(value)
		check(err)
		return fmt.Sprintf("forgettable %d: client id %d/%s at=%d", num(1), f.room, f.clientID, f.postedUS)
	case prefixDropped:
		d, err := decodeDropped(value)
		check(err)
		return fmt.Sprintf("dropped %d: room=%d trimmed=%d", num(1), d.room, d.trimmed)
	}
	return fmt.Sprintf("unknown %x = %x", key, value)
}
