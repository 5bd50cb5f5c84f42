//go:build linux

package faults

import "time"

// powerLoss takes the power from nodes: what their file systems had not been
// told to sync is gone, and so is what they had not sent.
//
// The network goes first. A sync that is under way while ext4 is shut down can
// report a success that did not happen, which a machine without power cannot
// tell anybody; nor can it send later what its sockets still hold.
func (r *run) powerLoss(victims ...*node) {
	for _, n := range victims {
		r.must(n.host.unplug(r.ctx), "take the power from %v", n)
		r.must(n.host.disk.powerOff(r.ctx), "take the power from %v", n)
	}
	for _, n := range victims {
		n.kill()
	}
	for _, n := range victims {
		r.must(n.host.replug(r.ctx), "give %v its power back", n)
		r.must(n.host.disk.powerOn(r.ctx), "give %v its power back", n)
	}
}

// powerLossOf plays losses of n nodes at a time.
func powerLossOf(n int) func(*run) {
	return func(r *run) {
		r.cluster(3)
		for range r.times(8, 50) {
			var victims []*node
			for _, i := range r.rnd.Perm(len(r.nodes))[:n] {
				victims = append(victims, r.nodes[i])
			}
			r.did("power loss", "%v", victims)
			r.powerLoss(victims...)
			if n == 1 {
				r.progress(50)
			}
			r.startAll()
			r.progress(60)
			r.hold(r.between(0, time.Second)) // the next comes at any time of a flush or a sync
		}
	}
}
