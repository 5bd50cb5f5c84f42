package chat

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/text/unicode/norm"
	"google.golang.org/protobuf/proto"

	"github.com/raft-chat/raft-chat/chat/chatpb"
)

// asProto gives an entry as the generated code has it.
func asProto(e *entry) *chatpb.Batch {
	b := &chatpb.Batch{Version: envelopeVersion, FeatureLevel: e.level, TimeUs: e.timeUS}
	for i := range e.commands {
		c := &chatpb.Command{}
		switch from := &e.commands[i]; from.kind {
		case kindPost:
			c.Kind = &chatpb.Command_Post{Post: &chatpb.Post{
				Room: from.post.room, User: from.post.user, Payload: from.post.payload,
				ClientMessageId: from.post.clientID, MustExist: from.post.mustExist,
			}}
		case kindCreateRoom:
			c.Kind = &chatpb.Command_CreateRoom{CreateRoom: &chatpb.CreateRoom{Room: from.createRoom.room, Name: from.createRoom.name}}
		case kindTrim:
			c.Kind = &chatpb.Command_Trim{Trim: &chatpb.Trim{Room: from.trim.room, Below: from.trim.below}}
		case kindPurge:
			c.Kind = &chatpb.Command_Purge{Purge: &chatpb.Purge{BeforeUs: from.purge.beforeUS}}
		case kindSettings:
			c.Kind = &chatpb.Command_Settings{Settings: &chatpb.Settings{DedupWindowUs: from.settings.dedupWindowUS}}
		}
		b.Commands = append(b.Commands, c)
	}
	return b
}

func seedEntries() [][]byte {
	must := postCommand{room: "r", user: "u", payload: []byte("p"), mustExist: true}
	return [][]byte{
		{},
		encodeEntry(0, post("r", "u", "p", "id")),
		encodeEntry(-5, createRoom("", "name"), must.encode(), createRoom("r", "")),
		encodeEntry(1<<60, post("r", "u", strings.Repeat("long", 100), "")),
		encodeEntry(2, trim("r", 1<<63), post("r", "u", "p", ""), trim("", 0), trim("r", 2)),
		encodeEntry(3, purge(0), purge(-1), purge(1<<50), window(3_600_000_000), window(-7), window(0)),
		append(encodeEntry(1, post("r", "u", "p", "")), 0x28, 1),
	}
}

// FuzzEntry: what the codec accepts means what protobuf reads, and survives being
// encoded by it; nothing panics; what is not accepted is refused by Apply.
func FuzzEntry(f *testing.F) {
	for _, e := range seedEntries() {
		f.Add(e)
	}
	s, err := OpenStore("data", StoreOptions{FS: vfs.NewMem()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		var e entry
		err := e.reset(data)
		last, _ := s.Applied()
		results, applyErr := s.Apply(from(last+1, data), last+1, nil)
		if err != nil {
			if !errors.Is(err, errEntry) || !errors.Is(applyErr, errEntry) {
				t.Fatalf("decode: %v; apply: %v", err, applyErr)
			}
			return
		}
		if applyErr != nil || len(results[0].([]commandResult)) != len(e.commands) {
			t.Fatalf("an entry that decodes was not applied: %v", applyErr)
		}
		var want chatpb.Batch
		if err := proto.Unmarshal(data, &want); err != nil {
			t.Fatalf("protobuf refuses what was accepted: %v", err)
		}
		got := asProto(&e)
		if !proto.Equal(got, &want) {
			t.Fatalf("read %v, protobuf read %v", got, &want)
		}
		encoded, err := proto.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var again entry
		if err := again.reset(encoded); err != nil {
			t.Fatalf("what protobuf encodes is refused: %v", err)
		}
		if !proto.Equal(asProto(&again), &want) {
			t.Fatal("what protobuf encodes reads differently")
		}
	})
}

// The codec writes what protobuf reads.
func TestEncodeAgreesWithProtobuf(t *testing.T) {
	for _, data := range seedEntries()[1:6] {
		var b chatpb.Batch
		if err := proto.Unmarshal(data, &b); err != nil {
			t.Fatal(err)
		}
		if len(b.ProtoReflect().GetUnknown()) > 0 {
			t.Error("protobuf does not know a field")
		}
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(&b)
		if err != nil || !bytes.Equal(encoded, data) {
			t.Errorf("protobuf writes %x, want %x (%v)", encoded, data, err)
		}
	}
}

