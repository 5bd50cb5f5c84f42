package raftnode

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestEntryRoundTrip(t *testing.T) {
	id := requestID{Incarnation{1, 2, 0xff}, 1<<63 + 9}
	for kind := kindApplication; kind <= kindConfChange; kind++ {
		for _, payload := range []string{"", "x", "a longer payload"} {
			b := appendEntry([]byte("kept"), kind, id, []byte(payload))
			if string(b[:4]) != "kept" {
				t.Fatal("appendEntry does not append")
			}
			k, i, p, err := decodeEntry(b[4:])
			if err != nil || k != kind || i != id || string(p) != payload {
				t.Errorf("kind %d, %q: %v %v %q %v", kind, payload, k, i, p, err)
			}
		}
	}
}

// The layout is on disks: it must not move.
func TestEntryLayout(t *testing.T) {
	inc := Incarnation{0: 0xaa, 15: 0xbb}
	got := appendEntry(nil, kindAttributes, requestID{inc, 0x0102030405060708}, []byte("p"))
	want := []byte{1, 2, 0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8, 'p'}
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

func TestEntryOfAnUnknownFormatIsRefused(t *testing.T) {
	good := appendEntry(nil, kindApplication, requestID{}, nil)
	for n := range good {
		if _, _, _, err := decodeEntry(good[:n]); err == nil {
			t.Errorf("%d bytes of %d: accepted", n, len(good))
		}
	}
	for _, head := range [][2]byte{{0, 1}, {2, 1}, {1, 0}, {1, 4}, {1, 255}, {255, 1}} {
		b := bytes.Clone(good)
		copy(b, head[:])
		if _, _, _, err := decodeEntry(b); err == nil {
			t.Errorf("version %d, kind %d: accepted", head[0], head[1])
		}
	}
}

func TestIncarnationText(t *testing.T) {
	want := Incarnation{0: 0xab, 15: 1}
	b, err := json.Marshal(want)
	if err != nil || string(b) != `"ab000000000000000000000000000001"` {
		t.Fatal(string(b), err)
	}
	var got Incarnation
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Error(got, err)
	}
	if err := json.Unmarshal([]byte(`""`), &got); err != nil || !got.IsZero() {
		t.Errorf("the empty text: %v %v", got, err)
	}
	for _, bad := range []string{`"ab"`, `"zz000000000000000000000000000001"`, `"ab0000000000000000000000000000010"`, `7`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendEntry(nil, kindApplication, requestID{Incarnation{1}, 2}, []byte("payload")))
	f.Add(appendEntry(nil, kindConfChange, requestID{Incarnation{1}, 2}, []byte(`{"peer_url":"http://127.0.0.1:1"}`)))
	f.Add(bytes.Repeat([]byte{1}, entryHeaderSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, id, payload, err := decodeEntry(b)
		if err != nil {
			return
		}
		if again := appendEntry(nil, kind, id, payload); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes and encodes to %x", b, again)
		}
	})
}

func FuzzDecodeConfChange(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{8, 1, 16, 0, 24, 3})
	f.Add(append([]byte{16, 0, 24, 3, 34, byte(entryHeaderSize + 2)}, appendEntry(nil, kindConfChange, requestID{}, []byte("{}"))...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if cc, _, _, err := decodeConfChange(b); err == nil && cc == nil {
			t.Fatal("neither a change nor an error")
		}
	})
}
