// Package httpapi is the HTTP front of a node: rooms over REST, streams in every form, cluster membership, health, metrics
// and the embedded web client.
//
// # Contract
//
// A [Server] is one http.Handler over a [chat.Service] and a [Cluster]. Every answer, errors and unknown routes
// included, carries X-Raft-Chat-Node and X-Request-Id. Every error is an RFC 9457 problem document with a stable code;
// the table from code to HTTP status is in problem.go and nowhere else. Nothing that a client sends makes a 500: that
// status is kept for a panic and for errors without a known code, and both are logged.
//
// Room names in a URL are percent-decoded exactly once. /rooms/{room} and /rooms/{room}/{seq} are both the API and the
// page: JSON, unless the Accept header prefers HTML.
//
// Link headers of a page of messages carry rel="prev" when there are earlier messages and rel="next" when there are
// later ones; a list of rooms carries rel="next" when it goes on. The URLs in them are relative and keep the limit, the
// consistency and the filters of the request.
//
// openapi.yaml describes all of it; tests hold it against the routes, the table of codes and real answers.
//
// # Streams
//
// docs/protocol.md specifies them; its examples are tests. All forms have one delivery loop (deliver.go): it waits for a
// [chat.Stream], joins what waits into writes of bounded size, and keeps the cursor behind what was written whole. A form
// is an encoding, which appends whole WebSocket frames, lines or events, and nothing more. A recent message is encoded once
// and shared by all connections through [chat.Message.Encoded].
//
// The cursor is registered before the handshake is answered, so a message posted after that is always delivered. All
// connections are taken from the HTTP server, so that an idle one holds none of its buffers. Data is not written through the
// WebSocket library, which costs one system call for each message: the library does the handshake, reads, answers
// control frames and closes, and [frameConn] puts both kinds of bytes on the socket in whole units.
//
// A session (raft-chat.v1) has rooms that come and go, which its one [chat.Stream] takes and gives up together with the
// answer that says so, see [session]. Requests are answered through the delivery loop, from a queue of bounded size that
// makes the reading of further requests wait.
//
// What a stream has encoded and not written yet, the answers that wait in a session and the places of rooms are charged to
// the memory budget (holding.go). Messages are not held meanwhile: the store has them. When the budget refuses a stream
// what it needs, the one that has kept most waiting for longest is cut.
//
// A reader that does not take its bytes within WriteTimeout has its cursor closed at once; what remains is the tail of
// one write, kept for CloseGrace so that the last words (an end event or frame, a close frame with 1013, each with the
// cursor to resume from) can follow a whole unit. A reader that is still not reading then loses the connection without a
// word.
//
// A node that has lost its leader tells its streams at once and ends them after LeaderGrace. What passes is answered to an
// EventSource with a stream that ends at once, since it would take a 503 for final.
//
// # Goroutines
//
// New starts one goroutine that watches for the loss of the leader. Each stream has two of its own (delivery, and reading
// what the client sends) and for the length of a ping or keepalive a third; a session has one more for the length of each
// request, at most 65. All end through [Server.Shutdown], which waits for them. Ordinary requests run on the goroutines of
// the http.Server, which its owner shuts down.
package httpapi
