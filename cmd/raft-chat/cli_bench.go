package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/raft-chat/raft-chat/internal/bench"
)

// numbersValue is a list of whole numbers with commas between them.
type numbersValue []int

func (v *numbersValue) Type() string { return "list of numbers" }

func (v *numbersValue) String() string {
	words := make(listValue, len(*v))
	for i, n := range *v {
		words[i] = strconv.Itoa(n)
	}
	return words.String()
}

// Set adds the numbers in s.
func (v *numbersValue) Set(s string) error {
	var words listValue
	if err := words.Set(s); err != nil {
		return err
	}
	for _, word := range words {
		n, err := strconv.Atoi(word)
		if err != nil {
			return errors.New("not a number")
		}
		*v = append(*v, n)
	}
	return nil
}

// report is what every measurement ends with.
type report interface {
	WriteText(w io.Writer) error
	WriteJSON(w io.Writer) error
}

func (p *program) writeReport(r report, asJSON bool) error {
	write := r.WriteText
	if asJSON {
		write = r.WriteJSON
	}
	if err := write(p.stdout); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// endpointsFlag declares --endpoints of a measurement; the result is valid
// once the flags are parsed.
func endpointsFlag(cmd *cobra.Command, what string) func() []string {
	var named endpointsValue
	cmd.Flags().Var(&named, "endpoints", "nodes to "+what+", URL or host:port, comma separated (default "+defaultEndpoint+")")
	return func() []string {
		if len(named) == 0 {
			return []string{defaultEndpoint}
		}
		return named
	}
}

func (p *program) newBenchFanoutCommand() *cobra.Command {
	o := bench.FanoutOptions{
		Rooms: 1, Subscribers: 100, Rate: 100, Bytes: 100, Duration: 10 * time.Second, Warmup: time.Second, Drain: 10 * time.Second,
	}
	asJSON := false
	cmd := &cobra.Command{
		Use:   "fanout",
		Short: "Post at a fixed rate to rooms with many subscribers and report how fast each got what",
		Long: `Open WebSocket subscribers, post messages at a fixed rate and report how many
deliveries were made, and how long after the time at which its message was due
each came. The rooms are new in every run, and stay.`,
		Example: `  raft-chat bench fanout --rooms 1 --subscribers 1000 --rate 50
  raft-chat bench fanout --rooms 1000 --subscribers 10 --stalled 100 --rate 200 --duration 60s`,
		Args: noArguments,
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	endpoints := endpointsFlag(cmd, "load")
	fs.IntVar(&o.Rooms, "rooms", o.Rooms, "how many rooms there are")
	fs.IntVar(&o.Subscribers, "subscribers", o.Subscribers, "how many subscribers each room has")
	fs.IntVar(&o.Stalled, "stalled", o.Stalled, "how many further subscribers, over all rooms, never read")
	fs.Float64Var(&o.Rate, "rate", o.Rate, "how many messages are posted a second, over all rooms")
	fs.IntVar(&o.Bytes, "bytes", o.Bytes, "length of a message")
	fs.DurationVar(&o.Duration, "duration", o.Duration, "how long to measure")
	fs.DurationVar(&o.Warmup, "warmup", o.Warmup, "how long to post before measuring")
	fs.DurationVar(&o.Drain, "drain", o.Drain, "how long to wait for deliveries at the end")
	fs.BoolVar(&asJSON, "json", asJSON, "print the report as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Endpoints = endpoints()
		if err := o.Validate(); err != nil {
			return usageErrorf("--%w", err)
		}
		r, err := bench.Fanout(cmd.Context(), o)
		if err != nil {
			return err
		}
		if err := p.writeReport(r, asJSON); err != nil {
			return err
		}
		switch {
		case r.Interrupted:
			return nil
		case r.Acknowledged == 0:
			return fmt.Errorf("no message was acknowledged%s", mostFrequent(r.Errors))
		case r.Delivered < r.Expected:
			return fmt.Errorf("%d deliveries are missing%s", r.Expected-r.Delivered, mostFrequent(r.Errors))
		}
		return nil
	}
	return cmd
}

func (p *program) newBenchConnectionsCommand() *cobra.Command {
	var (
		o      bench.ConnectionsOptions
		asJSON bool
		counts numbersValue
		pids   numbersValue
		settle = 5 * time.Second
	)
	cmd := &cobra.Command{
		Use:   "connections",
		Short: "Open idle WebSockets and report what each costs the servers in memory",
		Long: `Open idle WebSockets in steps and report, after each, the resident memory of the
servers' processes, which run on this machine. A process may have to be allowed
more files (ulimit -n) than connections.`,
		Example: "  raft-chat bench connections --pid $(pgrep -d, -x raft-chat)",
		Args:    noArguments,
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	endpoints := endpointsFlag(cmd, "connect to")
	fs.Var(&pids, "pid", "`pids` of the processes of these nodes, comma separated")
	fs.Var(&counts, "connections", "`numbers` of connections to measure at, ascending, comma separated (default 1000,5000,10000)")
	fs.IntVar(&o.Rooms, "rooms", o.Rooms, "how many rooms the connections follow; 0: each follows all")
	fs.DurationVar(&settle, "settle", settle, "how long to wait before each measurement")
	fs.BoolVar(&asJSON, "json", asJSON, "print the report as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Endpoints, o.PIDs, o.Counts, o.Settle = endpoints(), pids, counts, settle
		if len(counts) == 0 {
			o.Counts = []int{1000, 5000, 10000}
		}
		if err := o.Validate(); err != nil {
			return usageErrorf("--%w", err)
		}
		r, err := bench.Connections(cmd.Context(), o)
		// What was measured before a failure is worth its time.
		if len(r.Steps) > 0 || err == nil {
			if err := p.writeReport(r, asJSON); err != nil {
				return err
			}
		}
		return err
	}
	return cmd
}
