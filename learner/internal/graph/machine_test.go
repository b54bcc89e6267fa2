package graph

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// The machine and Gorgonia's own give equal bits, batch after batch: nothing of
// one run is left in the next.
func TestMachineAgreesWithGorgonia(t *testing.T) {
	for _, loss := range []Loss{MSE, CrossEntropy, Contradicted} {
		for _, rows := range []int{1, 2, 32} {
			tr := filled(t, loss, rows, 5)
			tape := gorgonia.NewTapeMachine(tr.loss.Graph())
			rng := rand.New(rand.NewPCG(3, uint64(rows)))
			for run := range 4 {
				got, grad, err := tr.Gradient()
				if err != nil {
					t.Fatal(err)
				}
				tape.Reset()
				if err := tape.RunAll(); err != nil {
					t.Fatal(err)
				}
				want := float64(tr.loss.Value().Data().(float32))
				var ref []float32
				for _, n := range tr.grads {
					ref = append(ref, n.Value().Data().([]float32)...)
				}
				if got != want || !slices.Equal(grad, ref) {
					t.Fatalf("loss %d, %d rows, run %d: %v and %v: expected %v and %v", loss, rows, run, got, grad, want, ref)
				}
				fill(tr, rng)
				for i := range tr.weights {
					tr.weights[i] += float32(rng.NormFloat64()) / 100
				}
			}
			if err := tape.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A step stays in the goroutine that asks for it, and leaves little behind.
func TestAStepAllocatesLittle(t *testing.T) {
	tr := filled(t, MSE, 32, 5)
	if _, _, err := tr.Gradient(); err != nil {
		t.Fatal(err)
	}
	const most = 300
	if n := testing.AllocsPerRun(50, func() { _, _, _ = tr.Gradient() }); n > most {
		t.Errorf("%v allocations a step: expected at most %d", n, most)
	}
}

func TestMachineNamesWhatFails(t *testing.T) {
	g := gorgonia.NewGraph()
	x := gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName("x"), gorgonia.WithShape(2, 2))
	if _, err := newMachine(g, x); err == nil {
		t.Error("an input without a value was taken")
	}
	if _, err := (diffOp{MSE}).Do(); err == nil {
		t.Error("a gradient without inputs was taken")
	}
	in := tensor.New(tensor.WithShape(2, 1), tensor.WithBacking([]float32{1, float32(math.Pi)}))
	if _, err := (diffOp{MSE}).UsePreallocDo(tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(1, 1)), in, in, in, gorgonia.NewF32(1)); err == nil {
		t.Error("memory that is too small was taken")
	}
}
