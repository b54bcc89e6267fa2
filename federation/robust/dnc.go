package robust

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// dnc leaves out the f updates that stand out most along the direction in which
// updates differ most: divide-and-conquer of Shejwalkar and Houmansadr (NDSS
// 2021), with one pass and as many left out as lie. The direction is found on
// some of the numbers, drawn by a seed that follows from all updates, so that
// nobody knows it before he has sent his. It is the strongest beyond 30 % when f
// is right, breaks down when f is too low or the liars go in many directions at
// once, and lets every quiet backdoor in.
type dnc struct{}

func (dnc) About() About {
	return About{
		Name: NameDnC, Paper: "Shejwalkar, Houmansadr, Manipulating the Byzantine: optimizing model poisoning attacks and defenses for federated learning, NDSS 2021",
		Breakdown: "f < n/2, if f was not set too low and the liars go one way",
	}
}

func (dnc) Check(n, f int) error { return less(n, f, 2, 1) }

const (
	dncNumbers = 2048 // drawn
	dncSteps   = 64   // of the power iteration
)

func (dnc) Combine(x [][]int32, f int) ([]int32, error) {
	if f == 0 {
		return average(x), nil
	}
	part := centre(draw(x, dncNumbers))
	along := principal(gram(part))
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(abs(along[a]), abs(along[b])) })
	var kept [][]int32
	for _, i := range order[:len(x)-f] {
		kept = append(kept, x[i])
	}
	return average(kept), nil
}

// draw takes k of the columns, the same of every row.
func draw(x [][]int32, k int) [][]int32 {
	d := len(x[0])
	if d <= k {
		return x
	}
	columns := rand.New(rand.NewChaCha8(digest(x))).Perm(d)[:k]
	slices.Sort(columns)
	out := make([][]int32, len(x))
	for i, row := range x {
		for _, j := range columns {
			out[i] = append(out[i], row[j])
		}
	}
	return out
}

func digest(x [][]int32) (sum [32]byte) {
	h := sha256.New()
	buf := make([]byte, 0, 4*len(x[0]))
	for _, row := range x {
		buf = buf[:0]
		for _, v := range row {
			buf = binary.LittleEndian.AppendUint32(buf, uint32(v))
		}
		h.Write(buf)
	}
	h.Sum(sum[:0])
	return sum
}

// centre takes the mean row from each.
func centre(x [][]int32) [][]int32 {
	m := average(x)
	out := make([][]int32, len(x))
	for i, row := range x {
		out[i] = make([]int32, len(row))
		for j, v := range row {
			out[i][j] = v - m[j]
		}
	}
	return out
}

// gram is the rows' inner products, cut to 21 bits of the greatest.
func gram(x [][]int32) [][]int64 {
	g := make([][]int64, len(x))
	var top int64
	for i := range x {
		g[i] = make([]int64, len(x))
		for k := range i + 1 {
			var sum int64
			for j, v := range x[i] {
				sum += int64(v) * int64(x[k][j])
			}
			g[i][k] = sum
		}
		top = max(top, g[i][i])
	}
	cut := max(bits.Len64(uint64(top))-21, 0)
	for i := range g {
		for k := range i + 1 {
			g[i][k] >>= cut
			g[k][i] = g[i][k]
		}
	}
	return g
}

// principal is the eigenvector of the greatest eigenvalue, by power iteration
// from the column of the longest row, scaled to 2^28: what each row has along
// the direction in which rows differ most.
func principal(g [][]int64) []int64 {
	longest := 0
	for i := range g {
		if g[i][i] > g[longest][longest] {
			longest = i
		}
	}
	v := fit(slices.Clone(g[longest]))
	for range dncSteps {
		next := make([]int64, len(v))
		for i, row := range g {
			for k, w := range row {
				next[i] += w * v[k]
			}
		}
		v = fit(next)
	}
	return v
}

// fit scales numbers so that the greatest has 28 bits.
func fit(v []int64) []int64 {
	var top int64
	for _, a := range v {
		top = max(top, abs(a))
	}
	cut := bits.Len64(uint64(top)) - 28
	for i := range v {
		if cut > 0 {
			v[i] >>= cut
		} else {
			v[i] <<= -cut
		}
	}
	return v
}

func abs(a int64) int64 {
	if a < 0 {
		return -a
	}
	return a
}
