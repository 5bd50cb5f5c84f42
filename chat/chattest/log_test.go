package chattest_test

import (
	"context"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/raft-chat/raft-chat/chat"
	"github.com/raft-chat/raft-chat/chat/chattest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every proposal is answered exactly once, also those that meet Close.
func TestEveryProposalIsAnswered(t *testing.T) {
	store, err := chat.OpenStore("data", chat.StoreOptions{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	log := chattest.NewLog(store)
	const n = 200
	var proposers sync.WaitGroup
	answers := make(chan error, 2*n)
	for i := range n {
		proposers.Go(func() {
			if i == n/2 {
				log.Close()
			}
			// Not an entry, so the store refuses it; it is answered all the same.
			log.Propose(context.Background(), []byte{0xff}, func(_ any, err error) { answers <- err })
		})
	}
	proposers.Wait()
	log.Close()
	close(answers)
	count := 0
	for err := range answers {
		if count++; err == nil {
			t.Error("an entry that cannot be understood was applied")
		}
	}
	if count != n {
		t.Errorf("%d answers to %d proposals", count, n)
	}
	if err := log.ReadIndex(context.Background()); chat.CodeOf(err) != chat.CodeStopping {
		t.Errorf("read after close: %v", err)
	}
}
