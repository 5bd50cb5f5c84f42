package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// signalVariable makes this test binary a process that waits for signals.
const signalVariable = "RAFT_CHAT_TEST_WAIT_FOR_SIGNALS"

func TestSecondSignalEndsTheProcess(t *testing.T) {
	if os.Getenv(signalVariable) != "" {
		ctx := untilSignal()
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("first signal")
		select {} // a stop that takes for ever
	}

	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSecondSignalEndsTheProcess$")
	cmd.Env = append(os.Environ(), signalVariable+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for _, want := range []string{"ready", "first signal"} {
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("the process says %q (%v), want %q", lines.Text(), lines.Err(), want)
		}
		if want == "ready" {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	// The usual effect comes back a moment after the context has ended, so a
	// signal may still be passed over; it is repeated until one arrives.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for deadline := time.After(time.Minute); ; {
		select {
		case <-ended:
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM {
				t.Errorf("the process ended with %v, want SIGTERM", cmd.ProcessState)
			}
			return
		case <-again.C:
			_ = cmd.Process.Signal(syscall.SIGTERM)
		case <-deadline:
			_ = cmd.Process.Kill()
			<-ended
			t.Fatal("the process did not end")
		}
	}
}
