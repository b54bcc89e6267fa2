package privacy

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

// Opacus' own test of its accountant of the same kind (pytorch/opacus,
// opacus/tests/accountants_test.py).
func TestPublishedEpsilon(t *testing.T) {
	const published = 7.32911117143
	var a Account
	if err := a.Spend(0.04, 1.5, 2250); err != nil {
		t.Fatal(err)
	}
	if eps, err := a.Epsilon(1e-5); err != nil || math.Abs(eps-published) > 1e-9 {
		t.Errorf("epsilon %.12f, %v: expected %.12f", eps, err, published)
	}
}

// The series for any order and the sum for whole ones are two ways to one
// number, and at rate 1 there is a closed form.
func TestSeriesMeetTheSum(t *testing.T) {
	for _, rate := range []float64{0.001, 0.01, 0.1, 0.4, 0.9} {
		for _, noise := range []float64{0.7, 1, 2, 5} {
			for order := 2; order < 12; order++ {
				sum, series := whole(rate, noise, order), fraction(rate, noise, float64(order)+1e-7)
				if math.Abs(sum-series) > 1e-5*max(1e-6, sum)+1e-9 {
					t.Errorf("rate %g, noise %g, order %d: sum %g, series %g", rate, noise, order, sum, series)
				}
			}
		}
	}
	if got := divergence(1, 2, 3.5); got != 3.5/8 {
		t.Errorf("rate 1: %g", got)
	}
}

func TestAccount(t *testing.T) {
	var a Account
	if eps, err := a.Epsilon(1e-6); eps != 0 || err != nil {
		t.Errorf("empty: %g, %v", eps, err)
	}
	if err := a.Spend(0.01, 1.1, 1000); err != nil {
		t.Fatal(err)
	}
	b := a.Clone()
	if err := b.Spend(0.01, 1.1, 1000); err != nil {
		t.Fatal(err)
	}
	one, _ := a.Epsilon(1e-6)
	two, _ := b.Epsilon(1e-6)
	if !(one > 0 && two > one && two < 2*one) {
		t.Errorf("one round costs %g, two cost %g", one, two)
	}
	for _, bad := range [][2]float64{{0, 1}, {1.1, 1}, {math.NaN(), 1}, {0.1, 0}, {0.1, math.NaN()}, {0.1, math.Inf(1)}} {
		if err := a.Spend(bad[0], bad[1], 1); !errors.Is(err, ErrInput) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, bad := range []float64{0, 1, -1, math.NaN()} {
		if _, err := a.Epsilon(bad); !errors.Is(err, ErrInput) {
			t.Errorf("delta %g: %v", bad, err)
		}
	}
	if after, _ := a.Epsilon(1e-6); after != one {
		t.Error("what was refused was charged")
	}
}

// One record moves the sum by no more than the clip, whatever it contributes.
func TestOneRecordIsBounded(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, g := range [][]float32{{3e38, -3e38}, {0.1, 0}, {0, 0}, {nan, 1}, {inf, 0}} {
		s, err := NewSum(2, 0.5, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Add(g); err != nil {
			t.Fatal(err)
		}
		out, err := s.Release(1, rand.New(rand.NewPCG(1, 1)))
		if size := math.Hypot(float64(out[0]), float64(out[1])); err != nil || !(size <= 0.5000001) {
			t.Errorf("%v became %v, %v", g, out, err)
		}
		if again, _ := s.Release(1, rand.New(rand.NewPCG(1, 1))); again[0] != 0 {
			t.Error("the sum did not begin anew")
		}
	}
}

func TestNoiseHasItsSize(t *testing.T) {
	const n = 20000
	s, err := NewSum(n, 2, 1.5)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Release(4, rand.New(rand.NewChaCha8([32]byte{1})))
	if err != nil {
		t.Fatal(err)
	}
	var sq float64
	for _, v := range out {
		sq += float64(v) * float64(v)
	}
	if dev := math.Sqrt(sq / n); math.Abs(dev-0.75) > 0.02 {
		t.Errorf("deviation %g, expected 0.75", dev)
	}
	if _, err := NewSum(0, 1, 1); !errors.Is(err, ErrInput) {
		t.Error("no numbers")
	}
	if err := s.Add([]float32{1}); !errors.Is(err, ErrInput) {
		t.Error("another length")
	}
	if _, err := s.Release(0, nil); !errors.Is(err, ErrInput) {
		t.Error("nothing expected")
	}
}
