package server

import (
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// warnings says, in one sentence each, which settings that are fine by
// themselves will surprise together. c has been validated.
func (c *Config) warnings() []string {
	var w []string
	warn := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }

	// A timeout is drawn between one and two of these, and a vote takes a moment.
	election := 2 * c.TickInterval * time.Duration(c.ElectionTicks)
	if c.RequestTimeout < election {
		warn("request-timeout (%s) is shorter than an election (up to %s, from tick-interval and election-ticks): requests will fail whenever the leader changes", c.RequestTimeout, election)
	}
	if c.LeaderGrace < election {
		warn("leader-grace (%s) is shorter than an election (up to %s, from tick-interval and election-ticks): all streams will be closed whenever the leader changes", c.LeaderGrace, election)
	}
	if c.PongTimeout > c.PingInterval {
		warn("pong-timeout (%s) is longer than ping-interval (%s): a client that is gone will be noticed only after both", c.PongTimeout, c.PingInterval)
	}
	if c.AdvertiseGRPC != "" && c.ListenGRPC == "" {
		warn("advertise-grpc (%s) is told to others, but without listen-grpc nothing is served there by this node", c.AdvertiseGRPC)
	}
	if size, known := diskSize(c.DataDir); known {
		if c.MinFreeBytes >= size {
			warn("min-free-bytes (%d) is more than the whole disk of data-dir has (%d): no message will ever be taken", c.MinFreeBytes, size)
		}
		if c.CatchUpBytes > size/2 {
			warn("catch-up-bytes (%d) is more than half of the disk of data-dir (%d): the log alone may fill it", c.CatchUpBytes, size)
		}
	}
	return w
}

// diskSize returns the size of the file system that holds dir, or will once it
// has been made.
func diskSize(dir string) (size int64, known bool) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, false
	}
	for {
		var s unix.Statfs_t
		err := unix.Statfs(dir, &s)
		if err == nil {
			return int64(s.Blocks) * s.Bsize, s.Blocks > 0
		}
		parent := filepath.Dir(dir)
		if err != unix.ENOENT || parent == dir {
			return 0, false
		}
		dir = parent
	}
}
