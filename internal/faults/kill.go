//go:build linux

package faults

import (
	"syscall"
	"time"
)

// killLeader: the two that are left go on, and the one that comes back catches
// up.
func killLeader(r *run) {
	r.cluster(3)
	for range r.times(6, 60) {
		leader := r.leader()
		r.did("kill -9", "%v, the leader", leader)
		leader.kill()
		r.progress(100)
		r.start(leader)
		r.progress(50)
	}
}

func killOne(r *run) {
	r.cluster(3)
	for range r.times(8, 80) {
		n := r.any()
		r.did("kill -9", "%v", n)
		n.kill()
		r.hold(r.between(0, time.Second))
		r.start(n)
		r.progress(50)
		if r.rnd.IntN(2) == 0 {
			r.ready(n)
		}
	}
}

// killAll: nothing is in memory anywhere after it.
func killAll(r *run) {
	r.cluster(3)
	for range r.times(6, 60) {
		r.did("kill -9 of all", "%d nodes", len(r.nodes))
		for _, i := range r.rnd.Perm(len(r.nodes)) {
			r.must(r.nodes[i].signal(syscall.SIGKILL), "kill")
		}
		for _, n := range r.nodes {
			n.kill()
		}
		r.startAll()
		r.progress(100)
	}
}

// pause: a process that stands still for longer than an election does not
// know that time has passed.
func pause(r *run) {
	r.cluster(3)
	longest := 8 * time.Second
	if r.long {
		longest = 30 * time.Second
	}
	for i := range r.times(4, 30) {
		n := r.leader()
		if i%2 == 1 {
			n = r.follower()
		}
		r.must(n.signal(syscall.SIGSTOP), "stop %v", n)
		d := r.between(time.Second, longest)
		r.did("pause", "%v for %v", n, d)
		r.hold(d)
		r.must(n.signal(syscall.SIGCONT), "continue %v", n)
		r.progress(100)
	}
}
