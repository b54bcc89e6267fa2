package wide

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"gonum.org/v1/gonum/blas"
)

func numbers(rng *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		if out[i] = float32(rng.NormFloat64()); rng.IntN(5) == 0 {
			out[i] = 0 // as rectified ones are
		}
	}
	return out
}

// Products are gonum's to the last bit, whatever the shapes, and wherever in memory
// the matrices begin.
func TestProductsAreGonums(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		m, n, k := 1+rng.IntN(80), 1+rng.IntN(80), 1+rng.IntN(80)
		off := rng.IntN(4)
		for _, tr := range [][2]blas.Transpose{{blas.NoTrans, blas.NoTrans}, {blas.Trans, blas.NoTrans}, {blas.NoTrans, blas.Trans}} {
			lda, ldb := k, n
			if tr[0] == blas.Trans {
				lda = m
			}
			if tr[1] == blas.Trans {
				ldb = k
			}
			a, b := numbers(rng, off+m*k)[off:], numbers(rng, off+n*k)[off:]
			got, want := numbers(rng, m*n), make([]float32, m*n) // what is there before does not matter
			Blas{}.Sgemm(tr[0], tr[1], m, n, k, 1, a, lda, b, ldb, 0, got, n)
			plainly.Sgemm(tr[0], tr[1], m, n, k, 1, a, lda, b, ldb, 0, want, n)
			if !slices.Equal(got, want) {
				t.Fatalf("%c%c %d by %d by %d: not gonum's product", tr[0], tr[1], m, n, k)
			}
		}
	}
}

func TestOtherProductsAreLeftToGonum(t *testing.T) {
	a := []float32{1, 2, 3, 4}
	got, want := []float32{1, 1, 1, 1}, []float32{1, 1, 1, 1}
	Blas{}.Sgemm(blas.Trans, blas.Trans, 2, 2, 2, 2, a, 2, a, 2, 3, got, 2)
	plainly.Sgemm(blas.Trans, blas.Trans, 2, 2, 2, 2, a, 2, a, 2, 3, want, 2)
	if !slices.Equal(got, want) {
		t.Errorf("%v: expected %v", got, want)
	}
}

// someSides: every third feature of the context is suspicious when it is low.
func someSides() *Sides {
	return NewSides(func(i int) int {
		if i%3 == 0 {
			return -1
		}
		return 1
	})
}

func someScale(rng *rand.Rand) *Scale {
	s := &Scale{}
	for i := range Dim {
		s.Mean[i], s.Inv[i] = rng.Float32(), 1+10*rng.Float32()
	}
	return s
}

// asked makes a query about where the others are, some features of it unknown.
func asked(rng *rand.Rand, q *Query, scale *Scale, s *Sides) ([Dim]float32, [2]uint64) {
	var x [Dim]float32
	has := [2]uint64{rng.Uint64() | rng.Uint64(), (rng.Uint64() | rng.Uint64()) & (1<<(Dim-64) - 1)}
	for i := range x {
		if x[i] = float32(rng.NormFloat64()) / 2; has[i/64]>>(i%64)&1 == 0 && rng.IntN(2) == 0 {
			x[i] = 0
		}
	}
	q.Ask(&x, has, 1/float32(40+rng.IntN(17)), 1/float32(1+rng.IntN(17)), scale, s)
	return x, has
}

func TestRectify(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	for n := range 70 {
		x := numbers(rng, n)
		want := slices.Clone(x)
		rectifyPlain(want)
		if Rectify(x); !slices.Equal(x, want) {
			t.Fatalf("%v: expected %v", x, want)
		}
	}
}

