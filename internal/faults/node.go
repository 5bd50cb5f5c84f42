//go:build linux

package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	clientPort = 12380
	peerPort   = 12379
)

// node is one member: a process of the built binary on a host of its own, with
// its data on that host's disk, over any number of starts.
type node struct {
	id      int
	host    *host
	peerURL string // as the members know it
	binary  string
	env     []string
	flags   []string // besides those that every node gets
	list    string   // its --cluster
	join    bool
	dir     string   // its data directory
	port    int      // of its API
	listen  int      // where it listens for members; 0 is the port of its peerURL
	wrap    []string // what its command is an argument of

	logs string
	proc *process
	out  bool // no start is expected of it any more: removed or refused
}

func (n *node) url() string       { return fmt.Sprint("http://", n.host.addr, ":", n.port) }
func (n *node) String() string    { return fmt.Sprint("node ", n.id) }
func (n *node) running() bool     { return n.proc != nil && !n.proc.ended() }
func (n *node) listEntry() string { return fmt.Sprint(n.id, "=", n.peerURL) }

// args is the command that starts the node on its host.
func (n *node) args(extra ...string) []string {
	args := []string{n.binary, "--id", fmt.Sprint(n.id), "--cluster", n.list,
		"--host", n.host.addr, "--port", fmt.Sprint(n.port), "--listen-peer", fmt.Sprint(n.host.addr, ":", cmp.Or(n.listen, peerPort)),
		"--data-dir", n.dir, "--insecure-peers"}
	if n.join {
		args = append(args, "--join")
	}
	return append(slices.Clone(n.wrap), n.host.inside(append(append(args, n.flags...), extra...)...)...)
}

// start starts the process, with further flags.
func (n *node) start(flags ...string) error {
	if n.running() {
		return fmt.Errorf("%v runs already", n)
	}
	var err error
	n.proc, err = startProcess(filepath.Join(n.logs, fmt.Sprintf("node%d.log", n.id)), n.env, n.args(flags...)...)
	return err
}

// kill is kill -9.
func (n *node) kill() {
	if n.proc != nil {
		n.proc.kill()
	}
}

// signal is for processes that are expected to live.
func (n *node) signal(s syscall.Signal) error {
	if err := n.proc.signal(s); err != nil {
		return fmt.Errorf("%v: %w\n%s", n, err, lastLines(n.proc.output(), 5))
	}
	return nil
}

// inject has strace change system calls of the running process, until the
// returned function is called or the process ends.
func (n *node) inject(ctx context.Context, rule string) (stop func() error, err error) {
	calls, _, _ := strings.Cut(rule, ":")
	p, err := startProcess(filepath.Join(n.logs, fmt.Sprintf("strace%d.log", n.id)), nil, "strace", "-f", "-qq",
		"-o", "/dev/null", "-e", "trace="+calls, "-e", "inject="+rule, "-p", fmt.Sprint(n.proc.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	detach := func() error {
		if !p.ended() {
			if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return fmt.Errorf("detach strace: %w", err)
			}
		}
		<-p.done
		return nil
	}
	// It is attached once the kernel says so.
	err = poll(ctx, func() error {
		if p.ended() && n.running() {
			return &ended{fmt.Errorf("strace has ended: %v: %s", p.cmd.ProcessState, p.output())}
		}
		if pid := tracer(n.proc.cmd.Process.Pid); pid != p.cmd.Process.Pid && n.running() {
			return errors.New("strace is not attached")
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, detach())
	}
	return detach, nil
}

// tracer is the process that traces pid, 0 for none.
func tracer(pid int) int {
	return int(statusOf(pid, "TracerPid"))
}

// statusOf is a number of what the kernel tells of a process, 0 if it tells none.
func statusOf(pid int, name string) (number int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, name+":"); found {
			if _, err := fmt.Sscan(rest, &number); err == nil {
				return number
			}
		}
	}
	return 0
}
