//go:build linux

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// clockStep sets the wall clock of single nodes. One that is off against the
// others' takes no messages and does not stay the leader, and the others go on;
// whatever a clock does, no message is dated before the one ahead of it, which
// the oracle sees to.
func clockStep(r *run) {
	r.steppedCluster()
	for round := range r.times(2, 12) {
		offset := r.between(3*time.Second, time.Hour)
		if round%2 == 1 {
			offset = -offset
		}
		id := fmt.Sprint("clock-", round)

		follower := r.follower()
		r.setClock(follower, offset)
		r.refusesPosts(follower, "clock_skew", id)
		r.progress(50) // at the others
		r.setClock(follower, 0)
		r.takesPosts(follower, id+"/again")

		leader := r.leader()
		r.setClock(leader, offset)
		r.refusesPosts(leader, "clock_skew", id+"/leader")
		for _, n := range r.without(leader) {
			r.takesPosts(n, fmt.Sprint(id, "/others/", n.id))
		}
		r.progress(50) // at the others
		r.await("another leader", func() error {
			if r.leader() == leader {
				return errors.New("the node with the wrong time still leads")
			}
			return nil
		})
		r.did("kill -9", "%v, the node with the wrong time", leader)
		leader.kill()
		r.progress(50)
		r.start(leader)
		r.refusesPosts(leader, "clock_skew", id+"/back")
		r.setClock(leader, 0)
		r.takesPosts(leader, id+"/right")
	}
}

// clockLeader makes the time of leaders wrong by a little or much. Each hands the
// leadership over and goes on as a follower; nobody has to do anything meanwhile.
func clockLeader(r *run) {
	r.steppedCluster()
	for round := range r.times(4, 24) {
		leader := r.leader()
		offset := r.between(time.Second, 3*time.Second) // an election takes half a second
		if round%4 >= 2 {
			offset = r.between(time.Hour, 100*time.Hour)
		}
		if round%2 == 1 {
			offset = -offset
		}
		id := fmt.Sprint("clock-leader-", round)
		r.setClock(leader, offset)
		r.await("another leader", func() error {
			if r.leader() == leader {
				return errors.New("the node with the wrong time still leads")
			}
			return r.alive(leader)
		})
		r.progress(100) // at the others
		r.refusesPosts(leader, "clock_skew", id)
		_, err := r.api.Page(r.ctx, leader.url(), "load1-0", "limit=1")
		r.must(err, "read from %v, whose time is wrong", leader)
		if r.leader() == leader {
			r.fail("%v leads again while its time is wrong", leader)
		}
		r.setClock(leader, 0)
		r.takesPosts(leader, id+"/right")
	}
}

// steppedCluster is a cluster of three whose clocks can be set, and a load.
func (r *run) steppedCluster() {
	var err error
	r.binary, err = buildStepped(r.ctx, r.source, r.world.dir)
	r.must(err, "build with a clock that can be set")
	r.found(3)
	for _, n := range r.nodes {
		n.env = append(n.env, clockVariable+"="+clockFile(n))
		r.start(n)
	}
	r.ready(r.nodes...)
	r.startLoad()
	r.progress(50)
}

func clockFile(n *node) string { return filepath.Join(n.logs, fmt.Sprintf("clock%d", n.id)) }

// setClock sets the clock of a node to offset against the true time.
func (r *run) setClock(n *node, offset time.Duration) {
	r.did("clock step", "%v to %v", n, offset)
	// Renamed, so that no half of it is read.
	temporary := clockFile(n) + ".new"
	r.must(os.WriteFile(temporary, []byte(offset.String()), 0o600), "set clock")
	r.must(os.Rename(temporary, clockFile(n)), "set clock")
}
