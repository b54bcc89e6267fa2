package robust

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// BenchmarkAggregate times the presets and the rules beside them for 100 updates
// of 16,384 numbers, each in the same run as the same algorithm in floating
// point, written with the same care for caches. Only ratios mean something.
func BenchmarkAggregate(b *testing.B) {
	const n, d, f = 100, 16384, 30
	updates := asFloats(rows(rand.New(rand.NewPCG(1, 2)), n, d, Unit/64, Unit/64))
	for _, c := range []struct {
		name string
		f    int
		twin func(x [][]float32, f int) []float32
	}{
		{NameMean, 0, func(x [][]float32, _ int) []float32 { return floatAverage(x) }},
		{NameMedian, f, func(x [][]float32, _ int) []float32 { return floatMedian(x) }},
		{NameTrimmed, f, floatTrimmed},
		{NameGeometricMasked, f, func(x [][]float32, f int) []float32 { return floatMask(floatGeometric(x), x, f) }},
		{NameMixedTrimmedMask, f, func(x [][]float32, f int) []float32 {
			return floatMask(floatTrimmed(floatMix(floatShorten(x, f), f), f), x, f)
		}},
	} {
		rule, err := All().Find(c.name)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(c.name+"/fixed", func(b *testing.B) {
			for b.Loop() {
				if _, err := Run(rule, c.f, 64, updates); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/float", func(b *testing.B) {
			for b.Loop() {
				x := make([][]float32, n)
				for i, u := range updates {
					x[i] = floatClip(u, 64)
				}
				c.twin(x, c.f)
			}
		})
	}
}

func floatAverage(x [][]float32) []float32 {
	out := make([]float32, len(x[0]))
	floatSums(x, nil, func(from int, sum []float64) {
		for j, s := range sum {
			out[from+j] = float32(s / float64(len(x)))
		}
	})
	return out
}

func floatTrimmed(x [][]float32, f int) []float32 {
	z := make([]float32, len(x[0]))
	columns(x, func(j int, col []float32) {
		settle(col, f)
		rest := col[f:]
		settle(rest, len(rest)-f)
		var sum float64
		for _, v := range rest[:len(rest)-f] {
			sum += float64(v)
		}
		z[j] = float32(sum / float64(len(rest)-f))
	})
	return z
}

func floatShorten(x [][]float32, f int) [][]float32 {
	var norms []float64
	for _, row := range x {
		norms = append(norms, floatNorm(row))
	}
	limit := slices.SortedFunc(slices.Values(norms), func(a, b float64) int { return cmp.Compare(b, a) })[2*f*(len(x)-f)/len(x)]
	out := make([][]float32, len(x))
	for i, row := range x {
		out[i] = row
		if norms[i] > limit {
			out[i] = floatClip(row, limit)
		}
	}
	return out
}

func floatMix(x [][]float32, f int) [][]float32 {
	all := make([]float64, len(x[0]))
	floatSums(x, nil, func(from int, sum []float64) { copy(all[from:], sum) })
	out := make([][]float32, len(x))
	d := make([][]float64, len(x))
	for i := range d {
		d[i] = make([]float64, len(x))
		for k := range i {
			d[i][k] = floatApart(x[i], x[k])
			d[k][i] = d[i][k]
		}
	}
	for i := range x {
		order := make([]int, len(x))
		for k := range order {
			order[k] = k
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(d[i][a], d[i][b]) })
		var far [][]float32
		for _, k := range order[len(x)-f:] {
			far = append(far, x[k])
		}
		row := make([]float32, len(all))
		floatSums(far, nil, func(from int, sum []float64) {
			for j, s := range sum {
				row[from+j] = float32((all[from+j] - s) / float64(len(x)-f))
			}
		})
		out[i] = row
	}
	return out
}
