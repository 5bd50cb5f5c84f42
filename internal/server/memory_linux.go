package server

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory is the smallest of physical memory, the limits of the control
// groups that this process is in, and its resource limits.
func machineMemory() int64 {
	least := int64(math.MaxInt64)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		least = lesser(least, uint64(info.Totalram)*uint64(info.Unit))
	}
	for _, resource := range []int{unix.RLIMIT_AS, unix.RLIMIT_DATA} {
		var limit unix.Rlimit
		if unix.Getrlimit(resource, &limit) == nil {
			least = lesser(least, limit.Cur)
		}
	}
	if groups, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		least = min(least, cgroupMemory(groups, os.ReadFile))
	}
	return least
}

// openFiles is how many files this process may have open.
func openFiles() int64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt64
	}
	return lesser(math.MaxInt64, limit.Cur)
}

// cgroupMemory is the smallest memory limit of the control groups in groups, which
// has the form of /proc/self/cgroup, and of those above them. It is math.MaxInt64
// if there is none that can be read.
func cgroupMemory(groups []byte, read func(name string) ([]byte, error)) int64 {
	least := int64(math.MaxInt64)
	for lines := bufio.NewScanner(bytes.NewReader(groups)); lines.Scan(); {
		// hierarchy:controllers:path
		part := strings.SplitN(lines.Text(), ":", 3)
		if len(part) != 3 {
			continue
		}
		root, file := "/sys/fs/cgroup", "memory.max"
		if part[1] != "" {
			if !strings.Contains(","+part[1]+",", ",memory,") {
				continue
			}
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		// In a container the path may be that of the host, of which only the root is
		// mounted: what is not there is passed over.
		for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
			if text, err := read(path.Join(root, dir, file)); err == nil {
				if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
					least = lesser(least, n) // else "max"
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// lesser is the smaller one; 0 is what the kernel gives for a limit that it does not
// have, besides very large numbers.
func lesser(a int64, b uint64) int64 {
	if b == 0 || b > uint64(a) {
		return a
	}
	return int64(b)
}
