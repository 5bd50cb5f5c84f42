//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// What the harness makes bears names of its own, so that what a crashed run
// left behind can be told from everything else on the machine.
const (
	prefix    = "rcfault"
	bridge    = prefix + "0"
	subnet    = "10.213.77."
	ownAddr   = subnet + "1" // of the bridge: where clients and slow links are
	workspace = "raft-chat-faults"
)

// world is what nodes live in: hosts on one bridge, each with a disk. Its
// methods are for one goroutine.
type world struct {
	dir   string // images, mount points, logs, copies of directories
	lock  *os.File
	hosts map[int]*host
}

// openWorld clears what an earlier run left and makes an empty world. parent
// is where its files go; there is one world on a machine at a time.
func openWorld(ctx context.Context, parent string) (_ *world, err error) {
	dir := filepath.Join(parent, workspace)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make workspace: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), workspace+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another run of the harness uses this machine: %w", err), lock.Close())
	}
	w := &world{dir: dir, lock: lock, hosts: map[int]*host{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close(ctx))
		}
	}()
	if err := w.clear(ctx); err != nil {
		return nil, fmt.Errorf("clear what an earlier run left: %w", err)
	}
	return w, nil
}

// build lays the bridge for one scenario.
func (w *world) build(ctx context.Context) error {
	return commands(ctx,
		"ip link add "+bridge+" type bridge",
		"ip addr add "+ownAddr+"/24 dev "+bridge,
		"ip link set "+bridge+" up")
}

// host returns host id, which is made when it is first asked for. size is that
// of its disk.
func (w *world) host(ctx context.Context, id int, size diskSize) (*host, error) {
	if h := w.hosts[id]; h != nil {
		return h, nil
	}
	h, err := newHost(ctx, w, id, size)
	if err != nil {
		return nil, fmt.Errorf("make host %d: %w", id, err)
	}
	w.hosts[id] = h
	return h, nil
}

// twin makes host id, which has the addresses of another one: their links must
// not both be there.
func (w *world) twin(ctx context.Context, of *host, id int, size diskSize) (*host, error) {
	h, err := openHost(ctx, size, &host{world: w, id: id, addr: of.addr, mac: of.mac})
	if err != nil {
		return nil, fmt.Errorf("make host %d: %w", id, err)
	}
	w.hosts[id] = h
	return h, nil
}

// clear removes hosts, disks and files, of this run or an earlier one. It goes
// by names and not by what w remembers, and goes on after an error.
func (w *world) clear(ctx context.Context) error {
	// An interrupted run has to clear up as well.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	clear(w.hosts)
	errs := []error{clearHosts(ctx), clearDisks(ctx, w.dir), clearGroups(ctx)}
	if errors.Join(errs...) == nil { // never through a mount that stayed
		entries, err := os.ReadDir(w.dir)
		errs = append(errs, err)
		for _, e := range entries {
			if e.Name() != logDir {
				errs = append(errs, os.RemoveAll(filepath.Join(w.dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// logDir is what outlives a scenario: the logs of those that failed.
const logDir = "logs"

// close clears the world for good.
func (w *world) close(ctx context.Context) error {
	err := w.clear(ctx)
	// Gone unless there are logs in it.
	_ = os.Remove(filepath.Join(w.dir, logDir))
	_ = os.Remove(w.dir)
	return errors.Join(err, w.lock.Close())
}

// commands runs commands without quoting in them, one after the other.
func commands(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if _, err := command(ctx, strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

// command runs a program and returns what it wrote.
func command(ctx context.Context, args ...string) (string, error) {
	return commandWith(ctx, "", args...)
}

func commandWith(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	// ^C on the terminal is for the harness, which ends what it is doing.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
