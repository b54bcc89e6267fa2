package robust

import (
	"math"
	"math/rand/v2"
	"testing"
)

// bell is near enough to a normal number with deviation size, made of whole
// numbers only: a test's input must be the same on every machine, and the library's
// NormFloat64 goes through functions that machines have their own code for.
func bell(r *rand.Rand, size int32) int32 {
	var sum int64
	for range 12 {
		sum += int64(r.IntN(1<<16)) - 1<<15
	}
	return int32(sum * int64(size) >> 16)
}

// rows makes n rows of d numbers about a common one.
func rows(r *rand.Rand, n, d int, common, own int32) [][]int32 {
	shared := make([]int32, d)
	for j := range shared {
		shared[j] = bell(r, common)
	}
	x := make([][]int32, n)
	for i := range x {
		x[i] = make([]int32, d)
		for j := range x[i] {
			x[i][j] = shared[j] + bell(r, own)
		}
	}
	return x
}

// asFloats is how a member would send rows.
func asFloats(x [][]int32) [][]float32 {
	out := make([][]float32, len(x))
	for i, row := range x {
		out[i] = floats(row)
	}
	return out
}

// real is a row in float64.
func reals(x [][]int32) [][]float64 {
	out := make([][]float64, len(x))
	for i, row := range x {
		out[i] = make([]float64, len(row))
		for j, v := range row {
			out[i][j] = float64(v)
		}
	}
	return out
}

// furthest is the greatest difference in one number.
func furthest(a []int32, b []float64) (most float64) {
	for j, v := range a {
		most = max(most, math.Abs(float64(v)-b[j]))
	}
	return most
}

// distance is Euclid's.
func distance(a, b []float64) float64 {
	var sq float64
	for j := range a {
		sq += (a[j] - b[j]) * (a[j] - b[j])
	}
	return math.Sqrt(sq)
}

// most is the greatest f that a rule accepts for n updates.
func most(t *testing.T, r Rule, n int) int {
	t.Helper()
	if err := r.Check(n, 0); err != nil {
		t.Fatalf("%s refuses %d updates without a liar: %v", r.About().Name, n, err)
	}
	f := 0
	for r.Check(n, f+1) == nil {
		f++
	}
	return f
}
