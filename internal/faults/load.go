//go:build linux

package faults

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/internal/oracle"
	"github.com/raft-chat/raft-chat/internal/workload"
)

// load is the clients of one scenario and what they were told. A workload that
// was stopped still has followers.
type load struct {
	history   *oracle.History
	transport *counter
	workloads []*workload.Workload
	writing   bool // the last one is not stopped
}

func newLoad() *load {
	began := time.Now()
	return &load{
		history:   oracle.NewHistory(func() int64 { return time.Since(began).Microseconds() }),
		transport: &counter{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
}

// startLoad starts writers, readers and followers of streams on all nodes that
// there are, and, in a scenario that adds nodes, on those to come.
func (r *run) startLoad(coming ...string) {
	urls := coming
	for _, n := range r.nodes {
		urls = append(urls, n.url())
	}
	r.load.writing = true
	r.load.workloads = append(r.load.workloads, workload.Start(workload.Options{
		History: r.load.history, URLs: urls, Transport: r.load.transport, Name: fmt.Sprint("load", len(r.load.workloads)+1),
		Writers: 6, Readers: 2, Forms: r.forms, Aside: r.aside,
		// Enough to have something under way at any time, little enough for a
		// machine that others use as well.
		Pause: 10 * time.Millisecond, IdleTimeout: 20 * time.Second,
	}))
}

// clientErrors is what clients met that no outage explains.
func (r *run) clientErrors() error {
	for _, w := range r.load.workloads {
		if err := w.Err(); err != nil {
			return &ended{fmt.Errorf("a client met what no outage explains: %w", err)}
		}
	}
	return nil
}

// progress waits until n more messages are acknowledged.
func (r *run) progress(n int) {
	goal := r.load.history.Counts().Acknowledged + n
	r.await(fmt.Sprint(n, " more acknowledgements"), func() error {
		if err := r.clientErrors(); err != nil {
			return err
		}
		if have := r.load.history.Counts().Acknowledged; have < goal {
			return fmt.Errorf("%d are missing", goal-have)
		}
		return nil
	})
}

// stopLoad lets writers and readers end in good order: what was begun is
// answered.
func (r *run) stopLoad() {
	if !r.load.writing {
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	r.must(r.load.workloads[len(r.load.workloads)-1].Stop(ctx), "stop the clients")
	r.load.writing = false
	r.must(r.clientErrors(), "stop the clients")
}

// bulk posts messages of a size, from writers of its own beside the load, and
// tells the oracle of them. It calls enough, if not nil, before each.
func (r *run) bulk(room string, messages, size int, nodes []*node, enough func() bool) {
	const writers = 4
	client := r.api
	next := make(chan int)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := range next {
				m := workload.Message{Room: room, User: "bulk", ClientMessageID: fmt.Sprint(i),
					Message: strings.Repeat(fmt.Sprintf("%s %d of a large message. ", room, i), size/32)}
				post := r.load.history.Send(m.Oracle())
				for try := 0; r.ctx.Err() == nil; try++ {
					if stored, _, err := client.Post(r.ctx, nodes[(i+try)%len(nodes)].url(), m); err == nil {
						post.Acknowledged(stored.Oracle())
						break
					}
				}
			}
		})
	}
	sent := 0
	for sent < messages && r.ctx.Err() == nil && (enough == nil || !enough()) {
		select {
		case next <- sent:
			sent++
		case <-r.ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	if r.ctx.Err() != nil {
		r.fail("%w", context.Cause(r.ctx))
	}
}

// finish is how every scenario ends once its faults are over: the cluster
// takes writes again, everything converges, and the oracle has no objection.
func (r *run) finish() {
	if r.result.Judged {
		return
	}
	r.mend()
	if !r.load.writing {
		r.startLoad()
	}
	r.progress(50)
	r.ready(r.members()...)
	r.stopLoad()
	var urls []string
	for _, n := range r.members() {
		urls = append(urls, n.url())
	}
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	for _, w := range r.load.workloads {
		r.must(w.Settle(ctx, urls), "let nodes and followers get everything")
	}
	r.must(r.clientErrors(), "follow streams")
	violations := r.load.history.Check()
	r.result.Judged = true
	for _, v := range violations {
		r.result.Violations = append(r.result.Violations, v.String())
	}
	if len(violations) > 0 {
		r.fail("the oracle found %d violations, the first is %v", len(violations), violations[0])
	}
}
