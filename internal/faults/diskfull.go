//go:build linux

package faults

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/raft-chat/raft-chat/internal/workload"
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
		acknowledged := r.load.history.Counts().Acknowledged
		r.hold(2 * time.Second)
		if now := r.load.history.Counts().Acknowledged; now > acknowledged+6 { // what was under way
			r.fail("%d messages were acknowledged by nodes below their reserve", now-acknowledged)
		}
		for _, n := range r.nodes {
			r.must(n.host.disk.drain(), "free the disk of %v", n)
		}
		r.progress(100)
	}
}

// refusesPosts waits until a node answers posts with a code. What it may have
// stored before is told to the oracle.
func (r *run) refusesPosts(n *node, code, id string) {
	try := 0
	r.await(fmt.Sprint(n, " to refuse posts"), func() error {
		if err := r.alive(n); err != nil {
			return err
		}
		try++
		m := workload.Message{Room: "probes", User: "probe", Message: "is this taken?", ClientMessageID: fmt.Sprint(id, "/", try)}
		post := r.load.history.Send(m.Oracle())
		stored, _, err := r.api.Post(r.ctx, n.url(), m)
		switch {
		case err == nil:
			post.Acknowledged(stored.Oracle())
			return errors.New("it takes a post")
		case workload.CodeOf(err) == code:
			post.Refused()
			r.result.Refusals = append(r.result.Refusals, err.Error())
			return nil
		}
		return err // of this attempt the outcome stays unknown
	})
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
