package robust

import (
	"fmt"
	"math"
)

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
