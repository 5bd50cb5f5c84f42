package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/raft-chat/raft-chat/client"
)

// maxStandardInput bounds what is read as one message, in bytes. No node takes
// more.
const maxStandardInput = 16 << 20

func (p *program) newSendCommand() *cobra.Command {
	var (
		o       cliOptions
		author  string
		id      string
		timeout = 30 * time.Second
	)
	cmd := &cobra.Command{
		Use:        "send ROOM [MESSAGE|-]",
		SuggestFor: []string{"post", "say", "publish", "pub"},
		Short:      "Send a message to a room",
		Long: `Send a message to a room and print where it was stored. Without MESSAGE, or with
"-", all of standard input is the message; one line end at its end is dropped.

The message has a client message id, so it is stored once however many nodes have
to be tried. They are tried until one says what became of it or --timeout is over.
After exit code 3, repeating the command with the id that was printed as
--client-message-id settles it.

` + exitCodesHelp,
		Example: `  raft-chat send general 'hello, world'
  make 2>&1 | tail -1 | raft-chat send builds -`,
		Args: positional(1, 2, "a room and a message, which may be -"),
	}
	fs := cmd.Flags()
	o.register(fs)
	fs.StringVar(&author, "user", author, "who the message is from (default the user who runs this)")
	fs.StringVar(&id, "client-message-id", id, "id under which the message is stored at most once (default a random one)")
	fs.DurationVar(&timeout, "timeout", timeout, "how long to try; 0 tries until interrupted")
	o.registerOutput(fs)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		author, err := authorOf(author, p.env)
		if err != nil {
			return err
		}
		var text string
		if len(args) == 2 && args[1] != "-" {
			text = args[1]
		} else if text, err = readMessage(cmd.InOrStdin()); err != nil {
			return err
		}
		var options []client.SendOption
		if id != "" {
			options = append(options, client.WithClientMessageID(id))
		}
		ctx, cancel, err := within(cmd.Context(), timeout)
		if err != nil {
			return err
		}
		defer cancel()
		log, done := wait(p.stderr, timeout)
		defer done()
		c, err := o.client(p.env, author, log)
		if err != nil {
			return err
		}
		defer c.Close()
		m, err := c.Send(ctx, args[0], text, options...)
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if o.output == "json" {
			_, err = fmt.Fprintf(p.stdout, "%s\n", m.Raw)
		} else {
			_, err = fmt.Fprintf(p.stdout, "%s/%d\n", printableName(m.Room), m.Seq)
		}
		return err
	}
	return cmd
}

// readMessage reads one message to its end.
func readMessage(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxStandardInput+1))
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	if len(text) > maxStandardInput {
		return "", fmt.Errorf("standard input is longer than %d bytes", maxStandardInput)
	}
	message := strings.TrimSuffix(string(text), "\n")
	if len(message) < len(text) {
		message = strings.TrimSuffix(message, "\r")
	}
	return message, nil
}

// within bounds ctx by what --timeout says; 0 is no bound.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc, error) {
	if timeout < 0 {
		return nil, nil, usageErrorf("--timeout: %s is less than 0", timeout)
	}
	if timeout == 0 {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	return ctx, cancel, nil
}
