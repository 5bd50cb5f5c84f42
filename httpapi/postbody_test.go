package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/raft-chat/raft-chat/chat"
)

// bodySeeds are bodies near the edges of the fast decoder.
var bodySeeds = []string{
	`{"Message":"hello","User":"ann"}`,
	`{"Message":"hello","User":"ann","ClientMessageID":"c1"}`,
	` { "User" : "a\"b\\c\/d\b\f\n\r\t" , "Message" : "x" } `,
	`{"Message":"a","Message":"b"}`,
	`{"Message":"a","message":"b"}`,
	`{"Message":"a","Message":null}`,
	`{"Message":"\u0041\ud83d\ude00"}`,
	`{"Message":"\ud83d"}`,
	`{"Message":"\\ud83d"}`,
	`{"Message":"\ud83d\\ude00"}`,
	`{"Message":"a","Other":{"Message":["b"]}}`,
	`{"M\u0065ssage":"a"}`,
	`{"Message":"a"}x`,
	`{"Message":"a",}`,
	`{"Message" "a"}`,
	`{"Message":"a" "User":"b"}`,
	`{"Message":"\x"}`,
	`{"Message":"a`,
	`{"Message":"a\`,
	"{\"Message\":\"a\x1fb\"}",
	"{\"Message\":\"a\x7fb\xc2\x80\u2028\"}",
	"{\"Message\":\"\xff\"}",
	`{}`, `{`, ``, `null`, `[]`, `"a"`, `{"Message":1}`, `{"User":{}}`,
}

// FuzzPostBody compares the decoder with encoding/json, which must agree on every body that is Unicode text.
func FuzzPostBody(f *testing.F) {
	for _, seed := range bodySeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		given := bytes.Clone(body)
		got, p := decodePostJSON(body)
		if !bytes.Equal(body, given) {
			t.Fatal("the body was changed")
		}
		if p != nil && p.status != http.StatusBadRequest {
			t.Fatalf("status %d", p.status)
		}
		if !utf8.Valid(body) {
			if p == nil {
				t.Fatal("took bytes that are not UTF-8")
			}
			return
		}
		var want struct{ Message, User, ClientMessageID string }
		err := json.Unmarshal(body, &want)
		if p != nil && strings.Contains(p.detail, "surrogate") {
			// Refused for half a surrogate pair: encoding/json shows one by replacing it, wherever it stands.
			if !strings.Contains(strings.ToLower(string(body)), `\ud`) {
				t.Fatal("saw half of a pair where no escape is")
			}
			return
		}
		if (err != nil) != (p != nil) {
			t.Fatalf("encoding/json says %v, the decoder %+v", err, p)
		}
		if err != nil {
			return
		}
		if got.user != want.User || string(got.payload) != want.Message || got.clientMessageID != want.ClientMessageID {
			t.Fatalf("got %+q %q, want %+q", got, got.payload, want)
		}
		for i := range body {
			body[i] = 'x'
		}
		if string(got.payload) != want.Message {
			t.Fatal("the payload shares the body's memory")
		}
	})
}

// FuzzAnyBody decodes bodies with any headers: it must not panic, and what it takes must be text.
func FuzzAnyBody(f *testing.F) {
	f.Add("application/json", "u", []byte(`{"Message":"m"}`))
	f.Add("text/plain; charset=utf-8", "u", []byte("m"))
	f.Add("multipart/form-data; boundary=\"", "", []byte("--"))
	f.Fuzz(func(t *testing.T, kind, user string, body []byte) {
		got, p := decodePost(http.Header{"Content-Type": {kind}, "X-User": {user}}, body)
		switch {
		case p == nil && !utf8.Valid(got.payload):
			t.Fatalf("took %q", got.payload)
		case p != nil && (p.code == "" || p.status < 400 || p.status > 499):
			t.Fatalf("problem %+v", p)
		}
	})
}

// FuzzEncoding reads back with encoding/json what the encoder has made of any message.
func FuzzEncoding(f *testing.F) {
	f.Add("general", "ann", []byte("hello"), "")
	f.Add("<&>\u2028", "\"\\\b\x00\x7f", []byte("\xff\xfe"), "é\u2029")
	f.Add("\xff", "a\xc3", []byte("\xed\xa0\x80"), "\xf0\x9f")
	f.Fuzz(func(t *testing.T, room, user string, payload []byte, id string) {
		m := &chat.Message{Room: room, Seq: 7, ID: 1<<64 - 1, User: user, Payload: payload, ClientMessageID: id}
		var got wire
		if err := json.Unmarshal(messageJSON(m), &got); err != nil {
			t.Fatalf("%q: %v", messageJSON(m), err)
		}
		text := func(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
		if utf8.ValidString(room) && got.Room != room || utf8.ValidString(user) && got.User != user || got.Seq != 7 || got.ID != 1<<64-1 {
			t.Fatalf("%q came back as %+v", messageJSON(m), got)
		}
		switch {
		case utf8.Valid(payload) && (got.Message == nil || *got.Message != string(payload)),
			!utf8.Valid(payload) && (got.Message != nil || !bytes.Equal(got.Payload, payload)):
			t.Fatalf("payload %q came back as %+v", payload, got)
		}
		if utf8.ValidString(id) && got.ClientMessageID != text(id) {
			t.Fatalf("id %q came back as %q", id, got.ClientMessageID)
		}
		frame := firehoseFrame(m)
		var post struct {
			RoomName string
			Post     wire
		}
		if err := json.Unmarshal(frameText(t, frame), &post); err != nil {
			t.Fatalf("%q: %v", frame, err)
		}
		got.ClientMessageID = ""
		if post.RoomName != got.Room || post.Post.Seq != got.Seq || post.Post.User != got.User {
			t.Fatalf("frame %q, message %+v", frame, got)
		}
	})
}

// frameText returns what stands behind the header of a frame, and checks the header.
func frameText(t *testing.T, frame []byte) []byte {
	t.Helper()
	if frame[0] != 0x81 {
		t.Fatalf("first byte is %#x", frame[0])
	}
	length, skip := int(frame[1]), 2
	switch length {
	case 126:
		length, skip = int(frame[2])<<8|int(frame[3]), 4
	case 127:
		length, skip = 0, 10
		for _, b := range frame[2:10] {
			length = length<<8 | int(b)
		}
	}
	if length != len(frame)-skip || length > 125 && skip == 2 || length < 126 && skip != 2 || length > 0xffff && skip != 10 || length <= 0xffff && skip == 10 {
		t.Fatalf("header of %d bytes says %d, %d follow", skip, length, len(frame)-skip)
	}
	return frame[skip:]
}

func TestFrameHeaders(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 70000} {
		frameText(t, prependFrameHeader(make([]byte, maxFrameHeader+size)))
	}
}

func BenchmarkDecodePost(b *testing.B) {
	body := []byte(`{"Message":"` + strings.Repeat("x", 100) + `","User":"ann","ClientMessageID":"0123456789abcdef"}`)
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		if _, p := decodePost(h, body); p != nil {
			b.Fatal(p.code)
		}
	}
}
