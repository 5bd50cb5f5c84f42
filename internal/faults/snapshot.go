//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/raft-chat/raft-chat/internal/workload"
)

// snapshotLag: a follower that is too far behind for the log gets a snapshot;
// the sender dies midway, and another one begins anew.
func snapshotLag(r *run) {
	r.flags = append(r.flags, "--catch-up-bytes", "1MiB")
	r.cluster(3)
	for round := range r.times(2, 15) {
		behind := r.follower()
		behind.kill()
		r.did("follower left behind", "%v", behind)
		r.bulk(fmt.Sprint("bulk-", round), 300, 48<<10, r.without(behind), nil)
		sender := r.leader()
		// Slow enough that the snapshot is on its way for seconds.
		behind.host.rate = "1500 kbytes/second burst 64 kbytes"
		r.apply()
		r.start(behind)
		sends := regexp.MustCompile(fmt.Sprintf(`"msg":"sending snapshot".*"to":%d,`, behind.id))
		r.await("a snapshot to be sent", func() error {
			if sends.MatchString(sender.proc.output()) {
				return nil
			}
			return errors.Join(r.alive(behind), errors.New("it does not say so"))
		})
		r.hold(r.between(100e6, 1500e6))
		if strings.Contains(behind.proc.output(), "snapshot installed") {
			r.fail("the snapshot arrived before its sender could be killed")
		}
		r.did("kill -9", "%v, midway through sending a snapshot", sender)
		sender.kill()
		behind.host.rate = ""
		r.apply()
		r.start(sender)
		r.ready(behind)
		r.await("the snapshot to be installed", func() error {
			if strings.Contains(behind.proc.output(), "snapshot installed") {
				return nil
			}
			return errors.New("it does not say so")
		})
		r.progress(50)
	}
}

// snapshotMemory: a follower whose memory is bounded gets a snapshot that is much
// larger, while clients go on. That of its process is judged by the resident size.
func snapshotMemory(r *run) {
	// Without room for the snapshot beside what a node needs anyway, some 200 MB.
	megabytes, most := 256, int64(350e6)
	r.size = largeDisk
	if r.long {
		megabytes, most, r.size = 4096, 500e6, hugeDisk
	}
	r.result.Rounds = 1
	// The large messages are judged here: the oracle would keep several copies.
	r.aside = []string{"large"}
	r.forms = slices.DeleteFunc(r.forms, func(f workload.Form) bool { return f.Everything })
	r.flags = append(r.flags, "--catch-up-bytes", "1MiB")
	r.found(3)
	r.startAll()
	r.ready(r.nodes...)
	behind := r.follower()
	behind.kill()
	r.did("follower left behind", "%v", behind)
	large := newLarge(r.rnd, megabytes<<20)
	large.post(r, r.without(behind))
	r.logf("%d MB are stored", megabytes)
	r.load.history.Dropped("large", uint64(len(large.seqs))+1)
	r.startLoad()
	r.progress(50)

	g, err := newGroup("bounded", most)
	r.must(err, "bound the memory of %v", behind)
	behind.wrap = g.inside()
	r.start(behind)
	r.await("the snapshot to be installed", func() error {
		if strings.Contains(behind.proc.output(), "snapshot installed") {
			return nil
		}
		return errors.Join(r.alive(behind), errors.New("it does not say so"))
	})
	r.ready(behind)
	r.logf("the snapshot is taken in")
	r.progress(100)
	r.must(large.compare(r, behind), "read the large messages of %v", behind)
	for _, n := range r.nodes {
		peak := statusOf(n.proc.cmd.Process.Pid, "VmHWM") << 10
		r.result.note("%v used %d MB at most, for a state of %d MB; it got the snapshot: %v", n, peak/1e6, int64(megabytes)<<20/1e6, n == behind)
		if n == behind && (peak <= 0 || peak >= most) {
			r.fail("%v took a snapshot in with %d MB, %d MB is the bound", n, peak/1e6, most/1e6)
		}
	}
}

// large are messages that are made again whenever they are needed.
type large struct {
	text string   // each message is a piece of it
	seqs []uint64 // where message i was stored
}

const largeMessage = 60 << 10

func newLarge(rnd *rand.Rand, bytes int) *large {
	text := make([]byte, 1<<20)
	for i := range text {
		text[i] = "abcdefghijklmnopqrstuvwxyz012345"[rnd.IntN(32)]
	}
	return &large{string(text), make([]uint64, bytes/largeMessage)}
}

func (l *large) message(i int) string {
	at := i * 7919 % (len(l.text) - largeMessage)
	return l.text[at : at+largeMessage]
}

// post posts all of them.
func (l *large) post(r *run, nodes []*node) {
	const writers = 8
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(l.seqs); i = int(next.Add(1)) - 1 {
				m := workload.Message{Room: "large", User: "bulk", ClientMessageID: fmt.Sprint(i), Message: l.message(i)}
				for try := 0; r.ctx.Err() == nil && l.seqs[i] == 0; try++ {
					if stored, _, err := r.api.Post(r.ctx, nodes[(i+try)%len(nodes)].url(), m); err == nil {
						l.seqs[i] = stored.Seq
					}
				}
			}
		})
	}
	wg.Wait()
	if r.ctx.Err() != nil {
		r.fail("%w", context.Cause(r.ctx))
	}
}

// compare reports what a node stores otherwise than it was acknowledged.
func (l *large) compare(r *run, n *node) error {
	i := map[uint64]int{}
	for at, seq := range l.seqs {
		i[seq] = at
	}
	seq := uint64(0)
	for {
		page, err := r.api.Page(r.ctx, n.url(), "large", fmt.Sprint("consistency=stale&limit=100&after=", seq))
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		for _, m := range page {
			seq++
			if at, ok := i[seq]; !ok || m.Seq != seq || m.ClientMessageID != fmt.Sprint(at) || m.Message != l.message(at) {
				return fmt.Errorf("message %d is not what was acknowledged under it", seq)
			}
		}
	}
	if seq != uint64(len(l.seqs)) {
		return fmt.Errorf("%d messages, %d were acknowledged", seq, len(l.seqs))
	}
	return nil
}
