package config

import (
	"fmt"
	"strings"
)

// nearest answers a mistyped key with the known one that is fewest edits away,
// or with nothing when none is near enough to be meant. A known key in another
// table wins: that is the commoner mistake.
func nearest(key string, known []string) string {
	last := key[strings.LastIndex(key, ".")+1:]
	best, dist := "", 1+len(last)/2
	for _, k := range known {
		d := distance(key, k)
		if k[strings.LastIndex(k, ".")+1:] == last {
			d = 1
		}
		if d < dist {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// Nearest is the suffix of an error about an unknown key: the known one that was
// probably meant, or nothing.
func Nearest(key string, known []string) string { return nearest(key, known) }

// distance is Levenshtein's, with a swap of neighbours counted as one edit
// (Damerau; the restricted form). Long keys are not worth comparing.
func distance(a, b string) int {
	if len(a) > 100 || len(b) > 100 {
		return 100
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
