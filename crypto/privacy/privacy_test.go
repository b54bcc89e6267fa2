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

// An account goes on where it was after it was stored, and what is no account
// leaves it as it is.
func TestAStoredAccountGoesOn(t *testing.T) {
	var a, b Account
	if err := a.Spend(0.02, 2, 1000); err != nil {
		t.Fatal(err)
	}
	enc, err := a.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.UnmarshalBinary(enc); err != nil {
		t.Fatal(err)
	}
	x, _ := a.Epsilon(1e-6)
	if y, err := b.Epsilon(1e-6); err != nil || x != y || x == 0 {
		t.Errorf("%g became %g, %v", x, y, err)
	}
	bad := append([]byte(nil), enc...)
	for i := range 8 {
		bad[1+i] = 0xff // not a number
	}
	for _, in := range [][]byte{nil, {}, {2}, {1, 0}, enc[:len(enc)-1], append(append([]byte(nil), enc...), 0), bad} {
		if err := b.UnmarshalBinary(in); !errors.Is(err, ErrInput) {
			t.Errorf("%d bytes: %v", len(in), err)
		}
	}
	if y, _ := b.Epsilon(1e-6); x != y {
		t.Error("what was refused changed the account")
	}
	var none Account
	if enc, _ = none.MarshalBinary(); b.UnmarshalBinary(enc) != nil {
		t.Error("an empty account is refused")
	}
	if y, _ := b.Epsilon(1e-6); y != 0 {
		t.Errorf("an empty account has %g", y)
	}
}

// Left says what Spend and Epsilon say, one round after the other.
func TestRoundsLeft(t *testing.T) {
	var a Account
	n, err := a.Left(2, 1e-6, 64.0/4096, 4, 1000)
	if err != nil || n < 2 || n > 50 {
		t.Fatalf("%d rounds, %v", n, err)
	}
	for round := range n + 1 {
		if err := a.Spend(64.0/4096, 4, 1000); err != nil {
			t.Fatal(err)
		}
		if eps, _ := a.Epsilon(1e-6); (eps > 2) != (round == n) {
			t.Errorf("round %d of %d: epsilon %g", round+1, n, eps)
		}
	}
	if left, err := a.Left(2, 1e-6, 64.0/4096, 4, 1000); left != 0 || err != nil {
		t.Errorf("spent: %d left, %v", left, err)
	}
	if _, err := a.Left(2, 1e-6, 2, 4, 1); !errors.Is(err, ErrInput) {
		t.Errorf("rate 2: %v", err)
	}
}

func FuzzStoredAccount(f *testing.F) {
	var a Account
	if err := a.Spend(0.02, 2, 10); err != nil {
		f.Fatal(err)
	}
	enc, _ := a.MarshalBinary()
	f.Add(enc)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, in []byte) {
		var b Account
		if b.UnmarshalBinary(in) != nil {
			return
		}
		eps, err := b.Epsilon(1e-6)
		if err != nil || !(eps >= 0) {
			t.Errorf("epsilon %g, %v", eps, err)
		}
		if out, _ := b.MarshalBinary(); string(out) != string(in) {
			t.Error("another encoding")
		}
	})
}
