package trees

import "math/bits"

// Contributions shares one output of a row out among columns: the sum of
// shares and the returned mean is the output, exactly but for rounding. Shares
// are Shapley values of the game in which a level whose column is not asked
// goes both ways by the training rows behind it (Lundberg et al. 2020). An
// oblivious tree has at most six players, so all coalitions are tried.
func (m *Model) Contributions(row []float32, output int, share []float64) (mean float64) {
	clear(share)
	mean = m.Bias[output]
	for i := range m.Trees {
		if t := &m.Trees[i]; int(t.Output) == output {
			mean += m.shapley(t, row, share)
		}
	}
	return mean
}

// factorial weights of a coalition of s among n players: s! (n-s-1)! / n!
var coalition = func() (w [MaxDepth + 1][MaxDepth]float64) {
	fact := [MaxDepth + 1]float64{1}
	for i := 1; i <= MaxDepth; i++ {
		fact[i] = fact[i-1] * float64(i)
	}
	for n := 1; n <= MaxDepth; n++ {
		for s := range n {
			w[n][s] = fact[s] * fact[n-s-1] / fact[n]
		}
	}
	return w
}()

func (m *Model) shapley(t *Tree, row []float32, share []float64) (mean float64) {
	var player [MaxDepth]int // of each level
	var column [MaxDepth]uint16
	n, answer := 0, 0
	for l, c := range t.Column {
		if row[c] > m.Borders[c][t.Border[l]] {
			answer |= 1 << l
		}
		p := 0
		for p < n && column[p] != c {
			p++
		}
		if p == n {
			column[n] = c
			n++
		}
		player[l] = p
	}
	var value [1 << MaxDepth]float64
	for s := range 1 << n {
		asked := 0
		for l := range t.Column {
			asked |= (s >> player[l] & 1) << l
		}
		value[s] = t.expect(asked, answer)
	}
	for s := range 1 << n {
		for p := range n {
			if s>>p&1 == 0 {
				share[column[p]] += coalition[n][bits.OnesCount(uint(s))] * (value[s|1<<p] - value[s])
			}
		}
	}
	return value[0]
}

// expect is the tree's value where the asked levels answer as the row does, and
// the others go both ways by cover.
func (t *Tree) expect(asked, answer int) float64 {
	var v, c [1 << MaxDepth]float64
	for i := range t.Leaf {
		v[i], c[i] = float64(t.Leaf[i]), float64(t.Cover[i])
	}
	// The last level is the deepest: fold it first.
	for l := len(t.Column) - 1; l >= 0; l-- {
		for i := range 1 << l {
			j := i | 1<<l
			a, b := c[i], c[j]
			switch {
			case asked>>l&1 == 1 && answer>>l&1 == 1:
				v[i] = v[j]
			case asked>>l&1 == 1:
			case a+b > 0:
				v[i] = (a*v[i] + b*v[j]) / (a + b)
			default:
				v[i] = (v[i] + v[j]) / 2
			}
			c[i] = a + b
		}
	}
	return v[0]
}
