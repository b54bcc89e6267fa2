package infer

import (
	"math"
	"math/rand/v2"
	"testing"
)

var shape = Shape{64, 32, 12, 32, 64}

// naive is the obvious forward pass in float64.
func naive(n *Net, x []float32) []float64 {
	h := make([]float64, len(x))
	for i, v := range x {
		h[i] = float64(v)
	}
	at := 0
	for l := range len(n.shape) - 1 {
		in, out := n.shape[l], n.shape[l+1]
		next := make([]float64, out)
		for j := range out {
			next[j] = float64(n.weights[at+in*out+j])
			for i := range in {
				next[j] += h[i] * float64(n.weights[at+i*out+j])
			}
			if l < len(n.shape)-2 {
				next[j] = max(next[j], 0)
			}
		}
		at += in*out + out
		h = next
	}
	return h
}

func sample(t testing.TB) (*Net, []float32) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	n, err := New(shape, Init(shape, rng, false))
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float32, shape[0])
	for i := range x {
		x[i] = float32(rng.NormFloat64())
	}
	return n, x
}

func TestForwardAgreesWithNaive(t *testing.T) {
	n, x := sample(t)
	want := naive(n, x)
	for i, got := range n.Forward(x, NewScratch(shape)) {
		if math.Abs(float64(got)-want[i]) > 1e-5 {
			t.Fatalf("output %d: %v: expected %v", i, got, want[i])
		}
	}
}

func TestForwardAllocatesNothing(t *testing.T) {
	n, x := sample(t)
	c := NewScratch(shape)
	if a := testing.AllocsPerRun(100, func() { n.Forward(x, c) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

func TestInputGradientAgreesWithDifferences(t *testing.T) {
	n, x := sample(t)
	c := NewScratch(shape)
	up := make([]float32, 64)
	for i := range up {
		up[i] = float32(i%5) - 2
	}
	value := func() (sum float64) {
		for i, y := range naive(n, x) {
			sum += float64(up[i]) * y
		}
		return sum
	}
	grad := make([]float32, 64)
	n.Forward(x, c)
	n.InputGradient(grad, up, c)
	for i := range x {
		const h = 1e-3
		old := x[i]
		x[i] = old + h
		hi := value()
		x[i] = old - h
		lo := value()
		x[i] = old
		if num := (hi - lo) / (2 * h); math.Abs(num-float64(grad[i])) > 1e-2*(1+math.Abs(num)) {
			t.Errorf("input %d: %v: by differences %v", i, grad[i], num)
		}
	}
}

func TestNewRefusesWhatCannotBe(t *testing.T) {
	for name, tc := range map[string]struct {
		s Shape
		w []float32
	}{
		"no layer":   {Shape{3}, nil},
		"too wide":   {Shape{3, MaxWidth + 1}, nil},
		"too few":    {Shape{2, 1}, []float32{1}},
		"not finite": {Shape{1, 1}, []float32{float32(math.NaN()), 0}},
		"too large":  {Shape{1, 1}, []float32{1e9, 0}},
	} {
		if _, err := New(tc.s, tc.w); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkForward(b *testing.B) {
	n, x := sample(b)
	c := NewScratch(shape)
	b.ReportAllocs()
	for b.Loop() {
		n.Forward(x, c)
	}
}
