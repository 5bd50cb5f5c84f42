package testcluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// loadRooms is how many rooms the messages of a Load go to.
const loadRooms = 3

// Load is a number of writers. Each posts one message after the other, with a
// client message id, to one node after the other until it is acknowledged, and
// notes that in the Ledger. An answer that no outage explains fails the test.
type Load struct {
	t      testing.TB
	client *Client
	ledger *Ledger
	urls   []string

	ending  chan struct{} // closed: no further message
	end     sync.Once
	ctx     context.Context // ends: not even another try
	cancel  context.CancelFunc
	writers sync.WaitGroup
}

// StartLoad starts the writers. They try the nodes at urls in turn.
func StartLoad(t testing.TB, client *Client, ledger *Ledger, writers int, urls []string) *Load {
	l := &Load{t: t, client: client, ledger: ledger, urls: urls, ending: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	t.Cleanup(func() {
		l.cancel()
		l.Stop()
	})
	for w := range writers {
		l.writers.Go(func() { l.write(w) })
	}
	return l
}

func (l *Load) write(writer int) {
	again := time.NewTicker(pause)
	defer again.Stop()
	for n := 0; ; n++ {
		m := Message{
			Room: fmt.Sprint("load-", (writer+n)%loadRooms), User: fmt.Sprint("writer-", writer),
			Message: fmt.Sprintf("message %d of writer %d", n, writer), ClientMessageID: fmt.Sprintf("%d/%d", writer, n),
		}
		for try := 0; ; try++ {
			select {
			case <-l.ending:
				if try == 0 {
					return
				}
			default:
			}
			err := l.post(l.urls[(writer+n+try)%len(l.urls)], m)
			if err == nil {
				break
			}
			if l.ctx.Err() != nil {
				return
			}
			var refusal *Refusal
			if errors.As(err, &refusal) && refusal.Status != 503 || errors.As(err, new(*ledgerError)) {
				l.t.Errorf("post %+v: %v", m, err)
				return
			}
			select {
			case <-again.C:
			case <-l.ctx.Done():
				return
			}
		}
	}
}

// ledgerError is an acknowledgement that cannot be right.
type ledgerError struct{ error }

func (l *Load) post(url string, m Message) error {
	ctx, cancel := context.WithTimeout(l.ctx, 10*time.Second)
	defer cancel()
	stored, _, err := l.client.Post(ctx, url, m)
	if err != nil {
		return err
	}
	if err := l.ledger.Acknowledged(m, stored); err != nil {
		return &ledgerError{err}
	}
	return nil
}

// Await waits until n more messages are acknowledged than were at the call.
func (l *Load) Await(n int) {
	l.t.Helper()
	goal := l.ledger.Len() + n
	Eventually(l.t, fmt.Sprint(n, " more acknowledgements"), func() error {
		if have := l.ledger.Len(); have < goal {
			return fmt.Errorf("%d are missing", goal-have)
		}
		return nil
	})
}

// Stop waits until the message that each writer is at is acknowledged. Calling
// it twice is fine.
func (l *Load) Stop() {
	l.end.Do(func() { close(l.ending) })
	giveUp := time.AfterFunc(patience, l.cancel)
	defer giveUp.Stop()
	l.writers.Wait()
	if !giveUp.Stop() {
		l.t.Errorf("writers were not acknowledged in time")
	}
}
