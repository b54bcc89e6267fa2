package robust

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// The twins below are the rules as their papers have them, in float64, as slow
// and as plain as can be. Each tells whether its answer is clear: where a choice
// among rows hangs on less than rounding, there is nothing to compare.
type twin func(x [][]float64, f int) (z []float64, clear bool)

func byColumn(x [][]float64, f func(sorted []float64) float64) []float64 {
	z := make([]float64, len(x[0]))
	for j := range z {
		var col []float64
		for _, row := range x {
			col = append(col, row[j])
		}
		slices.Sort(col)
		z[j] = f(col)
	}
	return z
}

func meanOf(col []float64) float64 {
	var sum float64
	for _, v := range col {
		sum += v
	}
	return sum / float64(len(col))
}

func medianOf(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func twinMean(x [][]float64, _ int) ([]float64, bool)   { return byColumn(x, meanOf), true }
func twinMedian(x [][]float64, _ int) ([]float64, bool) { return byColumn(x, medianOf), true }

func twinTrimmed(x [][]float64, f int) ([]float64, bool) {
	return byColumn(x, func(col []float64) float64 { return meanOf(col[f : len(col)-f]) }), true
}

func twinGeometric(x [][]float64, _ int) ([]float64, bool) {
	z := byColumn(x, medianOf)
	for range 8 {
		next := make([]float64, len(z))
		var total float64
		for _, row := range x {
			w := 1 / max(distance(row, z), 16)
			total += w
			for j, v := range row {
				next[j] += w * v
			}
		}
		for j := range next {
			next[j] /= total
		}
		z = next
	}
	return z, true
}

// twinMask is clear where no number of the result is so near to zero that
// rounding decides its sign.
func twinMask(inner twin) twin {
	return func(x [][]float64, f int) ([]float64, bool) {
		z, clear := inner(x, f)
		for j, v := range z {
			clear = clear && math.Abs(v) > 20
			votes := 0
			for _, row := range x {
				if row[j]*v > 0 {
					votes++
				}
			}
			if votes <= f {
				z[j] = 0
			}
		}
		return z, clear
	}
}

func twinMixed(x [][]float64, f int) ([]float64, bool) {
	n := len(x)
	var norms []float64
	for _, row := range x {
		norms = append(norms, distance(row, make([]float64, len(row))))
	}
	limit := slices.SortedFunc(slices.Values(norms), func(a, b float64) int { return cmp.Compare(b, a) })[2*f*(n-f)/n]
	cut := make([][]float64, n)
	for i, row := range x {
		for _, v := range row {
			cut[i] = append(cut[i], v*min(1, limit/norms[i]))
		}
	}
	clear := true
	mixed := make([][]float64, n)
	for i := range cut {
		near := slices.Clone(cut)
		slices.SortFunc(near, func(a, b []float64) int { return cmp.Compare(distance(a, cut[i]), distance(b, cut[i])) })
		if f > 0 {
			clear = clear && distance(near[n-f], cut[i])-distance(near[n-f-1], cut[i]) > 50
		}
		mixed[i] = byColumn(near[:n-f], meanOf)
	}
	z, _ := twinTrimmed(mixed, f)
	return z, clear
}

// krumScores is the sum of squared distances to the nearest n-f-2 others.
func krumScores(x [][]float64, f int) []float64 {
	var score []float64
	for i := range x {
		var sq []float64
		for k := range x {
			if k != i {
				sq = append(sq, distance(x[i], x[k])*distance(x[i], x[k]))
			}
		}
		slices.Sort(sq)
		var sum float64
		for _, v := range sq[:max(0, min(len(sq), len(x)-f-2))] {
			sum += v
		}
		score = append(score, sum)
	}
	return score
}

// best takes the k rows of the least scores.
func best(x [][]float64, score []float64, k int) (chosen [][]float64, order []int, clear bool) {
	for i := range x {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(score[a], score[b]) })
	for _, i := range order[:k] {
		chosen = append(chosen, x[i])
	}
	if k < len(x) { // exact ties fall to the first in order with both
		gap := score[order[k]] - score[order[k-1]]
		return chosen, order, gap == 0 || gap > 1e-6*score[order[k]]
	}
	return chosen, order, true
}

