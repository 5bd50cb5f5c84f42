// Package bench measures how many messages a running cluster acknowledges.
//
// The load is a closed loop: a fixed number of workers, each with one
// keep-alive HTTP/1.1 connection, send a message, wait for the answer and send
// the next. [Send] runs it and returns a [Report]. The package speaks HTTP with
// a small client of its own instead of net/http, because on a machine that the
// servers share with the load every cycle spent here is missing in the result.
//
// Contract. The report's rate counts the acknowledgements that arrived inside
// the measured window. Its latencies are those of all requests that began in
// the window, also of those whose answer came after it ended, so that a stall
// at the end shows. Opening a connection is not part of a latency. Refusals and
// broken connections are counted by what they said, never dropped. Acknowledged
// and Latency leave out the warm-up; Errors does too.
//
// Goroutines. Send starts one goroutine per worker and returns after all of
// them have ended. A worker alone owns its connection, its buffers and its
// counters; they are added up when the workers are done, so nothing is shared
// on the way.
package bench
