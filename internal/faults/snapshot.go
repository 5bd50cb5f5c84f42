//go:build linux

package faults

import (
	"errors"
	"fmt"
	"strings"
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
		sends := fmt.Sprintf(`"msg":"sending snapshot","to":%d`, behind.id)
		r.await("a snapshot to be sent", func() error {
			if strings.Contains(sender.proc.output(), sends) {
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
