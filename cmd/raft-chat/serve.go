package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

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
		env, notes := p.env.settings(names)
		from, layout, err := resolve(cmd.Flags(), names, env)
		if err != nil {
			return err
		}
		c, err := s.serverConfig(from, layout)
		if err != nil {
			return err
		}
		c.Logger = p.startLog(s, c.ID)
		for _, note := range notes {
			c.Logger.Warn(note)
		}
		return p.serve(cmd.Context(), c, from)
	}
	return cmd
}

// serve runs a node until ctx ends or the node stops by itself.
func (p *program) serve(ctx context.Context, c server.Config, from origins) error {
	limitMemory(c)
	n, err := p.start(ctx, c)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		// Whatever the start was waiting for, or met on its way out: it was
		// asked to end, and has.
		c.Logger.Info("stopped before the start was complete", "signal", context.Cause(ctx), "reason", err)
		return nil
	default:
		return configError(err, from)
	}
	c.Logger.Info("serving the API and the web client", "url", n.URL(), "name", c.Name, "cluster", company(c),
		"peer_url", ownURL(c), "data_dir", c.DataDir, "version", c.Version, "pid", os.Getpid(), "stop_with", "Ctrl-C or SIGTERM",
		"memory_budget", c.MemoryBudget, "go_memory_limit", debug.SetMemoryLimit(-1))
	if addr := n.GRPCAddr(); addr != "" {
		c.Logger.Info("serving gRPC", "address", addr)
	}

	select {
	case <-ctx.Done():
		c.Logger.Info("stopping; a second signal ends the process at once", "signal", context.Cause(ctx), "timeout", c.ShutdownTimeout.String())
	case <-n.Done():
	}
	asked := ctx.Err() != nil
	closeErr := stop(ctx, n, c.ShutdownTimeout)
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
		"data_dir", c.DataDir)
	return nil
}

// start opens a node. If ctx ends before that is done, the opening has as long
// to give way as a stop may take; a stop must not depend on a disk or a peer
// that does not answer.
func (p *program) start(ctx context.Context, c server.Config) (n node, err error) {
	opened := make(chan struct{})
	var opening node
	var failure error
	go func() {
		defer close(opened)
		opening, failure = p.open(ctx, c)
	}()
	select {
	case <-opened:
		return opening, failure
	case <-ctx.Done():
	}
	if !endsWithin(opened, c.ShutdownTimeout) {
		return nil, fmt.Errorf("the start did not give way within %s and was left behind", c.ShutdownTimeout)
	}
	return opening, failure
}

// stopSlack is how much longer than its timeout a graceful stop may take, for
// what cannot be called off: the last writes to disk.
const stopSlack = 5 * time.Second

// stop closes n. The timeout bounds what is done gracefully; a stop that then
// still hangs is given up, which loses nothing that was acknowledged.
func stop(ctx context.Context, n node, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	closed := make(chan struct{})
	var err error
	go func() {
		defer close(closed)
		err = n.Close(ctx)
	}()
	if !endsWithin(closed, timeout+stopSlack) {
		return errors.New("it hangs and was given up")
	}
	return err
}

// endsWithin reports whether done is closed before d has passed.
func endsWithin(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// ownURL is the node's own peer URL.
func ownURL(c server.Config) string {
	for _, p := range c.Cluster {
		if p.ID == c.ID {
			return p.URL
		}
	}
	return ""
}

// limitMemory makes the Go runtime keep to what the node's budget means for the
// process, unless GOMEMLIMIT says otherwise.
func limitMemory(c server.Config) {
	if limit := server.MemoryLimit(c.MemoryBudget); limit > 0 {
		debug.SetMemoryLimit(limit)
	}
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
