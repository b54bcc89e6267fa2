package robust

import (
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/quick"
)

// twin is the mean as a textbook has it, in big rationals after clipping.
func twin(updates [][]float32, clip float64) []float32 {
	out := make([]float32, len(updates[0]))
	sums := make([]*big.Rat, len(out))
	for j := range sums {
		sums[j] = new(big.Rat)
	}
	for _, u := range updates {
		var sq float64
		for _, x := range u {
			sq += float64(float64(x) * float64(x))
		}
		scale := 1.0
		if n := math.Sqrt(sq); n > clip {
			scale = clip / n
		}
		for j, x := range u {
			sums[j].Add(sums[j], new(big.Rat).SetFloat64(float64(x)*scale))
		}
	}
	for j := range out {
		f, _ := sums[j].Quo(sums[j], big.NewRat(int64(len(updates)), 1)).Float64()
		out[j] = float32(f)
	}
	return out
}

func random(r *rand.Rand) (updates [][]float32, clip float64) {
	n, dim := 1+r.IntN(12), 1+r.IntN(20)
	size := math.Pow(10, 6*r.Float64()-4)
	for range n {
		u := make([]float32, dim)
		for j := range u {
			u[j] = float32(size * r.NormFloat64())
		}
		updates = append(updates, u)
	}
	return updates, math.Pow(10, 4*r.Float64()-2)
}

// Fixed point differs from the exact mean by at most 2^-32 (rounding of the
// parts and of the quotient), and by float32's own rounding.
func TestMeanEqualsSlowTwin(t *testing.T) {
	prop := func(a, b uint64) bool {
		updates, clip := random(rand.New(rand.NewPCG(a, b)))
		got, _, err := Mean(updates, clip)
		if err != nil {
			return false
		}
		want := twin(updates, clip)
		for j := range want {
			tol := math.Ldexp(1, -32) + math.Abs(float64(want[j]))*math.Ldexp(1, -23)
			if math.Abs(float64(got[j])-float64(want[j])) > tol {
				t.Logf("coordinate %d: %g, twin says %g (tolerance %g)", j, got[j], want[j], tol)
				return false
			}
		}
		return true
	}
	if err := quick.Check(prop, &quick.Config{MaxCount: 20000}); err != nil {
		t.Fatal(err)
	}
}

func TestMeanIgnoresOrder(t *testing.T) {
	prop := func(a, b uint64) bool {
		r := rand.New(rand.NewPCG(a, b))
		updates, clip := random(r)
		first, c1, err1 := Mean(updates, clip)
		r.Shuffle(len(updates), func(i, j int) { updates[i], updates[j] = updates[j], updates[i] })
		second, c2, err2 := Mean(updates, clip)
		return err1 == nil && err2 == nil && c1 == c2 && slices.Equal(first, second)
	}
	if err := quick.Check(prop, &quick.Config{MaxCount: 10000}); err != nil {
		t.Fatal(err)
	}
}

// One update among n moves the mean by no more than clip/n, however large it is.
func TestMeanBoundsOneUpdate(t *testing.T) {
	honest := [][]float32{{0.1, 0}, {0.1, 0}, {0.1, 0}}
	wild := append(slices.Clone(honest), []float32{-3e38, 3e38})
	got, clipped, err := Mean(wild, 1)
	if err != nil || clipped != 1 {
		t.Fatalf("clipped %d, %v; expected one clipped", clipped, err)
	}
	if d := math.Hypot(float64(got[0])-0.075, float64(got[1])); d > 0.25+1e-6 {
		t.Fatalf("one update moved the mean by %g, expected at most 0.25", d)
	}
}

func TestMeanRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	cases := []struct {
		name    string
		updates [][]float32
		clip    float64
		want    error
	}{
		{"none", nil, 1, ErrNone},
		{"empty", [][]float32{{}}, 1, ErrLength},
		{"unequal", [][]float32{{1, 2}, {1}}, 1, ErrLength},
		{"NaN", [][]float32{{1}, {nan}}, 1, ErrNotFinite},
		{"Inf", [][]float32{{inf}}, 1, ErrNotFinite},
		{"clip 0", [][]float32{{1}}, 0, ErrBound},
		{"clip NaN", [][]float32{{1}}, math.NaN(), ErrBound},
		{"clip huge", [][]float32{{1}}, 1e9, ErrBound},
		{"too many", make([][]float32, MaxUpdates+1), 1, ErrBound},
	}
	for _, c := range cases {
		if _, _, err := Mean(c.updates, c.clip); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, expected %v", c.name, err, c.want)
		}
	}
}

// The largest allowed input must not overflow.
func TestMeanAtItsBounds(t *testing.T) {
	updates := make([][]float32, MaxUpdates)
	for i := range updates {
		updates[i] = []float32{-MaxClip}
	}
	got, _, err := Mean(updates, MaxClip)
	if err != nil || got[0] != -MaxClip {
		t.Fatalf("mean %v, %v; expected %d", got, err, -MaxClip)
	}
}

func TestApply(t *testing.T) {
	got, err := Apply([]float32{1, 2}, []float32{0.5, -2})
	if err != nil || !slices.Equal(got, []float32{1.5, 0}) {
		t.Fatalf("apply: %v, %v", got, err)
	}
	if _, err := Apply([]float32{1}, []float32{1, 2}); !errors.Is(err, ErrLength) {
		t.Errorf("unequal: %v", err)
	}
	if _, err := Apply([]float32{math.MaxFloat32}, []float32{math.MaxFloat32}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("overflow: %v", err)
	}
}
