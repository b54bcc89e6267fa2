package robust

import (
	"cmp"
	"math"
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

func floatNorm(u []float32) float64 {
	var sq float64
	for _, v := range u {
		sq += float64(v) * float64(v)
	}
	return math.Sqrt(sq)
}

func floatClip(u []float32, most float64) []float32 {
	out := slices.Clone(u)
	if size := floatNorm(u); size > most {
		for j := range out {
			out[j] *= float32(most / size)
		}
	}
	return out
}

func floatApart(a, b []float32) float64 {
	b = b[:len(a)]
	var even, odd float64
	j := 0
	for ; j+1 < len(a); j += 2 {
		d, e := float64(a[j]-b[j]), float64(a[j+1]-b[j+1])
		even += d * d
		odd += e * e
	}
	return even + odd
}

func floatSums(x [][]float32, weight []float64, f func(from int, sum []float64)) {
	var buf [stripe]float64
	for from := 0; from < len(x[0]); from += stripe {
		sum := buf[:min(stripe, len(x[0])-from)]
		clear(sum)
		for i, row := range x {
			w := 1.0
			if weight != nil {
				w = weight[i]
			}
			for j, v := range row[from : from+len(sum)] {
				sum[j] += w * float64(v)
			}
		}
		f(from, sum)
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

func floatMedian(x [][]float32) []float32 {
	z := make([]float32, len(x[0]))
	columns(x, func(j int, col []float32) {
		k := len(col) / 2
		settle(col, k)
		z[j] = (slices.Max(col[:k]) + col[k]) / 2
	})
	return z
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

func floatGeometric(x [][]float32) []float32 {
	z, next, weight := floatMedian(x), make([]float32, len(x[0])), make([]float64, len(x))
	for range weiszfeldSteps {
		var total float64
		for i, row := range x {
			weight[i] = 1 / max(math.Sqrt(floatApart(row, z)), 1e-6)
			total += weight[i]
		}
		floatSums(x, weight, func(from int, sum []float64) {
			for j, s := range sum {
				next[from+j] = float32(s / total)
			}
		})
		z, next = next, z
	}
	return z
}

func floatMask(z []float32, x [][]float32, f int) []float32 {
	var buf [stripe]int32
	for from := 0; from < len(z); from += stripe {
		part := z[from:min(from+stripe, len(z))]
		votes := buf[:len(part)]
		clear(votes)
		for _, row := range x {
			for j, v := range row[from : from+len(part)] {
				if v*part[j] > 0 {
					votes[j]++
				}
			}
		}
		for j, n := range votes {
			if int(n) < f+1 {
				part[j] = 0
			}
		}
	}
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
