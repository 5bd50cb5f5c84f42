// Package chat is the domain of raft-chat: rooms, messages, and the one service
// that every API calls. It knows nothing of consensus or of any protocol.
//
// # Parts
//
// A command (cmd_*.go) is something that can be done: each file holds what one
// command looks like, how the service validates it and the pure decision of
// what it changes. Commands travel in log entries (envelope.go, chatpb).
//
// Store is the replicated state on this node, in an embedded key-value engine
// (keys.go lists the keys). It is changed by Apply, with log entries in order,
// and by Restore, with the content of another node's store, and by nothing else.
// Apply is deterministic: it looks at the entry and the store, never at a clock,
// a random number or the order of a map, so equal logs give equal stores, which
// StateHash and FullHash prove. The engine keeps no log of its own; the applied
// index is in the same atomic batch as everything else, so a crash loses a
// suffix of what was applied, and the replicated log repeats it.
//
// Service validates and normalises requests, joins them into entries (batcher),
// waits for their results and reads. It needs a Log, which another package
// provides. Everything that may depend on the build, such as Unicode tables, is
// decided here before a command is proposed.
//
// A Stream delivers the messages of some or all rooms in ID order. It is told
// that there is something to read by the hub and reads it from the recent
// messages or, further back, from the store, where it knows the ID of the next
// message of each room (merge.go): a step costs what it delivers, and not what its
// rooms hold. A stream that is not read costs its cursors. Rooms can be added and
// removed. A cursor that is ahead of this node is asked about in the cluster
// (doubts.go); one that nobody has reached is told of as a Gap.
//
// Trim drops the oldest messages of a room, through the log and in bounded steps.
// What is dropped is gone at once for every reader, the recent messages
// included, and its client message ids are free. A stream that had yet to deliver
// some of it tells of a Gap instead (delivery.go), before anything behind it: so
// whoever has everything up to an ID also knows of every gap up to it, and can
// go on from there.
//
// # What a caller may rely on
//
// Post returns a message only after it is committed and applied here. Seq of a
// room and ID of the cluster are 1, 2, 3 … and the same on every replica. A
// client message id is used for one message of its room, however often and
// wherever it is sent, as long as that message is stored. An outcome that is not
// known is reported as such. Nothing a client sends stops Apply: what is invalid
// is refused before it is proposed, and what the state forbids is a result of its
// command.
//
// A command that makes its decision panic is a defect of ours that every replica
// shares. It is rejected at its place in the log (CodeCommandFailed), changes
// nothing and is logged and counted: decoding and decisions are pure, so their
// panics are survived. A panic or an error of anything that touches the store is
// this node's own and stops it. Whoever repairs such a decision must make the
// repair depend on the feature level of the entry, or builds would disagree.
//
// An entry that this build cannot understand stops the node: skipping it would
// let the replicas differ.
//
// # Goroutines
//
// Apply, Restore and Close of a Store are serialised; reads run beside them. The
// Store owns one goroutine, that of its hub, from OpenStore to Close, and the
// engine's own. The Service owns the batcher's goroutines, which live while
// commands wait; Close waits for them. Streams run in the goroutine that calls
// Next; only a question to the cluster has one of its own, which ends with the
// stream's Close. Close streams first, then the Service, then the
// log, then the Store.
package chat
