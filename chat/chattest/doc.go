// Package chattest holds a stand-in for the replicated log, for tests of what
// is built on package chat.
//
// A Log applies proposals to one Store, in order, on one goroutine that NewLog
// starts and Close ends. It replicates and stores nothing. Faults can be
// injected to see what callers do about them.
package chattest
