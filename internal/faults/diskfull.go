//go:build linux

package faults

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// diskReserve: below the reserve every node refuses messages and says why;
// reads and administration go on.
func diskReserve(r *run) {
	r.size = smallDisk
	r.flags = append(r.flags, "--min-free-bytes", "96MiB")
	r.cluster(3)
	for round := range r.times(3, 15) {
		for _, n := range r.nodes {
			r.must(n.host.disk.fill(r.ctx, 80<<20), "fill the disk of %v", n)
		}
		r.did("disk below the reserve", "on all nodes")
		for i, n := range r.nodes {
			r.refusesPosts(n, "disk_full", fmt.Sprintf("reserve-%d-%d", round, i))
			_, err := r.api.Page(r.ctx, n.url(), "load1-0", "limit=1")
			r.must(err, "read from %v", n)
		}
		r.acknowledgesNothing(2 * time.Second)
		for _, n := range r.nodes {
			r.must(n.host.disk.drain(), "free the disk of %v", n)
		}
		r.progress(100)
	}
}

// diskLow: below the reserve of one voter nobody takes messages, because it could
// not store them; everybody says whose disk it is. It ends by itself, with the
// space or without that voter.
func diskLow(r *run) {
	r.size = smallDisk
	r.flags = append(r.flags, "--min-free-bytes", "96MiB")
	r.cluster(3)
	for round := range r.times(3, 15) {
		low := r.leader()
		if round%2 == 1 {
			low = r.follower()
		}
		r.must(low.host.disk.fill(r.ctx, 80<<20), "fill the disk of %v", low)
		r.did("disk below the reserve", "on %v", low)
		for _, n := range r.nodes {
			said := r.refusesPosts(n, "disk_full", fmt.Sprintf("low-%d-%d", round, n.id))
			if !strings.Contains(said, fmt.Sprintf("member %d ", low.id)) {
				r.fail("%v does not say that it is member %d whose disk is full: %s", n, low.id, said)
			}
			_, err := r.api.Page(r.ctx, n.url(), "load1-0", "limit=1")
			r.must(err, "read from %v", n)
		}
		r.acknowledgesNothing(2 * time.Second)
		if round%2 == 1 {
			r.did("kill -9", "%v, whose disk is full", low)
			low.kill()
			r.progress(100)
			r.start(low)
			for _, n := range r.nodes {
				r.refusesPosts(n, "disk_full", fmt.Sprintf("low-%d-%d-again", round, n.id))
			}
		}
		r.must(low.host.disk.drain(), "free the disk of %v", low)
		for _, n := range r.nodes {
			r.takesPosts(n, fmt.Sprintf("room-%d-%d", round, n.id))
		}
		r.progress(50)
	}
}

// acknowledgesNothing fails if the load gets on within d.
func (r *run) acknowledgesNothing(d time.Duration) {
	acknowledged := r.load.history.Counts().Acknowledged
	r.hold(d)
	if now := r.load.history.Counts().Acknowledged; now > acknowledged+6 { // what was under way
		r.fail("%d messages were acknowledged by nodes below their reserve", now-acknowledged)
	}
}

// diskFull: without a reserve a node runs out of space in the middle of
// something. It stops and says so; the others go on.
func diskFull(r *run) {
	r.size = smallDisk
	r.flags = append(r.flags, "--min-free-bytes", "0")
	r.cluster(3)
	for round := range r.times(2, 10) {
		victim := r.leader()
		if round%2 == 1 {
			victim = r.follower()
		}
		r.must(victim.host.disk.fill(r.ctx, int64(r.rnd.IntN(256<<10))), "fill the disk of %v", victim)
		r.did("full disk", "on %v", victim)
		// Its log has space set aside; only after that it has to write on.
		r.bulk(fmt.Sprint("bulk-", round), 3000, 48<<10, r.without(victim), func() bool { return !victim.running() })
		said := r.refuses(victim, "no space left on device")
		r.logf("%s", lastLines(said, 1))
		// No better while nothing was freed.
		r.start(victim)
		if victim.proc.awaitEnd(10 * time.Second) {
			r.logf("%s", lastLines(r.refuses(victim, "no space left on device"), 1))
		} else { // what it had set aside was enough for a start
			r.must(victim.signal(syscall.SIGTERM), "stop %v", victim)
			if !victim.proc.awaitEnd(20 * time.Second) {
				r.fail("%v on a full disk does not end on SIGTERM", victim)
				victim.kill()
			}
		}
		r.progress(50)
		r.must(victim.host.disk.drain(), "free the disk of %v", victim)
		r.start(victim)
		r.ready(victim)
	}
}
