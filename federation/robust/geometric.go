package robust

import (
	"math/bits"
	"slices"
)

// geometric is the point with the least sum of distances to all updates, found
// by Weiszfeld's method with smoothing as in RFA: Pillutla, Kakade, Harchaoui
// (IEEE Trans. Signal Processing 2022). It needs no f to be right, so a wrong
// guess of it costs nothing here; its breakdown point is half for sites that are
// alike, less where they differ. The mask comes on top.
type geometric struct{ mask bool }

func (g geometric) About() About {
	a := About{
		Name: NameGeometric, Paper: "Pillutla, Kakade, Harchaoui, Robust aggregation for federated learning, IEEE TSP 2022",
		Breakdown: "f < n/2 for sites that are alike; on unlike ones it was measured to hold at 30 %",
	}
	if g.mask {
		a.Name = NameGeometricMasked
		a.Paper += maskPaper
	}
	return a
}

func (geometric) Check(n, f int) error { return less(n, f, 2, 1) }

func (g geometric) Combine(x [][]int32, f int) ([]int32, error) {
	z := geometricMedian(x)
	if g.mask {
		mask(z, x, f)
	}
	return z, nil
}

// Weiszfeld's steps converge linearly, and most of the way is behind after a
// few; nearer than 2^-20 to a row (RFA's nu = 1e-6) that row weighs no more.
const (
	weiszfeldSteps = 8
	nearest        = Unit >> 20
)

func geometricMedian(x [][]int32) []int32 {
	z := coordinateMedian(x)
	weight := make([]int64, len(x))
	next := make([]int32, len(z))
	for range weiszfeldSteps {
		total := nearness(x, z, weight)
		sums(x, weight, func(from int, sum []int64) {
			for j, s := range sum {
				next[from+j] = int32(divide(s, total))
			}
		})
		if slices.Equal(next, z) {
			break
		}
		z, next = next, z
	}
	return z
}

// nearness weighs each row with one over its distance from z, in parts of a
// whole of about 2^32, which it returns. The sum of MaxUpdates times 2^52 /
// nearest does not overflow; the parts fall short of the whole by less than their
// number, so they are added up again.
func nearness(x [][]int32, z []int32, weight []int64) (total int64) {
	var sum uint64
	for i, row := range x {
		w := uint64(1<<52) / max(root(apart(row, z)), nearest)
		weight[i] = int64(w)
		sum += w
	}
	for i, w := range weight {
		hi, lo := bits.Mul64(uint64(w), 1<<32)
		part, _ := bits.Div64(hi, lo, sum)
		weight[i] = int64(part)
		total += int64(part)
	}
	return total
}

const maskPaper = "; mask after Ozdayi, Kantarcioglu, Gel, Defending against backdoors in federated learning with robust learning rate, AAAI 2021"

// mask leaves every number as it is that fewer than f+1 rows would move in z's
// direction: at least one honest member must want it. Ozdayi et al. (AAAI 2021)
// turn such numbers round; leaving them is what withstands their being wrong
// about a feature that few sites have.
func mask(z []int32, x [][]int32, f int) {
	var buf [stripe]int32
	for from := 0; from < len(z); from += stripe {
		part := z[from:min(from+stripe, len(z))]
		votes := buf[:len(part)]
		clear(votes)
		for _, row := range x {
			for j, v := range row[from : from+len(part)] {
				votes[j] += agree(v, part[j])
			}
		}
		for j, n := range votes {
			if int(n) < f+1 {
				part[j] = 0
			}
		}
	}
}

// agree is 1 when both numbers have the same sign and are not zero, without a
// jump that nobody could foretell.
func agree(a, b int32) int32 {
	return (sign(a)*sign(b) + 1) >> 1
}

func sign(a int32) int32 { return a>>31 | int32(uint32(-a)>>31) }
