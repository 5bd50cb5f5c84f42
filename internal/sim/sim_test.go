package sim

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/raft-chat/raft-chat/internal/slow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ciSeeds is how many seeds every run of the tests tries. They are fixed, so
// that a change is to blame when one fails. commitSeeds more are of the commit, so
// that each brings new ones; many more are for the command.
const (
	ciSeeds     = 300
	commitSeeds = 500
)

// promise runs a seed and ends the test if it breaks a promise.
func promise(t *testing.T, seed uint64) Counts {
	t.Helper()
	r := Run(NewPlan(seed), false)
	if len(r.Violations) > 0 {
		plan := NewPlan(seed)
		keep := Shrink(plan)
		short := Run(plan.Only(keep...), true)
		for _, line := range short.Story {
			t.Log(line)
		}
		t.Fatalf("seed %d: %v (again: go run ./internal/sim/cmd -seed %d -v; faults needed: %v)", seed, r.Violations, seed, keep)
	}
	return r.Counts
}

// Under the race detector this, and all of the fixed seeds, would take as long as
// all other tests together: scripts/check runs them without.
func TestSeedsOfTheCommitKeepEveryPromise(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("it runs without the race detector and -short")
	}
	out, err := exec.CommandContext(t.Context(), "git", "rev-parse", "HEAD").Output()
	commit := strings.TrimSpace(string(out))
	if err != nil || len(commit) < 8 {
		t.Skip("no commit to take seeds from:", err)
	}
	n, err := strconv.ParseUint(commit[:8], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	first := n * commitSeeds
	t.Logf("seeds %d to %d, of commit %.8s (again: go run ./internal/sim/cmd -from %d -seeds %d)", first, first+commitSeeds-1, commit, first, commitSeeds)
	for seed := first; seed < first+commitSeeds; seed++ {
		promise(t, seed)
	}
}

func TestSeedsKeepEveryPromise(t *testing.T) {
	seeds, few := uint64(ciSeeds), testing.Short() || raceDetector
	if few {
		seeds = 30
	}
	var counts Counts
	for seed := uint64(1); seed <= seeds; seed++ {
		counts.Add(promise(t, seed))
	}
	if few {
		return
	}
	// A run in which nothing happens proves nothing.
	for _, k := range Kinds() {
		if counts.Faults[k] == 0 {
			t.Errorf("%d seeds had no %s", seeds, k)
		}
	}
	for what, n := range map[string]int{
		"acknowledged message": counts.Acknowledged, "repeat": counts.Repeats, "read": counts.Reads, "delivery": counts.Delivered, "trim": counts.Trims, "gap": counts.Gaps,
		"snapshot": counts.Snapshots, "refused directory": counts.Refusals, "replaced member": counts.Replaced,
		"post refused for a disk": counts.Low, "post refused for a clock": counts.Skewed, "leader that stepped aside": counts.Aside, "planned hand-over": counts.HandedOver,
		"comparison of states": counts.Agreed, "outlier": counts.Outliers,
	} {
		if n == 0 {
			t.Errorf("%d seeds had no %s", seeds, what)
		}
	}
}

func TestEqualSeedsAreEqual(t *testing.T) {
	slow.Test(t)
	for seed := uint64(1); seed <= 20; seed++ {
		a, b := Run(NewPlan(seed), false), Run(NewPlan(seed), true)
		if a.Hash != b.Hash {
			t.Errorf("seed %d has the trace hash %016x, then %016x", seed, a.Hash, b.Hash)
		}
		if other := Run(NewPlan(seed+1000), false); other.Hash == a.Hash {
			t.Errorf("seeds %d and %d have the same trace", seed, seed+1000)
		}
	}
}

func TestShrinkKeepsWhatIsNeeded(t *testing.T) {
	for _, needed := range [][]int{{}, {0}, {6}, {2, 3}, {0, 9, 11}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		runs := 0
		got := shrink(12, func(keep []int) bool {
			runs++
			for _, n := range needed {
				if !slices.Contains(keep, n) {
					return false
				}
			}
			return true
		})
		if !slices.Equal(got, needed) || runs > 60 {
			t.Errorf("shrunk to %v in %d runs, needed are %v", got, runs, needed)
		}
	}
}

func TestOnlyTheChosenFaultsHappen(t *testing.T) {
	plan := NewPlan(4)
	if n := len(plan.Faults); n < 3 {
		t.Fatalf("seed 4 has only %d faults", n)
	}
	some := plan.Only(0, 2)
	if len(some.Faults) != 2 || some.Faults[1] != plan.Faults[2] || len(plan.Only().Faults) != 0 {
		t.Errorf("%v of %v", some.Faults, plan.Faults)
	}
}
