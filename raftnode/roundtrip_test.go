package raftnode

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// appendFrames is a stream of appends as rafthttp writes one: a whole message, one
// that follows it with two entries, and a sign of life.
func appendFrames(t testing.TB) []byte {
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint64(nil, uint64(len(b))), b...)
	}
	entry := &raftpb.Entry{Term: new(uint64(2)), Index: new(uint64(3)), Data: bytes.Repeat([]byte("x"), 100<<10)}
	b := append([]byte{2}, marshal(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{entry}})...)
	b = append(binary.BigEndian.AppendUint64(append(b, 1), 2), marshal(entry)...)
	b = binary.BigEndian.AppendUint64(append(b, marshal(&raftpb.Entry{})...), 7)
	return append(b, 0)
}

func read(appends bool, b []byte) ([]byte, error) {
	return io.ReadAll(&checkedStream{body: io.NopCloser(bytes.NewReader(b)), appends: appends})
}

func TestStreamPassesWhatCanBeDecoded(t *testing.T) {
	whole := appendFrames(t)
	got, err := read(true, whole)
	if err != nil || !bytes.Equal(got, whole) {
		t.Errorf("%d bytes of %d, %v", len(got), len(whole), err)
	}
	for cut := 1; cut < len(whole); cut += 1 + cut/3 {
		if got, err := read(true, whole[:cut]); !bytes.HasPrefix(whole, got) || err == nil && len(got) != cut {
			t.Errorf("cut at %d: %d bytes, %v", cut, len(got), err)
		}
	}
	messages := whole[1:]
	messages = messages[:8+binary.BigEndian.Uint64(messages)]
	if got, err := read(false, messages); err != nil || !bytes.Equal(got, messages) {
		t.Errorf("messages: %d bytes of %d, %v", len(got), len(messages), err)
	}
}

// rafthttp would panic or allocate what a number says; nothing of it comes through.
func TestStreamEndsBeforeWhatCannotBe(t *testing.T) {
	number := func(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n) }
	for what, tt := range map[string]struct {
		appends bool
		b       []byte
	}{
		"an unknown type":              {true, []byte("<html>")},
		"more entries than can be":     {true, number([]byte{1}, math.MaxUint64)},
		"many entries":                 {true, number([]byte{1}, maxEntries+1)},
		"an entry longer than can be":  {true, number(number([]byte{1}, 1), math.MaxInt64)},
		"an entry that is none":        {true, append(number(number([]byte{1}, 1), 2), 0xff, 0xff)},
		"a long entry that is none":    {true, append(number(number([]byte{1}, 1), 1<<20), bytes.Repeat([]byte{0xff}, 1<<20)...)},
		"a long entry that ends early": {true, append(append(number(number([]byte{1}, 1), 1<<20), 4<<3|2, 0x80, 0x80, 4), make([]byte, 1<<20)...)},
		"an entry of field 0":          {true, append(number(number([]byte{1}, 1), 2), 0, 0)},
		"an entry of field 2²⁹":        {true, append(number(number([]byte{1}, 1), 6), 0x80, 0x80, 0x80, 0x80, 0x10, 0)},
		"a long message":               {true, number([]byte{2}, math.MaxUint64)},
		"a message that is none":       {true, append(number([]byte{2}, 1), 0xff)},
		"another long message":         {false, number(nil, maxFrame+1)},
		"the longest message":          {false, number(nil, math.MaxUint64)},
		"less than was announced":      {false, append(number(nil, maxFrame), 1, 2, 3)},
	} {
		got, err := read(tt.appends, tt.b)
		if err == nil || tt.appends && len(got) > 9 {
			t.Errorf("%s: %d bytes come through, %v", what, len(got), err)
		}
	}
}

// FuzzStream: what comes through is a prefix that its decoder can take.
func FuzzStream(f *testing.F) {
	f.Add(appendFrames(f)[:300], true)
	f.Add(binary.BigEndian.AppendUint64([]byte{1}, 1), true)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 9}, false)
	f.Fuzz(func(t *testing.T, b []byte, appends bool) {
		got, _ := read(appends, b)
		if !bytes.HasPrefix(b, got) {
			t.Fatalf("%x gave %x", b, got)
		}
		// An entry comes through whole or not at all.
		if len(b) > 17 && b[0] == 1 && appends && len(got) > 17 && got[8] > 0 {
			n := binary.BigEndian.Uint64(got[9:])
			if err := proto.Unmarshal(got[17:17+n], &raftpb.Entry{}); err != nil {
				t.Fatalf("%x: %v", got, err)
			}
		}
	})
}

func FuzzDecodable(f *testing.F) {
	entry := &raftpb.Entry{Term: new(uint64(2)), Index: new(uint64(3)), Type: raftpb.EntryConfChange.Enum(), Data: []byte("data")}
	for _, m := range []proto.Message{entry, &raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{entry}, Context: []byte("c"), Snapshot: &raftpb.Snapshot{Data: []byte("x")}, Responses: []*raftpb.Message{{Vote: new(uint64(1))}}}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, 0)
		f.Add(b, 2)
	}
	f.Add([]byte{0x80, 0x80, 0x80, 0x80, 0x10, 0}, 0)
	f.Fuzz(func(t *testing.T, b []byte, held int) {
		held = max(0, min(held, len(b)))
		if err := proto.Unmarshal(b, &raftpb.Entry{}); decodable(b[:len(b)-held], held) && err != nil {
			t.Fatalf("%x is decodable, the last %d bytes unseen, but %v", b, held, err)
		}
		if err := proto.Unmarshal(b, &raftpb.Message{}); decodableMessage(b) && err != nil {
			t.Fatalf("%x is a decodable message, but %v", b, err)
		}
	})
}

// What members send is decodable: nothing else may be held back.
func TestDecodableIsWhatIsSent(t *testing.T) {
	for _, size := range []int{0, 1, judgedPiece - 20, judgedPiece, judgedPiece + 1, 1 << 20} {
		entry := &raftpb.Entry{Term: new(uint64(1 << 40)), Index: new(uint64(1 << 50)), Type: raftpb.EntryNormal.Enum(), Data: make([]byte, size)}
		b, err := proto.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		first := min(len(b), judgedPiece)
		if !decodable(b[:first], len(b)-first) {
			t.Errorf("an entry of %d bytes is not", size)
		}
		if b, err = proto.Marshal(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{entry, entry}, Commit: new(uint64(1))}); err != nil || !decodableMessage(b) {
			t.Errorf("a message with entries of %d bytes is not, %v", size, err)
		}
	}
	if field := (&raftpb.Message{}).ProtoReflect().Descriptor().Fields().ByName("entries"); field == nil || field.Number() != entriesField {
		t.Errorf("the field of entries is %v", field)
	}
}
