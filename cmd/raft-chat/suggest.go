package main

import "slices"

// didYouMean ends a sentence about an unknown word with the known one that it
// was probably meant to be, or with nothing.
func didYouMean(word string, known []string) string {
	best, at := "", 1+min(2, len(word)/3)
	for _, k := range known {
		if d := editDistance(word, k); d < at {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// editDistance is how many bytes have to be added, taken away or exchanged, or
// pairs of neighbours swapped, to make b of a.
func editDistance(a, b string) int {
	// Three rows of the table: above[1] is the one above row.
	row := make([]int, len(b)+1)
	above := [2][]int{make([]int, len(b)+1), slices.Clone(row)}
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		above[0], above[1], row = above[1], row, above[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(above[1][j+1]+1, row[j]+1, above[1][j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], above[0][j-1]+1)
			}
		}
	}
	return row[len(b)]
}
