package chat_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

var nobody chat.Actor

// world is a service over a store and a log of its own.
type world struct {
	*chat.Service
	log   *chattest.Log
	store *chat.Store
}

func newWorld(t testing.TB, opts chat.ServiceOptions) *world {
	t.Helper()
	store, err := chat.OpenStore("data", chat.StoreOptions{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	log := chattest.NewLog(store)
	w := &world{chat.NewService(log, store, opts), log, store}
	t.Cleanup(func() {
		w.Service.Close()
		w.log.Close()
		if err := w.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (w *world) post(t testing.TB, room, text string) *chat.Message {
	t.Helper()
	m, _, err := w.Post(ctxOf(t), nobody, chat.PostRequest{Room: room, User: "ann", Payload: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func wantCode(t *testing.T, what string, err error, code chat.Code) {
	t.Helper()
	if chat.CodeOf(err) != code {
		t.Errorf("%s: got %v, want code %s", what, err, code)
	}
	var e *chat.Error
	if err != nil && !errors.As(err, &e) {
		t.Errorf("%s: %T is not an *Error", what, err)
	}
}

func TestPost(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 678912345, time.FixedZone("x", 3600))
	w := newWorld(t, chat.ServiceOptions{Now: func() time.Time { return at }})
	m, dup, err := w.Post(ctxOf(t), nobody, chat.PostRequest{Room: "cafe\u0301", User: "Zoe\u0308", Payload: []byte("hi"), ClientMessageID: "1"})
	if err != nil || dup {
		t.Fatal(err, dup)
	}
	if m.Room != "caf\u00e9" || m.User != "Zo\u00eb" || m.Seq != 1 || m.ID != 1 || string(m.Payload) != "hi" || m.ClientMessageID != "1" {
		t.Errorf("posted %q %q %d %d", m.Room, m.User, m.Seq, m.ID)
	}
	if want := at.UTC().Truncate(time.Microsecond); !m.PostedAt.Equal(want) || m.PostedAt.Location() != time.UTC {
		t.Errorf("posted at %v, want %v", m.PostedAt, want)
	}
	// The other spelling is the same room and author.
	again, dup, err := w.Post(ctxOf(t), nobody, chat.PostRequest{Room: "caf\u00e9", User: "Zo\u00eb", Payload: []byte("hi"), ClientMessageID: "1"})
	if err != nil || !dup || again.Seq != 1 || again.ID != 1 || !again.PostedAt.Equal(m.PostedAt) {
		t.Errorf("repeat: %v, %v, %+v", err, dup, again.Seq)
	}
	_, _, err = w.Post(ctxOf(t), nobody, chat.PostRequest{Room: "caf\u00e9", User: "Bob", Payload: []byte("hi"), ClientMessageID: "1"})
	wantCode(t, "conflict", err, chat.CodeClientMessageIDConflict)
	var e *chat.Error
	if errors.As(err, &e); e.Seq != 1 {
		t.Errorf("conflict with %d", e.Seq)
	}
	_, _, err = w.Post(ctxOf(t), nobody, chat.PostRequest{Room: "nowhere", User: "Bob", Payload: []byte("hi"), MustExist: true})
	wantCode(t, "must exist", err, chat.CodeRoomNotFound)
	if w.Head() != 1 {
		t.Errorf("head is %d", w.Head())
	}
}

func TestPostRefuses(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{MaxMessage: 10})
	good := chat.PostRequest{Room: "r", User: "u", Payload: []byte("p")}
	for _, c := range []struct {
		what string
		set  func(r *chat.PostRequest)
		code chat.Code
	}{
		{"no room", func(r *chat.PostRequest) { r.Room = "" }, chat.CodeRoomNameInvalid},
		{"dot", func(r *chat.PostRequest) { r.Room = "." }, chat.CodeRoomNameInvalid},
		{"dots", func(r *chat.PostRequest) { r.Room = ".." }, chat.CodeRoomNameInvalid},
		{"slash", func(r *chat.PostRequest) { r.Room = "a/b" }, chat.CodeRoomNameInvalid},
		{"comma", func(r *chat.PostRequest) { r.Room = "a,b" }, chat.CodeRoomNameInvalid},
		{"control", func(r *chat.PostRequest) { r.Room = "a\nb" }, chat.CodeRoomNameInvalid},
		{"delete", func(r *chat.PostRequest) { r.Room = "a\x7f" }, chat.CodeRoomNameInvalid},
		{"C1 control", func(r *chat.PostRequest) { r.Room = "a\u0085" }, chat.CodeRoomNameInvalid},
		{"not UTF-8", func(r *chat.PostRequest) { r.Room = "a\xff" }, chat.CodeRoomNameInvalid},
		{"long room", func(r *chat.PostRequest) { r.Room = strings.Repeat("r", 129) }, chat.CodeRoomNameInvalid},
		{"very long room", func(r *chat.PostRequest) { r.Room = strings.Repeat("r", 1<<20) }, chat.CodeRoomNameInvalid},
		{"no user", func(r *chat.PostRequest) { r.User = "" }, chat.CodeUserNameInvalid},
		{"long user", func(r *chat.PostRequest) { r.User = strings.Repeat("\u00e9", 33) }, chat.CodeUserNameInvalid},
		{"user control", func(r *chat.PostRequest) { r.User = "\x00" }, chat.CodeUserNameInvalid},
		{"long id", func(r *chat.PostRequest) { r.ClientMessageID = strings.Repeat("i", 129) }, chat.CodeClientMessageIDInvalid},
		{"id control", func(r *chat.PostRequest) { r.ClientMessageID = "a\tb" }, chat.CodeClientMessageIDInvalid},
		{"id not UTF-8", func(r *chat.PostRequest) { r.ClientMessageID = "\xc3" }, chat.CodeClientMessageIDInvalid},
		{"empty", func(r *chat.PostRequest) { r.Payload = nil }, chat.CodeMessageEmpty},
		{"long", func(r *chat.PostRequest) { r.Payload = make([]byte, 11) }, chat.CodeMessageTooLarge},
		{"bytes", func(r *chat.PostRequest) { r.Payload = []byte("\xff") }, chat.CodeMessageInvalidUTF8},
	} {
		r := good
		c.set(&r)
		_, _, err := w.Post(ctxOf(t), nobody, r)
		wantCode(t, c.what, err, c.code)
	}
	for _, c := range []struct {
		what string
		set  func(r *chat.PostRequest)
	}{
		{"longest room", func(r *chat.PostRequest) { r.Room = strings.Repeat("r", 128) }},
		{"room that composing shortens", func(r *chat.PostRequest) { r.Room = strings.Repeat("e\u0301", 64) }},
		{"longest user", func(r *chat.PostRequest) { r.User = strings.Repeat("u", 64) }},
		{"longest id", func(r *chat.PostRequest) { r.ClientMessageID = strings.Repeat("i", 128) }},
		{"three dots", func(r *chat.PostRequest) { r.Room = "..." }},
		{"spaces and emoji", func(r *chat.PostRequest) { r.Room = "a b \U0001F680" }},
		{"longest payload", func(r *chat.PostRequest) { r.Payload = []byte("0123456789") }},
		{"bytes allowed", func(r *chat.PostRequest) { r.Payload, r.AllowBytes = []byte("\xff\x00"), true }},
	} {
		r := good
		c.set(&r)
		if _, _, err := w.Post(ctxOf(t), nobody, r); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestCreateRoom(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	info, created, err := w.CreateRoom(ctxOf(t), nobody, "general", "General")
	if err != nil || !created || info.Name != "general" || info.DisplayName != "General" || info.LastSeq != 0 || !info.LastPostedAt.IsZero() {
		t.Errorf("%+v, %v, %v", info, created, err)
	}
	w.post(t, "general", "hi")
	info, created, err = w.CreateRoom(ctxOf(t), nobody, "general", "Other")
	if err != nil || created || info.DisplayName != "General" || info.Messages != 1 || info.LastPostedAt.IsZero() {
		t.Errorf("again: %+v, %v, %v", info, created, err)
	}
	index, _ := w.store.Applied()
	info, created, err = w.CreateRoom(ctxOf(t), nobody, "", "Assigned")
	if want := fmt.Sprintf("channel-%d", index+1); err != nil || !created || info.Name != want {
		t.Errorf("assigned: %+v, %v, %v; want %s", info, created, err, want)
	}
	// A name somebody took in advance is not handed out.
	index, _ = w.store.Applied()
	w.post(t, fmt.Sprintf("channel-%d", index+2), "squatter")
	info, created, err = w.CreateRoom(ctxOf(t), nobody, "", "")
	if want := fmt.Sprintf("channel-%d", index+3); err != nil || !created || info.Name != want {
		t.Errorf("assigned: %+v, %v, %v; want %s", info, created, err, want)
	}
	_, _, err = w.CreateRoom(ctxOf(t), nobody, "a/b", "")
	wantCode(t, "bad name", err, chat.CodeRoomNameInvalid)
	_, _, err = w.CreateRoom(ctxOf(t), nobody, "ab", "\n")
	wantCode(t, "bad display name", err, chat.CodeRoomNameInvalid)
}

func ptr(v uint64) *uint64 { return &v }

func TestMessages(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	for i := range 10 {
		w.post(t, "a", fmt.Sprint(i+1))
		w.post(t, "b", "other")
	}
	const max = ^uint64(0)
	for _, c := range []struct {
		what           string
		page           chat.Page
		from, to       uint64 // 0, 0: empty
		earlier, later bool
	}{
		{"newest", chat.Page{}, 1, 10, false, false},
		{"newest 3", chat.Page{Limit: 3}, 8, 10, true, false},
		{"after 0", chat.Page{After: ptr(0), Limit: 3}, 1, 3, false, true},
		{"after 3", chat.Page{After: ptr(3), Limit: 3}, 4, 6, true, true},
		{"after 7", chat.Page{After: ptr(7), Limit: 3}, 8, 10, true, false},
		{"after 10", chat.Page{After: ptr(10)}, 0, 0, true, false},
		{"after 99", chat.Page{After: ptr(99)}, 0, 0, true, false},
		{"after max", chat.Page{After: ptr(max)}, 0, 0, true, false},
		{"before 0", chat.Page{Before: ptr(0)}, 0, 0, false, true},
		{"before 1", chat.Page{Before: ptr(1)}, 0, 0, false, true},
		{"before 4", chat.Page{Before: ptr(4), Limit: 2}, 2, 3, true, true},
		{"before 3", chat.Page{Before: ptr(3), Limit: 2}, 1, 2, false, true},
		{"before 11", chat.Page{Before: ptr(11), Limit: 2}, 9, 10, true, false},
		{"before max", chat.Page{Before: ptr(max), Limit: 2}, 9, 10, true, false},
		{"between", chat.Page{After: ptr(2), Before: ptr(6)}, 3, 5, true, true},
		{"between, limited", chat.Page{After: ptr(2), Before: ptr(9), Limit: 2}, 3, 4, true, true},
		{"between neighbours", chat.Page{After: ptr(5), Before: ptr(6)}, 0, 0, true, true},
		{"between, crossed", chat.Page{After: ptr(6), Before: ptr(3)}, 0, 0, true, true},
	} {
		p, err := w.Messages(ctxOf(t), nobody, "a", c.page)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		var got, want []uint64
		for _, m := range p.Messages {
			got = append(got, m.Seq)
			if m.Room != "a" || string(m.Payload) != fmt.Sprint(m.Seq) || m.ID != 2*m.Seq-1 {
				t.Errorf("%s: message %d is %s of %s", c.what, m.Seq, m.Payload, m.Room)
			}
		}
		for s := c.from; s <= c.to && s > 0; s++ {
			want = append(want, s)
		}
		if !slices.Equal(got, want) || p.Earlier != c.earlier || p.Later != c.later || !p.Exists {
			t.Errorf("%s: %v earlier=%v later=%v exists=%v, want %v %v %v", c.what, got, p.Earlier, p.Later, p.Exists, want, c.earlier, c.later)
		}
	}
	if p, err := w.Messages(ctxOf(t), nobody, "absent", chat.Page{}); err != nil || p.Exists || len(p.Messages) > 0 {
		t.Errorf("absent room: %+v, %v", p, err)
	}
	for _, limit := range []int{-1, 1001} {
		_, err := w.Messages(ctxOf(t), nobody, "a", chat.Page{Limit: limit})
		wantCode(t, "limit", err, chat.CodeLimitInvalid)
	}
	_, err := w.Messages(ctxOf(t), nobody, "", chat.Page{})
	wantCode(t, "no name", err, chat.CodeRoomNameInvalid)

	m, err := w.Message(ctxOf(t), nobody, "a", 4, false)
	if err != nil || string(m.Payload) != "4" {
		t.Errorf("message 4: %v", err)
	}
	for _, seq := range []uint64{0, 11, max} {
		_, err = w.Message(ctxOf(t), nobody, "a", seq, true)
		wantCode(t, "absent message", err, chat.CodeMessageNotFound)
	}
	_, err = w.Message(ctxOf(t), nobody, "absent", 1, true)
	wantCode(t, "absent room", err, chat.CodeRoomNotFound)
}

// A page of long messages ends early, keeps the end that was asked for, and says
// that there is more.
func TestLongPages(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	text := strings.Repeat("x", chat.MaxMessage)
	for range 100 {
		w.post(t, "a", text)
	}
	p, err := w.Messages(ctxOf(t), nobody, "a", chat.Page{})
	if n := len(p.Messages); err != nil || n == 0 || n == 100 || p.Messages[n-1].Seq != 100 || !p.Earlier || p.Later {
		t.Errorf("newest: %d messages, %v", n, err)
	}
	p, err = w.Messages(ctxOf(t), nobody, "a", chat.Page{After: ptr(0)})
	if n := len(p.Messages); err != nil || n == 0 || n == 100 || p.Messages[0].Seq != 1 || p.Earlier || !p.Later {
		t.Errorf("first: %d messages, %v", n, err)
	}
}

func TestRooms(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	for _, name := range []string{"b", "ab", "a", "abc", "B", "\u00e9", "ac"} {
		w.post(t, name, "hi")
	}
	if _, _, err := w.CreateRoom(ctxOf(t), nobody, "abb", "Empty"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		q    chat.RoomsQuery
		want string
		more bool
	}{
		{chat.RoomsQuery{}, "B a ab abb abc ac b \u00e9", false},
		{chat.RoomsQuery{Limit: 3}, "B a ab", true},
		{chat.RoomsQuery{Limit: 3, After: "ab"}, "abb abc ac", true},
		{chat.RoomsQuery{Limit: 2, After: "ac"}, "b \u00e9", false},
		{chat.RoomsQuery{After: "\u00e9"}, "", false},
		{chat.RoomsQuery{Prefix: "ab"}, "ab abb abc", false},
		{chat.RoomsQuery{Prefix: "ab", Limit: 2}, "ab abb", true},
		{chat.RoomsQuery{Prefix: "ab", After: "abb"}, "abc", false},
		{chat.RoomsQuery{Prefix: "ab", After: "a"}, "ab abb abc", false},
		{chat.RoomsQuery{Prefix: "ab", After: "b"}, "", false},
		{chat.RoomsQuery{Prefix: "e\u0301"}, "\u00e9", false},
		{chat.RoomsQuery{Prefix: "zz"}, "", false},
	} {
		rooms, more, err := w.Rooms(ctxOf(t), nobody, c.q)
		var names []string
		for _, r := range rooms {
			names = append(names, r.Name)
		}
		if got := strings.Join(names, " "); err != nil || got != c.want || more != c.more {
			t.Errorf("%+v: %q %v %v, want %q %v", c.q, got, more, err, c.want, c.more)
		}
	}
	rooms, _, err := w.Rooms(ctxOf(t), nobody, chat.RoomsQuery{Prefix: "abb"})
	if err != nil || rooms[0].DisplayName != "Empty" || rooms[0].Messages != 0 {
		t.Errorf("%+v, %v", rooms, err)
	}
	_, _, err = w.Rooms(ctxOf(t), nobody, chat.RoomsQuery{Limit: 1001})
	wantCode(t, "limit", err, chat.CodeLimitInvalid)
	_, _, err = w.Rooms(ctxOf(t), nobody, chat.RoomsQuery{Prefix: "\xff"})
	wantCode(t, "prefix", err, chat.CodeRoomNameInvalid)
}

// Reads ask the log unless they may be stale.
func TestLinearizableReads(t *testing.T) {
	w := newWorld(t, chat.ServiceOptions{})
	w.post(t, "a", "hi")
	w.log.FailReads(chattest.Error("no_leader"))
	_, err := w.Messages(ctxOf(t), nobody, "a", chat.Page{})
	wantCode(t, "messages", err, chat.CodeNoLeader)
	_, err = w.Message(ctxOf(t), nobody, "a", 1, false)
	wantCode(t, "message", err, chat.CodeNoLeader)
	_, _, err = w.Rooms(ctxOf(t), nobody, chat.RoomsQuery{})
	wantCode(t, "rooms", err, chat.CodeNoLeader)
	if n := strings.Count(err.Error(), chattest.Error("no_leader").Error()); n != 1 {
		t.Errorf("the log's words %d times: %v", n, err)
	}
	if _, err = w.Messages(ctxOf(t), nobody, "a", chat.Page{Stale: true}); err != nil {
		t.Error(err)
	}
	if _, err = w.Message(ctxOf(t), nobody, "a", 1, true); err != nil {
		t.Error(err)
	}
	if _, _, err = w.Rooms(ctxOf(t), nobody, chat.RoomsQuery{Stale: true}); err != nil {
		t.Error(err)
	}
	w.log.FailReads(nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = w.Messages(ctx, nobody, "a", chat.Page{})
	wantCode(t, "ended context", err, chat.CodeTimeoutNotSent)
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		code chat.Code
	}{
		{nil, ""},
		{errors.New("x"), chat.CodeInternal},
		{fmt.Errorf("x: %w", chattest.Error("no_leader")), chat.CodeNoLeader},
		{fmt.Errorf("x: %w", &chat.Error{Code: chat.CodeOverloaded}), chat.CodeOverloaded},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), chat.CodeOutcomeUnknown},
		{context.Canceled, chat.CodeOutcomeUnknown},
	} {
		if got := chat.CodeOf(c.err); got != c.code {
			t.Errorf("%v: %s, want %s", c.err, got, c.code)
		}
	}
}
