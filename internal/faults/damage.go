//go:build linux

package faults

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/raft-chat/raft-chat/internal/workload"
)

// otherPort is where nodes on copies of directories serve: what they do must
// not reach the clients of the real ones.
const otherPort = clientPort + 1

// damage starts a member on damaged copies of its directory, together with one
// that never had the newest messages, while the only other holder of them is
// down. So a member that has silently lost something helps to elect a leader
// that lacks it, and acknowledged messages are gone. The member must rather
// refuse to start, and say what is wrong and what to do about it.
func damage(r *run) {
	// The log is marked and the store flushed at every MiB: there is some of
	// everything to damage.
	r.flags = append(r.flags, "--catch-up-bytes", "1MiB")
	r.cluster(3)
	victim := r.follower()
	older := filepath.Join(victim.host.disk.path, "older")
	victim.kill()
	r.copyDir(victim.dir, older)
	r.start(victim)
	r.progress(200)
	r.leader().kill() // a new term, and a vote for somebody else
	r.progress(200)
	r.startAll()
	r.ready(r.nodes...)
	r.bulk("bulk", 60, 48<<10, r.nodes, nil)
	r.progress(100)

	leader := r.leader()
	if leader == victim {
		others := r.without(victim)
		r.await("the victim to follow", func() error {
			_, _, err := r.api.Do(r.ctx, http.MethodPost, victim.url()+"/raft/leader", fmt.Sprintf(`{"ID":%d}`, others[0].id))
			return err
		})
		leader = others[0]
	}
	var behind *node
	for _, n := range r.without(leader) {
		if n != victim {
			behind = n
		}
	}
	behind.kill()
	r.progress(200) // held by the leader and the victim alone
	r.stopLoad()
	truth, err := r.api.Everything(r.ctx, leader.url())
	r.must(err, "read what was acknowledged")
	// The high-water record of the log follows within 50 ms; what the very
	// last batch could lose within that time is documented.
	r.hold(time.Second)
	victim.kill()
	leader.kill()

	d := &damaged{run: r, victim: victim, behind: behind, truth: truth, older: older, real: victim.dir, realBehind: behind.dir}
	broken := d.play(r.times(20, 200))

	// The remedy, on the real cluster.
	victim.port, behind.port = clientPort, clientPort
	victim.dir, behind.dir = broken, d.realBehind
	r.start(leader)
	r.start(behind)
	r.ready(leader, behind)
	_, err = r.world.host(r.ctx, 4, r.size)
	r.must(err, "make host 4")
	r.startLoad(fmt.Sprint("http://", subnet, 14, ":", clientPort))
	r.start(victim)
	r.logf("%s", r.refuses(victim))
	r.progress(50)
	r.replace(victim, 4)
	r.progress(100)
	if n := len(d.unclear); n > 0 {
		r.finish() // whether something was lost is more important
		r.fail("%d refusals are unclear:\n%s", n, strings.Join(d.unclear, "\n"))
	}
}

// damaged is the play on copies: the victim and a member without the newest
// messages make a majority.
type damaged struct {
	*run
	victim, behind   *node
	truth            []workload.Message
	older            string
	real, realBehind string // the directories as they were left
	refused, started int
	unclear          []string // refusals that help nobody
}

// play damages copies and returns a damaged directory that was refused.
func (d *damaged) play(rounds int) (broken string) {
	r := d.run
	d.victim.port, d.behind.port = otherPort, otherPort
	d.victim.dir = filepath.Join(d.victim.host.disk.path, "damaged")
	d.behind.dir = filepath.Join(d.behind.host.disk.path, "behind")
	kept := filepath.Join(d.victim.host.disk.path, "refused")
	for i := range rounds {
		r.copyDir(d.real, d.victim.dir)
		r.copyDir(d.realBehind, d.behind.dir)
		what, err := mutate(r.rnd, d.victim.dir, d.older)
		r.must(err, "damage the directory of %v", d.victim)
		r.did("damage", "%d: %s", i+1, what)
		// The one behind first, and the victim on it at once.
		r.start(d.behind)
		r.start(d.victim)
		if said := d.outcome(what); said != "" {
			d.refused++
			r.logf("   refused: %s", said)
			if broken == "" && !strings.Contains(what, "identity") {
				r.copyDir(d.victim.dir, kept)
				broken = kept
			}
		} else {
			d.started++
		}
		d.victim.kill()
		d.behind.kill()
	}
	r.result.note("%d of %d damaged directories were refused, with %d nothing was missing", d.refused, rounds, d.started)
	if broken == "" {
		// Every run shows the remedy.
		r.copyDir(d.real, kept)
		_, err := command(r.ctx, "rm", filepath.Join(kept, "highwater"))
		r.must(err, "damage the directory of %v", d.victim)
		broken = kept
	}
	return broken
}

// outcome waits until the victim has refused or serves, and judges either. It
// returns what a refusal says.
func (d *damaged) outcome(what string) (said string) {
	r := d.run
	var stored []workload.Message
	r.await("the outcome of "+what, func() error {
		if d.victim.proc.ended() {
			return nil
		}
		if err := r.alive(d.behind); err != nil {
			return err
		}
		var err error
		stored, err = r.api.Everything(r.ctx, d.victim.url()) // linearizable
		return err
	})
	if d.victim.proc.ended() {
		said = lastLines(d.victim.proc.output(), 1)
		if d.victim.proc.exitCode() <= 0 {
			r.fail("%s: %v ended with exit code %d: %s", what, d.victim, d.victim.proc.exitCode(), said)
		}
		if err := judgeRefusal(said, d.victim.dir); err != nil {
			d.unclear = append(d.unclear, fmt.Sprintf("%s: %v: %s", what, err, said))
		}
		return said
	}
	if err := missing(d.truth, stored); err != nil {
		r.fail("%s: %v serves: %w", what, d.victim, err)
	}
	return ""
}

// judgeRefusal reports what a refusal lacks: where it is, and what to do.
func judgeRefusal(said, dir string) error {
	if !strings.Contains(said, dir) {
		return errors.New("the refusal names no file of the directory")
	}
	for _, remedy := range [...]string{"members replace", "new id", "new member id", "replace the member", "bring the file back", "bring it back", "--data-dir", "remove the file"} {
		if strings.Contains(said, remedy) {
			return nil
		}
	}
	return errors.New("the refusal names no remedy")
}

// missing compares what a node stores with what was acknowledged.
func missing(truth, stored []workload.Message) error {
	type place struct {
		room string
		seq  uint64
	}
	have := make(map[place]workload.Message, len(stored))
	for _, m := range stored {
		have[place{m.Room, m.Seq}] = m
	}
	lost := 0
	var first workload.Message
	for _, m := range truth {
		if is, ok := have[place{m.Room, m.Seq}]; !ok || is.Oracle() != m.Oracle() {
			if lost++; lost == 1 {
				first = m
			}
		}
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d acknowledged messages are missing or different, the first is %v", lost, len(truth), first.Oracle())
	}
	return nil
}