func twinKrum(x [][]float64, f int) ([]float64, bool) {
	chosen, _, clear := best(x, krumScores(x, f), 1)
	return chosen[0], clear
}

func twinMultiKrum(x [][]float64, f int) ([]float64, bool) {
	chosen, _, clear := best(x, krumScores(x, f), len(x)-f-2)
	return byColumn(chosen, meanOf), clear
}

func twinBulyan(x [][]float64, f int) ([]float64, bool) {
	rest, clear := slices.Clone(x), true
	var chosen [][]float64
	for len(chosen) < len(x)-2*f {
		_, order, ok := best(rest, krumScores(rest, f), 1)
		chosen = append(chosen, rest[order[0]])
		rest = slices.Delete(rest, order[0], order[0]+1)
		clear = clear && ok
	}
	return byColumn(chosen, func(col []float64) float64 {
		m := medianOf(col)
		slices.SortStableFunc(col, func(a, b float64) int { return cmp.Compare(math.Abs(a-m), math.Abs(b-m)) })
		return meanOf(col[:len(col)-2*f])
	}), clear
}

func twinCentred(x [][]float64, _ int) ([]float64, bool) {
	v := make([]float64, len(x[0]))
	for range 3 {
		var far []float64
		for _, row := range x {
			far = append(far, distance(row, v))
		}
		radius := slices.Sorted(slices.Values(far))[(len(far)-1)/2]
		move := make([]float64, len(v))
		for i, row := range x {
			for j := range row {
				move[j] += (row[j] - v[j]) * min(1, radius/far[i]) / float64(len(x))
			}
		}
		for j := range v {
			v[j] += move[j]
		}
	}
	return v, true
}

// twinDnC iterates on the numbers themselves, not on inner products.
func twinDnC(x [][]float64, f int) ([]float64, bool) {
	if f == 0 {
		return twinMean(x, 0)
	}
	m := byColumn(x, meanOf)
	axis := make([]float64, len(m))
	for j := range axis {
		axis[j] = x[0][j] - m[j] + float64(j%7)
	}
	var along []float64
	for range 3000 {
		along = along[:0]
		next := make([]float64, len(axis))
		for _, row := range x {
			var dot float64
			for j, v := range row {
				dot += (v - m[j]) * axis[j]
			}
			along = append(along, dot*dot)
			for j, v := range row {
				next[j] += dot * (v - m[j])
			}
		}
		size := distance(next, make([]float64, len(next)))
		for j := range next {
			axis[j] = next[j] / size
		}
	}
	chosen, order, _ := best(x, along, len(x)-f)
	k := len(x) - f
	return byColumn(chosen, meanOf), along[order[k]]-along[order[k-1]] > 0.02*along[order[k]]
}

func TestRulesEqualSlowTwins(t *testing.T) {
	twins := map[string]struct {
		twin
		units float64 // of rounding
	}{
		NameMean: {twinMean, 1}, NameMedian: {twinMedian, 1}, NameTrimmed: {twinTrimmed, 1},
		NameKrum: {twinKrum, 0}, NameMultiKrum: {twinMultiKrum, 1}, NameBulyan: {twinBulyan, 1},
		NameCentred: {twinCentred, 10}, NameDnC: {twinDnC, 1},
		NameGeometric: {twinGeometric, 10}, NameGeometricMasked: {twinMask(twinGeometric), 10},
		NameMixedTrimmed: {twinMixed, 3}, NameMixedTrimmedMask: {twinMask(twinMixed), 3},
	}
	for _, rule := range All() {
		name := rule.About().Name
		t.Run(name, func(t *testing.T) {
			tw, ok := twins[name]
			if !ok {
				t.Fatal("no twin")
			}
			unclear := 0
			const cases = 60
			for seed := range uint64(cases) {
				if !agrees(t, rule, tw.twin, tw.units, rand.New(rand.NewPCG(seed, 1))) {
					unclear++
				}
			}
			if unclear > cases/2 {
				t.Errorf("%d of %d cases were too close to compare", unclear, cases)
			}
		})
	}
}

