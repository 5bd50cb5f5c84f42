//go:build linux

package faults

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a program that was started in the background. Its standard error
// and output go to a file.
type process struct {
	cmd  *exec.Cmd
	log  string // path; starts of one node append to one file
	from int64  // where this start begins in it
	done chan struct{}
}

// startProcess starts args. Settings in the environment of whoever runs the
// harness do not reach it; env does.
func startProcess(log string, env []string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer f.Close()
	from, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), log: log, from: from, done: make(chan struct{})}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "RAFT_CHAT_") && !strings.HasPrefix(v, "RAFTOGRAM_") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stdout, p.cmd.Stderr = f, f
	// A group of its own, against ^C; and it does not outlive the harness.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(args, " "), err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState has the outcome
		close(p.done)
	}()
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal reports an error if the process has ended.
func (p *process) signal(s syscall.Signal) error {
	if p.ended() {
		return fmt.Errorf("it has ended (%v) before it was sent %v", p.cmd.ProcessState, s)
	}
	return p.cmd.Process.Signal(s)
}

// kill is kill -9, also for a process that was stopped; it returns when the
// process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// exitCode is -1 if a signal ended the process.
func (p *process) exitCode() int { return p.cmd.ProcessState.ExitCode() }

// awaitEnd reports whether the process ends within d.
func (p *process) awaitEnd(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}

// output is what this start has written.
func (p *process) output() string {
	b, err := os.ReadFile(p.log)
	if err != nil || int64(len(b)) < p.from {
		return ""
	}
	return string(b[p.from:])
}

// defects lists lines of a log that no fault excuses.
func defects(log []byte) []string {
	var found []string
	for line := range bytes.Lines(log) {
		for _, sign := range [...]string{"panic:", "fatal error:", "DATA RACE", "[recovered]", `"raft: `} {
			if bytes.Contains(line, []byte(sign)) {
				found = append(found, strings.TrimSpace(string(line)))
				break
			}
		}
	}
	return found
}

// lastLines is the end of a log.
func lastLines(log string, n int) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
