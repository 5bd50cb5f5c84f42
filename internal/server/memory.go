package server

import (
	"fmt"
	"math"
	"runtime/debug"
	"sync"
)

// Bounds of the memory budget, in bytes. What a node needs for itself comes on top.
const (
	minMemoryBudget         = 32 << 20  // below it a few clients would be refused all the time
	minDefaultMemoryBudget  = 64 << 20  // also where memory is scarce
	maxDefaultMemoryBudget  = 512 << 20 // for some 20,000 clients; who has more says so
	defaultBudgetShare      = 8         // the default is this part of what the process may use
	memoryWithoutTheBudgets = 128 << 20 // caches and buffers of the node itself, about
)

// DefaultMemoryBudget is the memory budget of a node that is given none: an eighth
// of what the process may use, but 64 MiB at least and 512 MiB at most.
func DefaultMemoryBudget() int64 { return defaultBudgetOf(usableMemory()) }

func defaultBudgetOf(usable int64) int64 {
	return min(max(usable/defaultBudgetShare, minDefaultMemoryBudget), maxDefaultMemoryBudget)
}

// usableMemory is how much memory this process may use: the smallest of the
// limits that are known, math.MaxInt64 if none is.
func usableMemory() int64 { return min(machineMemory(), givenLimit()) }

// givenLimit is what GOMEMLIMIT says, math.MaxInt64 if nothing. It is asked for
// once, before anybody here sets another.
var givenLimit = sync.OnceValue(func() int64 { return debug.SetMemoryLimit(-1) })

// memoryBudgetProblem says what is wrong with a budget, or "".
func memoryBudgetProblem(n, usable int64) string {
	switch {
	case n < minMemoryBudget:
		return fmt.Sprintf("%d is less than 32 MiB, with which a node would refuse its clients most of the time", n)
	case n > usable:
		return fmt.Sprintf("%d is more than the %d bytes that this process may use at all", n, usable)
	}
	return ""
}

// MemoryLimit is the soft limit to give the Go runtime for a process whose only
// node has this budget: without one, garbage doubles what the budget allows. 0
// says that whoever started the process has set a limit (GOMEMLIMIT), which stays.
//
// A node at its limit collects garbage more often, for up to half of its CPU time,
// and goes on; it is what clients hold that is bounded by refusing.
func MemoryLimit(budget int64) int64 {
	if givenLimit() != math.MaxInt64 {
		return 0
	}
	return budget + memoryWithoutTheBudgets
}
