package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/raft-chat/raft-chat/internal/server"
)

// childVariable makes this test binary the process that it names.
const childVariable = "RAFT_CHAT_TEST_CHILD"

// child starts this test binary as the process that children calls name.
func child(t *testing.T, name string) (cmd *exec.Cmd, in io.WriteCloser, out *bufio.Scanner) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childVariable+"="+name)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return cmd, in, bufio.NewScanner(stdout)
}

func wantLine(t *testing.T, out *bufio.Scanner, want string) {
	t.Helper()
	if !out.Scan() || out.Text() != want {
		t.Fatalf("the process says %q (%v), want %q", out.Text(), out.Err(), want)
	}
}

// TestChild is what child starts.
func TestChild(t *testing.T) {
	switch os.Getenv(childVariable) {
	case "":
		t.Skip("for the tests that start it")
	case "nohup":
		signal.Ignore(syscall.SIGHUP)
		fallthrough
	case "signals":
		ctx := untilSignal()
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println(context.Cause(ctx))
		select {} // a stop that takes for ever
	case "logs":
		p := &program{stdout: os.Stdout, stderr: os.Stderr, open: func(_ context.Context, c server.Config) (node, error) {
			fmt.Println("ready")
			var lines int
			_, _ = fmt.Scanln(&lines)
			for i := range lines {
				c.Logger.Info("a line that is long enough to fill what there is of pipes and buffers by and by", "number", i)
			}
			fmt.Println("logged")
			return newFakeNode(), nil
		}}
		code := p.run(untilSignal(), nil)
		fmt.Println("ended with", code)
		os.Exit(code)
	}
}

// sendUntilEnd sends signals until the process has ended. The usual effect of one comes
// back a moment after the context has ended, so one may be passed over.
func sendUntilEnd(t *testing.T, cmd *exec.Cmd, s syscall.Signal) syscall.WaitStatus {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); ; {
		select {
		case <-ended:
			return cmd.ProcessState.Sys().(syscall.WaitStatus)
		case <-again.C:
			_ = cmd.Process.Signal(s)
		case <-deadline:
			_ = cmd.Process.Kill()
			<-ended
			t.Fatal("the process did not end")
		}
	}
}

func TestSignals(t *testing.T) {
	for _, tt := range []struct {
		child         string
		ignored       []syscall.Signal // before the first
		first, second syscall.Signal
		cause         string
	}{
		{child: "signals", first: syscall.SIGTERM, second: syscall.SIGTERM, cause: "terminated signal received"},
		{child: "signals", first: syscall.SIGINT, second: syscall.SIGTERM, cause: "interrupt signal received"},
		{child: "signals", first: syscall.SIGHUP, second: syscall.SIGINT, cause: "hangup signal received"},
		{child: "nohup", ignored: []syscall.Signal{syscall.SIGHUP}, first: syscall.SIGTERM, second: syscall.SIGTERM, cause: "terminated signal received"},
	} {
		t.Run(tt.child+" "+tt.first.String(), func(t *testing.T) {
			cmd, _, out := child(t, tt.child)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			wantLine(t, out, "ready")
			for _, s := range append(tt.ignored, tt.first) {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			wantLine(t, out, tt.cause)
			// A terminal that closes sends more than one.
			_ = cmd.Process.Signal(syscall.SIGHUP)
			if got := sendUntilEnd(t, cmd, tt.second); !got.Signaled() || got.Signal() != tt.second {
				t.Errorf("the process ended with %v, want %v", cmd.ProcessState, tt.second)
			}
		})
	}
}

// Whatever becomes of the log's reader, the node goes on and stops in order.
func TestLostReaderOfTheLog(t *testing.T) {
	for name, lose := range map[string]func(r *os.File) error{
		"goes away":   (*os.File).Close,
		"stops":       func(*os.File) error { return nil },
		"reads later": func(r *os.File) error { go func() { _, _ = io.Copy(io.Discard, r) }(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = r.Close() }()
			cmd, in, out := child(t, "logs")
			cmd.Stderr = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = w.Close()
			wantLine(t, out, "ready")
			if err := lose(r); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(in, "16000\n"); err != nil {
				t.Fatal(err)
			}
			wantLine(t, out, "logged")
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			wantLine(t, out, "ended with 0")
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// What a node logs before it ends arrives, the newest included.
func TestLogIsWholeAtTheEnd(t *testing.T) {
	cmd, in, out := child(t, "logs")
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wantLine(t, out, "ready")
	_, _ = io.WriteString(in, "3000\n")
	wantLine(t, out, "logged")
	_ = cmd.Process.Signal(syscall.SIGTERM)
	wantLine(t, out, "ended with 0")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	lines := logLines(t, log.String())
	if got := last(lines)["msg"]; got != "stopped" {
		t.Errorf("the last of %d lines: %v", len(lines), got)
	}
	for _, line := range lines {
		if line["node"] != 1.0 {
			t.Fatalf("a line without the node: %v", line)
		}
	}
}
