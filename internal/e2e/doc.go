// Package e2e holds tests of the built raft-chat binary: real processes, real
// signals, real sockets, and curl and bash where the documentation prints
// commands for them. It exports nothing.
//
// Each process runs in a group of its own, in a temporary directory and on
// ports outside of the range that the system hands out, so that nobody takes
// them while a node is down; the README's commands run on the ports that are
// printed, as far as those are outside of that range. When a test ends, what
// still runs is killed by its process id; when it has failed, running nodes
// are first asked for their goroutines, and all logs are shown.
package e2e
