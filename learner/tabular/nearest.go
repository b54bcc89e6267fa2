package tabular

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// nearest knows rows, the normal ones as a rule, by example: its score is the
// distance to the closest of them, exactly. Examples are sorted by their distance
// from one point, so that by the triangle inequality few are looked at.
type nearest struct {
	enc  *netEncoder
	rows []float32 // encoded examples, sorted by far
	far  []float32 // distance of each from the mean
	mean []float32
}

// maxExamples bounds how many normal rows are kept.
const maxExamples = 12_000

func fitNearest(normal *Table, most int, seed uint64) *nearest {
	return fitExamples(normal, fitNet(normal), most, seed)
}

// fitExamples keeps rows of any kind as examples, in a given encoding.
func fitExamples(t *Table, enc *netEncoder, most int, seed uint64) *nearest {
	n := &nearest{enc: enc}
	pickRows := rand.New(rand.NewPCG(seed, 0x4ea2)).Perm(t.Rows())
	x := n.enc.apply(t.Pick(pickRows[:min(most, len(pickRows))]))
	w := n.enc.width
	rows := len(x) / w
	n.mean = make([]float32, w)
	for r := range rows {
		for i, v := range x[r*w : (r+1)*w] {
			n.mean[i] += v / float32(rows)
		}
	}
	order, far := make([]int, rows), make([]float32, rows)
	for r := range rows {
		order[r] = r
		far[r] = float32(math.Sqrt(float64(apart(x[r*w:(r+1)*w], n.mean, math.MaxFloat32))))
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case far[a] < far[b]:
			return -1
		case far[a] > far[b]:
			return 1
		}
		return a - b
	})
	for _, r := range order {
		n.rows, n.far = append(n.rows, x[r*w:(r+1)*w]...), append(n.far, far[r])
	}
	return n
}

// apart is the squared distance, or something above most.
func apart(a, b []float32, most float32) float32 {
	var sum float32
	for len(a) >= 8 {
		p, q := a[:8], b[:8]
		d0, d1, d2, d3 := p[0]-q[0], p[1]-q[1], p[2]-q[2], p[3]-q[3]
		d4, d5, d6, d7 := p[4]-q[4], p[5]-q[5], p[6]-q[6], p[7]-q[7]
		sum += d0*d0 + d1*d1 + d2*d2 + d3*d3 + (d4*d4 + d5*d5 + d6*d6 + d7*d7)
		if sum > most {
			return sum
		}
		a, b = a[8:], b[8:]
	}
	for i, x := range a {
		d := x - b[i]
		sum += d * d
	}
	return sum
}

// distance is the squared distance to the closest example.
func (n *nearest) distance(row []float32) float32 {
	w := n.enc.width
	at := float32(math.Sqrt(float64(apart(row, n.mean, math.MaxFloat32))))
	up := sort.Search(len(n.far), func(i int) bool { return n.far[i] >= at })
	down := up - 1
	best := float32(math.MaxFloat32)
	for down >= 0 || up < len(n.far) {
		i := up
		if up == len(n.far) || (down >= 0 && at-n.far[down] < n.far[up]-at) {
			i, down = down, down-1
		} else {
			up++
		}
		// All that are left are at least this far; a little slack for rounding.
		if d := n.far[i] - at; d*d > best*1.0001+1e-4 {
			break
		}
		best = min(best, apart(row, n.rows[i*w:(i+1)*w], best))
	}
	return best
}

// score is the logarithm of the distance.
func (n *nearest) score(t *Table) []float64 {
	x, w := n.enc.apply(t), n.enc.width
	out := make([]float64, t.Rows())
	for r := range out {
		out[r] = math.Log(float64(n.distance(x[r*w:(r+1)*w])) + 1e-3)
	}
	return out
}
