//go:build linux

package bench

import (
	"math"
	"slices"
)

// Series is what one subject gave, one value a round.
type Series struct {
	Name   string    `json:"name"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
}

// Ratio compares two series of one row, round by round.
type Ratio struct {
	Name   string  `json:"name"`   // what over what
	Mean   float64 `json:"mean"`   // geometric
	Bound  float64 `json:"bound"`  // at 95 %, on the side that could miss the target; 0 when one round cannot say
	Target float64 `json:"target"` // 0: none
	AtMost bool    `json:"at_most"`
}

// Met says whether the bound itself is on the right side of the target.
func (x Ratio) Met() bool {
	if x.AtMost {
		return x.Bound > 0 && x.Bound <= x.Target
	}
	return x.Bound >= x.Target
}

// student are the 95 % points of Student's t (one-sided) for 1 to 30 degrees of freedom.
var student = [...]float64{
	6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812,
	1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725,
	1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
}

// compare is the ratio of over to under, taken within each round.
func compare(name string, over, under []float64, target float64, atMost bool) Ratio {
	r := Ratio{Name: name, Target: target, AtMost: atMost}
	n := min(len(over), len(under))
	if n == 0 {
		return r
	}
	logs := make([]float64, n)
	var sum float64
	for i := range logs {
		logs[i] = math.Log(over[i] / under[i])
		sum += logs[i]
	}
	mean := sum / float64(n)
	r.Mean = math.Exp(mean)
	if n == 1 {
		return r
	}
	var sq float64
	for _, l := range logs {
		sq += (l - mean) * (l - mean)
	}
	margin := student[min(n-1, len(student))-1] * math.Sqrt(sq/float64(n-1)/float64(n))
	if atMost {
		margin = -margin
	}
	r.Bound = math.Exp(mean - margin)
	return r
}

// median of a copy; 0 of nothing.
func median(x []float64) float64 {
	if len(x) == 0 {
		return 0
	}
	s := slices.Clone(x)
	slices.Sort(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// aroundMedian bounds the median that x was drawn around, at 95 %: between two of
// the values, so many from either end that a fair coin falls so unevenly in one case
// of forty on each side. Of fewer than six values nothing can be said: the ends.
func aroundMedian(x []float64) (from, to float64) {
	if len(x) == 0 {
		return 0, 0
	}
	s := slices.Clone(x)
	slices.Sort(s)
	n, off := len(s), 0
	all, _ := math.Lgamma(float64(n + 1))
	for sum := 0.0; 2*off+2 < n; off++ {
		one, _ := math.Lgamma(float64(off + 1))
		other, _ := math.Lgamma(float64(n - off + 1))
		if sum += math.Exp(all - one - other - float64(n)*math.Ln2); sum > 0.025 {
			break
		}
	}
	return s[max(off-1, 0)], s[min(n-off, n-1)]
}
