package privacy

import (
	"fmt"
	"math"
)

// Normal is a source of standard normal numbers. Whatever leaves the site takes
// it from a generator that nobody can foretell, seeded by the system: rand.New
// of a ChaCha8; a simulation may take any.
type Normal interface{ NormFloat64() float64 }

// Sum is the gradient of one step: contributions cut to a length, then noise.
type Sum struct {
	clip, noise float64
	total       []float64
}

// NewSum is for gradients of a size; contributions are cut to the Euclidean
// length clip, and noise is the deviation of what is added, in clips.
func NewSum(size int, clip, noise float64) (*Sum, error) {
	if size < 1 || !(clip > 0 && clip <= 1e6) || !(noise >= 0 && noise <= 1e6) {
		return nil, fmt.Errorf("%w: %d numbers, clip %g, noise %g: expected at least 1, above 0 to 1e6, 0 to 1e6", ErrInput, size, clip, noise)
	}
	return &Sum{clip: clip, noise: noise, total: make([]float64, size)}, nil
}

// Add takes in what one record contributes. A contribution that is not finite
// counts as none: it would have no length to be cut to.
func (s *Sum) Add(gradient []float32) error {
	if len(gradient) != len(s.total) {
		return fmt.Errorf("%w: gradient of %d numbers: expected %d", ErrInput, len(gradient), len(s.total))
	}
	var sq float64
	for _, g := range gradient {
		sq += float64(g) * float64(g)
	}
	if math.IsNaN(sq) || math.IsInf(sq, 0) {
		return nil
	}
	scale := min(1, s.clip/math.Sqrt(sq)) // of nothing: min(1, infinity)
	for i, g := range gradient {
		s.total[i] += scale * float64(g)
	}
	return nil
}

// Release returns the noisy sum divided by a number that was fixed before any
// record was looked at (how many were expected), and begins anew.
func (s *Sum) Release(expected float64, from Normal) ([]float32, error) {
	if !(expected > 0) || math.IsInf(expected, 1) {
		return nil, fmt.Errorf("%w: %g records expected: it must be above 0", ErrInput, expected)
	}
	out := make([]float32, len(s.total))
	for i, v := range s.total {
		out[i] = float32((v + s.noise*s.clip*from.NormFloat64()) / expected)
	}
	clear(s.total)
	return out, nil
}
