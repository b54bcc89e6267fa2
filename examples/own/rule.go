package own

import (
	"fmt"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// Middle is a rule: of each number it takes the mean of the lower and the upper
// quartile.
type Middle struct{}

// About says what it is.
func (Middle) About() robust.About {
	return robust.About{Name: "quartiles", Paper: "an example", Breakdown: "f < n/4", Research: true}
}

// Check refuses more liars than reach a quartile.
func (Middle) Check(n, f int) error {
	if 4*f >= n {
		return fmt.Errorf("%w: %d of %d may lie: expected fewer than a quarter", robust.ErrVoid, f, n)
	}
	return nil
}

// Combine uses whole numbers only, as every rule must.
func (Middle) Combine(x [][]int32, _ int) ([]int32, error) {
	out, column := make([]int32, len(x[0])), make([]int32, len(x))
	for j := range out {
		for i, row := range x {
			column[i] = row[j]
		}
		slices.Sort(column)
		low, high := column[len(column)/4], column[len(column)-1-len(column)/4]
		out[j] = int32((int64(low) + int64(high)) / 2)
	}
	return out, nil
}
