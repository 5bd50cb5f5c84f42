// Package testcluster runs a whole cluster inside of a test: every node is an
// internal/server.Server with a real log, a real store and real HTTP on
// loopback ports that stay its own over restarts. It also has what a test on
// such a cluster needs at its side, which tests on real processes use alike: a
// REST Client, and a Load: an internal/workload with the internal/oracle history
// that it feeds, to judge what its clients saw and what the nodes store.
//
// Contract: what goes wrong in the harness ends the test with Fatalf, so
// methods of Cluster are for the test's goroutine, except those that say
// otherwise. Everything is stopped and waited for when the test ends. Logs are
// kept in memory and shown when the test has failed.
//
// Goroutines: the nodes' own, ended by Stop, Kill or the end of the test, and
// those of a Load's workload, ended at the latest with the test.
package testcluster
