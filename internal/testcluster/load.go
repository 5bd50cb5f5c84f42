package testcluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/internal/workload"
)

// NewHistory makes an empty history, dated in µs from now on.
func NewHistory() *oracle.History {
	begun := time.Now()
	return oracle.NewHistory(func() int64 { return time.Since(begun).Microseconds() })
}

// Load is a workload with the history that it feeds. Tests may tell the history
// more.
type Load struct {
	*workload.Workload
	History *oracle.History

	t       testing.TB
	stop    sync.Once
	checked bool
}

// StartLoad starts writers that try the nodes at urls in turn, a reader, and a
// follower of each form.
func StartLoad(t testing.TB, writers int, urls []string) *Load {
	return StartWorkload(t, workload.Options{URLs: urls, Writers: writers, Readers: 1, Forms: workload.Forms()})
}

// StartWorkload starts clients as the options say; the history is made here if
// they name none. Without Check only what could be told while it happened fails
// the test.
func StartWorkload(t testing.TB, o workload.Options) *Load {
	if o.History == nil {
		o.History = NewHistory()
	}
	l := &Load{Workload: workload.Start(o), History: o.History, t: t}
	t.Cleanup(func() {
		l.Close()
		l.report()
	})
	return l
}

// Await waits until n more messages are acknowledged than were at the call.
func (l *Load) Await(n int) {
	l.t.Helper()
	goal := l.History.Counts().Acknowledged + n
	Eventually(l.t, fmt.Sprint(n, " more acknowledgements"), func() error {
		if have := l.History.Counts().Acknowledged; have < goal {
			return fmt.Errorf("%d are missing; %w", goal-have, l.Err())
		}
		return nil
	})
}

// Stop waits until the operation that each writer and reader is at has been
// answered. Calling it twice is fine.
func (l *Load) Stop() {
	l.t.Helper()
	l.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := l.Workload.Stop(ctx); err != nil {
			l.t.Error(err)
		}
	})
}

// Check stops the load, collects what the nodes at urls store, and judges
// everything that happened.
func (l *Load) Check(urls []string) {
	l.t.Helper()
	l.Stop()
	l.checked = true
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.Settle(ctx, urls); err != nil {
		l.t.Error(err)
	}
	for _, v := range l.History.Check() {
		l.t.Error(v)
	}
	l.t.Logf("%+v", l.History.Counts())
}

func (l *Load) report() {
	if err := l.Err(); err != nil {
		l.t.Error(err)
	}
	if l.checked {
		return
	}
	for _, v := range l.History.Violations() {
		l.t.Error(v)
	}
}
