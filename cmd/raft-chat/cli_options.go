package main

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/raft-chat/raft-chat/client"
)

// What the commands that talk to a cluster answer besides exitOK, exitFailure
// and exitUsage.
const (
	exitUnknown     = 3 // it may or may not have taken effect
	exitUnavailable = 4 // no node could be reached, or none was able to answer
)

const exitCodesHelp = `Exit codes: 0 done; 1 refused or failed; 2 a mistake in the command line;
3 it is not known whether it took effect; 4 no node was reachable or
able to answer in time.`

// exitCodeOf chooses the exit code for the failure of a command.
func exitCodeOf(err error) int {
	var unknown *client.OutcomeUnknownError
	var unknownMember *client.MembershipUnknownError
	switch {
	case errors.As(err, &unknown), errors.As(err, &unknownMember):
		return exitUnknown
	case errors.Is(err, client.ErrUnavailable):
		return exitUnavailable
	}
	return exitFailure
}

// cliOptions are the flags that all commands talking to a cluster have.
type cliOptions struct {
	endpoints endpointsValue
	output    outputValue
}

// register declares the flags.
func (o *cliOptions) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.Var(&o.endpoints, "endpoints", "nodes, URL or host:port, comma separated; also "+envName("endpoints")+" (default "+defaultEndpoint+")")
}

// registerOutput declares the choice of the form in which results are printed.
func (o *cliOptions) registerOutput(fs *pflag.FlagSet) {
	o.output = "table"
	fs.VarP(&o.output, "output", "o", "`form` of the output: table or json")
	// So that -o=json, which gets a second dash, is understood as well.
	fs.Var(&o.output, "o", "")
	fs.Lookup("o").Hidden = true
}

// defaultEndpoint is where a node started without flags serves.
const defaultEndpoint = "http://127.0.0.1:12380"

// endpointsValue is a list of nodes. One without a scheme is reached over http.
type endpointsValue []string

func (v *endpointsValue) String() string { return strings.Join(*v, ",") }
func (v *endpointsValue) Type() string   { return "list" }

// Set adds the nodes in s, which commas separate.
func (v *endpointsValue) Set(s string) error {
	var list listValue
	if err := list.Set(s); err != nil {
		return err
	}
	for _, node := range list {
		if !strings.Contains(node, "://") {
			node = "http://" + node
		}
		*v = append(*v, node)
	}
	return nil
}

// outputValue is the form of the output.
type outputValue string

func (v *outputValue) String() string { return string(*v) }
func (v *outputValue) Type() string   { return "table or json" }

// Set accepts table or json.
func (v *outputValue) Set(s string) error {
	if s != "table" && s != "json" {
		return errors.New("not a form of output")
	}
	*v = outputValue(s)
	return nil
}

// client makes the client that the flags and the environment ask for. log, which
// may be nil, gets the failures that it works around. The caller closes it.
func (o *cliOptions) client(env environment, author string, log *slog.Logger) (*client.Client, error) {
	endpoints, where := o.endpoints, "--endpoints"
	if len(endpoints) == 0 {
		where = envName("endpoints")
		if value, set := env[where]; set {
			if err := endpoints.Set(value); err != nil {
				return nil, &usageError{valueError(where, value, endpoints.Type())}
			}
		}
	}
	if len(endpoints) == 0 {
		endpoints = endpointsValue{defaultEndpoint}
	}
	c, err := client.New(client.Options{Endpoints: endpoints, User: author, Logger: log})
	if err != nil {
		return nil, usageErrorf("%s: %w", where, err)
	}
	return c, nil
}

// authorOf returns who a message is from: given, or who runs the command. There
// is no variable of ours for it: tail --exec sets RAFT_CHAT_USER to the author
// of a message, and a send in such a command must not speak in that name.
func authorOf(given string, env environment) (string, error) {
	for _, name := range []string{given, env["USER"], env["LOGNAME"]} {
		if name != "" {
			return name, nil
		}
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username, nil
	}
	return "", usageErrorf("--user: who the message is from cannot be told from the environment")
}

// positional checks the number of arguments; what says what is expected.
func positional(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			return usageErrorf("%s takes %s (see %s --help)", cmd.CommandPath(), what, cmd.CommandPath())
		}
		return nil
	}
}

// writeJSON writes v as indented JSON.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// colours reports whether to colour what goes to w: it is a terminal that is
// not known to lack colours, and nobody has objected (no-color.org).
func colours(w io.Writer, env environment) bool {
	return isTerminal(w) && env["NO_COLOR"] == "" && env["TERM"] != "dumb"
}
