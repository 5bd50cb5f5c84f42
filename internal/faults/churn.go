//go:build linux

package faults

import (
	"errors"
	"fmt"
)

// churn grows the cluster from three to five and shrinks it again, under ids
// that are never used twice, and kills on the way.
func churn(r *run) {
	const most = 5
	rounds := r.times(2, 15)
	r.found(3)
	for _, n := range r.nodes {
		r.start(n)
	}
	r.ready(r.nodes...)
	var coming []string
	for id := 4; id < 4+2*rounds; id++ {
		// There from the start, so that clients are refused at once.
		_, err := r.world.host(r.ctx, id, r.size)
		r.must(err, "make host %d", id)
		coming = append(coming, fmt.Sprint("http://", subnet, 10+id, ":", clientPort))
	}
	r.startLoad(coming...)
	r.progress(50)
	next := 4
	for range rounds {
		for len(r.members()) < most {
			r.grow(next)
			next++
			r.progress(50)
		}
		n := r.any()
		r.did("kill -9", "%v", n)
		n.kill()
		r.progress(50)
		r.start(n)
		r.ready(n)
		for len(r.members()) > 3 {
			r.shrink(r.any())
			r.progress(50)
		}
	}
}

// grow adds member id on a new host and waits until it votes.
func (r *run) grow(id int) *node {
	n := r.addNode(id)
	n.join = true
	n.list = r.list()
	via := r.leader()
	r.did("member added", "%v by way of %v", n, via)
	r.changeMembers(func(via *node) error { return r.api.AddMember(r.ctx, via.url(), uint64(id), n.peerURL) }, func(is bool) bool { return is }, id)
	r.start(n)
	r.votes(n)
	r.ready(n)
	return n
}

// shrink removes a member, which is to end by itself if it runs.
func (r *run) shrink(n *node) {
	r.did("member removed", "%v, the leader: %v", n, n == r.leader())
	r.changeMembers(func(via *node) error { return r.api.RemoveMember(r.ctx, via.url(), uint64(n.id)) }, func(is bool) bool { return !is }, n.id)
	ran := n.running()
	r.await(fmt.Sprint(n, " to end"), func() error {
		if n.running() {
			return errors.New("it runs")
		}
		return nil
	})
	n.out = true
	if code := n.proc.exitCode(); ran && code != 0 {
		r.fail("%v was removed and ended with exit code %d: %s", n, code, lastLines(n.proc.output(), 3))
	}
}

// changeMembers asks until the members are as they should be: an answer can
// be lost, and a change be refused while the cluster has to find itself.
func (r *run) changeMembers(ask func(via *node) error, wanted func(isMember bool) bool, id int) {
	r.await(fmt.Sprint("the change of member ", id), func() error {
		via := r.leader()
		asked := ask(via)
		if asked == nil {
			return nil
		}
		list, err := r.api.Members(r.ctx, via.url())
		if err != nil {
			return errors.Join(asked, err)
		}
		is := false
		for _, m := range list {
			is = is || m.ID == uint64(id)
		}
		if wanted(is) {
			return nil
		}
		return asked
	})
}

// replace is the remedy that refusals name: the member is removed and added
// again under a new id, with an empty directory.
func (r *run) replace(n *node, id int) *node {
	r.shrink(n)
	added := r.grow(id)
	r.logf("%v was replaced by %v", n, added)
	return added
}
