package metrics

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// made are random scores with many ties.
func made(rng *rand.Rand) ([]float64, []bool) {
	n := 2 + rng.IntN(40)
	score, attack := make([]float64, n), make([]bool, n)
	kinds := 1 + rng.IntN(12)
	for i := range score {
		score[i] = float64(rng.IntN(kinds)) / 4
		attack[i] = rng.IntN(3) == 0
	}
	attack[0], attack[1] = true, false
	return score, attack
}

// slowAUC compares every attack with every normal.
func slowAUC(score []float64, attack []bool) float64 {
	var won, pairs float64
	for i := range score {
		for j := range score {
			if attack[i] && !attack[j] {
				pairs++
				switch {
				case score[i] > score[j]:
					won++
				case score[i] == score[j]:
					won += 0.5
				}
			}
		}
	}
	return won / pairs
}

// slowDetection tries every score as the threshold.
func slowDetection(score []float64, attack []bool, share float64) float64 {
	best := 0.0
	for _, t := range score {
		var tp, fp, p, n float64
		for i, s := range score {
			hit := 0.0
			if s >= t {
				hit = 1
			}
			if attack[i] {
				tp, p = tp+hit, p+1
			} else {
				fp, n = fp+hit, n+1
			}
		}
		if fp <= share*n*(1+1e-12) {
			best = max(best, tp/p)
		}
	}
	return best
}

func slowPrecision(score []float64, attack []bool) float64 {
	cuts := slices.Clone(score)
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	slices.Reverse(cuts)
	var sum, before, p float64
	for _, a := range attack {
		if a {
			p++
		}
	}
	for _, t := range cuts {
		var tp, all float64
		for i, s := range score {
			if s >= t {
				all++
				if attack[i] {
					tp++
				}
			}
		}
		sum += (tp - before) / p * tp / all
		before = tp
	}
	return sum
}

func near(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	if !(math.Abs(got-want) <= by) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// TestRankingEqualsSlowTwin compares with the obvious quadratic ways.
func TestRankingEqualsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		score, attack := made(rng)
		r, err := Rank(score, attack)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "auc", r.AUC(), slowAUC(score, attack), 1e-12)
		near(t, "average precision", r.AveragePrecision(), slowPrecision(score, attack), 1e-12)
		for _, share := range []float64{0.001, 0.05, 0.1, 0.25, 0.5, 1} {
			got, cut := r.Detection(share)
			near(t, "detection", got, slowDetection(score, attack, share), 1e-12)
			n, fp := 0, 0
			for i, s := range score {
				if !attack[i] {
					n++
					if s >= cut {
						fp++
					}
				}
			}
			if float64(fp) > share*float64(n)*(1+1e-9) {
				t.Fatalf("threshold %v lets %d of %d normals through at %v", cut, fp, n, share)
			}
		}
	}
}

// TestRankingProperties: an order-preserving change of scores changes nothing,
// and the opposite order gives the opposite area.
func TestRankingProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		score, attack := made(rng)
		bent, against := make([]float64, len(score)), make([]float64, len(score))
		for i, s := range score {
			bent[i], against[i] = math.Exp(3*s)-7, -s
		}
		a, _ := Rank(score, attack)
		b, _ := Rank(bent, attack)
		c, _ := Rank(against, attack)
		near(t, "bent", b.AUC(), a.AUC(), 0)
		near(t, "against", c.AUC(), 1-a.AUC(), 1e-12)
		last := Point{-1, -1}
		for _, p := range a.ROC(1000) {
			if p.X < last.X || p.Y < last.Y {
				t.Fatalf("curve falls from %v to %v", last, p)
			}
			last = p
		}
		if last != (Point{1, 1}) {
			t.Fatalf("curve ends at %v", last)
		}
	}
}

func TestConstantScoreFindsNothing(t *testing.T) {
	r, err := Rank(make([]float64, 100), append(make([]bool, 50), slices.Repeat([]bool{true}, 50)...))
	if err != nil {
		t.Fatal(err)
	}
	if d, cut := r.Detection(0.05); d != 0 || !math.IsInf(cut, 1) {
		t.Fatalf("a constant score detects %v at %v", d, cut)
	}
	near(t, "auc", r.AUC(), 0.5, 0)
}

