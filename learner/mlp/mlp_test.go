package mlp

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/internal/graph"
)

var shape = Shape{40, 24, 12, 5}

// twin puts the same batch before Gorgonia.
type twin struct {
	rows  *Rows
	x     []float32
	batch []int
	graph *graph.Trainer
}

func newTwin(t testing.TB, s Shape, n, batch int) *twin {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	w := &twin{x: make([]float32, n*s[0])}
	class := make([]int, n)
	for i := range class {
		class[i] = rng.IntN(s[len(s)-1])
		for j := range s[0] {
			if rng.IntN(3) == 0 {
				w.x[i*s[0]+j] = float32(rng.NormFloat64()) + float32(class[i])/4
			}
		}
	}
	var err error
	if w.rows, err = NewRows(w.x, s[0], class); err != nil {
		t.Fatal(err)
	}
	for range batch {
		w.batch = append(w.batch, rng.IntN(n))
	}
	if w.graph, err = graph.New(s, graph.CrossEntropy, batch, Init(s, 7)); err != nil {
		t.Fatal(err)
	}
	return w
}

// fill writes the batch into Gorgonia's inputs.
func (w *twin) fill(s Shape) {
	x, y, weight := w.graph.Inputs()
	clear(y)
	k := s[len(s)-1]
	for b, r := range w.batch {
		w.rows.Dense(r, x[b*s[0]:(b+1)*s[0]])
		y[b*k+w.rows.Class[r]] = 1
		for i := range k {
			weight[b*k+i] = 1
		}
	}
}

// TestStepEqualsGorgonia takes thirty steps side by side: loss, gradient and the
// weights that come of them are the same within the noise of float32.
func TestStepEqualsGorgonia(t *testing.T) {
	w := newTwin(t, shape, 200, 32)
	tr, err := NewTrainer(shape)
	if err != nil {
		t.Fatal(err)
	}
	mine := Init(shape, 7)
	ours, theirs := graph.NewMomentum(shape.Params(), 0.05), graph.NewMomentum(shape.Params(), 0.05)
	rng := rand.New(rand.NewPCG(9, 9))
	var first, last float64
	for step := range 30 {
		for b := range w.batch {
			w.batch[b] = rng.IntN(w.rows.Len())
		}
		w.fill(shape)
		want, wantGrad, err := w.graph.Gradient()
		if err != nil {
			t.Fatal(err)
		}
		got, grad := tr.Gradient(mine, w.rows, w.batch, nil)
		if math.Abs(got-want) > 1e-5 {
			t.Fatalf("step %d: loss %v, Gorgonia %v", step, got, want)
		}
		for i := range grad {
			if math.Abs(float64(grad[i]-wantGrad[i])) > 1e-5 {
				t.Fatalf("step %d: gradient %d is %v, Gorgonia's %v", step, i, grad[i], wantGrad[i])
			}
		}
		if step == 0 {
			first = got
		}
		last = got
		if err := ours.Step(mine, grad); err != nil {
			t.Fatal(err)
		}
		if err := theirs.Step(w.graph.Weights(), wantGrad); err != nil {
			t.Fatal(err)
		}
	}
	for i, x := range w.graph.Weights() {
		if math.Abs(float64(mine[i]-x)) > 1e-4 {
			t.Fatalf("weight %d after thirty steps: %v, Gorgonia's %v", i, mine[i], x)
		}
	}
	if last >= first {
		t.Errorf("loss %v -> %v: nothing was learnt, so nothing was compared", first, last)
	}
}

func TestTrainRefusesAndRepeats(t *testing.T) {
	w := newTwin(t, shape, 200, 8)
	tr, err := NewTrainer(shape)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]int, w.rows.Len())
	for i := range all {
		all[i] = i
	}
	train := func(seed uint64, rate float64) ([]float32, error) {
		v := Init(shape, 7)
		return v, tr.Train(v, w.rows, all, nil, Options{Steps: 20, Batch: 16, Rate: rate}, rand.New(rand.NewPCG(seed, 1)))
	}
	a, err := train(1, 0.05)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := train(1, 0.05)
	c, _ := train(2, 0.05)
	same, other := true, true
	for i := range a {
		same, other = same && a[i] == b[i], other && a[i] == c[i]
	}
	if !same || other {
		t.Errorf("equal seeds equal: %v; other seeds equal: %v", same, other)
	}
	if _, err := train(1, 1e30); err == nil {
		t.Error("a rate that runs off to infinity was not noticed")
	}
	if err := tr.Train(a, w.rows, nil, nil, Options{Steps: 1, Batch: 1, Rate: 1}, nil); err == nil {
		t.Error("no rows were accepted")
	}
	if _, err := NewRows(w.x, 39, w.rows.Class); err == nil {
		t.Error("rows of the wrong width were accepted")
	}
}

// BenchmarkStep is one step here and with Gorgonia, in one run.
func BenchmarkStep(b *testing.B) {
	s := Shape{118, 48, 5}
	w := newTwin(b, s, 200, 32)
	w.fill(s)
	opt := graph.NewMomentum(s.Params(), 0.05)
	b.Run("gorgonia", func(b *testing.B) {
		for b.Loop() {
			_, g, err := w.graph.Gradient()
			if err != nil {
				b.Fatal(err)
			}
			if err := opt.Step(w.graph.Weights(), g); err != nil {
				b.Fatal(err)
			}
		}
	})
	tr, err := NewTrainer(s)
	if err != nil {
		b.Fatal(err)
	}
	v := Init(s, 7)
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			_, g := tr.Gradient(v, w.rows, w.batch, nil)
			if err := opt.Step(v, g); err != nil {
				b.Fatal(err)
			}
		}
	})
}
