//go:build linux

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// What follows is about a member that has forgotten what it acknowledged: its
// directory was put back to an older copy, or a copy of it has run since.

// putBack puts a member's directory back while the only other holder of the
// newest messages is down: together with one that lacks them it is a majority.
func putBack(r *run) {
	r.cluster(3)
	for round := range r.times(2, 12) {
		leader := r.leader()
		rest := r.without(leader)
		r.rnd.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		back, behind := rest[0], rest[1]
		older := filepath.Join(back.host.disk.path, "older")
		met := r.met(behind, back)
		back.kill()
		r.copyDir(back.dir, older)
		r.start(back)
		r.ready(back)
		r.await(fmt.Sprint(behind, " to meet the later start"), func() error {
			if r.met(behind, back) == met {
				return errors.New("it knows an earlier one")
			}
			return nil
		})
		behind.kill()
		r.progress(100) // held by the leader and the one that is put back
		leader.kill()
		back.kill()
		own := back.dir
		back.dir = older
		r.did("older copy", "%v", back)
		r.start(behind)
		r.start(back)
		said := r.refuses(back, "this is an older copy or a second one", "Bring the newest directory back", fmt.Sprint("members replace ", back.id))
		r.logf("%s", lastLines(said, 1))
		r.must(os.RemoveAll(older), "remove directory")
		if round%2 == 0 {
			back.dir = own
			r.start(back)
			r.ready(back, behind)
			r.progress(50)
			r.start(leader)
		} else {
			r.start(leader)
			r.ready(leader, behind)
			r.carryOut(back, said)
		}
		r.ready(r.members()...)
		r.progress(50)
	}
}

// met is the start of a member that another one has noted last, "" for none.
func (r *run) met(by, of *node) string {
	b, err := os.ReadFile(filepath.Join(by.dir, "met"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.must(err, "read whom %v has met", by)
	}
	found := regexp.MustCompile(fmt.Sprintf(`"id":%d,"boot":(\d+)`, of.id)).FindSubmatch(b)
	if found == nil {
		return ""
	}
	return string(found[1])
}

// secondCopy runs a copy of a member's directory beside the member, and in its
// place.
func secondCopy(r *run) {
	r.cluster(3)
	for range r.times(1, 8) {
		n := r.any()
		n.kill()
		second := *n
		second.dir = filepath.Join(n.host.disk.path, "second")
		r.copyDir(n.dir, second.dir)

		// The copy is the newest once it has run: the directory itself is old.
		r.did("copy run twice", "that of %v in its place", n)
		r.start(&second)
		r.ready(&second)
		r.progress(50)
		second.kill()
		r.start(n)
		r.logf("%s", lastLines(r.refuses(n, "this is an older copy or a second one", fmt.Sprint("members replace ", n.id)), 1))
		r.must(os.RemoveAll(n.dir), "remove directory")
		r.must(os.Rename(second.dir, n.dir), "bring the newest directory back")
		r.start(n)
		r.ready(n)
		r.progress(50)

		// Both at once, the second one at other ports. First one that was copied
		// before the member started, then one of now.
		n.kill()
		second.port, second.listen = otherPort, otherPort+1
		r.copyDir(n.dir, second.dir)
		r.start(n)
		r.ready(n)
		r.progress(50)
		r.did("copy run twice", "an older one of %v beside it", n)
		r.start(&second)
		r.logf("%s", lastLines(r.refuses(&second, "this is an older copy or a second one"), 1))

		r.must(n.signal(syscall.SIGSTOP), "stop %v", n)
		r.copyDir(n.dir, second.dir)
		r.must(n.signal(syscall.SIGCONT), "continue %v", n)
		r.did("copy run twice", "one of now of %v beside it", n)
		r.start(&second)
		r.takesNothing(&second, 4*time.Second)
		second.kill()
		r.must(os.RemoveAll(second.dir), "remove directory")
		r.ready(n)
		r.progress(50)
	}
}

// takesNothing fails if a node acknowledges a message within d, or serves a
// linearizable read.
func (r *run) takesNothing(n *node, d time.Duration) {
	for began, try := time.Now(), 0; time.Since(began) < d; try++ {
		if r.probe(n, fmt.Sprintf("nothing-%d-%d", n.id, try)) == nil {
			r.fail("%v runs on a copy of a directory and takes a message", n)
		}
		if _, err := r.api.Page(r.ctx, n.url(), "load1-0", "limit=1"); err == nil {
			r.fail("%v runs on a copy of a directory and serves reads", n)
		}
		r.hold(100 * time.Millisecond)
	}
}

// movedMachine: a machine stands still, another one goes on in its place, at its
// address and with all it had on disk, and then the first one goes on as well.
func movedMachine(r *run) {
	r.cluster(3)
	for round := range r.times(2, 12) {
		n := r.leader()
		if round%2 == 1 {
			n = r.follower()
		}
		r.must(n.signal(syscall.SIGSTOP), "stop %v", n)
		r.must(n.host.linked(r.ctx, false), "take the link of %v", n)
		other, err := r.world.twin(r.ctx, n.host, 100+round, r.size)
		r.must(err, "make another machine")
		moved := *n
		moved.host, moved.proc = other, nil
		moved.dir = filepath.Join(other.disk.path, "data")
		r.copyDir(n.dir, moved.dir)
		r.did("copy run twice", "%v on another machine", n)
		r.start(&moved)
		r.ready(&moved)
		r.progress(100)
		moved.kill()
		r.must(other.linked(r.ctx, false), "take the link of the other machine")
		r.must(n.host.linked(r.ctx, true), "give %v its link back", n)
		r.must(n.signal(syscall.SIGCONT), "continue %v", n)
		r.logf("%s", lastLines(r.refuses(n, "this is an older copy or a second one", fmt.Sprint("members replace ", n.id)), 1))
		r.progress(50)
		r.must(os.RemoveAll(n.dir), "remove directory")
		r.copyDir(moved.dir, n.dir)
		r.start(n)
		r.ready(n)
		r.progress(50)
	}
}
