package calibrate

import (
	"math"
	"math/rand/v2"
	"testing"
)

var usual = Options{Share: 0.1, MaxShape: 0.25}

// exact distributions: how to draw, and the true chance of more than x.
var exact = map[string]struct {
	draw func(*rand.Rand) float64
	tail func(float64) float64
}{
	"exponential": {(*rand.Rand).ExpFloat64, func(x float64) float64 { return math.Exp(-x) }},
	"normal":      {(*rand.Rand).NormFloat64, func(x float64) float64 { return math.Erfc(x/math.Sqrt2) / 2 }},
	"uniform":     {(*rand.Rand).Float64, func(x float64) float64 { return math.Max(0, 1-x) }},
	"log of pareto": {
		func(r *rand.Rand) float64 { return -2 * math.Log(1-r.Float64()) },
		func(x float64) float64 { return math.Exp(-x / 2) },
	},
}

// Over many samples of 1000 the true chance of a score at the claimed p-value
// must be near the claim: within a factor of 2 in the geometric mean down to
// 1/n, and not more than 4 times the claim at a tenth of that.
func TestClaimsAgainstExactDistributions(t *testing.T) {
	for name, d := range exact {
		for _, p := range []float64{0.1, 0.01, 0.001, 0.0001} {
			var sum float64
			const runs = 60
			for run := range runs {
				rng := rand.New(rand.NewPCG(uint64(run), 9))
				scores := make([]float64, 1000)
				for i := range scores {
					scores[i] = d.draw(rng)
				}
				c, err := New(scores, usual)
				if err != nil {
					t.Fatal(err)
				}
				sum += math.Log(math.Max(d.tail(scoreAt(c, p)), 1e-9) / p)
			}
			ratio := math.Exp(sum / runs)
			t.Logf("%s: claimed %g, true %.2f times that", name, p, ratio)
			limit := 2.0
			if p < 0.001 {
				limit = 4
			}
			if ratio > limit {
				t.Errorf("%s: claimed %g, true %.2f times that", name, p, ratio)
			}
		}
	}
}

