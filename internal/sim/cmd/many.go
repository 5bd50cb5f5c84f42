package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raft-chat/raft-chat/internal/sim"
)

// work runs every step-th seed, as long as there is time, and prints each result
// as a line of JSON.
func (o *options) work(out io.Writer) error {
	lines, began := json.NewEncoder(out), time.Now()
	for n := uint64(0); n < o.seeds; n += o.step {
		if o.time > 0 && time.Since(began) >= o.time {
			break
		}
		seed := o.from + n
		r := sim.Run(sim.NewPlan(seed), false)
		if err := lines.Encode(r); err != nil {
			return err
		}
		if o.first && len(r.Violations) > 0 {
			break
		}
	}
	return nil
}

// many runs the seeds in processes of their own, because two runs in one would
// share a source of random numbers.
func (o *options) many() (ok bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	began := time.Now()
	fmt.Printf("seeds from %d on\n", o.from)
	results := make(chan sim.Result)
	workers := runtime.NumCPU()
	var group sync.WaitGroup
	failures := make(chan error, workers)
	for i := range workers {
		if uint64(i) >= o.seeds {
			break
		}
		cmd := exec.Command(self, "-worker", "-from", fmt.Sprint(o.from+uint64(i)), "-seeds", fmt.Sprint(o.seeds-uint64(i)), "-step", fmt.Sprint(workers), "-for", o.time.String())
		cmd.Stderr = os.Stderr
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return false, err
		}
		if err := cmd.Start(); err != nil {
			return false, err
		}
		group.Go(func() {
			lines := json.NewDecoder(pipe)
			for {
				var r sim.Result
				if lines.Decode(&r) != nil {
					break // the end, or what Wait tells
				}
				results <- r
			}
			if err := cmd.Wait(); err != nil {
				failures <- fmt.Errorf("a worker ended: %w", err)
			}
		})
	}
	go func() {
		group.Wait()
		close(results)
	}()
	s := summary{}
	for r := range results {
		s.add(r)
	}
	s.print(o.from, time.Since(began))
	if len(s.failed) > 0 {
		explain(s.failed[0])
	}
	select {
	case err := <-failures:
		return false, err
	default:
	}
	return len(s.failed) == 0, nil
}

// summary is what all runs together came to.
type summary struct {
	runs     int
	counts   sim.Counts
	failed   []sim.Result
	progress []time.Duration
}

func (s *summary) add(r sim.Result) {
	s.runs++
	s.counts.Add(r.Counts)
	if len(r.Violations) > 0 {
		s.failed = append(s.failed, r)
		fmt.Printf("seed %d: %s: %s\n", r.Seed, r.Violations[0].Rule, r.Violations[0].Detail)
		return
	}
	s.progress = append(s.progress, r.Progress)
}

func (s *summary) print(from uint64, took time.Duration) {
	c := s.counts
	fmt.Printf("%d seeds from %d on in %v\n", s.runs, from, took.Round(time.Millisecond))
	total := 0
	for _, k := range sim.Kinds() {
		total += c.Faults[k]
	}
	fmt.Printf("%d faults:\n", total)
	for _, k := range sim.Kinds() {
		fmt.Printf("  %-18s %d\n", k, c.Faults[k])
	}
	fmt.Printf("%d posts refused for a disk, %d for a clock, %d leaders stepped aside, %d handed over before a stop, states compared %d times, %d outliers\n",
		c.Low, c.Skewed, c.Aside, c.HandedOver, c.Agreed, c.Outliers)
	fmt.Printf("%d crashes, %d starts, %d snapshots sent, %d directories refused, %d members replaced\n", c.Crashes, c.Starts, c.Snapshots, c.Refusals, c.Replaced)
	fmt.Printf("%d messages posted, %d acknowledged, %d repeated, %d trims, %d reads, %d deliveries, %d gaps, %d raft messages\n",
		c.Posts, c.Acknowledged, c.Repeats, c.Trims, c.Reads, c.Delivered, c.Gaps, c.Messages)
	if n := len(s.progress); n > 0 {
		slices.Sort(s.progress)
		fmt.Printf("first new message acknowledged after the last fault: median %v, 99 %% %v, longest %v\n",
			s.progress[n/2].Round(time.Millisecond), s.progress[n*99/100].Round(time.Millisecond), s.progress[n-1].Round(time.Millisecond))
	}
	fmt.Printf("%d seeds with violations\n", len(s.failed))
}

// explain shrinks a failure and tells its story.
func explain(r sim.Result) {
	plan := sim.NewPlan(r.Seed)
	keep := sim.Shrink(plan)
	short := sim.Run(plan.Only(keep...), true)
	fmt.Printf("\nseed %d, shrunk to %d of %d faults:\n", r.Seed, len(keep), len(plan.Faults))
	const most = 200
	if n := len(short.Story); n > most {
		fmt.Printf("… %d lines before\n", n-most)
		short.Story = short.Story[n-most:]
	}
	for _, line := range short.Story {
		fmt.Println(line)
	}
	for _, v := range short.Violations {
		fmt.Printf("%s: %s\n", v.Rule, v.Detail)
	}
	numbers := strings.Trim(strings.ReplaceAll(fmt.Sprint(keep), " ", ","), "[]")
	if numbers == "" {
		numbers = "none"
	}
	fmt.Printf("again: go run ./internal/sim/cmd -seed %d -faults %s -v\n", r.Seed, numbers)
}
