package sim

import (
	"math"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// mostRest is how many rows of a class are judged on.
const mostRest = 1500

// rest holds two models to what comes later at a site: validation rows, which nobody
// learnt from and no gate has seen, in the site's own mixture of classes. There are
// thousands of them, while a split of the site's own few rows would mostly be noise.
type rest struct {
	rows *mlp.Rows
	of   map[int][]int // rows by class
}

func newRest(w *world) *rest {
	l := &rest{rows: w.b.validation, of: map[int][]int{}}
	for r, c := range l.rows.Class {
		if len(l.of[c]) < mostRest {
			l.of[c] = append(l.of[c], r)
		}
	}
	return l
}

// right is 1 where a model alarms on an attack, or does not on a normal row.
func (l *rest) right(t *mlp.Trainer, weights []float32, r int) float64 {
	if (odds(t.Forward(weights, l.rows, r)) > 0) == (l.rows.Class[r] != 0) {
		return 1
	}
	return 0
}

// gain is what TPR - FPR is higher by with used than alone, and its standard error: the
// two judge the same rows, so only those count on which they differ.
func (l *rest) gain(t *mlp.Trainer, x *site, w *world, used []float32) (gain, deviation float64) {
	n, attacks := map[int]float64{}, 0.0
	for _, r := range slices.Concat(x.teach, x.exam) {
		c := w.b.learn.Class[r]
		if n[c]++; c != 0 {
			attacks++
		}
	}
	var variance float64
	for c := range w.b.classes {
		share := n[c] / math.Max(1, attacks)
		if c == 0 {
			share = 1
		}
		if share == 0 || len(l.of[c]) == 0 {
			continue
		}
		var sum, squares float64
		for _, r := range l.of[c] {
			d := l.right(t, used, r) - l.right(t, x.alone, r)
			sum, squares = sum+d, squares+d*d
		}
		k := float64(len(l.of[c]))
		gain += share * sum / k
		variance += share * share * (squares/k - sum/k*sum/k) / k
	}
	return gain, math.Sqrt(variance)
}

// held is what became of honest sites behind their gates.
type held struct {
	gains     []float64 // of those that examine, at each moment
	bare      []float64 // the same with every model of rounds taken as it is
	deviation float64   // largest standard error of a gain
	used, all int       // rounds of sites that examine, and where a mixture judged
	unable    int       // honest sites that keep too few rows to examine with
}

// worse counts the moments at which a site was worse by more than a point.
func (h *held) worse() (n int) {
	for _, g := range h.gains {
		if g < -0.01 {
			n++
		}
	}
	return n
}

// play runs a scenario with gates and looks at all honest sites every few rounds.
func (h *held) play(t *testing.T, s *Scenario, o Options, every int) {
	t.Helper()
	w, err := newWorld(s, o)
	if err != nil {
		t.Fatal(err)
	}
	w.path = &path{} // nobody else comes this way
	l := newRest(w)
	for round := 1; round <= s.Training.Rounds; round++ {
		if err := w.round(round); err != nil {
			t.Fatal(err)
		}
		for _, x := range w.sites {
			if x.liar {
				continue
			}
			if k := x.kept(w); min(len(k.normal), len(k.attack)) < s.Gate.Normals {
				if h.unable += boolInt(round == 1); x.mixed {
					t.Errorf("site %d took a model that it could not examine", x.id)
				}
				continue
			}
			h.all++
			h.used += boolInt(x.mixed)
			if round%every == 0 {
				g, d := l.gain(w.trainers[0], x, w, x.used)
				b, _ := l.gain(w.trainers[0], x, w, w.model)
				h.gains, h.bare, h.deviation = append(h.gains, g), append(h.bare, b), max(h.deviation, d)
			}
		}
	}
	slices.Sort(h.gains)
	slices.Sort(h.bare)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *held) adopted() float64 { return float64(h.used) / float64(max(1, h.all)) }

// TestMixturesKeepSitesFromHarm: whoever lies, no site has less than alone, though the
// rounds' model would ruin it; and where nobody does, sites take what others know.
func TestMixturesKeepSitesFromHarm(t *testing.T) {
	for _, share := range []float64{0, 0.5} {
		s := small()
		s.Gate = Gate{On: true, Mix: true, Held: 0.25, Normals: 10}
		if share > 0 {
			s.Attackers = Attackers{Attack: "label-flip", Share: share}
		}
		h := held{}
		h.play(t, s, Options{Library: Builtin(), Workers: 1, data: shared}, 4)
		middle, bare := h.gains[len(h.gains)/2], h.bare[len(h.bare)/2]
		t.Logf("%.0f %% lie: %.0f %% of rounds used, worst site %+.3f, middle %+.3f; without gates %+.3f, %+.3f", 100*share, 100*h.adopted(), h.gains[0], middle, h.bare[0], bare)
		switch {
		case h.gains[0] < -0.03: // hundreds of rows, where the study has thousands
			t.Errorf("%.0f %% lie: a site lost %.3f", 100*share, -h.gains[0])
		case share == 0 && (h.adopted() < 0.5 || middle <= 0):
			t.Errorf("nobody lies: %.2f of rounds used, the middle site gains %.3f", h.adopted(), middle)
		case share > 0 && bare > -0.2:
			t.Errorf("control: without gates the middle site lost only %.3f", -bare)
		}
	}
}
