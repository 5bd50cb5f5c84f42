package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/raft-chat/raft-chat/client"
)

const (
	// maxVariable is the longest value of a variable. Linux takes 128 KiB for
	// name and value together.
	maxVariable = 128<<10 - 64
	// commandGrace is how long a command may take to end after an interrupt.
	commandGrace = 5 * time.Second
)

// messageCommand is what tail --exec runs.
type messageCommand struct {
	line           string
	env            environment
	stdout, stderr io.Writer
}

// run runs the command for m and waits for it. What goes wrong is told on
// standard error: one message that a script cannot deal with must not cost the
// others.
func (c *messageCommand) run(ctx context.Context, m client.Message) {
	cmd := exec.CommandContext(ctx, "sh", "-c", c.line)
	cmd.Env = c.environ(m)
	cmd.Stdin = bytes.NewReader(m.Raw)
	cmd.Stdout, cmd.Stderr = c.stdout, c.stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = commandGrace
	if err := cmd.Run(); err != nil && ctx.Err() == nil {
		fmt.Fprintf(c.stderr, "raft-chat: command for %s/%d: %v\n", printableName(m.Room), m.Seq, err)
	}
}

// environ returns the command's environment: ours, and the message.
func (c *messageCommand) environ(m client.Message) []string {
	env := maps.Clone(c.env)
	if env == nil {
		env = make(environment)
	}
	for name, value := range map[string]string{
		"ROOM": m.Room, "USER": m.User, "MESSAGE": textOf(m), "RAW": string(m.Raw),
		"ID": strconv.FormatUint(m.ID, 10), "MESSAGE_ID": strconv.FormatUint(m.ID, 10), "SEQ": strconv.FormatUint(m.Seq, 10),
		"TIME": m.PostedAt.UTC().Format("2006-01-02T15:04:05.000000Z"),
	} {
		name = envPrefix + name
		delete(env, name) // one of our own must not pass for the message's
		value = strings.ReplaceAll(value, "\x00", "\ufffd")
		if len(value) <= maxVariable {
			env[name] = value
		}
	}
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}
