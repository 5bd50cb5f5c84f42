package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/testcluster"
)

// patience is how long a test waits for what must happen. It only ends tests
// that would fail anyway.
const patience = time.Minute

// process is a program that was started, with what it has written.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  testcluster.Log // standard output
	log  testcluster.Log // standard error
	done chan struct{}   // closed: it has ended
}

// start runs a program in dir, with the built binary first on its PATH.
// Settings in the environment of whoever runs the tests do not reach it.
func start(t *testing.T, dir, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: strings.Join(append([]string{filepath.Base(program)}, args...), " "), done: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "RAFT_CHAT_") && !strings.HasPrefix(v, "RAFTOGRAM_") && !strings.HasPrefix(v, "PATH=") {
			p.cmd.Env = append(p.cmd.Env, v)
		}
	}
	p.cmd.Env = append(p.cmd.Env, "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.log
	p.cmd.SysProcAttr = processGroup()
	// Children that outlive a script may hold its pipes.
	p.cmd.WaitDelay = 5 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState has the outcome
		close(p.done)
	}()
	t.Cleanup(p.end)
	return p
}

// end kills the process and its children, and shows what it wrote if the test
// has failed.
func (p *process) end() {
	before := p.log.String()
	if p.t.Failed() && !p.ended() {
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // Go programs answer with their goroutines
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
		}
	}
	if !p.ended() {
		// The whole group: a script has nodes as children. It is still there,
		// because only the wait for the process gives its id free.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-p.done
	}
	if p.t.Failed() {
		p.t.Logf("%s (%v)\nstandard output:\n%s\nstandard error:\n%s\ngoroutines:\n%s", p.name, p.cmd.ProcessState,
			testcluster.Tail(p.out.String(), 50), testcluster.Tail(before, 100), testcluster.OurGoroutines(p.log.String()[len(before):]))
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill is kill -9; it returns when the process is gone.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait()
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if p.ended() {
		p.t.Fatalf("%s has ended before it was sent %v: %v\n%s", p.name, s, p.cmd.ProcessState, testcluster.Tail(p.log.String(), 20))
	}
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("send %v to %s: %v", s, p.name, err)
	}
}

// wait waits for the end of the process and returns its exit code, -1 if a
// signal ended it.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("%s does not end", p.name)
		return 0
	}
}

// stop sends s and expects exit code 0.
func (p *process) stop(s syscall.Signal) {
	p.t.Helper()
	p.signal(s)
	if code := p.wait(); code != 0 {
		p.t.Errorf("%s: exit code %d after %v, want 0", p.name, code, s)
	}
}
