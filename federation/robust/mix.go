package robust

import (
	"cmp"
	"slices"
)

// mixed is the second preset: long updates are shortened to the length of others
// (ARC), each is replaced by the mean of its nearest neighbours (NNM), and of
// these the trimmed mean is taken. NNM before a trimmed mean is optimal up to a
// constant where sites differ; its breakdown point is half for alike sites.
type mixed struct{ mask bool }

func (m mixed) About() About {
	a := About{
		Name: NameMixedTrimmed,
		Paper: "Allouah et al., Fixing by mixing: a recipe for optimal Byzantine ML under heterogeneity, AISTATS 2023; " +
			"Allouah et al., Adaptive gradient clipping for robust federated learning, ICLR 2025",
		Breakdown: "f < n/2 for sites that are alike, if f was not set too low; on unlike ones it was measured to hold at 30 %",
	}
	if m.mask {
		a.Name = NameMixedTrimmedMask
		a.Paper += maskPaper
	}
	return a
}

func (mixed) Check(n, f int) error { return less(n, f, 2, 1) }

func (m mixed) Combine(x [][]int32, f int) ([]int32, error) {
	z := trimmedMean(mix(shorten(x, f), f), f)
	if m.mask {
		mask(z, x, f)
	}
	return z, nil
}

// shorten cuts the k = 2 f (n-f) / n longest rows to the length of the next one:
// ARC's choice, under which what NNM and the trimmed mean promise still holds.
func shorten(x [][]int32, f int) [][]int32 {
	n := len(x)
	norms := make([]uint64, n)
	for i, row := range x {
		norms[i] = norm(row)
	}
	sorted := slices.SortedFunc(slices.Values(norms), func(a, b uint64) int { return cmp.Compare(b, a) })
	limit := sorted[2*f*(n-f)/n]
	out := make([][]int32, n)
	for i, row := range x {
		out[i] = row
		if norms[i] > limit {
			out[i] = scaled(row, int64(limit), int64(norms[i]))
		}
	}
	return out
}

// scaled is a row times num/den, at most 1.
func scaled(row []int32, num, den int64) []int32 {
	out := make([]int32, len(row))
	for j, v := range row {
		out[j] = int32(divide(int64(v)*num, den))
	}
	return out
}

// distances is the squared distance of every row from every other.
func distances(x [][]int32) [][]uint64 {
	d := make([][]uint64, len(x))
	for i := range d {
		d[i] = make([]uint64, len(x))
	}
	for i := range x {
		for k := range i {
			d[i][k] = apart(x[i], x[k])
			d[k][i] = d[i][k]
		}
	}
	return d
}

// neighbours lists rows by their distance, the nearest first; of equally near
// ones the first in order.
func neighbours(d []uint64) []int {
	order := make([]int, len(d))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(d[a], d[b]) })
	return order
}

// mix replaces each row by the mean of the n-f nearest, itself among them: the
// sum of all less the f farthest, which are fewer.
func mix(x [][]int32, f int) [][]int32 {
	if f == 0 {
		whole := average(x)
		out := make([][]int32, len(x))
		for i := range out {
			out[i] = whole
		}
		return out
	}
	all := make([]int64, len(x[0]))
	sums(x, nil, func(from int, sum []int64) { copy(all[from:], sum) })
	d := distances(x)
	keep := len(x) - f
	out := make([][]int32, len(x))
	far := make([][]int32, f)
	for i := range x {
		for k, at := range neighbours(d[i])[keep:] {
			far[k] = x[at]
		}
		row := make([]int32, len(all))
		sums(far, nil, func(from int, sum []int64) {
			for j, s := range sum {
				row[from+j] = int32(divide(all[from+j]-s, int64(keep)))
			}
		})
		out[i] = row
	}
	return out
}
