package trees

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// Limits of data and models.
const (
	MaxColumns = 4096
	MaxBins    = 255 // the bin of absent values and those between at most 254 borders
	MaxDepth   = 6
	MaxClasses = 256
	MaxRows    = 1 << 26
	// Of more rows than this a random part says where the borders are.
	borderRows = 100_000
)

// Data are rows of numbers, column by column: Data[c][r]. NaN is absent.
type Data [][]float32

// Rows is the number of rows.
func (d Data) Rows() int {
	if len(d) == 0 {
		return 0
	}
	return len(d[0])
}

func (d Data) check() error {
	if len(d) == 0 || len(d) > MaxColumns {
		return fmt.Errorf("%d columns: expected 1 to %d", len(d), MaxColumns)
	}
	if n := d.Rows(); n == 0 || n > MaxRows {
		return fmt.Errorf("%d rows: expected 1 to %d", n, MaxRows)
	}
	for c, col := range d {
		if len(col) != d.Rows() {
			return fmt.Errorf("column %d has %d rows: expected %d", c, len(col), d.Rows())
		}
	}
	return nil
}

// findBorders places up to bins-2 borders between the values of a column: at
// each gap where values are few, at quantiles where they are many, and one below
// all where some are absent.
func findBorders(col []float32, bins int, rng *rand.Rand) []float32 {
	var v []float32
	if len(col) <= borderRows {
		v = slices.Clone(col)
	} else {
		v = make([]float32, borderRows)
		for i := range v {
			v[i] = col[rng.IntN(len(col))]
		}
	}
	sampled := len(v)
	v = slices.DeleteFunc(v, func(x float32) bool { return x != x })
	slices.Sort(v)
	distinct := slices.Compact(slices.Clone(v))
	if len(v) < sampled && len(v) > 0 { // a border that parts absent from present
		below := math.Nextafter32(v[0], float32(math.Inf(-1)))
		return append([]float32{below}, cuts(v, distinct, bins-1)...)
	}
	return cuts(v, distinct, bins)
}

func cuts(all, distinct []float32, bins int) []float32 {
	if len(distinct) < bins {
		return between(distinct)
	}
	var cuts []float32
	for k := 1; k < bins-1; k++ {
		cuts = append(cuts, all[k*len(all)/(bins-1)])
	}
	cuts = slices.Compact(cuts)
	// A border lies below its quantile, in the gap to the next smaller value.
	out := make([]float32, 0, len(cuts))
	for _, c := range cuts {
		if i := sort.Search(len(distinct), func(i int) bool { return distinct[i] >= c }); i > 0 {
			out = append(out, middle(distinct[i-1], distinct[i]))
		}
	}
	return slices.Compact(out)
}

func between(distinct []float32) []float32 {
	if len(distinct) < 2 {
		return nil
	}
	out := make([]float32, 0, len(distinct)-1)
	for i := 1; i < len(distinct); i++ {
		out = append(out, middle(distinct[i-1], distinct[i]))
	}
	return out
}

// middle is a number m with a <= m < b, so that x > m parts a from b.
func middle(a, b float32) float32 {
	m := float32((float64(a) + float64(b)) / 2)
	if !(m >= a && m < b) { // rounding, or an infinity
		return a
	}
	return m
}

// bin is 0 for an absent value, else 1 + the number of borders below it.
func bin(borders []float32, x float32) uint8 {
	if x != x {
		return 0
	}
	return uint8(1 + sort.Search(len(borders), func(i int) bool { return !(x > borders[i]) }))
}

// binned is data cut into bins.
type binned struct {
	rows    int
	borders [][]float32
	cols    [][]uint8
}

func newBinned(d Data, bins int, seed uint64) *binned {
	b := &binned{rows: d.Rows(), borders: make([][]float32, len(d)), cols: make([][]uint8, len(d))}
	for c, col := range d {
		b.borders[c] = findBorders(col, bins, rand.New(rand.NewPCG(seed, uint64(c))))
		b.cols[c] = make([]uint8, len(col))
		for r, x := range col {
			b.cols[c][r] = bin(b.borders[c], x)
		}
	}
	return b
}

// checkTarget wants a class for each row, and weights that are sane.
func checkTarget(rows int, class []int, weight []float32, classes int) error {
	if classes < 2 || classes > MaxClasses {
		return fmt.Errorf("%d classes: expected 2 to %d", classes, MaxClasses)
	}
	if len(class) != rows || (weight != nil && len(weight) != rows) {
		return fmt.Errorf("%d rows, %d classes, %d weights: expected as many of each, or no weights", rows, len(class), len(weight))
	}
	var total float64
	for r, k := range class {
		if k < 0 || k >= classes {
			return fmt.Errorf("row %d: class %d: expected 0 to %d", r, k, classes-1)
		}
		if weight != nil {
			w := float64(weight[r])
			if !(w >= 0) || math.IsInf(w, 0) {
				return fmt.Errorf("row %d: weight %v: expected a finite one of at least 0", r, w)
			}
			total += w
		}
	}
	if weight != nil && total <= 0 {
		return errors.New("all weights are 0")
	}
	return nil
}
