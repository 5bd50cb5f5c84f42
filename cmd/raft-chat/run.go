package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/raft-chat/raft-chat/internal/server"
)

// What the process answers to its caller.
const (
	exitOK      = 0
	exitFailure = 1 // the work could not be done
	exitUsage   = 2 // it was asked for in a way that cannot be right
)

// node is what serve needs of a running server; tests put their own in its
// place.
type node interface {
	URL() string
	GRPCAddr() string // "" without a gRPC listener
	Done() <-chan struct{}
	Err() error
	Close(ctx context.Context) error
}

// program is the command line's surroundings.
type program struct {
	env            environment
	stdout, stderr io.Writer
	log            *logQueue // in front of stderr, for a node
	open           func(ctx context.Context, c server.Config) (node, error)
}

// run executes the command line args (without the program's name) and returns
// the exit code. env has the form of os.Environ. When ctx ends, a running node
// is stopped gracefully.
func run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	p := &program{
		env: parseEnvironment(env), stdout: stdout, stderr: stderr,
		open: func(ctx context.Context, c server.Config) (node, error) {
			s, err := server.Open(ctx, c)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
	}
	return p.run(ctx, args)
}

func (p *program) run(ctx context.Context, args []string) int {
	root := p.newRootCommand()
	root.SetArgs(doubleDashes(root, args))
	code := p.report(root.ExecuteContext(ctx))
	if p.log != nil {
		p.log.close(logFlushTimeout)
	}
	return code
}

// report prints err, if there is something to say, and chooses the exit code.
func (p *program) report(err error) int {
	var usage *usageError
	var logged *loggedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &logged):
		return exitFailure
	case errors.As(err, &usage):
		fmt.Fprintf(p.stderr, "raft-chat: %s\n", oneLine(err.Error()))
		return exitUsage
	}
	fmt.Fprintf(p.stderr, "raft-chat: %s\n", oneLine(err.Error()))
	return exitCodeOf(err)
}

// usageError is a mistake in the command line or the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// loggedError is a failure whose last word was the log's.
type loggedError struct{ err error }

func (e *loggedError) Error() string { return e.err.Error() }
func (e *loggedError) Unwrap() error { return e.err }

// oneLine joins the lines of a message that some library wrote over several.
func oneLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}

func (p *program) newRootCommand() *cobra.Command {
	root := p.newServeCommand()
	root.Use = "raft-chat"
	root.Short = "Chat that survives: rooms replicated by Raft, in one binary"
	root.Long = `raft-chat runs one node of a replicated chat server.

Without a command and without flags it is a cluster of one: the API and the web
client on http://127.0.0.1:12380, data in ./raft-chat-1.`
	root.Example = `  raft-chat --id 1 --cluster http://127.0.0.1:12379 --port 12380
  raft-chat --config config.node1.yaml --dev`
	root.Version = buildVersion()
	root.SetVersionTemplate(versionLine())
	root.AddCommand(p.newServeCommand(), p.newSendCommand(), p.newTailCommand(), p.newRoomsCommand(),
		p.newMembersCommand(), p.newStatusCommand(), p.newBenchCommand(), p.newVersionCommand())
	root.SilenceErrors = true
	root.SilenceUsage = true
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagError(cmd, err) })
	return root
}

// noArguments refuses positional arguments in words that fit both a mistyped
// command and a stray value.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usageErrorf("%q is neither a command nor a flag%s (see %s --help)", args[0], hint, cmd.CommandPath())
}

// commandGroup makes cmd a command that only holds others.
func commandGroup(cmd *cobra.Command) *cobra.Command {
	cmd.Args = noArguments
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return usageErrorf("%s needs a command (see %s --help)", cmd.CommandPath(), cmd.CommandPath())
	}
	return cmd
}
