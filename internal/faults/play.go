//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/raft-chat/raft-chat/internal/workload"
)

// Options say what to play.
type Options struct {
	// Scenario is a regular expression for whole names; "" means all.
	Scenario string
	// Long plays the long forms.
	Long bool
	// Rounds is how often each scenario does its faults; 0 is what suits it.
	Rounds int
	// Seed draws the faults. Schedulers and networks do not repeat themselves,
	// so equal seeds give equal faults, not equal runs.
	Seed uint64
	// Keep leaves the logs of scenarios that passed as well.
	Keep bool
	// Binary is the program to run, Source the directory of its module, Dir
	// where the disks of the nodes are made.
	Binary, Source, Dir string
	// Out gets a line for each scenario, and with Verbose one for each fault.
	Out     io.Writer
	Verbose bool
}

// Play plays the scenarios, one after the other, and reports on those that
// were played. The error is of the harness, or says that it was interrupted; a
// scenario that fails is in the report.
func Play(ctx context.Context, o Options) (_ *Report, err error) {
	list, err := chosen(o.Scenario)
	if err != nil {
		return nil, err
	}
	version, err := command(ctx, o.Binary, "version")
	if err != nil {
		return nil, err
	}
	report := &Report{Began: time.Now(), Seed: o.Seed, Long: o.Long, Version: strings.TrimSpace(version)}
	w, err := openWorld(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	for _, s := range list {
		result, err := o.play(ctx, w, s)
		report.Seconds = time.Since(report.Began).Seconds()
		if ctx.Err() != nil {
			return report, errors.Join(context.Cause(ctx), err)
		}
		if err != nil {
			return report, fmt.Errorf("%s: %w", s.name, err)
		}
		report.Results = append(report.Results, result)
		fmt.Fprintln(o.Out, result.Line())
	}
	return report, nil
}

// play plays one scenario in a fresh world and clears up behind it.
func (o Options) play(ctx context.Context, w *world, s scenario) (*Result, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s.name)) // a hash takes everything
	// Each scenario has its own numbers, whichever are played besides.
	rnd := rand.New(rand.NewPCG(o.Seed, h.Sum64()))
	result := &Result{Name: s.name, What: s.what, Seed: o.Seed, Faults: map[string]int{}}
	logs := filepath.Join(w.dir, logDir, s.name)
	if err := errors.Join(os.RemoveAll(logs), os.MkdirAll(logs, 0o700)); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	if err := w.build(ctx); err != nil {
		return nil, fmt.Errorf("build a world: %w", err)
	}
	out := io.Discard
	if o.Verbose {
		out = o.Out
		fmt.Fprintln(out, s.name)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	defer transport.CloseIdleConnections()
	r := &run{
		ctx: ctx, out: out, world: w, api: workload.NewClient(&http.Client{Transport: transport, Timeout: 30 * time.Second}),
		binary: o.Binary, source: o.Source, logs: logs, long: o.Long, rounds: o.Rounds, rnd: rnd, size: usualDisk,
		// Elections within a second; a reserve that fits the disks.
		flags:  []string{"--tick-interval", "50ms", "--min-free-bytes", "32MiB", "--leader-grace", "5s"},
		forms:  workload.Forms(),
		load:   newLoad(),
		result: result,
	}
	began := time.Now()
	err := r.playSafely(s)
	for _, w := range r.load.workloads {
		w.Close()
	}
	r.load.transport.CloseIdleConnections()
	err = errors.Join(err, r.end())
	result.Seconds = time.Since(began).Seconds()
	result.Counts = r.counts()
	result.Passed = err == nil
	if err != nil {
		result.Reason = err.Error()
		result.Logs = logs
	}
	if !o.Keep && (err == nil || ctx.Err() != nil) { // interrupted is not failed
		if err := os.RemoveAll(logs); err != nil {
			return nil, fmt.Errorf("remove logs: %w", err)
		}
	}
	return result, w.clear(ctx)
}

// playSafely turns what fail throws into an error.
func (r *run) playSafely(s scenario) (err error) {
	defer func() {
		switch thrown := recover().(type) {
		case nil:
		case failure:
			err = thrown.error
		default:
			panic(thrown)
		}
	}()
	s.play(r)
	r.finish()
	return nil
}

func (r *run) counts() Counts {
	c := r.load.history.Counts()
	return Counts{Sends: c.Sends, Acknowledged: c.Acknowledged, Unknown: c.Unknown, Refused: c.Refused, Reads: c.Reads,
		Receipts: c.Received, Reconnects: max(0, int(r.load.transport.streams.Load())-c.Subscribers), Replicas: c.Replicas, States: c.States}
}
