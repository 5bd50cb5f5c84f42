// Package grpcapi is the gRPC front of a node: raftogram.v1.Messenger, server
// reflection and the standard health service.
//
// # Contract
//
// A [Server] serves one [chat.Service]. The calls and their fields are those of
// api/proto/raftogram/v1/messaging.proto; a channel is a room. Every failure is a
// status with a google.rpc.ErrorInfo whose reason is the stable code; the table
// from code to status is in errors.go and nowhere else. No request makes the status
// Internal, not even one that cannot be decoded: that is kept for a panic and for
// errors without a known code. Both are logged with an id that the client gets as
// google.rpc.RequestInfo. What breaks gRPC's own rules, such as two requests in a
// call that has one, is answered by gRPC.
//
// A node that does not lead answers FailedPrecondition with NotLeader before it
// looks at the request, or, in mode [Forward], serves it all the same: writes go
// to the leader through the log, and reads are linearizable on every node.
//
// A subscription is a chat.Stream in the room of its channel. One that was opened
// stays when its node stops leading, since a follower is told of every message,
// too; it ends when the node has known no leader for LeaderGrace. What ends by
// the server's will tells in its ErrorInfo why, and how far it came.
//
// Where this differs from raftogram: Subscribe delivers what is stored before what
// is new, author and payload must not be empty, and a node that lost its leader or
// is shutting down ends subscriptions instead of keeping them open in silence.
//
// # Bounds
//
// A request has at most MaxReceive bytes, a connection MaxStreams calls, the
// server MaxConnections connections: one more is closed at once, so that its
// client tries another node instead of waiting. A subscriber that does not read
// holds a chunk, the transport's 64 KiB and its cursor, and is ended once a write
// has waited for WriteTimeout. Clients that ping more often than MinPing or do not
// answer a ping lose their connection.
//
// # Goroutines
//
// New starts one that watches whether a leader is known. gRPC runs those of
// connections and calls. A stream has one more for each message while that is sent
// or received, so that the end of the stream need not wait for the client; a
// subscription that waits for messages has none. Shutdown ends all of them and
// waits. Shut the Server down
// before the chat.Service.
package grpcapi
