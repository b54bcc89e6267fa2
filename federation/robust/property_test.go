package robust

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestOrderDoesNotMatter(t *testing.T) {
	for _, rule := range All() {
		for seed := range uint64(150) {
			r := rand.New(rand.NewPCG(seed, 10))
			n := 7 + r.IntN(12)
			own := int32(Unit / 8)
			if seed%2 == 0 {
				own = 2 // many equal numbers: ties everywhere
			}
			updates := asFloats(rows(r, n, 1+r.IntN(9), own, own))
			updates[1] = updates[0]
			f := most(t, rule, n)
			first, err := Run(rule, f, 4, updates)
			if err != nil {
				t.Fatal(err)
			}
			r.Shuffle(n, func(i, j int) { updates[i], updates[j] = updates[j], updates[i] })
			second, err := Run(rule, f, 4, updates)
			if err != nil || !slices.Equal(first.Update, second.Update) {
				t.Fatalf("%s, seed %d: %v after shuffling %v (%v)", rule.About().Name, seed, second.Update, first.Update, err)
			}
		}
	}
}

// What all members add to their updates is added to the result. A mask and a cut
// of norms look at where zero is, so for these it does not hold, nor is meant to.
func TestTranslation(t *testing.T) {
	for _, name := range []string{NameMean, NameMedian, NameTrimmed, NameKrum, NameMultiKrum, NameBulyan, NameDnC, NameGeometric} {
		rule, err := All().Find(name)
		if err != nil {
			t.Fatal(err)
		}
		for seed := range uint64(60) {
			r := rand.New(rand.NewPCG(seed, 11))
			n, d := 7+r.IntN(12), 1+r.IntN(20)
			x := rows(r, n, d, Unit/4, Unit/8)
			move := rows(r, 1, d, Unit, 0)[0]
			f := r.IntN(most(t, rule, n) + 1)
			slices.SortFunc(x, slices.Compare)
			z, err := rule.Combine(x, f)
			if err != nil {
				t.Fatal(err)
			}
			for _, row := range x {
				for j := range row {
					row[j] += move[j]
				}
			}
			slices.SortFunc(x, slices.Compare)
			moved, err := rule.Combine(x, f)
			if err != nil {
				t.Fatal(err)
			}
			for j := range moved {
				if off := math.Abs(float64(moved[j]) - float64(z[j]) - float64(move[j])); off > 6 {
					t.Fatalf("%s, seed %d: number %d is off by %g units", name, seed, j, off)
				}
			}
		}
	}
}

// lies are what f members might send who know where the honest ones are.
var lies = map[string]func(r *rand.Rand, centre []int32) []float32{
	"giant": func(r *rand.Rand, c []int32) []float32 {
		u := make([]float32, len(c))
		for j := range u {
			u[j] = math.MaxFloat32 * float32(1-2*r.IntN(2))
		}
		return u
	},
	"one number": func(_ *rand.Rand, c []int32) []float32 {
		u := floats(c)
		u[0] = -60
		return u
	},
	"far together": func(_ *rand.Rand, c []int32) []float32 {
		u := floats(c)
		for j := range u {
			u[j] = -8 * u[j]
		}
		return u
	},
	"nan": func(_ *rand.Rand, c []int32) []float32 {
		u := floats(c)
		u[len(u)/2] = float32(math.NaN())
		return u
	},
	"infinite": func(_ *rand.Rand, c []int32) []float32 {
		u := floats(c)
		u[0] = float32(math.Inf(-1))
		return u
	},
	"nothing": func(_ *rand.Rand, c []int32) []float32 { return make([]float32, len(c)) },
}

// crowdWith is n updates, the last f of them lies, and the honest centre. The
// honest ones are within about radius of it, and it is far enough from zero in
// every number that signs are no matter of chance.
func crowdWith(r *rand.Rand, n, f int, lie func(*rand.Rand, []int32) []float32) (updates [][]float32, centre []float64, radius float64) {
	const d, own = 16, Unit / 256
	c := rows(r, 1, d, Unit/16, 0)[0]
	for j := range c {
		c[j] += Unit / 2 * (1 - 2*int32(r.IntN(2)))
	}
	for range n - f {
		row := slices.Clone(c)
		for j := range row {
			row[j] += bell(r, own)
		}
		updates = append(updates, floats(row))
	}
	for range f {
		updates = append(updates, lie(r, c))
	}
	return updates, reals([][]int32{c})[0], own * math.Sqrt(d)
}

func (res Result) from(centre []float64) float64 {
	var z []float64
	for _, v := range res.Update {
		z = append(z, float64(v)*Unit)
	}
	return distance(z, centre)
}

