package httpapi

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// sessionRefusals is what clients of raft-chat.v1 get wrong. Each is answered, and the connection goes on.
var sessionRefusals = []struct{ name, frame, id, code string }{
	{"nothing", ``, "", "json_invalid"},
	{"a word", `hello`, "", "json_invalid"},
	{"cut", `{"Type":"ping"`, "", "json_invalid"},
	{"garbage behind", `{"Type":"ping"} x`, "", "json_invalid"},
	{"two objects", `{"Type":"ping"}{"Type":"ping"}`, "", "json_invalid"},
	{"array", `[]`, "", "json_invalid"},
	{"string", `"ping"`, "", "json_invalid"},
	{"number", `1`, "", "json_invalid"},
	{"deep", strings.Repeat("[", 20000), "", "json_invalid"},
	{"id is a number", `{"Type":"ping","Id":1}`, "", "json_invalid"},
	{"type is a number", `{"Id":"x","Type":1}`, "x", "json_invalid"},
	{"rooms is a string", `{"Type":"subscribe","Id":"x","Rooms":"r"}`, "x", "json_invalid"},
	{"since is a number", `{"Type":"subscribe","Id":"x","Rooms":["r"],"Since":5}`, "x", "json_invalid"},
	{"after is a string", `{"Type":"subscribe","Id":"x","Rooms":["r"],"After":"5"}`, "x", "json_invalid"},
	{"after is negative", `{"Type":"subscribe","Id":"x","Rooms":["r"],"After":-1}`, "x", "json_invalid"},
	{"after is a fraction", `{"Type":"subscribe","Id":"x","Rooms":["r"],"After":1.5}`, "x", "json_invalid"},
	{"after over 64 bits", `{"Type":"subscribe","Id":"x","Rooms":["r"],"After":18446744073709551616}`, "x", "json_invalid"},
	{"not UTF-8", "{\"Type\":\"ping\",\"Id\":\"\xff\"}", "", "body_invalid_utf8"},
	{"not UTF-8 elsewhere", "{\"Type\":\"send\",\"Id\":\"x\",\"Message\":\"\xff\"}", "x", "body_invalid_utf8"},
	{"half a surrogate", `{"Type":"ping","Id":"\ud800"}`, "", "json_invalid"},
	{"half a surrogate in a message", `{"Type":"send","Id":"x","Room":"s","User":"u","Message":"cut emoji \ud83d"}`, "x", "json_invalid"},
	{"half a surrogate before the id", `{"Message":"\udc00","Type":"send","Id":"x"}`, "x", "json_invalid"},
	{"cut behind the id", `{"Type":"send","Id":"x","Message":"`, "x", "json_invalid"},
	{"garbage behind the id", `{"Type":"ping","Id":"x"} x`, "x", "json_invalid"},
	{"id in small letters", `{"type":1,"id":"x"}`, "x", "json_invalid"},
	{"wrong before the id", `{"Type":"history","Limit":1e400,"Id":"x"}`, "x", "json_invalid"},
	{"wrong type and a long id", `{"Type":1,"Id":"` + strings.Repeat("x", 129) + `"}`, "", "json_invalid"},
	{"a long number", `{"Type":"history","Id":"x","After":` + strings.Repeat("9", 10000) + `}`, "x", "json_invalid"},
	{"id of 129 bytes", `{"Type":"ping","Id":"` + strings.Repeat("x", 129) + `"}`, "", "request_id_invalid"},
	{"no type", `{}`, "", "frame_type_unknown"},
	{"null", `null`, "", "frame_type_unknown"},
	{"unknown type", `{"Type":"shout","Id":"x"}`, "x", "frame_type_unknown"},
	{"type in capitals", `{"Type":"PING","Id":"x"}`, "x", "frame_type_unknown"},
	{"a type of the server", `{"Type":"messages","Id":"x"}`, "x", "frame_type_unknown"},
	{"no rooms", `{"Type":"subscribe","Id":"x"}`, "x", "room_name_invalid"},
	{"empty rooms", `{"Type":"subscribe","Id":"x","Rooms":[]}`, "x", "room_name_invalid"},
	{"empty room", `{"Type":"subscribe","Id":"x","Rooms":["a",""]}`, "x", "room_name_invalid"},
	{"comma in a room", `{"Type":"subscribe","Id":"x","Rooms":["a,b"]}`, "x", "room_name_invalid"},
	{"slash in a room", `{"Type":"unsubscribe","Id":"x","Rooms":["a/b"]}`, "x", "room_name_invalid"},
	{"unsubscribe nothing", `{"Type":"unsubscribe","Id":"x"}`, "x", "room_name_invalid"},
	{"1001 rooms", `{"Type":"subscribe","Id":"x","Rooms":["r"` + strings.Repeat(`,"r"`, 1000) + `]}`, "x", "limit_invalid"},
	{"since is a word", `{"Type":"subscribe","Id":"x","Rooms":["r"],"Since":"yesterday"}`, "x", "cursor_invalid"},
	{"since is empty", `{"Type":"subscribe","Id":"x","Rooms":["r"],"Since":""}`, "x", "cursor_invalid"},
	{"since in the future", `{"Type":"subscribe","Id":"x","Rooms":["r"],"Since":"-10m"}`, "x", "cursor_invalid"},
	{"since and after", `{"Type":"subscribe","Id":"x","Rooms":["r"],"Since":"1","After":1}`, "x", "cursor_invalid"},
	{"after of two rooms", `{"Type":"subscribe","Id":"x","Rooms":["a","b"],"After":1}`, "x", "cursor_invalid"},
	{"after the last number", `{"Type":"subscribe","Id":"x","Rooms":["a"],"After":18446744073709551615}`, "x", "cursor_invalid"},
	{"send to no room", `{"Type":"send","Id":"x","User":"u","Message":"m"}`, "x", "room_name_invalid"},
	{"send by nobody", `{"Type":"send","Id":"x","Room":"r","Message":"m"}`, "x", "user_name_invalid"},
	{"send a blank", `{"Type":"send","Id":"x","Room":"r","User":"u","Message":" \u200b"}`, "x", "message_empty"},
	{"send to a room that does not show", `{"Type":"send","Id":"x","Room":"r\u200b","User":"u","Message":"m"}`, "x", "room_name_invalid"},
	{"send by who does not show", `{"Type":"send","Id":"x","Room":"r","User":" ","Message":"m"}`, "x", "user_name_invalid"},
	{"send nothing", `{"Type":"send","Id":"x","Room":"r","User":"u"}`, "x", "message_empty"},
	{"send too much", `{"Type":"send","Id":"x","Room":"r","User":"u","Message":"` + strings.Repeat("x", 64<<10+1) + `"}`, "x", "message_too_large"},
	{"long client message id", `{"Type":"send","Id":"x","Room":"r","User":"u","Message":"m","ClientMessageID":"` + strings.Repeat("x", 129) + `"}`, "x", "client_message_id_invalid"},
	{"message is an object", `{"Type":"send","Id":"x","Room":"r","User":"u","Message":{}}`, "x", "json_invalid"},
	{"history of no room", `{"Type":"history","Id":"x"}`, "x", "room_name_invalid"},
	{"history of nothing", `{"Type":"history","Id":"x","Room":"r","Limit":0}`, "x", "limit_invalid"},
	{"history of all", `{"Type":"history","Id":"x","Room":"r","Limit":1001}`, "x", "limit_invalid"},
}

