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
//     and steps aside as a leader whose clock is off.
//   - watch looks at the free disk space, and asks the other members for theirs,
//     their clocks, and whether they are there (watch.go).
//   - one goroutine greets each member until it has accepted this node, and again
//     when it is away; one reminds each former address, if this node leads.
//   - until the directory belongs to a cluster, one asks what others know of it and
//     takes part in founding one (foundry.go, which drives the pure founding.go).
//
// Replica is the same without goroutines, clock, files and transport, for a
// driver on one goroutine: the simulator. What both run is in replica.go,
// core.go, appender.go, applier.go and tide.go; a rule belongs there, or the
// simulator does not see it.
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
// # Damage
//
// What is refused at start, with the file, the offset or index, and the command
// that replaces the member (damage.go):
//
//   - a record that cannot be read, or is not what its place asks for, wherever a
//     record of a later Save shows that it had been synced; a closed segment that
//     is not whole; a segment that is missing, of another directory or out of
//     place (scan.go, record.go);
//   - a log that does not reach the high-water record: entries, a term or a vote
//     are gone, by whatever damage, or the log is an older copy (highwater.go);
//   - a high-water record, an identity or a snapshot file of the newest mark that
//     is missing or damaged; a log without an identity;
//   - a store that has applied what its log does not have;
//   - the directory of another member or cluster, and one that the cluster does
//     not know this member by (see Identity).
//
// What is repaired in silence: a torn tail, which is what a crash leaves of the
// last Save, of which nobody had been told.
//
// What remains: damage that reaches the log's very end looks like a torn tail, and
// is noticed by the high-water record alone, which may be highWaterLag and one
// sync behind with entries (never with a term or a vote). So a cut or a zeroed
// end within that time of the crash can take acknowledged entries of that time
// from one member. A whole directory put back to an older copy of itself, the
// high-water record included, is not noticed at all.
//
// # Identity
//
// A cluster id is no proof of anything, and rafthttp believes any sender. So
// members say hello first (hello.go), and what they say counts when a call back
// to their recorded address has confirmed it (trust.go). Nothing unverified ends,
// grows or slows a node or changes a member: connections are bounded by door.go,
// raft messages screened by screen.go, streams by roundtrip.go. On plaintext the
// address is the proof; who can take it over needs certificates to be kept out.
package raftnode
