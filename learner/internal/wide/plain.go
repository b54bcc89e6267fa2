package wide

import "math"

func fromBits(b uint32) float32 { return math.Float32frombits(b) }
func bits(x float32) uint32     { return math.Float32bits(x) }

func rectifyPlain(x []float32) {
	for i, v := range x {
		x[i] = max(v, 0)
	}
}

func (q *Query) standardPlain(x *[Dim]float32, s *Scale, flip *Row) {
	z := &q.Z
	for i := range Lanes {
		z[i] = 0
		if q.known[i] != 0 {
			z[i] = min(max((x[i]-s.Mean[i])*s.Inv[i], -Clip), Clip)
		}
		q.at[i] = step(z[i], flip[i])
	}
}

func (q *Query) residualsPlain(e, sq, y, trust *Row, s *Sides) {
	for i := range Lanes {
		e[i] = 0
		if d := y[i] - q.Z[i]; q.known[i] != 0 && d*s.side[i] <= 0 {
			e[i] = d
		}
		sq[i] = e[i] * e[i] * trust[i]
	}
}

func (q *Query) termsPlain(t, ref *Row, s *Sides) {
	for i := range Dim {
		w := q.ownWeight
		if bits(s.context[i]) != 0 {
			w = q.ctxW
		}
		d := fromBits(bits(q.Z[i]-ref[i])&bits(s.keep[i]) ^ bits(s.flip[i]))
		d = max(d, 0)
		m := min(d, 1)
		if t[i] = w * (m * (d + d - m)); q.known[i] == 0 {
			t[i] = 0
		}
	}
}
