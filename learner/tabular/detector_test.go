package tabular

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
)

func small() Options { return Options{Seed: 1, Unseen: 0.5, Rounds: 20, Steps: 300} }

func auc(t *testing.T, score []float64, tab *Table) float64 {
	t.Helper()
	r, err := metrics.Rank(score, tab.Attack())
	if err != nil {
		t.Fatal(err)
	}
	return r.AUC()
}

func sides(t *testing.T) (train, test *Table) {
	t.Helper()
	tab := blobs(3000, 4)
	a, b := tab.ByGroup(0.7, 1)
	return tab.Pick(a), tab.Pick(b)
}

func TestDetectorFindsAttacks(t *testing.T) {
	train, test := sides(t)
	way, trials, err := Choose(t.Context(), train, small())
	if err != nil {
		t.Fatal(err)
	}
	chosen := 0
	for _, x := range trials {
		if x.Chosen {
			chosen++
			if x.Way.String() != way.String() || x.Worth <= 0 {
				t.Fatalf("chosen %+v, returned %v", x, way)
			}
		}
		if x.Known.Families == 0 || x.Unseen.Families == 0 {
			t.Fatalf("%v was tried on %d and %d families", x.Way, x.Known.Families, x.Unseen.Families)
		}
	}
	if chosen != 1 || len(trials) != 151 {
		t.Fatalf("%d chosen of %d trials", chosen, len(trials))
	}
	d, err := Fit(t.Context(), train, way, small())
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Surprises(test)
	if err != nil {
		t.Fatal(err)
	}
	joint := d.Join(s)
	if a := auc(t, joint, test); a < 0.97 {
		t.Fatalf("AUC %v by %v", a, way)
	}
	prob := make([]float64, len(joint))
	for i, j := range joint {
		prob[i] = d.Probability(j)
	}
	if _, off, err := metrics.Reliability(prob, test.Attack(), 10); err != nil || off > 0.08 {
		t.Fatalf("calibration error %v, %v", off, err)
	}
	imp := d.Importance(len(test.Columns))
	var sum float64
	for _, x := range imp {
		sum += x
	}
	if math.Abs(sum-1) > 1e-6 || imp[3] > 0.1 {
		t.Fatalf("importance %v: noise is column 3", imp)
	}
	again, err := Fit(t.Context(), train, way, small())
	if err != nil {
		t.Fatal(err)
	}
	if s2, _ := again.Surprises(test); !reflect.DeepEqual(s, s2) {
		t.Fatal("equal seeds give different detectors")
	}
}

func TestLeaveOutFindsWhatNobodyWasShown(t *testing.T) {
	train, test := sides(t)
	left, err := LeaveOut(t.Context(), train, test, small())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 2 {
		t.Fatalf("%d classes left out", len(left))
	}
	for _, x := range left {
		if x.Self.AUC < 0.9 || x.Together.AUC < x.Trees.AUC-0.05 {
			t.Errorf("%s: together %+v, classifier %+v, autoencoder %+v", x.Class, x.Together, x.Trees, x.Self)
		}
	}
	// Without the class of two families only one is left, which cannot be shown
	// and hidden: then all parts speak.
	if x := left[0]; len(x.Way.Parts) != len(Parts()) || x.Together.AUC < 0.95 {
		t.Errorf("one family left: %v, %+v", x.Way, x.Together)
	}
}

