package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/raft-chat/raft-chat/internal/server"
)

func (p *program) newServeCommand() *cobra.Command {
	s := defaultSettings()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node; this is the default command",
		Args:  noArguments,
	}
	s.register(cmd.Flags())
	// What cobra adds later (help) is no setting.
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if err := cmd.MarkFlagFilename("config", "yaml", "yml", "dist"); err != nil {
		panic(err) // the flag is registered a few lines up
	}
	if err := cmd.MarkFlagDirname("data-dir"); err != nil {
		panic(err)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		from, layout, err := resolve(cmd.Flags(), names, p.env)
		if err != nil {
			return err
		}
		c, err := s.serverConfig(from, layout)
		if err != nil {
			return err
		}
		c.Logger = newLogger(p.stderr, s.dev, slog.Level(s.logLevel))
		return p.serve(cmd.Context(), c, from)
	}
	return cmd
}

// serve runs a node until ctx ends or the node stops by itself.
func (p *program) serve(ctx context.Context, c server.Config, from origins) error {
	n, err := p.open(ctx, c)
	if err != nil {
		// The cause names the signal; what gave up because of it may name either.
		if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
			c.Logger.Info("stopped before the start was complete")
			return nil
		}
		return configError(err, from)
	}
	c.Logger.Info("serving the API and the web client", "url", n.URL(),
		"node", c.ID, "name", c.Name, "cluster", company(c), "data_dir", c.DataDir, "version", c.Version)
	if addr := n.GRPCAddr(); addr != "" {
		c.Logger.Info("serving gRPC", "address", addr)
	}

	select {
	case <-ctx.Done():
		c.Logger.Info("stopping; a second signal ends the process at once", "timeout", c.ShutdownTimeout.String())
	case <-n.Done():
	}
	asked := ctx.Err() != nil
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.ShutdownTimeout)
	defer cancel()
	closeErr := n.Close(closing)
	switch {
	case n.Err() != nil:
		c.Logger.Error("the node stopped because of a fault", "error", n.Err())
		return &loggedError{n.Err()}
	case asked && closeErr != nil:
		c.Logger.Error("the node did not stop cleanly", "error", closeErr)
		return &loggedError{fmt.Errorf("close: %w", closeErr)}
	case asked:
		c.Logger.Info("stopped")
		return nil
	}
	if closeErr != nil {
		c.Logger.Warn("the node did not stop cleanly", "error", closeErr)
	}
	c.Logger.Info("this node was removed from the cluster and has stopped; its data directory is of no further use, and its id is never used again",
		"node", c.ID, "data_dir", c.DataDir)
	return nil
}

// company says in words how many nodes the configuration lists.
func company(c server.Config) string {
	switch n := len(c.Cluster); {
	case c.Join:
		return fmt.Sprintf("joining a cluster that makes %d nodes with this one", n)
	case n == 1:
		return "this node is alone"
	default:
		return fmt.Sprintf("one of %d nodes", n)
	}
}
