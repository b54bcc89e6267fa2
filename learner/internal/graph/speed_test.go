package graph

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
)

// BenchmarkStep is one step of training a site's autoencoder, on one processor.
func BenchmarkStep(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	shape := infer.Shape{74, 32, 12, 32, 74}
	const rows = 64
	rng := rand.New(rand.NewPCG(1, 2))
	tr, err := New(shape, MSE, rows, infer.Init(shape, rng, false))
	if err != nil {
		b.Fatal(err)
	}
	fill(tr, rng)
	opt := NewAdam(shape.Params(), 0.003)
	b.ReportAllocs()
	for b.Loop() {
		_, grad, err := tr.Gradient()
		if err != nil {
			b.Fatal(err)
		}
		if err := opt.Step(tr.Weights(), grad); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "samples/s")
}
