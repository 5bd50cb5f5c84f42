// The raft-chat command runs one node of a replicated chat server, and carries
// the tools that go with it.
//
//	raft-chat [serve] [flags]   run a node; the default command
//	raft-chat send, tail        post to a room, follow rooms
//	raft-chat rooms, members, status
//	raft-chat bench …           put load on a running cluster: send, fanout, connections
//	raft-chat version           print the version
//	raft-chat completion        print a shell completion script
//
// # Configuration
//
// Every setting of serve has one name, which is its flag (--data-dir), its
// environment variable (RAFT_CHAT_DATA_DIR) and its key in the YAML file that
// --config names (data_dir). A flag wins over the environment, that over the
// file, that over the default. The file may instead, or in addition, hold the
// cluster mapping of raftogram; see raftogram.go for how its keys translate.
// Long flags may be written with one dash. What Kubernetes, Docker or tail --exec
// put into the environment under our prefix is passed over; see environment.go.
//
// # Contract
//
// The exit code is 0 for a node that was asked to stop or was removed from the
// cluster, 2 for a mistake in the command line or the configuration, and 1 for
// everything else; the client commands also have 3 for an outcome that is not
// known and 4 when no node could be reached. A mistake is one line on standard error. Logs go to standard
// error too, as JSON or, with --dev, as text; standard output carries only what
// was asked for. A node outlives the reader of its log; see logqueue.go.
//
// # Goroutines and ownership
//
// main turns the first SIGINT, SIGTERM or SIGHUP into the end of a context and
// leaves the second SIGINT or SIGTERM to the operating system, which ends the
// process at once. run does everything else with what it is given, so a test can
// call it. serve owns the server it opens and closes it before it returns, but
// for a start or a stop that hangs, which it leaves behind with an error. run
// waits for the log's goroutine last, and not for ever.
package main
