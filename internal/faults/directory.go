//go:build linux

package faults

import (
	"fmt"
	"os"
	"path/filepath"
)

// The two scenarios below are what people do to data directories. A node
// that started on one of them would vote without knowing what it promised.

// copiedDirectory: another member's directory, and one's own at another
// address.
func copiedDirectory(r *run) {
	r.cluster(3)
	for range r.times(2, 10) {
		n := r.any()
		from := r.without(n)[0]
		n.kill()
		from.kill()
		own := n.dir
		n.dir = filepath.Join(n.host.disk.path, "copy")
		r.copyDir(from.dir, n.dir)
		r.start(from)
		r.did("copied directory", "that of %v under %v", from, n)
		r.start(n)
		r.logf("%s", r.refuses(n, fmt.Sprint("belongs to member ", from.id)))

		// Under its own id, at this host's address.
		elsewhere := &node{id: from.id, host: n.host, peerURL: n.peerURL, binary: n.binary, flags: n.flags, logs: n.logs, dir: n.dir, port: clientPort}
		elsewhere.list = elsewhere.listEntry()
		for _, x := range r.nodes {
			if x != n && x != from {
				elsewhere.list += "," + x.listEntry()
			}
		}
		elsewhere.list += fmt.Sprintf(",%d=%s", n.id, from.peerURL)
		r.did("copied directory", "that of %v at the address of %v", from, n)
		r.start(elsewhere)
		r.logf("%s", r.refuses(elsewhere, "was made for the cluster"))
		r.must(os.RemoveAll(n.dir), "remove directory")
		n.dir = own
		r.start(n)
		r.ready(n)
		r.progress(50)
	}
}

// swappedDirectory: two members with each other's.
func swappedDirectory(r *run) {
	r.cluster(3)
	for range r.times(2, 10) {
		a := r.any()
		b := r.without(a)[0]
		a.kill()
		b.kill()
		a.dir, b.dir = b.dir, a.dir
		r.did("swapped directories", "%v and %v", a, b)
		r.start(a)
		r.start(b)
		r.logf("%s", r.refuses(a, fmt.Sprint("belongs to member ", b.id)))
		r.logf("%s", r.refuses(b, fmt.Sprint("belongs to member ", a.id)))
		a.dir, b.dir = b.dir, a.dir
		r.startAll()
		r.ready(a, b)
		r.progress(50)
	}
}

// copyDir copies a directory that nobody writes to. What a file never held
// takes no space in the copy either.
func (r *run) copyDir(from, to string) {
	r.must(os.RemoveAll(to), "copy directory")
	_, err := command(r.ctx, "cp", "-a", "--sparse=always", from, to)
	r.must(err, "copy directory")
}
