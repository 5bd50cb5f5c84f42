// Package faults plays real faults on real processes: the built raft-chat
// binary runs as several nodes, each in a network namespace with an address of
// its own and on an ext4 file system of its own in a loop-mounted file, under a
// load of clients that tell an oracle everything they are told. Then nodes are
// killed, paused, cut off, starved of disk, robbed of power and of what they
// had not synced, given damaged, wiped or swapped directories, or another time
// of day.
//
// A scenario passes if, once its faults are over, the cluster takes writes
// again, all members have applied the same, the followers of all streams have
// got everything, the oracle finds no rule broken, what should be refused was
// refused, and no log tells of a panic. Deadlines are long: a slow machine is
// no failure.
//
// # Contract
//
// It needs root, Linux, and the tools that scripts/faults installs. There is
// one run on a machine at a time. Everything it makes bears names of its own
// (rcfault…, raft-chat-faults) and is gone when Play returns, also after an
// interrupt; what a killed run left is cleared by the next one. Only the logs
// of failed scenarios stay.
//
// # Files
//
// world, host, disk: machines, their links and their disks. node, process:
// the program. run, load: what a scenario is written with. scenario, play,
// report: the table, the runner, the outcome. Each other file is one family of
// faults.
//
// # Goroutines
//
// A scenario is played by Play's goroutine. Those of the workload, one that
// waits for each process and those of slow links have ended when the scenario
// has.
package faults
