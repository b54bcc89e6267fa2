package graph

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
)

var small = infer.Shape{6, 5, 4, 3}

// reference computes loss and gradient in float64 by plain backpropagation.
func reference(s infer.Shape, loss Loss, rows int, w, x, target, weight []float32) (float64, []float64) {
	grad := make([]float64, len(w))
	var total float64
	last := s[len(s)-1]
	for r := range rows {
		acts := [][]float64{make([]float64, s[0])}
		for i := range acts[0] {
			acts[0][i] = float64(x[r*s[0]+i])
		}
		at := 0
		var offsets []int
		for l := range len(s) - 1 {
			offsets = append(offsets, at)
			next := make([]float64, s[l+1])
			for j := range next {
				next[j] = float64(w[at+s[l]*s[l+1]+j])
				for i, h := range acts[l] {
					next[j] += h * float64(w[at+i*s[l+1]+j])
				}
				if l < len(s)-2 {
					next[j] = max(next[j], 0)
				}
			}
			at += s[l]*s[l+1] + s[l+1]
			acts = append(acts, next)
		}
		out := acts[len(acts)-1]
		d := make([]float64, last)
		var z, top, mass float64 = 0, slices.Max(out), 0
		for i := range out {
			z += math.Exp(out[i] - top)
			mass += float64(weight[r*last+i] * target[r*last+i])
		}
		for i := range out {
			tg, wt := float64(target[r*last+i]), float64(weight[r*last+i])
			if loss == MSE {
				total += wt * (out[i] - tg) * (out[i] - tg) / float64(rows*last)
				d[i] = 2 * wt * (out[i] - tg) / float64(rows*last)
			} else {
				total -= wt * tg * (out[i] - top - math.Log(z)) / float64(rows)
				d[i] = (math.Exp(out[i]-top)/z*mass - wt*tg) / float64(rows)
			}
		}
		for l := len(s) - 2; l >= 0; l-- {
			back := make([]float64, s[l])
			for i := range back {
				for j := range d {
					grad[offsets[l]+i*s[l+1]+j] += acts[l][i] * d[j]
					back[i] += float64(w[offsets[l]+i*s[l+1]+j]) * d[j]
				}
				if acts[l][i] <= 0 && l > 0 {
					back[i] = 0
				}
			}
			for j := range d {
				grad[offsets[l]+s[l]*s[l+1]+j] += d[j]
			}
			d = back
		}
	}
	return total, grad
}

func filled(t *testing.T, loss Loss, rows int, seed uint64) *Trainer {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	tr, err := New(small, loss, rows, infer.Init(small, rng, false))
	if err != nil {
		t.Fatal(err)
	}
	fill(tr, rng)
	return tr
}

func fill(tr *Trainer, rng *rand.Rand) {
	x, target, weight := tr.Inputs()
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	for i := range target {
		target[i], weight[i] = 0, 1+float32(i%2)
	}
	for r := range tr.rows {
		target[r*3+rng.IntN(3)] = 1
	}
}

func TestGradientAgreesWithReference(t *testing.T) {
	for _, loss := range []Loss{MSE, CrossEntropy} {
		for _, rows := range []int{1, 2, 32} {
			tr := filled(t, loss, rows, 7)
			got, grad, err := tr.Gradient()
			if err != nil {
				t.Fatal(err)
			}
			want, ref := reference(small, loss, rows, tr.Weights(), tr.in[0], tr.in[1], tr.in[2])
			if math.Abs(got-want) > 1e-5*(1+math.Abs(want)) {
				t.Errorf("loss %d, %d rows: %v: expected %v", loss, rows, got, want)
			}
			var diff, norm float64
			for i := range ref {
				diff += (ref[i] - float64(grad[i])) * (ref[i] - float64(grad[i]))
				norm += ref[i] * ref[i]
			}
			if rel := math.Sqrt(diff / norm); !(rel < 1e-5) {
				t.Errorf("loss %d, %d rows: gradient off by %v", loss, rows, rel)
			}
		}
	}
}

// Gorgonia's own LogSoftMax gives infinities where one row's logits tower over another's.
func TestCrossEntropyIsStableAcrossRows(t *testing.T) {
	b := batch{2, 2, []float32{1000, 0, -1000, 0}, []float32{1, 0, 0, 1}, []float32{1, 1, 1, 1}}
	d := make([]float32, 4)
	if loss := b.crossEntropy(d, 1, false); loss != 0 {
		t.Errorf("loss %v: expected 0", loss)
	}
	if err := finite(0, d); err != nil {
		t.Error(err)
	}
}

