//go:build linux

// Command faults plays real faults on real processes; see package faults. It
// needs root. scripts/faults builds what it runs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/raft-chat/raft-chat/internal/faults"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once; what it leaves is cleared by
	// the next run.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns 0 if everything passed, 1 if a scenario failed or could not be
// played, 2 for wrong flags.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o faults.Options
	fs := flag.NewFlagSet("faults", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.Scenario, "scenario", "", "play only those whose whole name matches this `regexp`")
	fs.BoolVar(&o.Long, "long", false, "play the long forms")
	fs.IntVar(&o.Rounds, "rounds", 0, "do the faults of each scenario `N` times (default what suits it)")
	fs.Uint64Var(&o.Seed, "seed", 0, "draw the faults from this seed (default the time)")
	fs.BoolVar(&o.Keep, "keep", false, "keep the logs of all nodes, not only those of failed scenarios")
	fs.BoolVar(&o.Verbose, "v", false, "print every fault")
	fs.StringVar(&o.Binary, "binary", "bin/raft-chat", "the program to run")
	fs.StringVar(&o.Source, "source", ".", "the directory of its module")
	fs.StringVar(&o.Dir, "dir", os.TempDir(), "make the nodes' disks below this directory")
	jsonPath := fs.String("json", "", "write the report as JSON to this `file`")
	markdownPath := fs.String("markdown", "", "write the report as Markdown to this `file`")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "faults: %q is no flag\n", fs.Arg(0))
		return 2
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	o.Out = stdout
	report, err := play(ctx, o)
	if report != nil {
		fmt.Fprintf(stdout, "%d of %d scenarios passed in %.0f s, seed %d\n", len(report.Results)-report.Failed(), len(report.Results), report.Seconds, report.Seed)
		err = errors.Join(err, write(*jsonPath, report.WriteJSON), write(*markdownPath, report.WriteMarkdown))
	}
	if err != nil {
		fmt.Fprintln(stderr, "faults:", err)
		return 1
	}
	if report.Failed() > 0 {
		return 1
	}
	return 0
}

func play(ctx context.Context, o faults.Options) (_ *faults.Report, err error) {
	if o.Binary, err = filepath.Abs(o.Binary); err != nil {
		return nil, err
	}
	if o.Source, err = filepath.Abs(o.Source); err != nil {
		return nil, err
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	return faults.Play(ctx, o)
}

// write writes one form of the report, if a path was given for it.
func write(path string, to func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return errors.Join(to(f), f.Close())
}
