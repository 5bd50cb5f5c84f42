package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/raft-chat/raft-chat/internal/bench"
)

func (p *program) newBenchCommand() *cobra.Command {
	cmd := commandGroup(&cobra.Command{Use: "bench", Short: "Measure a running cluster"})
	cmd.AddCommand(p.newBenchSendCommand(), p.newBenchFanoutCommand(), p.newBenchConnectionsCommand())
	return cmd
}

func (p *program) newBenchSendCommand() *cobra.Command {
	var (
		endpoints = endpointsValue{defaultEndpoint}
		o         = bench.Options{Rooms: 64, Concurrency: 64, Bytes: 100, Duration: 10 * time.Second, Warmup: time.Second}
		asJSON    bool
		named     endpointsValue
	)
	cmd := &cobra.Command{
		Use:   "send",
		Short: "Post messages and report how many were acknowledged, and how fast",
		Long: `Post messages in a closed loop: every worker waits for the answer to one message
before it sends the next. The messages stay in the rooms bench-0, bench-1 and so on.`,
		Example: "  raft-chat bench send --endpoints http://127.0.0.1:12380,http://127.0.0.1:22380 --concurrency 256",
		Args:    noArguments,
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Var(&named, "endpoints", "nodes to send to, URL or host:port, comma separated (default "+endpoints.String()+")")
	fs.IntVar(&o.Rooms, "rooms", o.Rooms, "how many rooms the messages go to")
	fs.IntVar(&o.Concurrency, "concurrency", o.Concurrency, "how many messages are under way at a time, each on a connection of its own")
	fs.IntVar(&o.Bytes, "bytes", o.Bytes, "length of a message")
	fs.DurationVar(&o.Duration, "duration", o.Duration, "how long to measure")
	fs.DurationVar(&o.Warmup, "warmup", o.Warmup, "how long to send before measuring")
	fs.BoolVar(&o.ClientIDs, "client-ids", o.ClientIDs, "give messages client message ids, and repeat those whose outcome is unknown")
	fs.BoolVar(&asJSON, "json", asJSON, "print the report as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Endpoints = endpoints
		if len(named) > 0 {
			o.Endpoints = named
		}
		if err := o.Validate(); err != nil {
			return usageErrorf("--%w", err)
		}
		report, err := bench.Send(cmd.Context(), o)
		if err != nil {
			return err
		}
		write := report.WriteText
		if asJSON {
			write = report.WriteJSON
		}
		if err := write(p.stdout); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		if report.Acknowledged == 0 && !report.Interrupted {
			return fmt.Errorf("no message was acknowledged%s", mostFrequent(report.Errors))
		}
		return nil
	}
	return cmd
}

func mostFrequent(errors []bench.ErrorCount) string {
	if len(errors) == 0 {
		return ""
	}
	return "; the most frequent error was: " + errors[0].Kind
}
