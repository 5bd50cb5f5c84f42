// Command cmd runs simulated clusters through disasters, see internal/sim.
//
//	go run ./internal/sim/cmd -seeds 1000         as many seeds, fresh ones, on all processors
//	go run ./internal/sim/cmd -for 1h             fresh seeds for so long
//	go run ./internal/sim/cmd -from 1 -seeds 1000 seeds 1 to 1000
//	go run ./internal/sim/cmd -seed 7             one seed, with its trace hash
//	go run ./internal/sim/cmd -seed 7 -v          the story of it
//	go run ./internal/sim/cmd -seed 7 -faults 2,5 with these of its faults only
//
// It exits with 1 if a promise was broken, and shrinks and tells the first
// failure.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/raft-chat/raft-chat/internal/sim"
)

func main() {
	var o options
	flag.Uint64Var(&o.seeds, "seeds", 100, "how many seeds to run")
	flag.DurationVar(&o.time, "for", 0, "run seeds for so long, in place of -seeds")
	flag.Uint64Var(&o.from, "from", 0, "the first of them; 0: one that the clock says")
	flag.Uint64Var(&o.seed, "seed", 0, "run this seed alone")
	flag.StringVar(&o.faults, "faults", "", "of -seed: the numbers of the faults to keep, as 0,2,5; none: no fault")
	flag.BoolVar(&o.verbose, "v", false, "of -seed: tell the story")
	flag.BoolVar(&o.first, "first", false, "of -worker: end with the first failure")
	flag.BoolVar(&o.worker, "worker", false, "run seeds in this process and print results as JSON (used by -seeds)")
	flag.Uint64Var(&o.step, "step", 1, "of -worker: take every step-th seed")
	flag.Parse()
	ok, err := o.run()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

type options struct {
	seeds, from, seed, step uint64
	time                    time.Duration
	faults                  string
	verbose, first, worker  bool
}

// freshFrom is the first of seeds that no earlier call has begun with. More than
// perSecond seeds are not run in a second.
func freshFrom(now time.Time) uint64 {
	const perSecond = 1000
	return uint64(now.Unix()) * perSecond
}

func (o *options) run() (ok bool, err error) {
	if o.from == 0 {
		o.from = freshFrom(time.Now())
	}
	if o.time > 0 {
		o.seeds = math.MaxUint64 - o.from // more than there is time for
	}
	switch {
	case flag.NArg() > 0:
		return false, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case o.time < 0 || o.step == 0:
		return false, errors.New("-for and -step take what is above 0")
	case o.seed != 0:
		return o.one()
	case o.worker:
		return true, o.work(os.Stdout)
	}
	return o.many()
}

// one runs one seed and tells of it.
func (o *options) one() (ok bool, err error) {
	plan := sim.NewPlan(o.seed)
	if o.faults != "" {
		var keep []int
		for _, s := range strings.Split(o.faults, ",") {
			n, err := strconv.Atoi(s)
			if err != nil && o.faults != "none" {
				return false, errors.New("-faults takes numbers, as 0,2,5, or none")
			}
			if err == nil {
				keep = append(keep, n)
			}
		}
		plan = plan.Only(keep...)
	}
	r := sim.Run(plan, o.verbose)
	if o.verbose {
		fmt.Printf("seed %d: %d nodes, %v, faults:\n", plan.Seed, plan.Nodes, plan.Horizon)
		for i, f := range plan.Faults {
			fmt.Printf("  %2d %s\n", i, f)
		}
		for _, line := range r.Story {
			fmt.Println(line)
		}
	}
	for _, v := range r.Violations {
		fmt.Printf("%s: %s\n", v.Rule, v.Detail)
	}
	fmt.Printf("seed %d: %d violations, trace hash %016x\n", plan.Seed, len(r.Violations), r.Hash)
	return len(r.Violations) == 0, nil
}