// As many liars as a rule promises to withstand move it by no more than a few
// times what the honest differ; the mean they move as far as they like.
func TestLiarsMoveItLittle(t *testing.T) {
	for _, rule := range All() {
		name := rule.About().Name
		for what, lie := range lies {
			worst := 0.0
			for seed := range uint64(40) {
				r := rand.New(rand.NewPCG(seed, 12))
				n := 11 + r.IntN(10)
				f := most(t, rule, n)
				lying := f
				if name == NameMean {
					lying = 1 // the control
				}
				updates, centre, radius := crowdWith(r, n, lying, lie)
				res, err := Run(rule, f, 64, updates)
				if err != nil {
					t.Fatalf("%s, %s: %v", name, what, err)
				}
				worst = max(worst, res.from(centre)/radius)
				if spoilt := what == "nan" || what == "infinite"; spoilt != (len(res.Spoiled) == lying) || spoilt && res.Spoiled[0] != n-lying {
					t.Fatalf("%s, %s: spoiled %v of %d liars", name, what, res.Spoiled, lying)
				}
			}
			if name == NameMean || name == NameDnC && what == "giant" { // which go in many directions
				if worst < 10 {
					t.Errorf("%s under %q moved by %.3g radii only: the lie is none", name, what, worst)
				}
				continue
			}
			// f < n/2 leaves a geometric median within 2(n-f)/(n-2f) radii, which is
			// n+1 at worst; the others promise less.
			if worst > 22 {
				t.Errorf("%s under %q: moved by %.3g radii of the honest", name, what, worst)
			}
		}
	}
}

// With a third of liars the bounds are those of use.
func TestThirdOfLiars(t *testing.T) {
	for _, name := range []string{NameGeometricMasked, NameMixedTrimmedMask, NameMedian, NameTrimmed} {
		rule, err := All().Find(name)
		if err != nil {
			t.Fatal(err)
		}
		for what, lie := range lies {
			r := rand.New(rand.NewPCG(7, 13))
			updates, centre, radius := crowdWith(r, 20, 6, lie)
			res, err := Run(rule, 6, 64, updates)
			if moved := res.from(centre) / radius; err != nil || moved > 1.5 {
				t.Errorf("%s under %q: moved by %.3g radii, %v", name, what, moved, err)
			}
		}
	}
}

// One liar more than half takes every rule away: the promise is no stronger than it says.
func TestBreakdown(t *testing.T) {
	for _, rule := range All() {
		name := rule.About().Name
		n := 21
		f := most(t, rule, n)
		updates, centre, radius := crowdWith(rand.New(rand.NewPCG(1, 14)), n, n/2+1, lies["far together"])
		res, err := Run(rule, f, 64, updates)
		if err != nil {
			t.Fatal(err)
		}
		// A mask with a great f may hold numbers in place; that is moved as well.
		if moved := res.from(centre) / radius; moved < 20 {
			t.Errorf("%s: %d of %d liars moved it by %.3g radii only", name, n/2+1, n, moved)
		}
	}
}

func TestPromises(t *testing.T) {
	all := All()
	for _, c := range []struct {
		rule string
		n, f int
		ok   bool
	}{
		{NameMean, 5, 0, true}, {NameMean, 100, 1, false},
		{NameMedian, 7, 3, true}, {NameMedian, 6, 3, false},
		{NameTrimmed, 7, 3, true}, {NameTrimmed, 6, 3, false},
		{NameGeometric, 7, 3, true}, {NameGeometric, 2, 1, false},
		{NameGeometricMasked, 7, 3, true}, {NameGeometricMasked, 2, 1, false},
		{NameMixedTrimmed, 7, 3, true}, {NameMixedTrimmed, 6, 3, false},
		{NameMixedTrimmedMask, 3, 1, true}, {NameMixedTrimmedMask, 4, 2, false},
		{NameKrum, 9, 3, true}, {NameKrum, 8, 3, false},
		{NameMultiKrum, 9, 3, true}, {NameMultiKrum, 8, 3, false},
		{NameBulyan, 15, 3, true}, {NameBulyan, 14, 3, false}, {NameBulyan, 3, 0, true}, {NameBulyan, 2, 0, false},
		{NameCentred, 11, 1, true}, {NameCentred, 10, 1, false},
		{NameDnC, 7, 3, true}, {NameDnC, 6, 3, false},
	} {
		rule, err := all.Find(c.rule)
		if err != nil {
			t.Fatal(err)
		}
		err = Spec{Rule: c.rule, F: c.f}.Check(c.n)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrVoid) {
			t.Errorf("%s, n = %d, f = %d: %v", c.rule, c.n, c.f, err)
		}
		updates := asFloats(rows(rand.New(rand.NewPCG(1, 1)), c.n, 2, Unit, Unit))
		if _, run := Run(rule, c.f, 1, updates); (run == nil) != c.ok {
			t.Errorf("%s, n = %d, f = %d: run: %v", c.rule, c.n, c.f, run)
		}
	}
	if len(all) != 12 {
		t.Errorf("%d rules: each needs its lines above", len(all))
	}
	for _, r := range all {
		a := r.About()
		if a.Name == "" || a.Paper == "" || a.Breakdown == "" {
			t.Errorf("%+v: says too little", a)
		}
	}
}