func TestRankRefuses(t *testing.T) {
	if _, err := Rank([]float64{1, math.NaN()}, []bool{true, false}); err == nil {
		t.Error("NaN was ranked")
	}
	if _, err := Rank([]float64{1, 2}, []bool{true, true}); !errors.Is(err, ErrOneClass) {
		t.Errorf("one class: %v", err)
	}
	if _, err := Rank(nil, nil); !errors.Is(err, ErrOneClass) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := Rank([]float64{1}, nil); err == nil {
		t.Error("unequal lengths were ranked")
	}
}

func TestThinKeepsShape(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	score, attack := make([]float64, 20000), make([]bool, 20000)
	for i := range score {
		attack[i] = i%2 == 0
		score[i] = rng.NormFloat64()
		if attack[i] {
			score[i] += 1.5
		}
	}
	r, _ := Rank(score, attack)
	pts := r.ROC(200)
	if len(pts) > 700 {
		t.Fatalf("%d points kept", len(pts))
	}
	var sum float64
	for i := 1; i < len(pts); i++ {
		sum += (pts[i].X - pts[i-1].X) * (pts[i].Y + pts[i-1].Y) / 2
	}
	near(t, "area of the thinned curve", sum, r.AUC(), 1e-3)
}

// gauss has a known AUC: Phi(shift / sqrt 2).
func gauss(n int, shift float64, rng *rand.Rand) ([]float64, []bool, []int) {
	score, attack, class := make([]float64, n), make([]bool, n), make([]int, n)
	for i := range score {
		score[i] = rng.NormFloat64()
		if attack[i] = i%4 == 0; attack[i] {
			score[i] += shift
			class[i] = 1
		}
	}
	return score, attack, class
}

// TestBoundsCover draws many samples of a known law and counts how often its
// true AUC lies within the bounds.
func TestBoundsCover(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	truth := 0.5 * math.Erfc(-1/math.Sqrt2/math.Sqrt2) // shift 1
	in, runs := 0, 200
	for k := range runs {
		score, attack, class := gauss(300, 1, rng)
		r, _ := Rank(score, attack)
		s, err := NewSampler(class, nil, uint64(k))
		if err != nil {
			t.Fatal(err)
		}
		b, err := Bounds(r, []Rate{{}}, s, 200)
		if err != nil {
			t.Fatal(err)
		}
		near(t, "value", b[0].Value, r.AUC(), 0)
		if b[0].Low <= truth && truth <= b[0].High {
			in++
		}
	}
	if in < 180 || in == runs {
		t.Fatalf("bounds at 95 %% held the truth in %d of %d samples", in, runs)
	}
}

// TestPairedIsNarrower: what two scorers have in common cancels.
func TestPairedIsNarrower(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	score, attack, class := gauss(2000, 1, rng)
	better := slices.Clone(score)
	for i := range better {
		if attack[i] {
			better[i] += 0.15
		}
	}
	a, _ := Rank(better, attack)
	b, _ := Rank(score, attack)
	rates := []Rate{{}, {0.05}}
	s, _ := NewSampler(class, nil, 1)
	d, err := Paired(a, b, rates, s, 300)
	if err != nil {
		t.Fatal(err)
	}
	s, _ = NewSampler(class, nil, 1)
	alone, _ := Bounds(a, rates, s, 300)
	if d[0].Low <= 0 || d[0].High-d[0].Low > (alone[0].High-alone[0].Low)/2 {
		t.Fatalf("difference %+v beside %+v", d[0], alone[0])
	}
	s, _ = NewSampler(class, nil, 1)
	same, _ := Paired(a, a, rates, s, 50)
	for _, x := range same {
		if x != (Interval{}) {
			t.Fatalf("a against itself differs by %+v", x)
		}
	}
}

