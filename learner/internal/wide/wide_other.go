//go:build !amd64

package wide

func mul(c, a, b []float32, m, n, k, ldc, ra, ca, ldb int) {
	mulPlain(c, a, b, m, n, k, ldc, ra, ca, ldb)
}

func mulRows(c, a, b []float32, m, n, k, ldc, lda, ldb int) {
	mulRowsPlain(c, a, b, m, n, k, ldc, lda, ldb)
}

// Rectify puts 0 in the place of what is negative.
func Rectify(x []float32) { rectifyPlain(x) }

func (q *Query) standard(x *[Dim]float32, s *Scale, flip *Row) { q.standardPlain(x, s, flip) }

// Residuals writes how much y is above the query, where that counts, into e, and its
// square times trust into sq.
func (q *Query) Residuals(e, sq, y, trust *Row, s *Sides) { q.residualsPlain(e, sq, y, trust, s) }

func (q *Query) terms(t, ref *Row, s *Sides) { q.termsPlain(t, ref, s) }

func (q *Query) block(out *Bounds, b *Block, limit float32) uint32 {
	return q.blockPlain(out, b, limit)
}

func (q *Query) boxes(out *Bounds, x *Boxes) { q.boxesPlain(out, x) }
