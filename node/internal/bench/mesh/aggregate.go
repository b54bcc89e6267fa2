package mesh

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation/robust"
)

// aggregateRow times the default rule in fixed point beside the same algorithm in
// floating point, in turns.
func aggregateRow(ctx context.Context, r *runner) (*Row, error) {
	n, turns := 100, 9
	if r.Quick {
		n, turns = 10, 3
	}
	updates := noise(n, r.Params, 1)
	spec, err := robust.Default(n)
	if err != nil {
		return nil, err
	}
	var fixed, float []time.Duration
	var ratios []float64
	for range turns {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := spec.Aggregate(updates); err != nil {
			return nil, err
		}
		middle := time.Now()
		robust.Float(updates, spec.F)
		end := time.Now()
		fixed, float = append(fixed, middle.Sub(began)), append(float, end.Sub(middle))
		ratios = append(ratios, float64(middle.Sub(began))/float64(end.Sub(middle)))
	}
	slices.Sort(ratios)
	row := &Row{Sites: n, Series: []Series{series("fixed point", fixed), series("floating point", float)}}
	row.Figures = []Figure{
		{Name: "fixed point / floating point, median", Value: ratios[len(ratios)/2], Target: 2},
		{Name: "fixed point, p50", Value: row.Series[0].at(0.5), Unit: "ms"},
		{Name: "floating point, p50", Value: row.Series[1].at(0.5), Unit: "ms"},
	}
	return row, nil
}

// noise is n updates of small numbers that differ.
func noise(n, params int, seed uint64) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, 0x6e6f697365))
	out := make([][]float32, n)
	for i := range out {
		out[i] = make([]float32, params)
		for j := range out[i] {
			out[i][j] = float32(rng.NormFloat64()) / float32(math.Sqrt(float64(params)))
		}
	}
	return out
}
