// Package calibrate turns raw scores into p-values: the chance that a normal
// flow of this site scores at least as high.
//
// The body of the distribution is the empirical one of held-out normal scores.
// Beyond a high threshold the exceedances are taken to follow a generalised
// Pareto distribution (peaks over threshold: Coles 2001, chapter 4; for streams
// Siffer et al. 2017), fitted by probability-weighted moments (Hosking and
// Wallis 1987), so that p-values below 1/n can be told apart. How far below is
// capped: a sample of n says nothing honest about p under 1/(50 n).
//
// The p-value never rises with the score. Beyond the cap all scores have the same
// one; their rank goes on.
package calibrate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"
)

const (
	// Extrapolate is how far below 1/n a p-value may be said.
	Extrapolate = 50
	// MaxScores bounds what a calibration keeps; of more scores the newest are kept.
	MaxScores = 4096
	// MinScores is the least number of held-out scores to calibrate on.
	MinScores = 20

	minExceed = 20 // fewer exceedances are not fitted
	// A finite end of the tail beyond this is not believed from few scores.
	shapeMin = -0.2
)

// Options say what is believed of the tail.
type Options struct {
	// Share of the scores that are exceedances, above 0 and at most 0.5. Where
	// normal is a mixture of kinds, only its very top is one tail.
	Share float64
	// MaxShape is the heaviest shape believed; 0 is an exponential tail.
	MaxShape float64
}

// Scale maps a score to its p-value. It is immutable and safe for concurrent use.
type Scale struct {
	sorted []float64 // held-out scores, ascending
	tail   Tail
}

// Tail is a fitted generalised Pareto distribution. Sigma 0 means that the
// scores did not allow one; then the p-value ends at 1/(n+1).
type Tail struct {
	Threshold float64
	Above     int     // scores above Threshold
	Shape     float64 // xi
	Sigma     float64
}

// New calibrates on held-out normal scores, of which NaN and infinities are refused.
func New(scores []float64, o Options) (*Scale, error) {
	if !(o.Share > 0 && o.Share <= 0.5) || !(o.MaxShape >= shapeMin && o.MaxShape < 1) {
		return nil, fmt.Errorf("calibrate: options %+v: expected a share of 0 to 0.5 and a shape under 1", o)
	}
	if len(scores) < MinScores {
		return nil, fmt.Errorf("calibrate: %d held-out scores: expected at least %d", len(scores), MinScores)
	}
	s := slices.Clone(scores[max(0, len(scores)-MaxScores):])
	for _, x := range s {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, errors.New("calibrate: a held-out score is not finite")
		}
	}
	slices.Sort(s)
	return &Scale{sorted: s, tail: fit(s, o)}, nil
}

// Scores gives the sorted scores that New can rebuild this scale from. The
// caller must not change them.
func (c *Scale) Scores() []float64 { return c.sorted }

// N is the number of held-out scores.
func (c *Scale) N() int { return len(c.sorted) }

// Tail is the fitted tail.
func (c *Scale) Tail() Tail { return c.tail }

// Floor is the smallest p-value that this scale can say.
func (c *Scale) Floor() float64 { return 1 / (Extrapolate * float64(len(c.sorted))) }

// P is the p-value of a score, in [Floor, 1]; NaN gets 1, for nothing is known.
func (c *Scale) P(score float64) float64 {
	p, _ := c.Both(score)
	return p
}

// Both is the p-value of a score, and its rank, above 0 and at most 1. A rank is no
// chance of anything, but it has no floor: beyond the threshold it falls as an
// exponential tail would, whatever shape was fitted, so that a Track can find how
// often such scores really come.
func (c *Scale) Both(score float64) (p, rank float64) {
	if math.IsNaN(score) {
		return 1, 1
	}
	n := len(c.sorted)
	below := sort.SearchFloat64s(c.sorted, score)
	if c.tail.Sigma > 0 && score > c.tail.Threshold {
		top := float64(c.tail.Above+1) / float64(n+1)
		// Where there are held-out scores as high, the fit may not say less than they do.
		as := float64(n-below) / float64(n+1)
		y := (score - c.tail.Threshold) / c.tail.Sigma
		return max(c.Floor(), as, top*c.tail.survival(score)), max(leastRank, top*math.Exp(-y))
	}
	p = float64(n-below+1) / float64(n+1)
	return p, p
}

// leastRank keeps ranks above 0.
const leastRank = 1e-300

// survival is the chance that an exceedance goes beyond score.
func (t Tail) survival(score float64) float64 {
	y := (score - t.Threshold) / t.Sigma
	if math.Abs(t.Shape) < 1e-9 {
		return math.Exp(-y)
	}
	base := 1 + t.Shape*y
	if base <= 0 {
		return 0
	}
	return math.Pow(base, -1/t.Shape)
}

// fit takes the upper share of sorted scores as exceedances and fits them.
func fit(sorted []float64, o Options) Tail {
	n := len(sorted)
	k := max(minExceed, int(o.Share*float64(n)))
	if k >= n {
		return Tail{}
	}
	t := Tail{Threshold: sorted[n-k-1]}
	// Ties with the threshold do not exceed it.
	first := n - k
	for first < n && sorted[first] <= t.Threshold {
		first++
	}
	t.Above = n - first
	if t.Above < minExceed/2 {
		return Tail{}
	}
	t.Shape, t.Sigma = moments(sorted[first:], t.Threshold, o.MaxShape)
	if !(t.Sigma > 0) || math.IsInf(t.Sigma, 0) {
		return Tail{}
	}
	return t
}

// moments estimates shape and scale from the first two probability-weighted
// moments a0 = E[y], a1 = E[y (1-F(y))]. A clamped shape keeps the mean.
func moments(exceed []float64, threshold, most float64) (shape, sigma float64) {
	var a0, a1 float64
	n := float64(len(exceed))
	for j, x := range exceed {
		y := x - threshold
		a0 += y / n
		a1 += y * (1 - (float64(j)+0.65)/n) / n
	}
	if d := a0 - 2*a1; d > 1e-12*a0 {
		shape = 2 - a0/d
	} else {
		shape = shapeMin
	}
	shape = min(max(shape, shapeMin), most)
	return shape, a0 * (1 - shape)
}
