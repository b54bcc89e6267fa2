package learner

import (
	"cmp"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Comparison is how two models differ on the same vectors.
type Comparison struct {
	N      int        `json:"n"`
	Levels []LevelRow `json:"levels"`
	// Features are those whose share in the explanations changed most, over
	// the vectors that either model finds most unusual.
	Explained int            `json:"explained"`
	Features  []FeatureShift `json:"features"`
	// Differ are the vectors on which the two disagree at Level, by index, the
	// greatest difference first.
	Level  float64      `json:"level"`
	OnlyA  int          `json:"only_a"`
	OnlyB  int          `json:"only_b"`
	Differ []Difference `json:"differ"`
}

// LevelRow is how many vectors each model puts under a p-value.
type LevelRow struct {
	P float64 `json:"p"`
	A int     `json:"a"`
	B int     `json:"b"`
}

// FeatureShift is a feature's mean share in the explanations of each model.
type FeatureShift struct {
	Name string  `json:"name"`
	A    float64 `json:"a"`
	B    float64 `json:"b"`
}

// Difference is one vector that only one of the models would alarm on.
type Difference struct {
	Index int     `json:"index"`
	A     float64 `json:"p_a"`
	B     float64 `json:"p_b"`
	// Words say what the model that would alarm names first.
	Words string `json:"words"`
}

const (
	mostExplained = 200
	mostShifts    = 10
	mostDiffer    = 20
)

// Compare holds two models against the same vectors; level is the p-value
// under which a vector counts as an alarm.
func Compare(a, b *Model, vs []feature.Vector, level float64) Comparison {
	c := Comparison{N: len(vs), Level: level}
	s := NewScratch()
	pa, pb := make([]float64, len(vs)), make([]float64, len(vs))
	for i := range vs {
		pa[i], pb[i] = a.Score(&vs[i], s).P, b.Score(&vs[i], s).P
	}
	for _, p := range []float64{0.1, 0.01, 0.001, 0.0001} {
		c.Levels = append(c.Levels, LevelRow{p, under(pa, p), under(pb, p)})
	}
	for i := range vs {
		switch {
		case pa[i] < level && pb[i] >= level:
			c.OnlyA++
		case pb[i] < level && pa[i] >= level:
			c.OnlyB++
		default:
			continue
		}
		c.Differ = append(c.Differ, Difference{Index: i, A: pa[i], B: pb[i]})
	}
	ratio := func(d Difference) float64 { return max(d.A, d.B) / min(d.A, d.B) }
	slices.SortStableFunc(c.Differ, func(x, y Difference) int { return cmp.Compare(ratio(y), ratio(x)) })
	c.Differ = c.Differ[:min(len(c.Differ), mostDiffer)]
	for i := range c.Differ {
		d := &c.Differ[i]
		who := a
		if d.B < d.A {
			who = b
		}
		if x := who.Explain(&vs[d.Index], s); len(x) > 0 {
			d.Words = x[0].Words
		}
	}
	c.shifts(a, b, vs, pa, pb, s)
	return c
}

func under(p []float64, level float64) (n int) {
	for _, x := range p {
		if x < level {
			n++
		}
	}
	return n
}

// shifts explains the vectors that either model finds most unusual by both.
func (c *Comparison) shifts(a, b *Model, vs []feature.Vector, pa, pb []float64, s *Scratch) {
	by := make([]int, len(vs))
	for i := range by {
		by[i] = i
	}
	slices.SortStableFunc(by, func(x, y int) int { return cmp.Compare(min(pa[x], pb[x]), min(pa[y], pb[y])) })
	by = by[:min(len(by), mostExplained)]
	c.Explained = len(by)
	var sum [2][feature.Dim]float64
	for _, i := range by {
		for k, m := range []*Model{a, b} {
			for _, x := range m.Explain(&vs[i], s) {
				sum[k][x.Feature] += x.Weight / float64(len(by))
			}
		}
	}
	for i := range feature.Dim {
		if sum[0][i] != 0 || sum[1][i] != 0 {
			c.Features = append(c.Features, FeatureShift{feature.Name(i), sum[0][i], sum[1][i]})
		}
	}
	gap := func(f FeatureShift) float64 { return max(f.A-f.B, f.B-f.A) }
	slices.SortStableFunc(c.Features, func(x, y FeatureShift) int { return cmp.Compare(gap(y), gap(x)) })
	c.Features = c.Features[:min(len(c.Features), mostShifts)]
}