// TestClustersWiden: rows that are copies of each other say nothing new.
func TestClustersWiden(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	one, attack, class := gauss(200, 1, rng)
	var score []float64
	var att []bool
	var cls, cluster []int
	for i := range one {
		for range 9 {
			score, att = append(score, one[i]), append(att, attack[i])
			cls, cluster = append(cls, class[i]), append(cluster, i)
		}
	}
	r, _ := Rank(score, att)
	rows, _ := NewSampler(cls, nil, 1)
	whole, _ := NewSampler(cls, cluster, 1)
	a, _ := Bounds(r, []Rate{{}}, rows, 300)
	b, _ := Bounds(r, []Rate{{}}, whole, 300)
	if ratio := (b[0].High - b[0].Low) / (a[0].High - a[0].Low); ratio < 2 || ratio > 4.5 {
		t.Fatalf("clusters of 9 widen by %v, expected about 3", ratio)
	}
}

func TestEqualSeedsGiveEqualBounds(t *testing.T) {
	score, attack, class := gauss(500, 1, rand.New(rand.NewPCG(13, 14)))
	r, _ := Rank(score, attack)
	var got [3][]Interval
	for i, seed := range []uint64{1, 1, 2} {
		s, _ := NewSampler(class, nil, seed)
		got[i], _ = Bounds(r, []Rate{{}, {0.01}}, s, 100)
	}
	if !slices.Equal(got[0], got[1]) || slices.Equal(got[0], got[2]) {
		t.Fatalf("bounds by seed: %v", got)
	}
}

func TestMacroF1(t *testing.T) {
	truth := []int{0, 0, 0, 1, 1, 2}
	said := []int{0, 0, 1, 1, 1, 0}
	c, err := Confuse(truth, said, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Class 0: precision 2/3, recall 2/3. 1: 2/3 and 1. 2: never said. 3: absent.
	near(t, "macro-F1", c.MacroF1(), (2.0/3+0.8+0)/3, 1e-12)
	near(t, "accuracy", c.Accuracy(), 4.0/6, 1e-12)
	if !math.IsNaN(c.F1()[3]) {
		t.Errorf("an absent class has F1 %v", c.F1()[3])
	}
	s, _ := NewSampler(truth, nil, 3)
	b, err := MacroF1Bounds(truth, said, 4, s, 200)
	if err != nil || b.Low > b.Value || b.High < b.Value || b.Low == b.High {
		t.Errorf("bounds %+v, %v", b, err)
	}
	s, _ = NewSampler(truth, nil, 3)
	if d, err := MacroF1Paired(truth, truth, said, 4, s, 200); err != nil || d.Value <= 0 {
		t.Errorf("truth against said: %+v, %v", d, err)
	}
	if _, err := Confuse(truth, []int{0, 0, 0, 0, 0, 9}, 4, nil); err == nil {
		t.Error("class 9 of 4 was counted")
	}
}

func TestReliability(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	p, bold, attack := make([]float64, 20000), make([]float64, 20000), make([]bool, 20000)
	for i := range p {
		p[i] = rng.Float64()
		bold[i] = p[i] * p[i] // says less than is true
		attack[i] = rng.Float64() < p[i]
	}
	_, honest, err := Reliability(p, attack, 10)
	if err != nil {
		t.Fatal(err)
	}
	bins, off, _ := Reliability(bold, attack, 10)
	if honest > 0.02 || off < 0.1 {
		t.Fatalf("calibration error %v of honest and %v of bent probabilities", honest, off)
	}
	n := 0
	for _, b := range bins {
		n += b.Count
	}
	if n != len(p) {
		t.Fatalf("bins hold %d of %d rows", n, len(p))
	}
	if _, _, err := Reliability([]float64{1.5}, []bool{true}, 10); err == nil {
		t.Error("a probability of 1.5 was taken")
	}
}

func TestProportion(t *testing.T) {
	// Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611.
	a, b := Proportion(81, 263), Proportion(0, 20)
	near(t, "low", a.Low, 0.2553, 1e-4)
	near(t, "high", a.High, 0.3662, 1e-4)
	near(t, "low of none", b.Low, 0, 0)
	near(t, "high of none", b.High, 0.1611, 1e-4)
}