// What takes eight numbers at once gives the same as what takes one.
func TestWideEqualsPlain(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	s := someSides()
	for range 300 {
		scale := someScale(rng)
		var q, p, other Query
		x, _ := asked(rng, &q, scale, s)
		p = q
		p.standardPlain(&x, scale, &s.flip)
		if q != p {
			t.Fatalf("units: %+v: expected %+v", q, p)
		}
		_, _ = asked(rng, &other, scale, s)
		var one, two, e1, e2 Row
		q.terms(&one, &other.Z, s)
		q.termsPlain(&two, &other.Z, s)
		if one != two {
			t.Fatalf("differences: %v: expected %v", one, two)
		}
		q.Residuals(&e1, &one, &other.Z, &scale.Inv, s)
		q.residualsPlain(&e2, &two, &other.Z, &scale.Inv, s)
		if one != two || e1 != e2 {
			t.Fatalf("residuals: %v: expected %v", one, two)
		}
	}
}

// Bounds are the same both ways, never above what Differ says, and near it.
func TestBoundsAreBelowDiffer(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	s := someSides()
	var near, n float64
	for range 200 {
		scale := someScale(rng)
		var q, other Query
		var rows [Eight]Row
		var b Block
		var x Boxes
		for lane := range rows {
			_, _ = asked(rng, &other, scale, s)
			rows[lane] = other.Z
			b.Set(lane, &rows[lane], s)
		}
		for lane := range Eight {
			x.Set(lane, &b)
		}
		_, _ = asked(rng, &q, scale, s)
		var got, box Bounds
		if which := q.Block(&got, &b, math.MaxFloat32); which != 0xff {
			t.Fatalf("%08b are within any limit", which)
		}
		q.Boxes(&box, &x)
		for lane := range rows {
			d := q.Differ(&rows[lane], s)
			if got[lane] > d || box[0] > d || got[lane] < box[0] {
				t.Fatalf("bounds %v and %v of %v", got[lane], box[0], d)
			}
			near, n = near+float64(got[lane]/d), n+1
		}
		var plain Bounds
		q.blockPlain(&plain, &b, math.MaxFloat32)
		if limit := q.Differ(&rows[3], s); have && plain != got || q.Block(&got, &b, limit) != q.blockPlain(&plain, &b, limit) {
			t.Fatalf("%v: expected %v", got, plain)
		}
		if q.boxesPlain(&plain, &x); have && plain != box {
			t.Fatalf("%v: expected %v", box, plain)
		}
	}
	if t.Logf("bounds are %.3f of what is bounded", near/n); near < 0.9*n {
		t.Errorf("bounds are %.3f of what is bounded: expected at least 0.9", near/n)
	}
}

// Differ is the sum of what a slow comparison adds up, in its order.
func TestDifferEqualsSlowly(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	s := someSides()
	scale := someScale(rng)
	for range 200 {
		var q, other Query
		_, has := asked(rng, &q, scale, s)
		_, _ = asked(rng, &other, scale, s)
		var sum float32
		for k := range Dim {
			i := (k + Own) % Dim // the context first
			d, w := q.Z[i]-other.Z[i], q.ownWeight
			switch {
			case i >= Own && i%3 == 0:
				d, w = -d, q.ctxW
			case i >= Own:
				w = q.ctxW
			case d < 0:
				d = -d
			}
			if has[i/64]>>(i%64)&1 == 0 || d <= 0 {
				continue
			}
			if d <= 1 {
				sum += w * (d * d)
			} else {
				sum += w * (2*d - 1)
			}
		}
		if got := q.Differ(&other.Z, s); got != sum {
			t.Fatalf("%v: expected %v", got, sum)
		}
	}
}

// What is not a number stays none, and harms nobody.
func TestNaNStaysNaN(t *testing.T) {
	var x [Dim]float32
	x[3] = float32(math.NaN())
	var q Query
	s, scale := someSides(), someScale(rand.New(rand.NewPCG(1, 1)))
	q.Ask(&x, [2]uint64{^uint64(0), 1<<(Dim-64) - 1}, 1, 1, scale, s)
	var b Block
	var out Bounds
	q.Block(&out, &b, 1)
	if d := q.Differ(&Row{}, s); d == d {
		t.Errorf("%v: expected no number", d)
	}
}
