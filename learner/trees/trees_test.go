package trees

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// rings is a task that no single column tells: class 1 within a ring, with a
// column of noise, one of few values and one that is often absent.
func rings(n int, seed uint64) (Data, []int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	d := Data{make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)}
	y := make([]int, n)
	for i := range y {
		a, b := rng.NormFloat64(), rng.NormFloat64()
		d[0][i], d[1][i], d[2][i] = float32(a), float32(b), rng.Float32()
		d[3][i] = float32(rng.IntN(3))
		d[4][i] = float32(math.NaN())
		if rng.IntN(2) == 0 {
			d[4][i] = float32(a + b)
		}
		if r := math.Hypot(a, b); r > 0.8 && r < 1.6 {
			y[i] = 1
		}
	}
	return d, y
}

func errorRate(t *testing.T, m *Model, d Data, y []int) float64 {
	t.Helper()
	s, err := m.Scores(d)
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for r := range y {
		said := 0
		if m.Outputs == 1 {
			if s[0][r] > 0 {
				said = 1
			}
		} else {
			for k := range s {
				if s[k][r] > s[said][r] {
					said = k
				}
			}
		}
		if said != y[r] {
			wrong++
		}
	}
	return float64(wrong) / float64(len(y))
}

func TestBoostLearnsWhatNoColumnTells(t *testing.T) {
	d, y := rings(4000, 1)
	fresh, truth := rings(2000, 2)
	m, err := Boost(context.Background(), d, y, nil, 2, Options{Rounds: 150, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if e := errorRate(t, m, fresh, truth); e > 0.06 {
		t.Fatalf("%.3f of new rows are wrong", e)
	}
	if one := errorRate(t, m.Prefix(1), fresh, truth); one < 0.2 {
		t.Fatalf("one tree alone is wrong on %.3f only: the task is too easy to mean anything", one)
	}
	imp := m.Importance()
	if imp[2]+imp[3] > 0.1 || imp[0] < 0.2 || imp[1] < 0.2 {
		t.Fatalf("importance %v: expected the first two columns", imp)
	}
	// Labels that mean nothing cannot be learnt.
	rand.New(rand.NewPCG(4, 4)).Shuffle(len(y), func(i, j int) { y[i], y[j] = y[j], y[i] })
	null, err := Boost(context.Background(), d, y, nil, 2, Options{Rounds: 150, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if e := errorRate(t, null, fresh, truth); e < 0.3 {
		t.Fatalf("learnt from shuffled labels: %.3f wrong", e)
	}
}

// quadrants has four classes, and the last is rare.
func quadrants(n int, seed uint64) (Data, []int) {
	rng := rand.New(rand.NewPCG(seed, 2))
	d, y := Data{make([]float32, n), make([]float32, n)}, make([]int, n)
	for i := range y {
		a, b := rng.Float32()*2-1, rng.Float32()*2-1
		if a > 0 && b > 0 && rng.IntN(10) > 0 {
			a = -a
		}
		d[0][i], d[1][i] = a, b
		if a > 0 {
			y[i]++
		}
		if b > 0 {
			y[i] += 2
		}
	}
	return d, y
}

func TestBoostManyClasses(t *testing.T) {
	d, y := quadrants(3000, 1)
	fresh, truth := quadrants(3000, 2)
	m, err := Boost(context.Background(), d, y, nil, 4, Options{Rounds: 40, Depth: 3, Columns: 1})
	if err != nil {
		t.Fatal(err)
	}
	if e := errorRate(t, m, fresh, truth); e > 0.02 {
		t.Fatalf("%.3f of new rows are wrong", e)
	}
	out, prob, row := make([]float64, 4), make([]float64, 4), []float32{0.5, -0.5}
	m.Score(row, out)
	m.Probabilities(out, prob)
	if s := prob[0] + prob[1] + prob[2] + prob[3]; math.Abs(s-1) > 1e-9 || prob[1] < 0.9 {
		t.Fatalf("probabilities %v", prob)
	}
}

// TestSplitEqualsSlowTwin grows one tree of one question and compares it with
// trying every cut of every column on the raw numbers.
func TestSplitEqualsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 300 {
		n := 5 + rng.IntN(60)
		d, y, w := Data{make([]float32, n), make([]float32, n)}, make([]int, n), make([]float32, n)
		for i := range y {
			d[0][i], d[1][i] = float32(rng.IntN(9)), float32(rng.NormFloat64())
			if rng.IntN(6) == 0 {
				d[1][i] = float32(math.NaN())
			}
			y[i], w[i] = rng.IntN(2), 0.5+rng.Float32()
		}
		o := Options{Rounds: 1, Depth: 1, Rows: 1, Columns: 1, L2: 1, Bins: 255, Rate: 1}
		m, err := Boost(context.Background(), d, y, w, 2, o)
		if err != nil {
			t.Fatal(err)
		}
		none, best := slowSplit(d, y, w, m.Bias[0])
		if len(m.Trees[0].Column) == 0 {
			if best > none*(1+1e-6)+1e-6 {
				t.Fatalf("no question was asked, although one explains %v, and none %v", best, none)
			}
			continue
		}
		tree := m.Trees[0]
		got := slowGain(d, y, w, m.Bias[0], int(tree.Column[0]), m.Borders[tree.Column[0]][tree.Border[0]])
		if math.Abs(got-best) > 1e-4*(1+best) {
			t.Fatalf("its question explains %v, the best %v", got, best)
		}
	}
}

func slowGain(d Data, y []int, w []float32, bias float64, col int, cut float32) float64 {
	var g, h [2]float64
	for i := range y {
		side := 0
		if d[col][i] > cut {
			side = 1
		}
		p := sigmoid(bias)
		g[side] += float64(w[i]) * (p - float64(y[i]))
		h[side] += float64(w[i]) * p * (1 - p)
	}
	return g[0]*g[0]/(h[0]+1) + g[1]*g[1]/(h[1]+1)
}

func slowSplit(d Data, y []int, w []float32, bias float64) (none, best float64) {
	none = slowGain(d, y, w, bias, 0, float32(math.Inf(1)))
	for c := range d {
		for _, cut := range append(slices.Clone(d[c]), float32(math.Inf(-1))) {
			if cut == cut {
				best = max(best, slowGain(d, y, w, bias, c, cut))
			}
		}
	}
	return none, best
}

// TestLeavesAreNewtonSteps recomputes the values of a full tree from the rows.
func TestLeavesAreNewtonSteps(t *testing.T) {
	d, y := rings(2000, 7)
	m, err := Boost(context.Background(), d, y, nil, 2, Options{Rounds: 1, Rows: 1, Columns: 1, L2: 2, Rate: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	tree := m.Trees[0]
	g, h, n := make([]float64, len(tree.Leaf)), make([]float64, len(tree.Leaf)), make([]float32, len(tree.Leaf))
	p := sigmoid(m.Bias[0])
	for i := range y {
		at := 0
		for l, c := range tree.Column {
			if d[c][i] > m.Borders[c][tree.Border[l]] {
				at |= 1 << l
			}
		}
		g[at], h[at], n[at] = g[at]+p-float64(y[i]), h[at]+p*(1-p), n[at]+1
	}
	if len(tree.Column) != MaxDepth {
		t.Fatalf("the tree has %d levels", len(tree.Column))
	}
	for i, x := range tree.Leaf {
		if want := -0.5 * g[i] / (h[i] + 2); math.Abs(float64(x)-want) > 1e-5 || n[i] != tree.Cover[i] {
			t.Fatalf("leaf %d is %v with %v rows: expected %v with %v", i, x, tree.Cover[i], want, n[i])
		}
	}
}

func TestEqualSeedsGiveEqualBits(t *testing.T) {
	d, y := rings(3000, 9)
	var got [][]byte
	for _, o := range []Options{{Seed: 1}, {Seed: 1, Workers: 3}, {Seed: 1, Workers: 16}, {Seed: 2}} {
		o.Rounds = 15
		m, err := Boost(context.Background(), d, y, nil, 2, o)
		if err != nil {
			t.Fatal(err)
		}
		b, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b)
	}
	if !bytes.Equal(got[0], got[1]) || !bytes.Equal(got[0], got[2]) {
		t.Fatal("the number of workers changes the model")
	}
	if bytes.Equal(got[0], got[3]) {
		t.Fatal("the seed changes nothing")
	}
}

// TestWeightsAreCopies: a row of weight 3 is three rows.
func TestWeightsAreCopies(t *testing.T) {
	d, y := rings(300, 11)
	w := make([]float32, len(y))
	long, long1 := make(Data, len(d)), []int(nil)
	for i := range y {
		w[i] = float32(1 + i%3)
		for range 1 + i%3 {
			for c := range d {
				long[c] = append(long[c], d[c][i])
			}
			long1 = append(long1, y[i])
		}
	}
	o := Options{Rounds: 20, Depth: 3, Rows: 1, Columns: 1, Bins: 255}
	a, err := Boost(context.Background(), d, y, w, 2, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Boost(context.Background(), long, long1, nil, 2, o)
	if err != nil {
		t.Fatal(err)
	}
	// Quantile borders may differ, so scores are compared where they do not.
	sa, _ := a.Scores(d)
	sb, _ := b.Scores(d)
	var off float64
	for r := range sa[0] {
		off += math.Abs(sa[0][r]-sb[0][r]) / float64(len(y))
	}
	if off > 0.1 {
		t.Fatalf("weighted and copied rows differ by %v in the mean", off)
	}
}

// TestContributionsAreShapley compares with the definition on the whole model,
// and wants them to add up.
func TestContributionsAreShapley(t *testing.T) {
	d, y := rings(1500, 13)
	m, err := Boost(context.Background(), d, y, nil, 2, Options{Rounds: 12})
	if err != nil {
		t.Fatal(err)
	}
	share, row, out := make([]float64, 5), make([]float32, 5), make([]float64, 1)
	for r := range 12 {
		for c := range d {
			row[c] = d[c][r]
		}
		mean := m.Contributions(row, 0, share)
		m.Score(row, out)
		sum := mean
		for _, x := range share {
			sum += x
		}
		if math.Abs(sum-out[0]) > 1e-9 {
			t.Fatalf("shares and mean make %v, the score is %v", sum, out[0])
		}
		want := slowShapley(m, row)
		for c := range share {
			if math.Abs(share[c]-want[c]) > 1e-9 {
				t.Fatalf("column %d: %v, by definition %v", c, share[c], want[c])
			}
		}
	}
}

// slowShapley averages over all orders of all columns.
func slowShapley(m *Model, row []float32) []float64 {
	sum := make([]float64, m.Columns)
	value := func(known map[int]bool) float64 {
		var v float64
		for i := range m.Trees {
			v += slowExpect(m, &m.Trees[i], row, known, 0, 0)
		}
		return v
	}
	orders := 0
	var walk func(order []int, left []int)
	walk = func(order, left []int) {
		if len(left) == 0 {
			orders++
			known := map[int]bool{}
			before := value(known)
			for _, c := range order {
				known[c] = true
				now := value(known)
				sum[c] += now - before
				before = now
			}
			return
		}
		for i, c := range left {
			rest := append(slices.Clone(left[:i]), left[i+1:]...)
			walk(append(slices.Clone(order), c), rest)
		}
	}
	walk(nil, []int{0, 1, 2, 3, 4})
	for c := range sum {
		sum[c] /= float64(orders)
	}
	return sum
}

func slowExpect(m *Model, t *Tree, row []float32, known map[int]bool, level, at int) float64 {
	if level == len(t.Column) {
		return float64(t.Leaf[at])
	}
	c := int(t.Column[level])
	yes := row[c] > m.Borders[c][t.Border[level]]
	no, high := at, at|1<<level
	if known[c] {
		if yes {
			return slowExpect(m, t, row, known, level+1, high)
		}
		return slowExpect(m, t, row, known, level+1, no)
	}
	cover := func(node int) (n float64) {
		mask := 1<<(level+1) - 1
		for i, x := range t.Cover {
			if i&mask == node {
				n += float64(x)
			}
		}
		return n
	}
	a, b := cover(no), cover(high)
	if a+b == 0 {
		a, b = 1, 1
	}
	return (a*slowExpect(m, t, row, known, level+1, no) + b*slowExpect(m, t, row, known, level+1, high)) / (a + b)
}

func TestForest(t *testing.T) {
	d, y := rings(3000, 15)
	fresh, truth := rings(1500, 16)
	f, err := GrowForest(context.Background(), d, y, nil, 2, ForestOptions{Trees: 40, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Probabilities(fresh)
	if err != nil {
		t.Fatal(err)
	}
	wrong := 0
	for r := range truth {
		if math.Abs(p[0][r]+p[1][r]-1) > 1e-5 {
			t.Fatalf("row %d: probabilities %v and %v", r, p[0][r], p[1][r])
		}
		if (p[1][r] > 0.5) != (truth[r] == 1) {
			wrong++
		}
	}
	if wrong > 120 {
		t.Fatalf("%d of %d new rows are wrong", wrong, len(truth))
	}
	q, err := GrowForest(context.Background(), d, y, nil, 2, ForestOptions{Trees: 40, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := q.Probabilities(fresh); !reflect.DeepEqual(p, again) {
		t.Fatal("equal seeds give different forests")
	}
}

// TestForestCutsAlike: a node is cut the same by histogram and by sorting.
func TestForestCutsAlike(t *testing.T) {
	d, y := rings(smallNode-1, 17)
	b := newBinned(d, 64, 1)
	p := &planter{data: b, class: y, times: slices.Repeat([]float32{1}, len(y)), hist: make([]float64, MaxBins*2)}
	var rows, twice []int32
	share := make([]float64, 2)
	for r, k := range y {
		rows, twice = append(rows, int32(r)), append(twice, int32(r), int32(r))
		share[k]++
	}
	for c := range d {
		s1, c1, ok1 := p.try(b.cols[c], len(b.borders[c])+2, rows, share)
		s2, c2, ok2 := p.try(b.cols[c], len(b.borders[c])+2, twice, []float64{2 * share[0], 2 * share[1]})
		// The sorted way may name a higher bin of the same gap.
		same := func(cut uint8) (n int) {
			for _, r := range rows {
				if b.cols[c][r] <= cut {
					n++
				}
			}
			return n
		}
		if ok1 != ok2 || math.Abs(2*s1-s2) > 1e-9 || same(c1) != same(c2) {
			t.Fatalf("column %d: sorted %v %d %v, summed %v %d %v", c, s1, c1, ok1, s2, c2, ok2)
		}
	}
}

func TestOddColumns(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	d := Data{{nan, nan, nan, nan}, {7, 7, 7, 7}, {-inf, 0, 1, inf}, {nan, 1, 1, nan}}
	y := []int{0, 1, 0, 1}
	m, err := Boost(context.Background(), d, y, nil, 2, Options{Rounds: 30, Rows: 1, Columns: 1, L2: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Borders[0]) != 0 || len(m.Borders[1]) != 0 || len(m.Borders[3]) != 1 {
		t.Fatalf("borders %v", m.Borders)
	}
	if e := errorRate(t, m, d, y); e != 0 {
		t.Fatalf("four rows of infinities are not told apart: %v wrong", e)
	}
	empty, err := Boost(context.Background(), Data{{1, 1}}, []int{0, 1}, nil, 2, Options{Rounds: 2})
	if err != nil || len(empty.Trees) != 2 || len(empty.Trees[0].Leaf) != 1 {
		t.Fatalf("a column that says nothing: %+v, %v", empty, err)
	}
}

func TestRefusals(t *testing.T) {
	d, y := rings(10, 1)
	for name, f := range map[string]func() error{
		"no columns": func() error { _, err := Boost(t.Context(), nil, nil, nil, 2, Options{}); return err },
		"ragged":     func() error { _, err := Boost(t.Context(), Data{{1}, {1, 2}}, []int{0}, nil, 2, Options{}); return err },
		"class 7":    func() error { _, err := Boost(t.Context(), Data{{1, 2}}, []int{0, 7}, nil, 2, Options{}); return err },
		"NaN weight": func() error {
			_, err := Boost(t.Context(), Data{{1}}, []int{0}, []float32{float32(math.NaN())}, 2, Options{})
			return err
		},
		"no weight": func() error {
			_, err := Boost(t.Context(), Data{{1}}, []int{0}, []float32{0}, 2, Options{})
			return err
		},
		"depth":       func() error { _, err := Boost(t.Context(), d, y, nil, 2, Options{Depth: 7}); return err },
		"bins":        func() error { _, err := Boost(t.Context(), d, y, nil, 2, Options{Bins: 256}); return err },
		"forest bins": func() error { _, err := GrowForest(t.Context(), d, y, nil, 2, ForestOptions{Bins: 999}); return err },
	} {
		if f() == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Boost(ctx, d, y, nil, 2, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestScoreAllocatesNothing(t *testing.T) {
	d, y := rings(500, 19)
	m, err := Boost(t.Context(), d, y, nil, 2, Options{Rounds: 20})
	if err != nil {
		t.Fatal(err)
	}
	row, out := []float32{0, 0, 0, 0, 0}, make([]float64, 1)
	if n := testing.AllocsPerRun(100, func() { m.Score(row, out) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
	all, _ := m.Scores(d)
	for r := range y {
		for c := range d {
			row[c] = d[c][r]
		}
		if m.Score(row, out); out[0] != all[0][r] {
			t.Fatalf("row %d scores %v alone and %v among others", r, out[0], all[0][r])
		}
	}
}

func TestCodec(t *testing.T) {
	d, y := quadrants(500, 3)
	m, err := Boost(t.Context(), d, y, nil, 4, Options{Rounds: 5})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var back Model
	if err := back.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	again, err := back.MarshalBinary()
	if err != nil || !bytes.Equal(b, again) {
		t.Fatalf("a stored model comes back different: %v", err)
	}
	for cut := range b {
		if back.UnmarshalBinary(b[:cut]) == nil {
			t.Fatalf("the first %d of %d bytes were taken for a model", cut, len(b))
		}
	}
	m.Trees[0].Column[0] = 99
	if m.Validate() == nil {
		t.Fatal("column 99 of 2 was taken")
	}
}

func FuzzModel(f *testing.F) {
	d, y := quadrants(60, 3)
	for _, n := range []int{1, 3} {
		m, err := Boost(f.Context(), d, y, nil, 4, Options{Rounds: n, Depth: 2})
		if err != nil {
			f.Fatal(err)
		}
		b, err := m.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Model
		if m.UnmarshalBinary(b) != nil {
			return
		}
		m.Score(make([]float32, m.Columns), make([]float64, m.Outputs))
		m.Contributions(make([]float32, m.Columns), 0, make([]float64, m.Columns))
		back, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var again Model
		if err := again.UnmarshalBinary(back); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkBoost(b *testing.B) {
	d, y := rings(100_000, 1)
	for b.Loop() {
		if _, err := Boost(context.Background(), d, y, nil, 2, Options{Rounds: 10}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScore(b *testing.B) {
	d, y := rings(2000, 1)
	m, err := Boost(context.Background(), d, y, nil, 2, Options{Rounds: 100})
	if err != nil {
		b.Fatal(err)
	}
	row, out := []float32{0.1, 0.2, 0.3, 1, 0}, make([]float64, 1)
	for b.Loop() {
		m.Score(row, out)
	}
}

// TestSharesAreRowsOfBothClasses: whole shares are classes, bit for bit, and a
// row of a third is one row of class 1 beside two of class 0.
func TestSharesAreRowsOfBothClasses(t *testing.T) {
	d, y := rings(400, 21)
	share := make([]float32, len(y))
	for i := range y {
		share[i] = float32(y[i])
	}
	o := Options{Rounds: 8, Depth: 3, Seed: 4}
	a, err := Boost(t.Context(), d, y, nil, 2, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Shares(t.Context(), d, share, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Fatal("rows of whole shares teach something else than classes")
	}
	o = Options{Rounds: 400, Depth: 1, Rows: 1, Columns: 1, L2: 1e-3, Rate: 0.3}
	m, err := Shares(t.Context(), Data{{0, 1}}, []float32{1. / 3, 0.9}, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	for x, want := range []float64{1. / 3, 0.9} {
		out, prob := make([]float64, 1), make([]float64, 2)
		m.Score([]float32{float32(x)}, out)
		if m.Probabilities(out, prob); math.Abs(prob[1]-want) > 0.01 {
			t.Errorf("row %d: probability %v, expected its share %v", x, prob[1], want)
		}
	}
	for _, bad := range []float32{-0.1, 1.1, float32(math.NaN())} {
		if _, err := Shares(t.Context(), Data{{0, 1}}, []float32{0, bad}, nil, o); err == nil {
			t.Errorf("a share of %v was taken", bad)
		}
	}
}

func TestPauseAfterEachTree(t *testing.T) {
	d, y := quadrants(60, 3)
	pauses := 0
	if _, err := Boost(t.Context(), d, y, nil, 4, Options{Rounds: 3, Depth: 2, Pause: func() { pauses++ }}); err != nil || pauses != 12 {
		t.Fatalf("%d pauses in 12 trees, %v", pauses, err)
	}
}
