package wide

import "golang.org/x/sys/cpu"

// have says that the processor takes eight numbers at once.
var have = cpu.X86.HasAVX2

//go:noescape
func gemm(c, a, b *float32, m, n, k, ldc, ra, ca, ldb int)

//go:noescape
func dots(c, a, b *float32, m, n, k, ldc, lda, ldb int)

//go:noescape
func rectify(x *float32, n int)

//go:noescape
func standard(z *Row, q *Bytes, x *float32, known *Bytes, mean, inv, flip *Row)

//go:noescape
func residuals(e, q, y, z *Row, known *Bytes, side, trust *Row)

//go:noescape
func terms(t *Row, q *Query, ref, keep, flip, context *Row)

//go:noescape
func block(out *Bounds, refs *Block, q *Query, limit float32) uint32

//go:noescape
func boxes(out *Bounds, b *Boxes, q *Query)

func mul(c, a, b []float32, m, n, k, ldc, ra, ca, ldb int) {
	if !have {
		mulPlain(c, a, b, m, n, k, ldc, ra, ca, ldb)
		return
	}
	_, _, _ = c[(m-1)*ldc+n-1], a[(m-1)*ra+(k-1)*ca], b[(k-1)*ldb+n-1]
	gemm(&c[0], &a[0], &b[0], m, n, k, ldc, ra, ca, ldb)
}

// most is how many rows or columns are multiplied without gonum, which takes more of
// them in parts, and so adds in another order.
const most = 64

func mulRows(c, a, b []float32, m, n, k, ldc, lda, ldb int) {
	if !have || m > most && n > most {
		mulRowsPlain(c, a, b, m, n, k, ldc, lda, ldb)
		return
	}
	_, _, _ = c[(m-1)*ldc+n-1], a[(m-1)*lda+k-1], b[(n-1)*ldb+k-1]
	dots(&c[0], &a[0], &b[0], m, n, k, ldc, lda, ldb)
}

// Rectify puts 0 in the place of what is negative.
func Rectify(x []float32) {
	if have && len(x)%16 == 0 && len(x) > 0 {
		rectify(&x[0], len(x))
	} else {
		rectifyPlain(x)
	}
}

func (q *Query) standard(x *[Dim]float32, s *Scale, flip *Row) {
	if have {
		standard(&q.Z, &q.at, &x[0], &q.known, &s.Mean, &s.Inv, flip)
	} else {
		q.standardPlain(x, s, flip)
	}
}

// Residuals writes how much y is above the query, where that counts, into e, and its
// square times trust into sq.
func (q *Query) Residuals(e, sq, y, trust *Row, s *Sides) {
	if have {
		residuals(e, sq, y, &q.Z, &q.known, &s.side, trust)
	} else {
		q.residualsPlain(e, sq, y, trust, s)
	}
}

func (q *Query) terms(t, ref *Row, s *Sides) {
	if have {
		terms(t, q, ref, &s.keep, &s.flip, &s.context)
	} else {
		q.termsPlain(t, ref, s)
	}
}

func (q *Query) block(out *Bounds, b *Block, limit float32) uint32 {
	if have {
		return block(out, b, q, limit)
	}
	return q.blockPlain(out, b, limit)
}

func (q *Query) boxes(out *Bounds, x *Boxes) {
	if have {
		boxes(out, x, q)
	} else {
		q.boxesPlain(out, x)
	}
}
