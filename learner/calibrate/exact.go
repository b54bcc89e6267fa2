package calibrate

import (
	"math"

	"gonum.org/v1/gonum/mathext"
)

// Binomial is the exact interval of a share of which k of n were seen (Clopper
// and Pearson 1934), with at least the given confidence, above 0 and below 1.
// With nothing seen it is [0, 1].
func Binomial(k, n int, confidence float64) (lo, hi float64) {
	lo, hi = 0, 1
	if n <= 0 || k < 0 || k > n {
		return lo, hi
	}
	tail := (1 - confidence) / 2
	if k > 0 {
		lo = mathext.InvRegIncBeta(float64(k), float64(n-k+1), tail)
	}
	if k < n {
		hi = mathext.InvRegIncBeta(float64(k+1), float64(n-k), 1-tail)
	}
	return lo, hi
}

// Poisson is the exact interval of a rate of which k events were seen in a
// time (Garwood 1936), with at least the given confidence. Without time it
// is [0, +Inf).
func Poisson(k int, time, confidence float64) (lo, hi float64) {
	if !(time > 0) || k < 0 {
		return 0, math.Inf(1)
	}
	tail := (1 - confidence) / 2
	if k > 0 {
		lo = mathext.GammaIncRegInv(float64(k), tail) / time
	}
	return lo, mathext.GammaIncRegCompInv(float64(k+1), tail) / time
}

// ChiSquare is the quantile q of a chi-square distribution with k degrees of freedom.
func ChiSquare(k, q float64) float64 {
	if !(k > 0) || !(q > 0 && q < 1) {
		return 0
	}
	return 2 * mathext.GammaIncRegInv(k/2, q)
}
