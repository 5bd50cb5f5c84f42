// Package sim runs whole clusters through disasters in simulated time, from a
// seed, and judges what their clients saw.
//
// A simulation is one loop on one goroutine. Its nodes are the real consensus
// core (raftnode.Replica) and the real store (chat.Store, on a file system in
// memory that loses at a crash what was not synced). Simulated are the clock,
// the network, the clients, who asks whom while a cluster is founded (by
// raftnode.Founding) and what members tell each other of clocks, disks and states
// (judged by raftnode.Watching) and of their starts (by raftnode.Met), and the
// log's disk, which keeps the contract of raftnode.Disk: see disk.go. Equal seeds give equal runs, event by event, which
// the trace hash proves.
//
// # A run
//
// NewPlan draws from the seed what a run is about: the size of the cluster, its
// network, its clients, and a list of faults with their times. Run lets clients
// post, read and follow rooms while the faults happen (safety); then all faults
// end and a majority that is healthy has to make progress within a few election
// timeouts (liveness); then every node comes back, the clients finish, and what
// each node holds is compared.
//
// Judges are the oracle (rules O1 to O6) and the invariants of invariants.go,
// which look inside and so find a broken promise before it costs a message. A
// run with violations is shrunk to the faults that it needs.
//
// # Contract
//
// Run replaces crypto/rand.Reader while it runs, because raft draws election
// timeouts from there: one run at a time in a process. Nothing else of the
// process is touched, and no goroutine stays.
package sim
