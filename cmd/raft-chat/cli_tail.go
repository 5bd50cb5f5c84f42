package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/raft-chat/raft-chat/client"
)

// errGivenUp ends a tail that has found no node for as long as --timeout says.
var errGivenUp = errors.New("for longer than --timeout")

func (p *program) newTailCommand() *cobra.Command {
	var (
		o       cliOptions
		since   = "latest"
		asJSON  bool
		poll    bool
		quiet   bool
		command string
		timeout time.Duration
		last    int
		follow  bool
	)
	cmd := &cobra.Command{
		Use:        "tail ROOM…",
		SuggestFor: []string{"follow", "subscribe", "sub", "watch", "listen"},
		Short:      "Follow rooms",
		Long: `Print the messages of rooms as they come in. A connection, a node or a leader that
is lost is replaced by another, and the output goes on where it was, without a gap
or a repeat; standard error tells of it. Messages that were dropped from the room
before they could be read are told there as well.

Each message is one line, in which control characters are escaped. With --json it is
the JSON object that the node sent.

With --exec, CMD is run by sh for each message, one after the other. It finds the JSON
object on its standard input, and in its environment RAFT_CHAT_ROOM, _USER, _MESSAGE,
_ID, _SEQ, _TIME (RFC 3339) and _RAW (the JSON object). NUL characters in _MESSAGE
become U+FFFD; _MESSAGE and _RAW are left out when they are too long for a variable
(128 KiB). A command that fails is told on standard error and does not end the tail.

It ends with exit code 0 when it is interrupted, and after --poll when all is printed.
` + exitCodesHelp,
		Example: `  raft-chat tail general random --since 10m
  raft-chat tail general -n 20
  raft-chat tail alerts --exec 'notify-send "$RAFT_CHAT_USER" "$RAFT_CHAT_MESSAGE"'`,
		Args: positional(1, -1, "one room or more"),
	}
	fs := cmd.Flags()
	o.register(fs)
	fs.StringVar(&since, "since", since, "where to begin: latest, all, a message ID, a duration such as 10m, or a time in RFC 3339 or as @SECONDS since 1970; all with --poll")
	fs.IntVarP(&last, "lines", "n", last, "begin with the last `N` messages of all the rooms together, 0 to 1000")
	fs.BoolVarP(&follow, "follow", "f", follow, "go on with what comes in; it does so anyway without --poll")
	fs.BoolVar(&asJSON, "json", asJSON, "print JSON objects, one a line; the same as -o json")
	fs.StringVar(&command, "exec", command, "command to run for each message in place of printing it")
	fs.BoolVar(&poll, "poll", poll, "end when everything that is there has been printed")
	fs.BoolVar(&quiet, "quiet", quiet, "do not tell of connections lost and found")
	fs.DurationVar(&timeout, "timeout", timeout, "how long to be without any node before giving up; 0 never gives up")
	o.registerOutput(fs)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if timeout < 0 {
			return usageErrorf("--timeout: %s is less than 0", timeout)
		}
		if fs.Changed("exec") && strings.TrimSpace(command) == "" {
			return usageErrorf("--exec: is empty")
		}
		switch {
		case follow && poll:
			return usageErrorf("--follow and --poll contradict each other")
		case fs.Changed("lines") && fs.Changed("since"):
			return usageErrorf("--lines and --since both say where to begin")
		case last < 0 || last > maxLines:
			return usageErrorf("--lines: %d is not between 0 and %d", last, maxLines)
		}
		c, err := o.client(p.env, "", nil)
		if err != nil {
			return err
		}
		defer c.Close()
		if poll && !fs.Changed("since") {
			since = "all" // nothing is there behind the newest message
		}
		t := &tail{
			stdout: p.stdout, stderr: p.stderr, quiet: quiet, asJSON: asJSON || o.output == "json",
			roomColumn: len(args) > 1, palette: palette(colours(p.stdout, p.env)), timeout: timeout,
		}
		if command != "" {
			t.command = &messageCommand{line: command, env: p.env, stdout: p.stdout, stderr: p.stderr}
		}
		if fs.Changed("lines") {
			if since, err = t.sinceLast(cmd.Context(), c, args, last); err != nil {
				return fmt.Errorf("tail: %w", err)
			}
		}
		return t.run(cmd.Context(), c, client.SubscribeOptions{Rooms: args, Since: since, Poll: poll})
	}
	return cmd
}