func TestContradictedLeavesRightRowsAlone(t *testing.T) {
	b := batch{3, 2, []float32{2, 1, 1, 2, 1, 1}, []float32{1, 0, 1, 0, 1, 0}, []float32{1, 1, 1, 1, 1, 1}}
	d := make([]float32, 6)
	if loss := b.crossEntropy(d, 1, true); loss <= 0 {
		t.Errorf("loss %v: expected more than 0 for the wrong row", loss)
	}
	if d[0] != 0 || d[1] != 0 || d[4] != 0 || d[5] != 0 || d[2] >= 0 || d[3] <= 0 {
		t.Errorf("gradient %v: expected the second row's alone", d)
	}
}

func TestForwardAgreesWithInfer(t *testing.T) {
	tr := filled(t, MSE, 32, 9)
	opt := NewAdam(small.Params(), 0.01)
	rng := rand.New(rand.NewPCG(4, 4))
	if _, err := Run(t.Context(), tr, opt, 300, func(int) { fill(tr, rng) }); err != nil {
		t.Fatal(err)
	}
	net, err := infer.New(small, tr.Weights())
	if err != nil {
		t.Fatal(err)
	}
	c := infer.NewScratch(small)
	var worst float64
	for range 400 {
		fill(tr, rng)
		if _, _, err := tr.Gradient(); err != nil {
			t.Fatal(err)
		}
		out, err := tr.Output()
		if err != nil {
			t.Fatal(err)
		}
		for r := range 32 {
			for i, y := range net.Forward(tr.in[0][r*6:(r+1)*6], c) {
				worst = max(worst, math.Abs(float64(y-out[r*3+i])))
			}
		}
	}
	t.Logf("greatest difference over 12,800 rows: %.2g", worst)
	if worst > 1e-5 {
		t.Errorf("differs by %v", worst)
	}
}

// Our Adam, whose state can be stored, against Gorgonia's.
func TestAdamAgreesWithGorgonia(t *testing.T) {
	const n = 8
	ours := make([]float32, n)
	theirs := tensor.New(tensor.WithShape(n), tensor.WithBacking(make([]float32, n)))
	grad := tensor.New(tensor.WithShape(n), tensor.WithBacking(make([]float32, n)))
	opt := NewAdam(n, 0.01)
	solver := gorgonia.NewAdamSolver(gorgonia.WithLearnRate(0.01), gorgonia.WithEps(1e-8))
	rng := rand.New(rand.NewPCG(2, 3))
	for range 100 {
		g := grad.Data().([]float32)
		for i := range g {
			g[i] = float32(rng.NormFloat64())
		}
		if err := opt.Step(ours, g); err != nil {
			t.Fatal(err)
		}
		if err := solver.Step([]gorgonia.ValueGrad{valueGrad{theirs, grad}}); err != nil {
			t.Fatal(err)
		}
	}
	for i, w := range theirs.Data().([]float32) {
		if d := math.Abs(float64(w - ours[i])); d > 1e-5*(1+math.Abs(float64(w))) {
			t.Errorf("weight %d: %v: Gorgonia has %v", i, ours[i], w)
		}
	}
}

type valueGrad struct{ v, g *tensor.Dense }

func (x valueGrad) Value() gorgonia.Value         { return x.v }
func (x valueGrad) Grad() (gorgonia.Value, error) { return x.g, nil }

func TestEqualSeedsGiveEqualBits(t *testing.T) {
	train := func() []float32 {
		tr := filled(t, CrossEntropy, 32, 5)
		rng := rand.New(rand.NewPCG(6, 6))
		if _, err := Run(t.Context(), tr, NewMomentum(small.Params(), 0.05), 50, func(int) { fill(tr, rng) }); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(tr.Weights())
	}
	if !slices.Equal(train(), train()) {
		t.Error("two runs differ")
	}
}

func TestRunStopsWhenCancelled(t *testing.T) {
	tr := filled(t, MSE, 4, 1)
	ctx, cancel := context.WithCancel(t.Context())
	steps := 0
	_, err := Run(ctx, tr, NewAdam(small.Params(), 0.01), 100, func(int) {
		if steps++; steps == 3 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || steps != 3 {
		t.Errorf("after %d steps: %v", steps, err)
	}
}

func TestNotFiniteIsRefused(t *testing.T) {
	tr := filled(t, MSE, 4, 1)
	x, _, _ := tr.Inputs()
	x[0] = float32(math.NaN())
	before := slices.Clone(tr.Weights())
	if _, err := Run(t.Context(), tr, NewAdam(small.Params(), 0.01), 1, func(int) {}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("got %v", err)
	}
	if !slices.Equal(before, tr.Weights()) {
		t.Error("weights changed")
	}
}
