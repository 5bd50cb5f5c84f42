//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// group is a control group with a bound on the memory of its processes: they are
// killed beyond it.
type group struct{ dir string }

// Where the two versions of control groups have theirs.
const (
	groups   = "/sys/fs/cgroup"
	groupsV1 = groups + "/memory"
)

func newGroup(name string, bytes int64) (*group, error) {
	dir, file := filepath.Join(groupsV1, prefix+"-"+name), "memory.limit_in_bytes"
	if b, err := os.ReadFile(filepath.Join(groups, "cgroup.controllers")); err == nil && strings.Contains(string(b), "memory") {
		dir, file = filepath.Join(groups, prefix+"-"+name), "memory.max"
		if err := os.WriteFile(filepath.Join(groups, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return nil, fmt.Errorf("make a control group: %w", err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, bytes), 0); err != nil {
		return nil, fmt.Errorf("bound the memory of a control group: %w", err)
	}
	return &group{dir}, nil
}

// inside is what runs the command behind it in the group, under the same process
// id.
func (g *group) inside() []string {
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(g.dir, "cgroup.procs")}
}

// clearGroups removes all groups, whose processes were killed.
func clearGroups(ctx context.Context) error {
	var errs []error
	for _, parent := range [...]string{groups, groupsV1} {
		list, err := filepath.Glob(filepath.Join(parent, prefix+"-*"))
		errs = append(errs, err)
		for _, dir := range list {
			// Busy until the last process is gone for good.
			errs = append(errs, poll(ctx, func() error { return os.Remove(dir) }))
		}
	}
	return errors.Join(errs...)
}