// tail prints what a subscription delivers.
type tail struct {
	stdout, stderr io.Writer
	quiet          bool
	asJSON         bool
	roomColumn     bool
	palette        palette
	command        *messageCommand // nil: print
	timeout        time.Duration

	connected  bool   // a node has the stream
	lost       bool   // the last thing told was a loss
	toldBeyond string // the last that beyond told
}

// maxLines is the longest page that a node gives.
const maxLines = 1000

// sinceLast returns where the last n messages of all rooms together begin, as
// Since of a subscription.
func (t *tail) sinceLast(ctx context.Context, c *client.Client, rooms []string, n int) (string, error) {
	if n == 0 {
		return "latest", nil
	}
	if t.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t.timeout, errGivenUp)
		defer cancel()
	}
	var ids []uint64
	for _, room := range rooms {
		page, err := c.History(ctx, room, client.Page{Limit: n})
		if err != nil {
			return "", err
		}
		for _, m := range page.Messages {
			ids = append(ids, m.ID)
		}
	}
	if len(ids) == 0 {
		return "all", nil // whatever there is now has come meanwhile
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return strconv.FormatUint(ids[max(0, len(ids)-n)]-1, 10), nil
}

// run follows until ctx ends, which is no failure, or the subscription fails.
func (t *tail) run(ctx context.Context, c *client.Client, o client.SubscribeOptions) error {
	following, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alarm := &absence{limit: t.timeout, ring: func() { cancel(errGivenUp) }}
	defer alarm.stop()
	alarm.start()
	for event, err := range c.Subscribe(following, o) {
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tail: %w", err)
		}
		switch e := event.(type) {
		case *client.Message:
			err = t.message(following, *e)
		case *client.Gap:
			if e.Beyond != "" {
				t.beyond(e.Beyond)
				break
			}
			t.tell("messages %d to %d of %s were dropped before they could be read", e.FirstSeq, e.LastSeq, printableName(e.Room))
		case *client.Status:
			t.status(*e, alarm)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// beyond tells, once for all rooms, that nobody has posted yet what was to be gone
// on after.
func (t *tail) beyond(why string) {
	if t.toldBeyond != why {
		t.tell("%s; going on from there", printable(why))
	}
	t.toldBeyond = why
}

// status tells of changes once: the first failure of a row, and its end.
func (t *tail) status(s client.Status, alarm *absence) {
	switch s.Kind {
	case client.Connected:
		alarm.stop()
		if t.lost && !t.quiet {
			t.tell("going on at %s", s.Endpoint)
		}
		t.connected, t.lost = true, false
	case client.Disconnected:
		alarm.start()
		if !t.lost && !t.quiet {
			what := "cannot reach"
			if t.connected {
				what = "lost"
			}
			t.tell("%s %s: %s", what, s.Endpoint, printable(s.Err.Error()))
		}
		t.connected, t.lost = false, true
	case client.LeaderLost, client.LeaderBack:
		if !t.quiet {
			t.tell("%s: %s", s.Endpoint, s.Kind)
		}
	}
}

func (t *tail) tell(format string, args ...any) {
	fmt.Fprintf(t.stderr, "raft-chat: "+format+"\n", args...)
}

func (t *tail) message(ctx context.Context, m client.Message) error {
	if t.command != nil {
		t.command.run(ctx, m)
		return nil
	}
	var err error
	if t.asJSON {
		_, err = fmt.Fprintf(t.stdout, "%s\n", m.Raw)
	} else {
		_, err = io.WriteString(t.stdout, t.line(m))
	}
	if err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// line is a message for people: time, room if there are several, author, text.
func (t *tail) line(m client.Message) string {
	var b strings.Builder
	b.WriteString(t.palette.dim(m.PostedAt.Local().Format(time.DateTime)))
	b.WriteString("  ")
	if t.roomColumn {
		b.WriteString(t.palette.bold(printableName(m.Room)))
		b.WriteString("  ")
	}
	b.WriteString(t.palette.name(printableName(m.User)))
	b.WriteString(": ")
	b.WriteString(printable(textOf(m)))
	b.WriteByte('\n')
	return b.String()
}

// absence rings when no node was there for limit; a limit of 0 never rings. It
// belongs to one goroutine.
type absence struct {
	limit time.Duration
	ring  func()
	timer *time.Timer // running while no node is there
}

func (a *absence) start() {
	if a.limit > 0 && a.timer == nil {
		a.timer = time.AfterFunc(a.limit, a.ring)
	}
}

func (a *absence) stop() {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}
