//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/raft-chat/raft-chat/internal/workload"
)

// patience is how long a run waits for what must happen. It is long because
// the machine may be busy: it only ends runs that would fail anyway.
const patience = 4 * time.Minute

// run is one scenario being played. A scenario is written like a test: what
// must not happen ends it through fail, as FailNow ends a test, so that its
// code is the sequence of its faults. Methods are for the scenario's goroutine.
type run struct {
	ctx    context.Context
	out    io.Writer // what happens, for -v
	world  *world
	api    *workload.Client
	binary string
	source string // of this module, to build variants from
	logs   string
	long   bool
	rounds int // how often the faults are to happen
	rnd    *rand.Rand
	size   diskSize
	flags  []string        // of every node
	forms  []workload.Form // of followers of streams
	aside  []string        // rooms that the oracle is not told of

	nodes  []*node // members, in order of id, also those that are out
	load   *load
	result *Result
}

// failure is what fail throws and only play catches.
type failure struct{ error }

// fail ends the scenario.
func (r *run) fail(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// must ends the scenario if what it says was not done.
func (r *run) must(err error, what string, args ...any) {
	if err != nil {
		r.fail("%s: %w", fmt.Sprintf(what, args...), err)
	}
}

// did counts a fault.
func (r *run) did(fault, format string, args ...any) {
	r.result.Faults[fault]++
	r.logf("%s: %s", fault, fmt.Sprintf(format, args...))
}

func (r *run) logf(format string, args ...any) {
	fmt.Fprintf(r.out, "    %s %s\n", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// ended is an error that makes no sense to wait on.
type ended struct{ error }

func (e *ended) Unwrap() error { return e.error }

// poll calls f until it returns nil or an *ended, or patience is over.
func poll(ctx context.Context, f func() error) error {
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	giveUp := time.NewTimer(patience)
	defer giveUp.Stop()
	for {
		err := f()
		if err == nil || errors.As(err, new(*ended)) {
			return err
		}
		select {
		case <-again.C:
		case <-giveUp.C:
			return fmt.Errorf("not within %v: %w", patience, err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (r *run) await(what string, f func() error) { r.must(poll(r.ctx, f), "wait for %s", what) }

// hold lets a fault last.
func (r *run) hold(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ctx.Done():
		r.fail("%w", context.Cause(r.ctx))
	}
}

// between draws a duration.
func (r *run) between(low, high time.Duration) time.Duration {
	return low + time.Duration(r.rnd.Int64N(int64(high-low)+1))
}

// times is how many rounds to play: the -rounds flag, or what suits the form.
func (r *run) times(quick, long int) int {
	n := quick
	switch {
	case r.rounds > 0:
		n = r.rounds
	case r.long:
		n = long
	}
	r.result.Rounds = n
	return n
}

// cluster starts n nodes and a load on them.
func (r *run) cluster(n int) {
	r.found(n)
	for _, n := range r.nodes {
		r.start(n)
	}
	r.ready(r.nodes...)
	r.startLoad()
	r.progress(50)
}

// found makes n nodes of one cluster; none is started.
func (r *run) found(n int) {
	for id := 1; id <= n; id++ {
		r.addNode(id)
	}
	for _, n := range r.nodes {
		n.list = r.list()
	}
}

// addNode makes a node that has no --cluster list yet.
func (r *run) addNode(id int) *node {
	h, err := r.world.host(r.ctx, id, r.size)
	r.must(err, "add node %d", id)
	n := &node{id: id, host: h, peerURL: fmt.Sprint("http://", h.addr, ":", peerPort), binary: r.binary, flags: r.flags, logs: r.logs,
		port: clientPort, dir: filepath.Join(h.disk.path, "data")}
	r.nodes = append(r.nodes, n)
	return n
}

// list is the --cluster list of the members that are in.
func (r *run) list() string {
	var entries []string
	for _, n := range r.nodes {
		if !n.out {
			entries = append(entries, n.listEntry())
		}
	}
	return strings.Join(entries, ",")
}

func (r *run) start(n *node, flags ...string) { r.must(n.start(flags...), "start %v", n) }

// startAll starts the members that are down.
func (r *run) startAll() {
	for _, n := range r.nodes {
		if !n.out && !n.running() {
			r.start(n)
		}
	}
}

// ready waits until each of these can serve.
func (r *run) ready(nodes ...*node) {
	for _, n := range nodes {
		r.await(fmt.Sprint(n, " to be ready"), func() error {
			if err := r.alive(n); err != nil {
				return err
			}
			_, _, err := r.api.Do(r.ctx, http.MethodGet, n.url()+"/readyz?sync", "")
			return err
		})
	}
}

// alive is an *ended if the node's process is no more.
func (r *run) alive(n *node) error {
	if n.running() {
		return nil
	}
	return &ended{fmt.Errorf("%v has ended: %v\n%s", n, n.proc.cmd.ProcessState, lastLines(n.proc.output(), 8))}
}

// members are the nodes that are in the cluster.
func (r *run) members() []*node {
	return slices.DeleteFunc(slices.Clone(r.nodes), func(n *node) bool { return n.out })
}

// leader waits until a running node says that it leads.
func (r *run) leader() (leader *node) {
	r.await("a leader", func() error {
		for _, n := range r.members() {
			if !n.running() {
				continue
			}
			if h, err := r.api.Health(r.ctx, n.url()); err == nil && h.IsLeader {
				leader = n
				return nil
			}
		}
		return errors.New("no node says that it leads")
	})
	return leader
}

// follower draws one.
func (r *run) follower() *node {
	rest := r.without(r.leader())
	return rest[r.rnd.IntN(len(rest))]
}

// any draws a member.
func (r *run) any() *node {
	list := r.members()
	return list[r.rnd.IntN(len(list))]
}

// without are the other members.
func (r *run) without(n *node) []*node {
	return slices.DeleteFunc(r.members(), func(x *node) bool { return x == n })
}

// refuses waits for a node to end by itself with a failure and returns the
// last thing it said. Each of words has to be in it.
func (r *run) refuses(n *node, words ...string) string {
	r.await(fmt.Sprint(n, " to refuse"), func() error {
		if n.running() {
			return errors.New("it runs")
		}
		return nil
	})
	said := lastLines(n.proc.output(), 3)
	if code := n.proc.exitCode(); code <= 0 {
		r.fail("%v ended with exit code %d, a failure was expected: %s", n, code, said)
	}
	for _, w := range words {
		if !strings.Contains(said, w) {
			r.fail("%v does not say %q when it ends: %s", n, w, said)
		}
	}
	r.result.Refusals = append(r.result.Refusals, lastLines(said, 1))
	return said
}

// mend takes all faults away and starts every member that is down.
func (r *run) mend() {
	for _, h := range r.world.hosts {
		clear(h.cut)
		h.loss, h.rate = 0, ""
		r.must(h.filter(r.ctx), "mend host %d", h.id)
		r.must(h.disk.drain(), "mend host %d", h.id)
	}
	for _, n := range r.members() {
		if n.running() {
			r.must(n.signal(syscall.SIGCONT), "continue %v", n)
		}
	}
	r.startAll()
}

// end kills what runs and looks for defects in all logs.
func (r *run) end() error {
	for _, n := range r.nodes {
		n.kill()
	}
	paths, err := filepath.Glob(filepath.Join(r.logs, "node*.log"))
	if err != nil {
		return fmt.Errorf("list logs: %w", err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if found := defects(b); len(found) > 0 {
			return fmt.Errorf("%s tells of a defect: %s", filepath.Base(path), found[0])
		}
	}
	return nil
}
