// Package httpapi is the HTTP front of a node: rooms over REST, the WebSocket firehose, cluster membership, health,
// metrics and the embedded web client.
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
// # The firehose
//
// GET /ws follows every room from an ID cursor. The cursor is registered before the handshake is answered, so a message
// posted after the 101 is always delivered. A frame is encoded once, WebSocket header included, and shared by all
// connections through [chat.Message.Encoded]; a connection joins the frames that wait into one write of bounded size.
// That is why data frames are not written through the WebSocket library, which costs one system call each: the library
// does the handshake, reads, answers control frames and closes, and [frameConn] puts both kinds of bytes on the socket
// in whole frames.
//
// A reader that does not take its bytes within WriteTimeout has its cursor closed at once; what remains is the tail of
// one write, kept for CloseGrace so that the close frame (1013, with the cursor to resume from) can follow a whole
// frame. A reader that is still not reading then loses the connection without a close frame.
//
// # Goroutines
//
// New starts one goroutine that watches for the loss of the leader. Each stream has two of its own (delivery, and reading
// control frames) and for the length of a ping a third. All end through [Server.Shutdown], which waits for them. Ordinary
// requests run on the goroutines of the http.Server, which its owner shuts down.
package httpapi
