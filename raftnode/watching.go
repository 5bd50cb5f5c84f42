package raftnode

import (
	"context"
	"time"
)

// Watching is what a member makes of clocks, disks and states, as Node's watch loop
// does, for whoever drives a Replica and asks the others.
type Watching struct {
	r         *Replica
	watch     watch
	timeout   time.Duration // of an election, at least
	low       bool          // the own disk
	verdict   verdict
	aside     aside
	agreement Agreement
	hasher    StateHasher
	compared  func(Verdict)
}

// Report is what a member tells one that asks.
type Report struct {
	Time  int64 // ns, its clock
	Disks []DiskReport
	State *StateHash // where it was asked for, if it is known
}

// DiskReport is what a member knows of the disk of one.
type DiskReport = diskReport

// Watch begins to watch; electionTimeout is the shortest one. compared is called with
// each verdict on the states of the members, in Round or Hear; the StateMachine is a
// StateHasher.
func (r *Replica) Watch(electionTimeout time.Duration, compared func(Verdict)) *Watching {
	return &Watching{r: r, watch: newWatch(), timeout: electionTimeout, compared: compared, hasher: r.sm.(StateHasher)}
}

// WatchInterval is the time of a round, of Node and of whoever drives a Watching.
func WatchInterval(electionTimeout time.Duration) time.Duration { return electionTimeout / 2 }

// Round begins a round; free is the space on the own disk, in bytes.
func (x *Watching) Round(free, reserve int64) {
	x.low = belowReserve(free, reserve, x.low)
	round := x.watch.begin(x.r.applier.members.Load())
	x.judge()
	x.agreement.Look(round, x.r.id, x.hasher)
	x.conclude()
}

// Asks is the state that others are to compare theirs with, nil if there is none.
func (x *Watching) Asks() *StateHash {
	index, own := x.agreement.Asks(x.r.id)
	if index == 0 {
		return nil
	}
	return &StateHash{index, own}
}

// Report is what is told to another that Asks; now is the clock.
func (x *Watching) Report(now time.Time, asks *StateHash) Report {
	return Report{now.UnixNano(), x.watch.disks(x.r.id, x.low, x.r.Voters(), WatchInterval(x.timeout)), x.agreement.Answer(asks, x.hasher)}
}

// Compare takes in the clock of a member, which was read between two readings of
// the own one, as a hello and its answer do.
func (x *Watching) Compare(from uint64, before, theirs, after time.Time) {
	x.watch.compare(from, before.UnixNano(), theirs.UnixNano(), after.UnixNano())
	x.judge()
}

// Hear takes in a member's report, which was asked for at before and came at after.
func (x *Watching) Hear(from uint64, a Report, before, after time.Time) {
	x.watch.compare(from, before.UnixNano(), a.Time, after.UnixNano())
	x.watch.hear(x.r.id, from, a.Disks, WatchInterval(x.timeout))
	x.judge()
	if s := a.State; s != nil {
		x.agreement.Hear(from, s.Index, s.Hash)
		x.conclude()
	}
}

func (x *Watching) conclude() {
	m := x.r.applier.members.Load()
	if v, done := x.agreement.Judge(x.watch.now(), x.r.id, m.Voters, m.Learners); done {
		x.compared(v)
	}
}

func (x *Watching) judge() {
	x.verdict = x.watch.verdict(x.verdict, x.r.id, x.low, x.r.Voters(), x.timeout)
}

// Refusal is why this member may not propose messages now, or nil.
func (x *Watching) Refusal() error { return x.verdict.refusal(x.r.applier.members.Load()) }

// StepAside hands the leadership over, if this member leads and its clock is off;
// it reports whether that is so. An attempt that failed is not repeated at once.
func (x *Watching) StepAside(done func(error)) bool {
	switch {
	case !x.verdict.off:
		x.aside = 0
		return false
	case x.aside.due(x.watch.now()):
		x.r.bequeath(func(id uint64) bool { return x.watch.agrees(x.r.id, id, x.r.Voters(), x.timeout) }, done)
	}
	return true
}

// HandOver gives the leadership to another voter, as the first step of a planned
// stop.
func (r *Replica) HandOver(done func(error)) { r.bequeath(anybody, done) }

func (r *Replica) bequeath(suits func(id uint64) bool, done func(error)) {
	status := &callReply{}
	r.core.progress(status)
	r.core.bequeath(context.Background(), r.applier.members.Load().heirs(r.id, status, suits), done)
}
