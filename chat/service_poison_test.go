package chat_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

// Whoever sends a poisonous command learns that it was rejected for good, at
// once and without a second attempt; the service goes on.
func TestPoisonousRequestsAreAnswered(t *testing.T) {
	store, err := chat.OpenStore("data", chat.PlantPoison(chat.StoreOptions{FS: vfs.NewMem()}, "poison", "poisonous entry"))
	if err != nil {
		t.Fatal(err)
	}
	log := chattest.NewLog(store)
	s := chat.NewService(log, store, chat.ServiceOptions{})
	t.Cleanup(func() {
		s.Close()
		log.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	wantFailed := func(what string, err error) {
		t.Helper()
		if chat.CodeOf(err) != chat.CodeCommandFailed {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, text := range []string{"poison", "poisonous entry"} {
		_, _, err := s.Post(ctxOf(t), nobody, chat.PostRequest{Room: "general", User: "ann", Payload: []byte(text), ClientMessageID: text})
		wantFailed("post "+text, err)
	}
	_, _, err = s.CreateRoom(ctxOf(t), nobody, "made", "poison")
	wantFailed("create a room", err)
	_, err = s.Trim(ctxOf(t), nobody, "general", 1e6+6)
	wantFailed("trim", err)
	if got := store.Poisoned(); got != 4 {
		t.Errorf("%d commands were poisonous, want 4: one an attempt", got)
	}
	m, _, err := s.Post(ctxOf(t), nobody, chat.PostRequest{Room: "general", User: "ann", Payload: []byte("fine")})
	if err != nil || m.Seq != 1 || m.ID != 1 {
		t.Errorf("the next message: %+v, %v", m, err)
	}
	if rooms, _, err := s.Rooms(ctxOf(t), nobody, chat.RoomsQuery{}); err != nil || len(rooms) != 1 {
		t.Errorf("rooms: %v, %v", rooms, err)
	}
}
