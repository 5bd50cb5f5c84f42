package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/raft-chat/raft-chat/client"
)

// newQueryCommand makes a command that asks the cluster something and prints
// the answer. register may be nil.
func (p *program) newQueryCommand(use, short, long string, args cobra.PositionalArgs,
	query func(ctx context.Context, c *client.Client, args []string) (answer, error)) *cobra.Command {
	var o cliOptions
	timeout := 10 * time.Second
	cmd := &cobra.Command{Use: use, Short: short, Long: long + "\n\n" + exitCodesHelp, Args: args}
	fs := cmd.Flags()
	o.register(fs)
	fs.DurationVar(&timeout, "timeout", timeout, "how long to try; 0 tries until interrupted")
	o.registerOutput(fs)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel, err := within(cmd.Context(), timeout)
		if err != nil {
			return err
		}
		defer cancel()
		log, done := wait(p.stderr, timeout)
		defer done()
		c, err := o.client(p.env, "", log)
		if err != nil {
			return err
		}
		defer c.Close()
		a, err := query(ctx, c, args)
		if err != nil {
			return fmt.Errorf("%s: %w", cmd.Name(), err)
		}
		switch {
		case o.output == "json":
			err = writeJSON(p.stdout, a.json)
		case a.header == nil:
			_, err = io.WriteString(p.stdout, a.text)
		default:
			err = writeTable(p.stdout, palette(colours(p.stdout, p.env)), a.header, a.rows)
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", cmd.Name(), err)
		}
		return a.failure
	}
	return cmd
}

// answer is what a query found, in both forms of output.
type answer struct {
	json any
	// text is printed in place of a table, if there is no header.
	text   string
	header []string
	rows   [][]string
	// failure ends the command after the answer was printed.
	failure error
}

// writeTable writes rows under a header, in columns.
func writeTable(w io.Writer, p palette, header []string, rows [][]string) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			if cells[i] = printableName(cell); cell == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	// Painted afterwards, because colours would count as width.
	head, rest, _ := strings.Cut(b.String(), "\n")
	_, err := io.WriteString(w, p.bold(head)+"\n"+rest)
	return err
}

func (p *program) newRoomsCommand() *cobra.Command {
	rooms := p.newQueryCommand("rooms [PREFIX]", "List the rooms",
		"List all rooms, or those whose names begin with PREFIX, in order of their names.",
		positional(0, 1, "at most a prefix"),
		func(ctx context.Context, c *client.Client, args []string) (answer, error) {
			q := client.RoomsQuery{Limit: 1000}
			if len(args) > 0 {
				q.Prefix = args[0]
			}
			all := []client.Room{}
			for {
				rooms, more, err := c.Rooms(ctx, q)
				if err != nil {
					return answer{}, err
				}
				all = append(all, rooms...)
				if !more || len(rooms) == 0 {
					break
				}
				q.After = rooms[len(rooms)-1].Name
			}
			a := answer{json: all, header: []string{"ROOM", "MESSAGES", "FIRST", "LAST", "LAST POSTED"}}
			for _, r := range all {
				posted := ""
				if !r.LastPostedAt.IsZero() {
					posted = r.LastPostedAt.Local().Format(time.DateTime)
				}
				a.rows = append(a.rows, []string{r.Name, strconv.FormatUint(r.Messages, 10),
					strconv.FormatUint(r.FirstSeq, 10), strconv.FormatUint(r.LastSeq, 10), posted})
			}
			return a, nil
		})
	rooms.SuggestFor = []string{"ls", "list", "channels"}
	return rooms
}

// statusLine is a node in the JSON output of status.
type statusLine struct {
	Endpoint       string
	Reachable      bool
	Error          string `json:",omitempty"`
	NodeID         string `json:",omitempty"`
	Role           string `json:",omitempty"`
	IsLeader       bool
	LeaderID       string `json:",omitempty"`
	LeaderRaftAddr string `json:",omitempty"`
	LeaderGRPCAddr string `json:",omitempty"`
	Ready          bool
	NotReady       string `json:",omitempty"`
	Alarm          string `json:",omitempty"`
}

func (p *program) newStatusCommand() *cobra.Command {
	return p.newQueryCommand("status", "Say how each node of --endpoints is",
		`Ask every node of --endpoints how it is. The exit code is 0 when all of them are
ready, 1 when one of them is not, and 4 when none could be reached.`, noArguments,
		func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			a := answer{header: []string{"ENDPOINT", "NODE", "ROLE", "LEADER", "READY", "ERROR"}}
			var lines []statusLine
			reached, ready := 0, 0
			var lastErr error
			for _, s := range c.Status(ctx) {
				l := statusLine{Endpoint: s.Endpoint, Reachable: s.Err == nil, NodeID: s.NodeID, Role: s.Role, IsLeader: s.IsLeader,
					LeaderID: s.LeaderID, LeaderRaftAddr: s.LeaderRaftAddr, LeaderGRPCAddr: s.LeaderGRPCAddr,
					Ready: s.Ready, NotReady: s.NotReady, Alarm: s.Alarm}
				if s.Err != nil {
					l.Error, lastErr = s.Err.Error(), s.Err
				} else {
					reached++
				}
				if s.Ready {
					ready++
				}
				lines = append(lines, l)
				a.rows = append(a.rows, []string{l.Endpoint, l.NodeID, l.Role, l.LeaderID, yesNo(l.Ready), cmp.Or(l.Error, l.NotReady, l.Alarm)})
			}
			a.json = lines
			switch {
			case reached == 0:
				a.failure = fmt.Errorf("%w: %w", client.ErrUnavailable, lastErr)
			case ready < len(lines):
				a.failure = fmt.Errorf("%d of %d nodes are not ready", len(lines)-ready, len(lines))
			}
			return a, nil
		})
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
