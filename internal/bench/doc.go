// Package bench measures a running cluster: how many messages it acknowledges
// ([Send]), how fast it delivers them to many subscribers ([Fanout]), and what
// an idle connection costs it in memory ([Connections]).
//
// The package speaks HTTP and WebSocket with small clients of its own instead
// of net/http, because on a machine that the servers share with the load every
// cycle spent here is missing in the result. Servers run in processes of their
// own; a process is rarely allowed the files for both ends of 10,000 sockets.
//
// # Send
//
// The load is a closed loop: a fixed number of workers, each with one
// keep-alive HTTP/1.1 connection, send a message, wait for the answer and send
// the next. The report's rate counts the acknowledgements that arrived inside
// the measured window. Its latencies are those of all requests that began in
// the window, also of those whose answer came after it ended, so that a stall
// at the end shows. Opening a connection is not part of a latency. Refusals and
// broken connections are counted by what they said, never dropped. Acknowledged
// and Latency leave out the warm-up; Errors does too.
//
// # Fanout
//
// The load is an open loop: message n is due at n divided by the rate, whatever
// the cluster does, and every latency runs from when a message was due, so that
// a stall is paid for by all messages that should have been sent during it.
// Both ends are in this process and share its clock. A message is repeated
// under its client message id until it is acknowledged. Every subscriber checks
// that the numbers of its room come as 1, 2, 3 and so on.
//
// # Connections
//
// Connections are opened in steps and read from, so that they answer pings. The
// memory is what the kernel tells of the servers' processes (VmRSS, Linux
// only); the memory that the kernel itself needs for sockets is not in it.
//
// # Goroutines
//
// Each of the three starts its goroutines (one for a worker, a sender or a
// socket) and returns after all of them have ended. A worker or a subscriber
// alone owns its connection, its buffers and, but for the latencies of a
// fan-out, its counters; they are added up when it is done.
package bench