func TestClassifierWeighsRareClasses(t *testing.T) {
	train, test := sides(t)
	// Make the last class rare in training and hard to tell by noise in labels.
	rng := rand.New(rand.NewPCG(9, 9))
	keep := train.Where(func(r int) bool { return train.Class.Of[r] != 2 || rng.IntN(10) == 0 })
	c, err := FitClassifier(t.Context(), train.Pick(keep), small())
	if err != nil {
		t.Fatal(err)
	}
	weighed, plain, err := c.Say(test)
	if err != nil {
		t.Fatal(err)
	}
	f := func(said []int) float64 {
		m, err := metrics.Confuse(test.Class.Of, said, 3, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m.MacroF1()
	}
	if f(weighed) < f(plain)-0.02 || f(weighed) < 0.8 {
		t.Fatalf("macro-F1 %v weighed, %v plain", f(weighed), f(plain))
	}
}

func TestReferences(t *testing.T) {
	train, test := sides(t)
	refs, err := References(t.Context(), train, test, small())
	if err != nil || len(refs) != 4 {
		t.Fatalf("%d references, %v", len(refs), err)
	}
	for _, r := range refs {
		if a := auc(t, r.Score, test); a < 0.85 {
			t.Errorf("%s: AUC %v", r.Name, a)
		}
	}
}

// TestShuffledLabelsTeachNothing is the control: a leak would show here.
func TestShuffledLabelsTeachNothing(t *testing.T) {
	train, test := sides(t)
	rng := rand.New(rand.NewPCG(5, 5))
	rng.Shuffle(train.Rows(), func(i, j int) {
		train.Class.Of[i], train.Class.Of[j] = train.Class.Of[j], train.Class.Of[i]
		train.Family.Of[i], train.Family.Of[j] = train.Family.Of[j], train.Family.Of[i]
	})
	d, err := Fit(t.Context(), train, Way{Parts: []string{Trees}, How: Sum}, small())
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Surprises(test)
	if err != nil {
		t.Fatal(err)
	}
	if a := auc(t, d.Join(s), test); a < 0.35 || a > 0.65 {
		t.Fatalf("AUC %v from shuffled labels", a)
	}
}

func TestTooFewRows(t *testing.T) {
	tab := blobs(3000, 6)
	none := tab.Pick(tab.Where(func(r int) bool { return tab.Class.Of[r] == 0 }))
	if _, _, err := Choose(t.Context(), none, small()); !errors.Is(err, ErrTooFew) {
		t.Errorf("choose without attacks: %v", err)
	}
	if _, err := Fit(t.Context(), none, AllParts(20), small()); !errors.Is(err, ErrTooFew) {
		t.Errorf("fit without attacks: %v", err)
	}
	if _, err := Fit(t.Context(), tab.Pick(firstRows(100)), AllParts(20), small()); !errors.Is(err, ErrTooFew) {
		t.Errorf("fit on 100 rows: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fit(ctx, tab, AllParts(20), small()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNearestEqualsSlowTwin compares with looking at every example.
func TestNearestEqualsSlowTwin(t *testing.T) {
	tab := blobs(2000, 7)
	n := fitNearest(tab.normals(), 500, 1)
	x, w := n.enc.apply(tab), n.enc.width
	for r := range 400 {
		row := x[r*w : (r+1)*w]
		best := math.Inf(1)
		for k := range len(n.rows) / w {
			var d float64
			for i, v := range n.rows[k*w : (k+1)*w] {
				d += float64(v-row[i]) * float64(v-row[i])
			}
			best = min(best, d)
		}
		if got := float64(n.distance(row)); math.Abs(got-best) > 1e-4*(1+best) {
			t.Fatalf("row %d: %v, the closest is %v", r, got, best)
		}
	}
}

// TestScaleProperties: surprise never falls with the score, is about right on
// new normals, and does not end.
func TestScaleProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	normal := make([]float64, 2000)
	for i := range normal {
		normal[i] = rng.NormFloat64()
	}
	s, err := newScale(normal)
	if err != nil {
		t.Fatal(err)
	}
	before := -1.0
	for x := -5.0; x < 40; x += 0.01 {
		now := s.of(x)
		if now < before {
			t.Fatalf("surprise falls from %v to %v at %v", before, now, x)
		}
		before = now
	}
	if !(s.of(40) > s.of(30)) {
		t.Fatal("surprise ends")
	}
	over := 0
	for range 20000 {
		if s.of(rng.NormFloat64()) >= 2 { // one in a hundred
			over++
		}
	}
	if over < 120 || over > 300 {
		t.Fatalf("%d of 20000 normals surprise like one in a hundred", over)
	}
	if _, err := newScale(normal[:10]); err == nil {
		t.Fatal("ten normals made a scale")
	}
}

func TestEncodingsAreFittedOnTrainingOnly(t *testing.T) {
	tab := blobs(2000, 9)
	a, b := tab.Pick(firstRows(1000)), tab.Pick(tab.Where(func(r int) bool { return r >= 1000 }))
	for _, how := range []string{OneHot, Ordered} {
		enc, d := fitTrees(a, how, 1)
		before := enc.apply(b)
		if len(d) != len(before) || len(d) != len(enc.names) {
			t.Fatalf("%s: %d columns in training, %d after", how, len(d), len(before))
		}
		// Other rows beside it, and other labels, change nothing.
		twice := b.Pick(slices.Concat(firstRows(b.Rows()), firstRows(b.Rows())))
		for i := range twice.Class.Of {
			twice.Class.Of[i] = 0
		}
		after := enc.apply(twice)
		for i := range before {
			if !slices.EqualFunc(before[i], after[i][:b.Rows()], func(x, y float32) bool { return x == y || (x != x && y != y) }) {
				t.Fatalf("%s: column %s depends on what is beside it", how, enc.names[i])
			}
		}
	}
	// A row's own label does not change its ordered statistic.
	_, d := fitTrees(a, Ordered, 1)
	flipped := a.Pick(firstRows(a.Rows()))
	flipped.Class.Of[7] = 1 - min(flipped.Class.Of[7], 1)
	_, e := fitTrees(flipped, Ordered, 1)
	if diff := math.Abs(float64(d[4][7] - e[4][7])); diff > 0.01 { // only through the overall share
		t.Fatalf("a row's own label moves its statistic by %v", diff)
	}
}

// TestAmongEqualsRank compares with the ranking of all rows, ties among them.
func TestAmongEqualsRank(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 11))
	for _, size := range [][2]int{{1, 1}, {99, 5}, {100, 40}, {1001, 300}} {
		var normal, family, score []float64
		var attack []bool
		for i := range size[0] + size[1] {
			x := float64(rng.IntN(1+size[0]/3) + min(i/size[0], 1)*size[0]/9)
			if score, attack = append(score, x), append(attack, i >= size[0]); i >= size[0] {
				family = append(family, x)
			} else {
				normal = append(normal, x)
			}
		}
		r, err := metrics.Rank(score, attack)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(normal)
		f := among(normal, family)
		at1, _ := r.Detection(0.01)
		at5, _ := r.Detection(0.05)
		for what, d := range map[string]float64{"AUC": f.AUC - r.AUC(), "at 1 %": f.At1 - at1, "at 5 %": f.At5 - at5} {
			if math.Abs(d) > 1e-9 {
				t.Errorf("%v rows: %s is %v off", size, what, d)
			}
		}
	}
}

// TestBroadestOfWhatIsAlike: a way of more parts is taken only where the folds
// cannot tell it from the best.
func TestBroadestOfWhatIsAlike(t *testing.T) {
	c := &chooser{trials: []Trial{
		{Way: Way{Parts: []string{Trees}}, Worth: 0.90, folds: []float64{0.9, 0.9, 0.9, 0.9}},
		{Way: Way{Parts: []string{Trees, Self}}, Worth: 0.89, folds: []float64{0.95, 0.83, 0.94, 0.84}},
		{Way: Way{Parts: []string{Trees, Nearest}}, Worth: 0.895, folds: []float64{0.96, 0.83, 0.95, 0.84}},
		{Way: Way{Parts: Parts()}, Worth: 0.88, folds: []float64{0.88, 0.88, 0.881, 0.879}},
	}}
	if got := c.broadest(0); got != 2 {
		t.Errorf("trial %d: expected the better of the two that are alike", got)
	}
	c.trials[0].folds = nil
	if got := c.broadest(0); got != 0 {
		t.Errorf("trial %d without folds: expected the best", got)
	}
}
