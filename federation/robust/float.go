package robust

import (
	"math"
	"slices"
)

// Float is the default rule for updates in floating point, step for step and with
// the same care for caches. It exists to be timed beside the rule in fixed point:
// what it returns may differ from one machine to the next, so no model is made of
// it. f is as in Spec; updates are of one length and finite.
func Float(updates [][]float32, f int) []float32 {
	x := make([][]float32, len(updates))
	for i, u := range updates {
		x[i] = floatClip(u, DefaultClip)
	}
	return floatMask(floatGeometric(x), x, f)
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

func floatMedian(x [][]float32) []float32 {
	z := make([]float32, len(x[0]))
	columns(x, func(j int, col []float32) {
		k := len(col) / 2
		settle(col, k)
		z[j] = (slices.Max(col[:k]) + col[k]) / 2
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
