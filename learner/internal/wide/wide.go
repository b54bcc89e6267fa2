// Package wide does what a score and a step of training spend their time on, eight
// numbers at once where the processor can (AVX2), and one by one where it cannot.
//
// Both ways give equal bits: products are not fused with sums, and every sum is made
// in one order, for matrices in that of gonum. So a model that was trained or judged
// with on one machine is the same on another of its architecture.
//
// Rows are as wide as a site's units need, filled up with zeros. The layout of the
// features within them, the flow's own first and its context's after, is that of
// package feature; whoever uses this package has the compiler compare Dim and Own.
package wide

import (
	"encoding/binary"
	"unsafe"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/gonum"
)

const (
	// Lanes is the length of a Row: Dim, and what fills up a multiple of 16.
	Lanes = 80
	// Dim is how many features there are.
	Dim = 74
	// Own is how many of them, the first, are of the flow itself.
	Own = 57
	// Clip bounds a feature in a site's units.
	Clip = 8
)

// Row has a number for each feature.
type Row [Lanes]float32

// Bytes has a byte for each feature.
type Bytes [Lanes]byte

// Pad is the next multiple of 16.
func Pad(n int) int { return (n + 15) &^ 15 }

var plainly gonum.Implementation // stateless

// Mul adds to c, m by n, the product of a, m by k, and b, k by n. The element of a in
// row i and column l is at i*ra + l*ca; rows of c and b begin ldc and ldb apart.
func Mul(c, a, b []float32, m, n, k, ldc, ra, ca, ldb int) {
	if m <= 0 || n <= 0 || k <= 0 {
		return
	}
	mul(c, a, b, m, n, k, ldc, ra, ca, ldb)
}

func mulPlain(c, a, b []float32, m, n, k, ldc, ra, ca, ldb int) {
	if ca == 1 {
		plainly.Sgemm(blas.NoTrans, blas.NoTrans, m, n, k, 1, a, max(ra, k), b, ldb, 1, c, ldc)
		return
	}
	plainly.Sgemm(blas.Trans, blas.NoTrans, m, n, k, 1, a, max(ca, m), b, ldb, 1, c, ldc)
}

// MulRows adds to c, m by n, the products of each row of a with each of b, which are
// of k numbers; rows begin ldc, lda and ldb apart.
func MulRows(c, a, b []float32, m, n, k, ldc, lda, ldb int) {
	if m <= 0 || n <= 0 || k <= 0 {
		return
	}
	mulRows(c, a, b, m, n, k, ldc, lda, ldb)
}

func mulRowsPlain(c, a, b []float32, m, n, k, ldc, lda, ldb int) {
	plainly.Sgemm(blas.NoTrans, blas.Trans, m, n, k, 1, a, lda, b, ldb, 1, c, ldc)
}

// Blas multiplies small matrices of float32 here, and leaves the rest to gonum.
type Blas struct{ gonum.Implementation }

// Sgemm is C = alpha A B + beta C, where A or B may be transposed.
func (g Blas) Sgemm(tA, tB blas.Transpose, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	if alpha != 1 || beta != 0 || tA != blas.NoTrans && tB != blas.NoTrans {
		g.Implementation.Sgemm(tA, tB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
		return
	}
	for i := range m {
		clear(c[i*ldc : i*ldc+n])
	}
	switch {
	case tB != blas.NoTrans:
		MulRows(c, a, b, m, n, k, ldc, lda, ldb)
	case tA != blas.NoTrans:
		Mul(c, a, b, m, n, k, ldc, 1, lda, ldb)
	default:
		Mul(c, a, b, m, n, k, ldc, lda, 1, ldb)
	}
}

// Sides say how a feature's difference counts: of the flow's own features whatever
// its sign is, of its context's on one side only.
type Sides struct {
	keep, flip, side, context Row // keep, flip and context hold bits
}

// NewSides asks for each feature whether more than the expected is suspicious, 1, or
// less, -1; of the flow's own features nothing is asked.
func NewSides(suspect func(feature int) int) *Sides {
	s := &Sides{}
	for i := range Lanes {
		s.keep[i] = fromBits(0x7fffffff)
		if i < Own || i >= Dim {
			continue
		}
		s.keep[i], s.context[i] = fromBits(0xffffffff), fromBits(0xffffffff)
		s.side[i] = 1
		if suspect(i) < 0 {
			s.side[i], s.flip[i] = -1, fromBits(0x80000000)
		}
	}
	return s
}

// Scale brings features into a site's units: less the mean, times Inv.
type Scale struct{ Mean, Inv Row }

// Query is a vector that is compared with others, in a site's units.
type Query struct {
	// In bytes, a sixteenth of a unit each: where it is, and what is taken off a
	// difference, 1 for rounding and all where a feature is not known or not of the part.
	at, own, ctx       Bytes
	ownBound, ctxBound float32 // what a square of a sixteenth weighs in a bound
	ownWeight, ctxW    float32
	known              Bytes // 255 or 0
	Z                  Row   // 0 where it is unknown
}

// The assembler counts on these.
var _ = [1]struct{}{}[(unsafe.Offsetof(Query{}.ownBound)-240)|(unsafe.Offsetof(Query{}.ownWeight)-248)|
	(unsafe.Offsetof(Query{}.known)-256)|(unsafe.Offsetof(Query{}.Z)-336)]

// spread has a byte for each bit.
var spread = func() (t [256]uint64) {
	for i := range t {
		for bit := range 8 {
			if i>>bit&1 == 1 {
				t[i] |= 0xff << (8 * bit)
			}
		}
	}
	return t
}()

const (
	each = 0x0101010101010101
	// The flow's own features end within these eight.
	mixed = Own / 8
	// A bound is made this much less than it is, which is more than rounding can add.
	slack = 1 - 1e-3
	// units is how many steps of a byte a unit has.
	units = 16
)

// Ask makes q of a vector's features, of which has says which are known, and of what
// one of its own and of its context's weighs in a difference.
func (q *Query) Ask(x *[Dim]float32, has [2]uint64, own, ctx float32, scale *Scale, s *Sides) {
	const ownBits = 1<<(8*(Own%8)) - 1
	for i := range Lanes / 8 {
		known := spread[byte(has[i/8]>>(i%8*8))]
		none := ^known | each
		put(&q.known, i, known)
		switch {
		case i < mixed:
			put(&q.own, i, none)
			put(&q.ctx, i, ^uint64(0))
		case i == mixed:
			put(&q.own, i, none|^uint64(ownBits))
			put(&q.ctx, i, none|ownBits)
		default:
			put(&q.own, i, ^uint64(0))
			put(&q.ctx, i, none)
		}
	}
	q.ownWeight, q.ctxW = own, ctx
	q.ownBound, q.ctxBound = own*slack/(units*units), ctx*slack/(units*units)
	q.standard(x, scale, &s.flip)
}

func put(b *Bytes, i int, x uint64) { binary.LittleEndian.PutUint64(b[8*i:], x) }

// Differ says how much the query differs from another row: the sum over features of
// their weights times the square of the difference, or beyond a unit twice the
// difference less one; the context's first.
func (q *Query) Differ(ref *Row, s *Sides) float32 {
	var t Row
	q.terms(&t, ref, s)
	var sum float32
	for _, x := range t[Own:Dim] {
		sum += x
	}
	for _, x := range t[:Own] {
		sum += x
	}
	return sum
}
