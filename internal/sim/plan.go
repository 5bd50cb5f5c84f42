package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Plan is everything that a run is about. Two runs of equal plans are equal.
type Plan struct {
	Seed    uint64
	Nodes   int           // voters at the beginning: 1, 3 or 5
	Horizon time.Duration // when the faults end
	Faults  []Fault       // by time
	Network Network
	Clients Clients
	// CatchUpBytes is small, so that members fall behind the log and need a
	// snapshot.
	CatchUpBytes int64
	// Skew is how far each node's wall clock is off, by id - 1.
	Skew []time.Duration
}

// Network is what every link does, apart from faults.
type Network struct {
	Delay     time.Duration // at least
	Jitter    time.Duration // at most, on top
	Drop      float64       // of 1, for messages between nodes
	Duplicate float64
	// Late is the part of messages that take up to a second more, and so are
	// overtaken by others.
	Late float64
}

// Clients says who uses the cluster.
type Clients struct {
	Writers, Readers, Followers int
	Pause                       time.Duration // between two operations of one client, on average
	Body                        int           // bytes of a message, at most
}

// Fault is one thing that goes wrong. What A, B and Duration mean is said with
// each kind.
type Fault struct {
	At       time.Duration
	Kind     Kind
	A, B     uint64 // random numbers; a fault takes from them what it needs
	Duration time.Duration
}

// String is a line for people.
func (f Fault) String() string {
	return fmt.Sprintf("%8.3f s  %s for %v", f.At.Seconds(), f.Kind, f.Duration.Round(time.Millisecond))
}

// NewPlan draws the plan of a seed.
func NewPlan(seed uint64) Plan {
	r := rand.New(rand.NewPCG(seed, 0x706c616e))
	p := Plan{Seed: seed, Nodes: 3, CatchUpBytes: int64(4+r.IntN(28)) << 10}
	switch n := r.IntN(20); {
	case n < 5:
		p.Nodes = 5
	case n == 5:
		p.Nodes = 1
	}
	p.Horizon = time.Duration(10+r.IntN(15)) * time.Second
	p.Network = Network{Delay: between(r, 100*time.Microsecond, 5*time.Millisecond), Jitter: between(r, 0, 30*time.Millisecond)}
	if r.IntN(2) == 0 {
		p.Network.Drop, p.Network.Duplicate, p.Network.Late = 0.1*r.Float64(), 0.1*r.Float64(), 0.05*r.Float64()
	}
	p.Clients = Clients{
		Writers: 2 + r.IntN(4), Readers: 1 + r.IntN(2), Followers: 2 + r.IntN(3),
		Pause: between(r, 20*time.Millisecond, 400*time.Millisecond), Body: 20 << r.IntN(6),
	}
	for range p.Nodes {
		p.Skew = append(p.Skew, between(r, -300*time.Millisecond, 300*time.Millisecond))
	}
	kinds := mixture(r)
	for at := between(r, 500*time.Millisecond, 3*time.Second); at < p.Horizon; at += between(r, 50*time.Millisecond, 4*time.Second) {
		p.Faults = append(p.Faults, Fault{At: at, Kind: kinds[r.IntN(len(kinds))], A: r.Uint64(), B: r.Uint64(),
			Duration: between(r, 50*time.Millisecond, 5*time.Second)})
	}
	return p
}

// mixture picks the kinds of fault of one run: few at a time make deeper stories
// than all at once, and some only make one together.
func mixture(r *rand.Rand) []Kind {
	all := Kinds()
	switch r.IntN(8) {
	case 0: // who belongs to the cluster, and who was away when it changed
		all = []Kind{AddNode, RemoveNode, Cut, Split, CrashLeader, CrashMajority, CrashAll, Transfer, Pause, Wipe, OldCopy, Twin}
	case 1: // what is flushed when
		all = []Kind{CrashInCompaction, CrashAtWrite, CrashAll, CrashLeader, SlowDisk, DiskError, Cut}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:2+r.IntN(len(all)-1)]
}

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)+1))
}

// Only returns the plan with only the faults of these numbers, from 0.
func (p Plan) Only(keep ...int) Plan {
	var faults []Fault
	for i, f := range p.Faults {
		if slices.Contains(keep, i) {
			faults = append(faults, f)
		}
	}
	p.Faults = faults
	return p
}