// agrees compares a rule with its twin on a random case, unless that is unclear.
func agrees(t *testing.T, rule Rule, tw twin, units float64, r *rand.Rand) bool {
	t.Helper()
	n := 7 + r.IntN(14)
	f := r.IntN(most(t, rule, n) + 1)
	x := rows(r, n, 3+r.IntN(30), Unit/4, Unit/8)
	for i := range f { // a few stand out
		for j := range x[i] {
			x[i][j] += bell(r, Unit)
		}
	}
	slices.SortFunc(x, slices.Compare)
	want, clear := tw(reals(x), f)
	if !clear {
		return false
	}
	got, err := rule.Combine(x, f)
	if err != nil {
		t.Fatal(err)
	}
	if d := furthest(got, want); d > units {
		t.Errorf("n = %d, f = %d: a number differs from the twin's by %g units, expected at most %g", n, f, d, units)
	}
	return true
}

// The paths that small cases do not take: more columns than a stripe, and more
// than what DnC draws.
func TestManyNumbers(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	x := rows(r, 9, 2*stripe+333, Unit/64, Unit/64)
	slices.SortFunc(x, slices.Compare)
	for name, tw := range map[string]twin{NameMean: twinMean, NameGeometric: twinGeometric, NameMixedTrimmed: twinMixed, NameTrimmed: twinTrimmed} {
		rule, err := All().Find(name)
		if err != nil {
			t.Fatal(err)
		}
		want, clear := tw(reals(x), 0)
		got, err := rule.Combine(x, 0)
		if d := furthest(got, want); err != nil || !clear || d > 10 {
			t.Errorf("%s: %v, clear %v, differs by %g units", name, err, clear, d)
		}
	}
	drawn := draw(x, 100)
	for i, row := range drawn {
		if len(row) != 100 || !slices.Contains(x[i], row[99]) {
			t.Fatalf("row %d: %d numbers drawn", i, len(row))
		}
	}
}

// Eight steps come near the point of the least sum of distances.
func TestGeometricMedianIsNearTheMinimum(t *testing.T) {
	cost := func(x [][]float64, z []float64) (sum float64) {
		for _, row := range x {
			sum += distance(row, z)
		}
		return sum
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		x := rows(r, 7+r.IntN(20), 20, Unit/4, Unit/8)
		for i := range len(x) / 4 {
			x[i] = rows(r, 1, 20, Unit*4, 0)[0]
		}
		far := reals(x)
		least := byColumn(far, medianOf)
		for range 500 {
			next, _ := weiszfeld(far, least)
			least = next
		}
		got := reals([][]int32{geometricMedian(x)})[0]
		if c, best := cost(far, got), cost(far, least); c > best*1.001 {
			t.Errorf("seed %d: sum of distances %.6g, the least is %.6g", seed, c, best)
		}
	}
}

func weiszfeld(x [][]float64, z []float64) ([]float64, float64) {
	next, total := make([]float64, len(z)), 0.0
	for _, row := range x {
		w := 1 / max(distance(row, z), 1)
		total += w
		for j, v := range row {
			next[j] += w * v
		}
	}
	for j := range next {
		next[j] /= total
	}
	return next, total
}

func TestSettleEqualsSort(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 5))
		a := make([]int32, 1+r.IntN(60))
		for i := range a {
			a[i] = r.Int32N(int32(1 + r.IntN(40)))
			if seed%3 == 0 { // shapes that lead a pivot astray
				a[i] = int32(min(i, len(a)-i))
			}
		}
		k := r.IntN(len(a))
		sorted := slices.Sorted(slices.Values(a))
		settle(a, k)
		for i, v := range a {
			if i < k && v > a[k] || i > k && v < a[k] || a[k] != sorted[k] {
				t.Fatal(fmt.Sprint("seed ", seed, ": ", a, " at ", k, ", sorted ", sorted))
			}
		}
	}
}

func TestRoot(t *testing.T) {
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 6))
		x := r.Uint64() >> r.IntN(64)
		if s := r.Uint64N(1 << 32); seed%2 == 0 {
			x = s*s - seed%4/2
		}
		got := root(x)
		if got*got > x || got < math.MaxUint32 && (got+1)*(got+1) <= x {
			t.Fatalf("root of %d: %d", x, got)
		}
	}
	if root(math.MaxUint64) != math.MaxUint32 {
		t.Error("root of the greatest number")
	}
}
