// Package robust holds the rules that make one update out of many. It is pure,
// and every site that holds the same updates gets the same bits, in whatever
// order they came and on whatever machine.
//
// Present rule: the mean, with each update's Euclidean norm clipped. A clipped
// mean bounds what one broken site can do to a round; it does not withstand a
// site that lies (f = 0).
package robust

import (
	"errors"
	"fmt"
	"math"
)

// Errors of bad input.
var (
	ErrNone      = errors.New("robust: no updates: expected at least one")
	ErrLength    = errors.New("robust: updates of unequal or no length")
	ErrNotFinite = errors.New("robust: an update is not finite")
	ErrBound     = errors.New("robust: out of bounds")
)

// Bounds within which the fixed-point sums below cannot overflow:
// MaxUpdates * MaxClip * 2^fraction < 2^63.
const (
	MaxUpdates = 1 << 12
	MaxClip    = 1 << 16
	fraction   = 32
)

// Mean clips each update to Euclidean norm clip (0 < clip <= MaxClip) and
// returns the average per coordinate, together with how many updates were
// clipped. Updates are not changed.
//
// Sums are whole numbers of 2^-32, so they do not depend on the order; the norm
// is summed in index order in float64 with every product rounded, so that no
// compiler fuses it differently. The result is the mean rounded half away from
// zero to 2^-32 and then to float32.
func Mean(updates [][]float32, clip float64) (mean []float32, clipped int, err error) {
	if err := check(updates, clip); err != nil {
		return nil, 0, err
	}
	sums := make([]int64, len(updates[0]))
	for i, u := range updates {
		norm, err := normOf(u)
		if err != nil {
			return nil, 0, fmt.Errorf("update %d: %w", i, err)
		}
		scale := 1.0
		if norm > clip {
			scale = clip / norm
			clipped++
		}
		for j, x := range u {
			sums[j] += fixed(float64(x) * scale)
		}
	}
	mean = make([]float32, len(sums))
	for j, s := range sums {
		mean[j] = float32(float64(divide(s, int64(len(updates)))) / (1 << fraction))
	}
	return mean, clipped, nil
}

func check(updates [][]float32, clip float64) error {
	switch {
	case len(updates) == 0:
		return ErrNone
	case len(updates) > MaxUpdates:
		return fmt.Errorf("%w: %d updates: expected at most %d", ErrBound, len(updates), MaxUpdates)
	case !(clip > 0) || clip > MaxClip:
		return fmt.Errorf("%w: clip %g: expected more than 0, at most %d", ErrBound, clip, MaxClip)
	}
	for i, u := range updates {
		if len(u) == 0 || len(u) != len(updates[0]) {
			return fmt.Errorf("%w: update %d has %d numbers, update 0 has %d", ErrLength, i, len(u), len(updates[0]))
		}
	}
	return nil
}

func normOf(u []float32) (float64, error) {
	var sq float64
	for j, x := range u {
		f := float64(x)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return 0, fmt.Errorf("%w: number %d is %g", ErrNotFinite, j, f)
		}
		sq += float64(f * f) // float32 squares cannot overflow float64, and this rounding forbids fusing
	}
	return math.Sqrt(sq), nil
}

// fixed is exact up to 2^-33: |x| <= MaxClip leaves 2^48 steps, which float64 holds.
func fixed(x float64) int64 { return int64(math.RoundToEven(x * (1 << fraction))) }

// divide rounds half away from zero.
func divide(s, n int64) int64 {
	if s < 0 {
		return -divide(-s, n)
	}
	return (s + n/2) / n
}

// Apply adds an update to a base of the same length: the sum is rounded once, to float32.
func Apply(base, update []float32) ([]float32, error) {
	if len(base) == 0 || len(base) != len(update) {
		return nil, fmt.Errorf("%w: base %d, update %d", ErrLength, len(base), len(update))
	}
	out := make([]float32, len(base))
	for i := range base {
		out[i] = float32(float64(base[i]) + float64(update[i]))
		if f := float64(out[i]); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("%w: number %d of the sum", ErrNotFinite, i)
		}
	}
	return out, nil
}
