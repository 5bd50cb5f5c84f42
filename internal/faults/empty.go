//go:build linux

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// emptyFounded and emptyGrown give members an empty directory, after whatever
// has made them members. One that founded or joined with it would acknowledge
// under the address, and perhaps the list, of a cluster that runs.

func emptyFounded(r *run) {
	r.cluster(3)
	r.emptyDirectories()
}

func emptyGrown(r *run) {
	r.found(1)
	r.start(r.nodes[0])
	r.ready(r.nodes...)
	var coming []string
	for id := 2; id <= 3; id++ {
		h, err := r.world.host(r.ctx, id, r.size)
		r.must(err, "make host %d", id)
		coming = append(coming, fmt.Sprint("http://", h.addr, ":", clientPort))
	}
	r.startLoad(coming...)
	r.progress(50)
	r.grow(2)
	r.grow(3)
	r.progress(50)
	r.emptyDirectories()
}

// emptyDirectories: each member, then most of them at once; again after one was
// replaced as its refusal says, and after one was removed and has come back so.
func (r *run) emptyDirectories() {
	for range r.times(1, 6) {
		r.emptyEach()
		r.emptyMost()

		n := r.any()
		n.kill()
		r.progress(50)
		r.carryOut(n, r.emptied(n, n.list, n.join))
		r.progress(50)
		r.emptyEach()

		n = r.any()
		r.shrink(n)
		r.progress(50)
		said := r.emptied(n, n.list, n.join)
		if !slices.Contains(r.commandOf(said), "add") {
			r.fail("%v was removed, and is not told how it comes back: %s", n, said)
		}
		r.carryOut(n, said)
		r.progress(50)
		r.emptyMost()
	}
}

// emptyEach empties one member after the other, which are whole again after it.
func (r *run) emptyEach() {
	for _, n := range r.members() {
		n.kill()
		// With the flags of its first start, and with the list of now.
		r.emptied(n, n.list, n.join)
		if now := r.list(); n.join || now != n.list {
			r.emptied(n, now, false)
		}
		r.start(n)
		r.ready(n)
		r.progress(20)
	}
}

// emptyMost empties all members but one at once, with the list of now: together
// they could found a cluster.
func (r *run) emptyMost() {
	rest := r.without(r.any())
	var empty []*node
	for _, n := range rest {
		n.kill()
		empty = append(empty, r.startEmpty(n, r.list(), false))
	}
	for i, n := range empty {
		r.logf("%s", lastLines(r.refuses(n, fmt.Sprint("members replace ", n.id), "--found-anyway"), 1))
		r.must(os.RemoveAll(n.dir), "remove directory")
		r.start(rest[i])
	}
	r.ready(rest...)
	r.progress(50)
}

// emptied starts a member that is down on an empty directory, and returns what
// it says when it refuses.
func (r *run) emptied(n *node, list string, join bool) (said string) {
	e := r.startEmpty(n, list, join)
	said = r.refuses(e, "raft-chat members ", e.dir)
	r.logf("%s", lastLines(said, 1))
	r.must(os.RemoveAll(e.dir), "remove directory")
	return said
}

// startEmpty starts a member that is down on an empty directory beside its own.
func (r *run) startEmpty(n *node, list string, join bool) *node {
	e := *n
	e.dir = filepath.Join(n.host.disk.path, "empty")
	e.list, e.join = list, join
	r.did("empty directory", "%v, with %s, to join: %v", n, e.list, e.join)
	r.start(&e)
	return &e
}
