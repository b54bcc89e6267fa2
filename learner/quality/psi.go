package quality

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Enough is how many reports a window needs to be compared with.
const Enough = 50

const (
	deciles = 10
	// large is the index from which a shift is called large.
	large = 0.25
	// torn is the index from which two distributions hardly overlap.
	torn = 1.0
	// effect is how many flows say as much as one that depends on nothing:
	// neighbours in time are of the same sessions.
	effect = 4
	// quantile of the normal distribution at 1 - 1e-5: one false word in some
	// thousand windows of 64 features.
	quantile = 4.265
)

// Reference is how each feature was distributed in a window.
type Reference struct {
	n    int
	cuts [feature.Dim][]float32 // ascending; a value is in the bin of the first cut above it
	p    [feature.Dim][]float64 // shares of the bins, the last is "absent"
}

// NewReference bins vectors; nil when there are none.
func NewReference(vecs []feature.Vector) *Reference {
	if len(vecs) == 0 {
		return nil
	}
	r := &Reference{n: len(vecs)}
	vals := make([]float32, 0, len(vecs))
	for i := range feature.Dim {
		vals = vals[:0]
		for j := range vecs {
			if vecs[j].Known(i) {
				vals = append(vals, vecs[j].X[i])
			}
		}
		r.cuts[i] = cutsOf(vals)
		r.p[i] = r.shares(i, vecs)
	}
	return r
}

// N is how many vectors it was made from.
func (r *Reference) N() int { return r.n }

// cutsOf gives the deciles, each once. Values that many share get a bin of their
// own: a cut on either side.
func cutsOf(vals []float32) []float32 {
	slices.Sort(vals)
	var cuts []float32
	add := func(c float32) {
		if len(cuts) == 0 || c > cuts[len(cuts)-1] {
			cuts = append(cuts, c)
		}
	}
	for k := 1; k < deciles && len(vals) > 0; k++ {
		v := vals[k*len(vals)/deciles]
		add(v)
		add(math.Nextafter32(v, 2))
	}
	return cuts
}

// shares counts vectors in the bins of feature i, with half a vector more in
// each, so that an empty bin is rare and not impossible.
func (r *Reference) shares(i int, vecs []feature.Vector) []float64 {
	bins := len(r.cuts[i]) + 2
	n := make([]float64, bins)
	for j := range vecs {
		if !vecs[j].Known(i) {
			n[bins-1]++
			continue
		}
		x := vecs[j].X[i]
		n[sort.Search(len(r.cuts[i]), func(k int) bool { return r.cuts[i][k] > x })]++
	}
	total := float64(len(vecs)) + 0.5*float64(bins)
	for b := range n {
		n[b] = (n[b] + 0.5) / total
	}
	return n
}

// Drift is how one input moved.
type Drift struct {
	Feature string  `json:"feature"`
	PSI     float64 `json:"psi"`
	Limit   float64 `json:"limit"`
	Words   string  `json:"words"`
}

// compare gives the features that moved beyond their limit, most of all first,
// how many were compared and how many are torn. Features in blind are not
// compared.
func (r *Reference) compare(vecs []feature.Vector, blind feature.Mask) (moved []Drift, compared, tornApart int) {
	for i := range feature.Dim {
		if blind.Has(i) {
			continue
		}
		q := r.shares(i, vecs)
		psi := index(r.p[i], q)
		limit := math.Max(large, chance(len(q)-1, r.n, len(vecs)))
		compared++
		if psi <= limit {
			continue
		}
		if psi > math.Max(torn, limit) {
			tornApart++
		}
		moved = append(moved, Drift{feature.Name(i), psi, limit, r.words(i, q)})
	}
	slices.SortStableFunc(moved, func(a, b Drift) int {
		switch {
		case a.PSI > b.PSI:
			return -1
		case a.PSI < b.PSI:
			return 1
		}
		return 0
	})
	return moved, compared, tornApart
}

// index is the population stability index of two lists of shares.
func index(p, q []float64) (sum float64) {
	for b := range p {
		sum += (q[b] - p[b]) * math.Log(q[b]/p[b])
	}
	return sum
}

// chance is the index that samples of n and m may reach without a change: the
// upper quantile of its distribution, by Wilson and Hilferty (1931).
func chance(degrees, n, m int) float64 {
	if degrees < 1 || n == 0 || m == 0 {
		return math.Inf(1)
	}
	k := float64(degrees)
	chi := k * math.Pow(1-2/(9*k)+quantile*math.Sqrt(2/(9*k)), 3)
	return chi * effect * (1/float64(n) + 1/float64(m))
}

// words says where feature i went: the bin that gained most.
func (r *Reference) words(i int, q []float64) string {
	most := 0
	for b := range q {
		if q[b]-r.p[i][b] > q[most]-r.p[i][most] {
			most = b
		}
	}
	where := "is absent"
	if cuts := r.cuts[i]; most < len(q)-1 {
		switch {
		case len(cuts) == 0:
			where = "is known"
		case most == 0:
			where = "is below " + feature.Quantity(i, feature.Natural(i, cuts[0]))
		case most == len(cuts):
			where = "is above " + feature.Quantity(i, feature.Natural(i, cuts[most-1]))
		default:
			where = fmt.Sprintf("is from %s to %s", feature.Quantity(i, feature.Natural(i, cuts[most-1])), feature.Quantity(i, feature.Natural(i, cuts[most])))
		}
	}
	return fmt.Sprintf("%s %s in %.0f %% of the reports, was in %.0f %%", feature.Name(i), where, 100*q[most], 100*r.p[i][most])
}