func TestPresets(t *testing.T) {
	for n, f := range map[int]int{7: 2, 10: 3, 20: 6, 50: 15, 100: 30} {
		s, err := Default(n)
		if err != nil || s.F != f || s.Check(n) != nil {
			t.Errorf("%d organisations: %v, %v: expected to withstand %d", n, s, err, f)
		}
	}
	if _, err := Default(6); !errors.Is(err, ErrVoid) {
		t.Errorf("six organisations: %v", err)
	}
	if s := Lab(); s.Check(1) != nil || s.F != 0 || s.String() != "mean; tolerates no liar (f = 0)" {
		t.Errorf("lab: %v", s)
	}
	for _, s := range []Spec{{Rule: "average"}, {Rule: NameMedian, F: -1}, {Rule: NameMean, Clip: 65}, {Rule: NameMean, Clip: math.NaN()}} {
		if s.Check(9) == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		updates [][]float32
		clip    float64
		want    error
	}{
		{"none", nil, 1, ErrNone},
		{"empty", [][]float32{{}}, 1, ErrLength},
		{"unequal", [][]float32{{1, 2}, {1}}, 1, ErrLength},
		{"clip 0", [][]float32{{1}}, 0, ErrBound},
		{"clip NaN", [][]float32{{1}}, math.NaN(), ErrBound},
		{"clip huge", [][]float32{{1}}, 1e9, ErrBound},
		{"too many", make([][]float32, MaxUpdates+1), 1, ErrBound},
		{"too long", [][]float32{make([]float32, MaxLength+1)}, 1, ErrBound},
	} {
		if _, err := Run(mean{}, 0, c.clip, c.updates); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, expected %v", c.name, err, c.want)
		}
	}
	if _, err := (Spec{Rule: "nobody's"}).Aggregate([][]float32{{1}}); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown rule: %v", err)
	}
}

// The largest allowed input does not overflow: as many updates, as long, all at
// opposite ends.
func TestAtTheBounds(t *testing.T) {
	updates := make([][]float32, MaxUpdates)
	for i := range updates {
		updates[i] = []float32{MaxNorm, 0}
		if i%2 == 0 {
			updates[i] = []float32{-3e38, 1}
		}
	}
	for _, s := range []Spec{{Rule: NameMean}, {Rule: NameMedian}, {Rule: NameGeometric}, {Rule: NameCentred}, {Rule: NameTrimmed, F: 100}} {
		res, err := s.Aggregate(updates)
		if err != nil || math.Abs(float64(res.Update[0])) > 1e-3 || res.Clipped != MaxUpdates/2 {
			t.Errorf("%s: %v, %v: expected the middle", s, res, err)
		}
	}
	few := asFloats(nil)
	for i := range 21 {
		u := make([]float32, 4)
		u[i%4] = float32(1-2*(i%2)) * 3e38
		few = append(few, u)
	}
	for _, rule := range All() {
		res, err := Run(rule, most(t, rule, 21), 64, few)
		if err != nil {
			t.Fatal(err)
		}
		if res.from(make([]float64, 4)) > 64*Unit*1.001 {
			t.Errorf("%s: %v is longer than any update", rule.About().Name, res.Update)
		}
	}
}

func TestMask(t *testing.T) {
	// The first number is moved up by three, the second by one only, the third by
	// all, the fourth by nobody.
	updates := [][]float32{{1, 9, 1, 0}, {1, 0, 1, 0}, {1, 0, 1, 0}, {0, 0, 1, 0}, {0, 0, 1, 0}}
	res, err := Spec{Rule: NameGeometricMasked, F: 2}.Aggregate(updates)
	if err != nil {
		t.Fatal(err)
	}
	u := res.Update
	if !(u[0] > 0.5) || u[1] != 0 || !(u[2] > 0.9) || u[3] != 0 || res.Frozen != 1 {
		t.Errorf("%+v: expected the second number to stay", res)
	}
	open, err := Spec{Rule: NameGeometric, F: 2}.Aggregate(updates)
	if err != nil || !(open.Update[1] > 0) {
		t.Errorf("without a mask: %+v, %v: expected it to move", open, err)
	}
}

func TestApply(t *testing.T) {
	got, err := Apply([]float32{1, 2}, []float32{0.5, -2})
	if err != nil || !slices.Equal(got, []float32{1.5, 0}) {
		t.Fatalf("apply: %v, %v", got, err)
	}
	if _, err := Apply([]float32{1}, []float32{1, 2}); !errors.Is(err, ErrLength) {
		t.Errorf("unequal: %v", err)
	}
	if _, err := Apply([]float32{math.MaxFloat32}, []float32{math.MaxFloat32}); !errors.Is(err, ErrNotFinite) {
		t.Errorf("overflow: %v", err)
	}
}