func TestSessionRefusals(t *testing.T) {
	n := newNode(t, nil)
	c, neighbour := n.talk(0), n.talk(0)
	for _, c := range []*talk{c, neighbour} {
		c.say(`{"Type":"subscribe","Rooms":["live"]}`)
		c.of("subscribed", "")
	}
	for i, test := range sessionRefusals {
		c.say("%s", test.frame)
		if f := c.of("error", test.id); f.Code != test.code || f.Detail == "" || len(f.Detail) > 300 {
			t.Errorf("%s: got %+v, want %s", test.name, f, test.code)
		}
		n.post("live", "u", "m")
		c.want(fmt.Sprint("live/", i+1))
		neighbour.want(fmt.Sprint("live/", i+1))
	}
	if err := c.conn.Write(t.Context(), websocket.MessageBinary, []byte(`{"Type":"ping"}`)); err != nil {
		t.Fatal(err)
	}
	if f := c.of("error", ""); f.Code != "json_invalid" {
		t.Errorf("binary frame: %+v", f)
	}
	// Too many rooms, one subscription after the other.
	many := make([]string, 998)
	for i := range many {
		many[i] = fmt.Sprintf(`"r%d"`, i)
	}
	for _, test := range []struct{ rooms, kind string }{
		{strings.Join(many, ","), "subscribed"}, {`"live","one more"`, "subscribed"}, {`"too","many"`, "error"}, {`"live"`, "subscribed"},
	} {
		c.say(`{"Type":"subscribe","Id":"n","Rooms":[%s]}`, test.rooms)
		c.of(test.kind, "n")
	}
	// A frame over the limit ends its connection, and that alone.
	_ = c.conn.Write(t.Context(), websocket.MessageText, bytes.Repeat([]byte("x"), int(n.server.options.MaxBody)+1))
	if f := c.of("closed", ""); f.closed.Code != websocket.StatusMessageTooBig {
		t.Errorf("closed with %v", f.closed)
	}
	neighbour.silent()
}
