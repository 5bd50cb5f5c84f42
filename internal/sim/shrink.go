package sim

import "slices"

// Shrink returns the numbers of the faults that a failing plan still fails with,
// none of which can be left out. It repeats the run some dozens of times.
func Shrink(plan Plan) []int {
	return shrink(len(plan.Faults), func(keep []int) bool { return len(Run(plan.Only(keep...), false).Violations) > 0 })
}

// shrink leaves out as many of the numbers from 0 to n-1 as it can, large parts
// first.
func shrink(n int, fails func(keep []int) bool) []int {
	keep := make([]int, n)
	for i := range keep {
		keep[i] = i
	}
	for size := (n + 1) / 2; size >= 1; size /= 2 {
		for at := 0; at < len(keep); {
			fewer := slices.Concat(keep[:at], keep[min(at+size, len(keep)):])
			if fails(fewer) {
				keep = fewer
			} else {
				at += size
			}
		}
	}
	return keep
}