// FuzzRecords: no stored value makes a decoder panic, and one that is read is
// written back as it was.
func FuzzRecords(f *testing.F) {
	c := counters{applied: 1, id: 2, nextRoom: 3, postedAtUS: 4, hash: 5}
	f.Add(c.append(nil))
	r := roomRecord{number: 1, createdUS: 2, display: "x"}
	f.Add(r.append(nil))
	st := make([]byte, roomStateLen)
	(&roomState{1, 2, 2, 3, 4, 0}).put(st)
	f.Add(st)
	trimmed := make([]byte, trimmedStateLen)
	(&roomState{3, 2, 0, 3, 4, 3}).put(trimmed)
	f.Add(trimmed)
	f.Add((&droppedRecord{7, 8}).append(nil))
	f.Add(appendTrims(nil, 9))
	m := make([]byte, messageRecordLen(1, 2, "u", "id", []byte("p")))
	putMessageRecord(m, 1, 2, "u", "id", []byte("p"))
	f.Add(m)
	f.Add(appendRuns(nil, []run{{1, 2, 3}, {4, 5, 6}}))
	d := make([]byte, dedupLen)
	(&dedupRecord{seq: 1}).put(d)
	f.Add(d)
	gone := dedupRecord{seq: 1, dropped: true, id: 2, postedUS: 3}
	d = make([]byte, gone.len())
	gone.put(d)
	f.Add(d)
	f.Add((&forgettable{postedUS: 1, room: 2, clientID: []byte("id")}).append(nil))
	f.Add((&settings{dedupWindow: DefaultDedupWindow}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Numbers may be stored longer than need be; what is read must be the
		// same after it was written once more.
		same := func(what string, got, want []byte, err error) {
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %x became %x (%v)", what, want, got, err)
			}
		}
		if c, err := decodeCounters(b); err == nil {
			same("counters", c.append(nil), b, nil)
		}
		if r, err := decodeRoom(b); err == nil {
			once := r.append(nil)
			again, err := decodeRoom(once)
			same("room", again.append(nil), once, err)
		}
		if st, err := decodeRoomState(b); err == nil {
			got := make([]byte, st.len())
			st.put(got)
			same("state", got, b, nil)
		}
		if m, err := decodeMessage(b, "r", 1); err == nil {
			us := m.PostedAt.UnixMicro()
			once := make([]byte, messageRecordLen(m.ID, us, m.User, m.ClientMessageID, m.Payload))
			putMessageRecord(once, m.ID, us, m.User, m.ClientMessageID, m.Payload)
			again, err := decodeMessage(once, "r", 1)
			if err != nil || again.ID != m.ID || again.User != m.User || again.ClientMessageID != m.ClientMessageID || !bytes.Equal(again.Payload, m.Payload) || !again.PostedAt.Equal(m.PostedAt) {
				t.Fatalf("message %x became %x (%v)", b, once, err)
			}
			if id, err := decodeMessageID(b); err != nil || id != m.ID {
				t.Fatalf("ID %d, want %d (%v)", id, m.ID, err)
			}
		}
		if runs, err := decodeRuns(b, nil); err == nil {
			once := appendRuns(nil, runs)
			again, err := decodeRuns(once, nil)
			same("runs", appendRuns(nil, again), once, err)
		}
		if d, err := decodeDropped(b); err == nil {
			same("dropped", d.append(nil), b, nil)
		}
		if index, err := decodeTrims(b); err == nil {
			same("trims", appendTrims(nil, index), b, nil)
		}
		if d, err := decodeDedup(b); err == nil {
			got := make([]byte, d.len())
			d.put(got)
			same("dedup", got, b, nil)
		}
		if f, err := decodeForgettable(b); err == nil {
			same("forgettable", f.append(nil), b, nil)
		}
		if s, err := decodeSettings(b); err == nil {
			same("settings", s.append(nil), b, nil)
		}
	})
}

// FuzzNames: what is accepted keeps the rules, and stays the same when it is
// normalised again.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "general", "cafe\u0301", ".", "a/b", "a\x00", "\xff", "\u0958", strings.Repeat("\u0344", 40), "\u1100\u1161\u11a8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		check := func(what, out string, max int, again func(string) (string, error)) {
			if len(out) == 0 || len(out) > max || !utf8.ValidString(out) || !norm.NFC.IsNormalString(out) {
				t.Fatalf("%s %q became %q", what, in, out)
			}
			for _, r := range out {
				if unicode.IsControl(r) {
					t.Fatalf("%s %q holds a control character", what, out)
				}
			}
			if twice, err := again(out); err != nil || twice != out {
				t.Fatalf("%s %q became %q the second time (%v)", what, out, twice, err)
			}
		}
		if out, err := NormalizeRoomName(in); err == nil {
			check("room", out, MaxRoomName, NormalizeRoomName)
			if strings.ContainsAny(out, "/,") || out == "." || out == ".." {
				t.Fatalf("room %q", out)
			}
		} else if CodeOf(err) != CodeRoomNameInvalid {
			t.Fatal(err)
		}
		if out, err := NormalizeUserName(in); err == nil {
			check("user", out, MaxUserName, NormalizeUserName)
		}
		if checkClientMessageID(in) == nil && (len(in) > MaxClientMessageID || !utf8.ValidString(in)) {
			t.Fatalf("client message id %q", in)
		}
	})
}

// FuzzRestore: no content makes Restore panic, and one that is refused changes
// nothing.
func FuzzRestore(f *testing.F) {
	s, err := OpenStore("data", StoreOptions{FS: vfs.NewMem()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	apply(f, s, encodeEntry(1, post("a", "u", "p", "id")))
	f.Add(content(f, s))
	f.Add([]byte(contentMagic))
	f.Add(append([]byte(contentMagic), 2, 1, 0, 'a', 77, 0, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := fullHash(t, s)
		if err := s.Restore(bytes.NewReader(b)); err != nil {
			if fullHash(t, s) != before {
				t.Fatalf("refused (%v), but the store changed", err)
			}
			return
		}
		if !bytes.Equal(content(t, s), b) && len(content(t, s)) != len(b) {
			// Lengths may be written longer than need be, nothing else.
			if got := content(t, s); len(got) > len(b) {
				t.Fatalf("restored %x, holds %x", b, got)
			}
		}
	})
}
