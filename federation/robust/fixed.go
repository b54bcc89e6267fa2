package robust

import (
	"cmp"
	"math"
	"math/bits"
)

// Bounds within which nothing below overflows.
//
// A number is at most MaxNorm * Unit = 2^30 in size, and so is a row's norm but
// for rounding. Two rows are at most 2^31 apart, their squared distance is at
// most 2^62 (a little more from a coordinate-wise median, whose norm can be
// sqrt 2 times a row's: still below 2^63.2, and it is kept without sign). A sum
// of MaxUpdates numbers is at most 2^44; weighted with weights that sum up to
// 2^32 it is at most 2^62.
const (
	Unit       = 1 << 24
	MaxNorm    = 64
	MaxUpdates = 1 << 14
	MaxLength  = 1 << 22
)

// quantise cuts an update to a norm and rounds it to whole numbers of 1/Unit,
// ties to even. What is not finite becomes zeros, and ok is false. The norm is
// summed in index order in float64, every product rounded by itself: that
// forbids a compiler to fuse it with the sum on machines that can.
func quantise(u []float32, clip float64) (q []int32, long, ok bool) {
	q = make([]int32, len(u))
	var sq float64
	for _, x := range u {
		f := float64(x)
		sq += float64(f * f) // squares of float32 cannot overflow float64
	}
	if math.IsNaN(sq) || math.IsInf(sq, 0) {
		return q, false, false
	}
	scale := float64(Unit)
	if norm := math.Sqrt(sq); norm > clip {
		scale, long = clip/norm*Unit, true
	}
	for j, x := range u {
		q[j] = int32(math.RoundToEven(float64(x) * scale))
	}
	return q, long, true
}

// floats turns whole numbers of 1/Unit into float32, rounded once.
func floats(z []int32) []float32 {
	out := make([]float32, len(z))
	for j, v := range z {
		out[j] = float32(float64(v) / Unit)
	}
	return out
}

// frozen counts the numbers that the result leaves alone although some row
// changes them.
func frozen(x [][]int32, z []int32) (n int) {
	moved := make([]int32, len(z))
	for _, row := range x {
		for j, v := range row {
			moved[j] |= v
		}
	}
	for j, v := range z {
		if v == 0 && moved[j] != 0 {
			n++
		}
	}
	return n
}

// divide rounds half away from zero; n > 0.
func divide(s, n int64) int64 {
	if s < 0 {
		return -((n/2 - s) / n)
	}
	return (s + n/2) / n
}

// apart is the squared Euclidean distance of two rows of equal length.
func apart(a, b []int32) uint64 {
	b = b[:len(a)]
	var even, odd uint64 // two sums, so that one addition need not wait for the other
	j := 0
	for ; j+1 < len(a); j += 2 {
		d, e := int64(a[j])-int64(b[j]), int64(a[j+1])-int64(b[j+1])
		even += uint64(d * d)
		odd += uint64(e * e)
	}
	if j < len(a) {
		d := int64(a[j]) - int64(b[j])
		even += uint64(d * d)
	}
	return even + odd
}

// norm is the Euclidean norm of a row, rounded down.
func norm(a []int32) uint64 {
	var sum uint64
	for _, v := range a {
		sum += uint64(int64(v) * int64(v))
	}
	return root(sum)
}

// root is the square root rounded down. The processor's root of a rounded number
// may be off by one in the last place, and is put right.
func root(x uint64) uint64 {
	r := min(uint64(math.Sqrt(float64(x))), math.MaxUint32)
	for r*r > x {
		r--
	}
	for r < math.MaxUint32 && (r+1)*(r+1) <= x {
		r++
	}
	return r
}

// wide is a sum of squared distances.
type wide struct{ hi, lo uint64 }

func (w wide) plus(x uint64) wide {
	lo, carry := bits.Add64(w.lo, x, 0)
	return wide{w.hi + carry, lo}
}

func (w wide) compare(v wide) int {
	return cmp.Or(cmp.Compare(w.hi, v.hi), cmp.Compare(w.lo, v.lo))
}

// stripe is how many columns are summed at a time: their sums stay in the
// nearest cache while all rows pass by.
const stripe = 1024

// sums adds up rows, each times its weight, and hands over the sums of a stripe
// of columns at a time. Weights may be nil: all ones.
func sums(x [][]int32, weight []int64, f func(from int, sum []int64)) {
	var buf [stripe]int64
	for from := 0; from < len(x[0]); from += stripe {
		sum := buf[:min(stripe, len(x[0])-from)]
		clear(sum)
		for i, row := range x {
			part := row[from : from+len(sum)]
			if weight == nil {
				for j, v := range part {
					sum[j] += int64(v)
				}
				continue
			}
			w := weight[i]
			for j, v := range part {
				sum[j] += w * int64(v)
			}
		}
		f(from, sum)
	}
}

// average is the mean of rows.
func average(x [][]int32) []int32 {
	out := make([]int32, len(x[0]))
	sums(x, nil, func(from int, sum []int64) {
		for j, s := range sum {
			out[from+j] = int32(divide(s, int64(len(x))))
		}
	})
	return out
}
