package sim

import "slices"

// Shrink returns the numbers of the faults that a failing plan still fails with,
// none of which can be left out. It repeats the run some dozens of times.
func Shrink(plan Plan) []int {
	keep := make([]int, len(plan.Faults))
	for i := range keep {
		keep[i] = i
	}
	fails := func(keep []int) bool { return len(Run(plan.Only(keep...), false).Violations) > 0 }
	for size := (len(keep) + 1) / 2; size >= 1; size /= 2 {
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
