//go:build linux

package faults

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// slowProxy: the members know each other by the addresses of links that hold
// everything back.
func slowProxy(r *run) {
	r.found(3)
	var links []*slowLink
	defer func() {
		for _, l := range links {
			if err := l.close(); err != nil {
				r.logf("close slow link: %v", err)
			}
		}
	}()
	for _, n := range r.nodes {
		// 20 to 120 ms each way; how it is drawn need not be repeatable, the
		// scheduler is not either.
		l, err := openSlowLink(ownAddr+":0", fmt.Sprint(n.host.addr, ":", peerPort), func() time.Duration {
			return 20*time.Millisecond + time.Duration(rand.Int64N(int64(100*time.Millisecond)))
		})
		r.must(err, "open slow link")
		links = append(links, l)
		n.peerURL = "http://" + l.listener.Addr().String()
	}
	for _, n := range r.nodes {
		n.list = r.list()
		r.start(n)
	}
	r.did("slow links", "20–120 ms each way between all members")
	r.ready(r.nodes...)
	r.startLoad()
	for range r.times(3, 30) {
		r.progress(100)
		leader := r.leader()
		r.did("kill -9", "%v, the leader", leader)
		leader.kill()
		r.progress(50)
		r.start(leader)
	}
	r.progress(100)
	r.finish() // while the links are there
}

// fsyncEIO: one failed sync ends a node, though the next would have worked.
func fsyncEIO(r *run) {
	r.cluster(3)
	for i := range r.times(4, 30) {
		n := r.leader()
		if i%2 == 1 {
			n = r.follower()
		}
		// Counted in each thread.
		when := 1 + r.rnd.IntN(3)
		stop, err := n.inject(r.ctx, fmt.Sprint("fdatasync,fsync:error=EIO:when=", when))
		r.must(err, "inject a fault into %v", n)
		r.did("fsync fails", "%v, the syncs number %d of its threads", n, when)
		said := r.refuses(n, "input/output error")
		r.must(stop(), "stop injecting into %v", n)
		r.logf("%s", lastLines(said, 1))
		r.progress(50)
		r.start(n)
		r.ready(n)
	}
}

// fsyncSlow: syncs that take as long as an election does.
func fsyncSlow(r *run) {
	r.cluster(3)
	for i := range r.times(2, 20) {
		n := r.leader()
		if i%2 == 1 {
			n = r.follower()
		}
		stop, err := n.inject(r.ctx, "fdatasync,fsync:delay_enter=300000")
		r.must(err, "inject a fault into %v", n)
		r.did("slow fsync", "300 ms on %v", n)
		r.hold(8 * time.Second)
		r.progress(20)
		r.must(stop(), "stop injecting into %v", n)
		r.progress(100)
	}
}
