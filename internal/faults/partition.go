//go:build linux

package faults

import "time"

// cut makes to deaf to from. Packets of clients still arrive.
func (r *run) cut(from, to *node) { to.host.cut[from.id] = true }

// apply puts the cuts and losses of all hosts into force.
func (r *run) apply() {
	for _, n := range r.nodes {
		r.must(n.host.filter(r.ctx), "filter packets of %v", n)
	}
}

// join takes all cuts away.
func (r *run) join() {
	for _, n := range r.nodes {
		clear(n.host.cut)
	}
	r.apply()
}

// partitionSymmetric: one node and the others do not hear each other.
func partitionSymmetric(r *run) {
	r.cluster(3)
	for i := range r.times(4, 40) {
		n := r.leader()
		if i%2 == 1 {
			n = r.follower()
		}
		for _, other := range r.without(n) {
			r.cut(n, other)
			r.cut(other, n)
		}
		r.apply()
		r.did("partition", "%v from the others", n)
		r.progress(100) // by the majority
		r.hold(r.between(0, 3*time.Second))
		r.join()
		r.progress(100)
	}
}

// partitionOneWay: a node is heard and does not hear, or the other way round.
func partitionOneWay(r *run) {
	r.cluster(3)
	for i := range r.times(4, 40) {
		n := r.leader()
		if i%4 >= 2 {
			n = r.follower()
		}
		deaf := i%2 == 0
		for _, other := range r.without(n) {
			if deaf {
				r.cut(other, n)
			} else {
				r.cut(n, other)
			}
		}
		r.apply()
		r.did("one-way partition", "%v, deaf: %v", n, deaf)
		r.progress(100)
		r.hold(r.between(0, 3*time.Second))
		r.join()
		r.progress(100)
	}
}

// partitionBridge: one node hears both others, which do not hear each other.
func partitionBridge(r *run) {
	r.cluster(3)
	for i := range r.times(4, 40) {
		middle := r.leader()
		if i%2 == 1 {
			middle = r.follower()
		}
		ends := r.without(middle)
		r.cut(ends[0], ends[1])
		r.cut(ends[1], ends[0])
		r.apply()
		r.did("bridge partition", "only %v hears all", middle)
		r.progress(100)
		r.hold(r.between(time.Second, 4*time.Second))
		r.join()
		r.progress(50)
	}
}

// partitionFlapping: links break and heal faster than elections end.
func partitionFlapping(r *run) {
	r.cluster(3)
	for range r.times(3, 30) {
		for range 20 {
			for _, from := range r.nodes {
				for _, to := range r.nodes {
					if from != to && r.rnd.IntN(3) == 0 {
						r.cut(from, to)
					}
				}
			}
			r.apply()
			r.result.Faults["flap"]++
			r.hold(r.between(50*time.Millisecond, 700*time.Millisecond))
			r.join()
			r.hold(r.between(0, 300*time.Millisecond))
		}
		r.logf("20 flaps")
		r.progress(100)
	}
}

// loss: TCP has to repeat what vanishes, so everything between members is late.
func loss(r *run) {
	r.cluster(3)
	for range r.times(2, 20) {
		for _, n := range r.nodes {
			n.host.loss = 30
		}
		r.apply()
		r.did("30 % loss", "between all members")
		r.hold(10 * time.Second)
		n := r.any()
		r.did("kill -9", "%v", n)
		n.kill()
		r.hold(3 * time.Second)
		r.start(n)
		for _, n := range r.nodes {
			n.host.loss = 0
		}
		r.apply()
		r.progress(100)
	}
}