// scoreAt finds the score whose p-value falls below p, by halving.
func scoreAt(c *Scale, p float64) float64 {
	lo, hi := c.sorted[0], c.sorted[len(c.sorted)-1]+1000
	for range 100 {
		if mid := (lo + hi) / 2; c.P(mid) > p {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi
}

func TestNeverRisesWithTheScore(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{MinScores, 50, 300, 1000} {
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = math.Round(rng.NormFloat64()*10) / 10 // with ties
		}
		c, err := New(scores, usual)
		if err != nil {
			t.Fatal(err)
		}
		last, before := 1.0, 1.0
		for x := -6.0; x < 50; x += 0.01 {
			p, rank := c.Both(x)
			if p > last || p < c.Floor() || p > 1 {
				t.Fatalf("n %d: score %v: p %v after %v", n, x, p, last)
			}
			if rank > before || !(rank > 0) || c.Tail().Sigma > 0 && x > c.Tail().Threshold && rank == before {
				t.Fatalf("n %d: score %v: rank %v after %v", n, x, rank, before)
			}
			last, before = p, rank
		}
	}
}

func TestFloorAndOddScores(t *testing.T) {
	scores := make([]float64, 500)
	for i := range scores {
		scores[i] = rand.New(rand.NewPCG(uint64(i), 0)).ExpFloat64()
	}
	c, err := New(scores, usual)
	if err != nil {
		t.Fatal(err)
	}
	if p, rank := c.Both(math.Inf(1)); p != 1.0/(Extrapolate*500) || rank != leastRank {
		t.Errorf("infinite score: p %v, rank %v: expected the floor and the least rank", p, rank)
	}
	if p, rank := c.Both(math.NaN()); p != 1 || rank != 1 {
		t.Errorf("NaN: p %v, rank %v: expected 1", p, rank)
	}
	same, err := New(make([]float64, 100), usual)
	if err != nil {
		t.Fatal(err)
	}
	if p := same.P(1); p != 1.0/101 {
		t.Errorf("beyond equal scores: p %v: expected 1/101", p)
	}
	if p := same.P(0); p != 1 {
		t.Errorf("at equal scores: p %v: expected 1", p)
	}
	if _, err := New(scores[:5], usual); err == nil {
		t.Error("five scores accepted")
	}
	scores[3] = math.NaN()
	if _, err := New(scores, usual); err == nil {
		t.Error("NaN accepted")
	}
}

// Textbook values (Clopper and Pearson 1934; Garwood 1936), and twins by sums.
func TestExactIntervals(t *testing.T) {
	near := func(a, b float64) bool { return math.Abs(a-b) < 1e-6*math.Max(1, math.Abs(b)) }
	if lo, hi := Binomial(0, 10, 0.95); lo != 0 || !near(hi, 0.3084971) {
		t.Errorf("0 of 10: %v %v", lo, hi)
	}
	if lo, hi := Poisson(0, 1, 0.95); lo != 0 || !near(hi, 3.688879454) {
		t.Errorf("0: %v %v", lo, hi)
	}
	if lo, hi := Poisson(10, 2, 0.95); !near(lo, 4.795389/2) || !near(hi, 18.390357/2) {
		t.Errorf("10 in 2: %v %v", lo, hi)
	}
	for _, k := range []int{1, 3, 17, 49} {
		const n = 50
		lo, hi := Binomial(k, n, 0.95)
		var below, above float64 // P(X <= k | hi), P(X >= k | lo)
		for i := range n + 1 {
			term := func(p float64) float64 {
				a, _ := math.Lgamma(n + 1)
				b, _ := math.Lgamma(float64(i + 1))
				c, _ := math.Lgamma(float64(n - i + 1))
				return math.Exp(a - b - c + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
			}
			if i <= k {
				below += term(hi)
			}
			if i >= k {
				above += term(lo)
			}
		}
		if !near(below, 0.025) || !near(above, 0.025) {
			t.Errorf("%d of %d: [%v, %v] leaves %v and %v: expected 0.025 each", k, n, lo, hi, below, above)
		}
	}
	if lo, hi := Binomial(3, 0, 0.95); lo != 0 || hi != 1 {
		t.Errorf("nothing seen: %v %v", lo, hi)
	}
}

// On p-values that are what they claim, a level is the share itself, counted
// or fitted; one loud cause does not move it.
func TestTrackTellsTheLevel(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	tr := NewTrack(20_000)
	for range 100 {
		tr.Add(rng.Float64(), rng.Uint64())
	}
	if _, ok := tr.Level(0.01); ok {
		t.Error("a level from a hundred flows")
	}
	for range 30_000 {
		tr.Add(rng.Float64(), rng.Uint64())
	}
	for share, within := range map[float64]float64{0.1: 1.6, 1e-2: 1.6, 1e-3: 1.6, 1e-4: 2} {
		if level, ok := tr.Level(share); !ok || level < share/within || level > share*within {
			t.Errorf("share %g: level %g", share, level)
		}
	}
	if level, ok := tr.Level(1e-6); ok {
		t.Errorf("level %g of a share of 1e-6 from 20,000 flows", level)
	}
	for range 50_000 {
		tr.Add(1e-6, 42)
	}
	if level, _ := tr.Level(0.1); level < 0.03 {
		t.Errorf("one loud cause moved the level of 0.1 to %g", level)
	}
	// Where many flows share the least p-value, no level tells them apart.
	tr.Reset()
	for range 20_000 {
		tr.Add(max(rng.Float64(), 5e-4), rng.Uint64())
	}
	if level, ok := tr.Level(1e-4); ok {
		t.Errorf("level %g of a share of 1e-4 where 5e-4 of all have the least p-value", level)
	}
	if _, ok := tr.Level(1e-2); !ok {
		t.Error("no level of 1e-2")
	}
	tr.Add(math.NaN(), 1)
	tr.Add(0, 1)
	tr.Reset()
	if tr.Len() != 0 {
		t.Error("not forgotten")
	}
}
