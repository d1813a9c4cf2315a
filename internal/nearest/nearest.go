// Package nearest finds the word somebody meant.
//
//	"flsh" --> Word --> "flush"
//
// Error messages about unknown names end with it.
package nearest

import "fmt"

// Word returns the known word with the fewest edits from the given one; ok is
// false when none is near enough to be worth suggesting.
func Word[S ~string](word S, known []S) (best S, ok bool) {
	least := len(word)/3 + 2 // a third of the letters, and one more for short words
	for _, k := range known {
		if d := edits(string(word), string(k)); d < least {
			best, least, ok = k, d, true
		}
	}
	return best, ok
}

// Hint is the end of a sentence: `; did you mean "flush"?`, or `; known are
// a, b, c` when nothing is near.
func Hint[S ~string](word S, known []S) string {
	if best, ok := Word(word, known); ok {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	if len(known) == 0 {
		return ""
	}
	hint := "; known are "
	for i, k := range known {
		if i > 0 {
			hint += ", "
		}
		hint += string(k)
	}
	return hint
}

// edits is the optimal string alignment distance: insertions, deletions,
// substitutions, and swaps of neighbours, each counting one.
func edits(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
