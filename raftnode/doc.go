// Package raftnode replicates a state machine over a cluster of nodes. It owns
// etcd's RawNode, the write-ahead log, the snapshotter and the transport
// between members, and knows nothing of what it replicates.
//
// # Contract
//
// Open starts a member. Propose appends an entry and calls back with the state
// machine's result once the entry is fsynced by a majority and applied here,
// or with an *Error whose code says whether anything was proposed. ReadIndex
// returns when everything committed before the call is applied here. When the
// leader changes, every waiting caller is answered at once: the outcome of its
// proposal is unknown then, and only the caller knows whether it may be
// proposed again.
//
// A node that cannot write its log, finds it damaged, or is not who the
// cluster thinks it is stops for good: Failed is closed and Err says why. It
// never goes on after a failed write or sync.
//
// # Goroutines
//
//   - loop owns the RawNode through core, which is pure: messages, ticks,
//     proposals and reads go in, work comes out of ready. It never blocks on
//     the two storage goroutines.
//   - append owns appender: it writes what raft wants written with one sync,
//     and only then delivers the responses that depended on it. Messages to
//     followers do not wait for it; they write at the same time.
//   - apply owns applier: it hands committed entries to the state machine as
//     one batch, resolves waiters, and tells the loop of configuration changes
//     before their entries count as applied.
//   - supervise registers this member, promotes learners that have caught up,
//     and watches the free disk space and the clock.
//   - one goroutine greets each member until it has accepted this node.
//
// Whatever is shared between them is either immutable once published (the
// member records, Status) or sits behind a mutex with the fields it guards
// (waiters, peers). Close stops and waits for all of them.
//
// # Durability
//
// The state machine is durable by itself and knows its applied index, so a
// start replays only the log above it. Flushing it and marking the log lets
// old segments go; nothing ever dumps the whole state but a snapshot for a
// member that is too far behind. docs/formats.md gives every format and the
// order of writes that makes a crash harmless.
//
// What is detected at start: a directory of another member or cluster, a
// missing or damaged identity, damage anywhere in the log but at its very end,
// a log that lost its end or a vote, a missing snapshot, a store that is ahead
// of its log. What is not: damage to the log's end that looks like a torn tail
// and came within highWaterLag of the write (see scan.go, highwater.go), and a
// directory replaced by an older copy of itself.
//
// # Identity
//
// A cluster id is no proof of anything, and rafthttp believes any sender. So
// members say hello first: see hello.go. Between plaintext members this
// guards against mistakes, not against attackers; those need certificates.
package raftnode
