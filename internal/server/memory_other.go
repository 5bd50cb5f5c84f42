//go:build !linux

package server

import "math"

// machineMemory is not known here; GOMEMLIMIT and --memory-budget are what there is.
func machineMemory() int64 { return math.MaxInt64 }

// openFiles is not known either.
func openFiles() int64 { return math.MaxInt64 }
