package learner_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

const (
	triples    = 100
	mustBeat   = 95
	eachAttack = 40 // alerts of one kind that are tried
)

// medians is what is usual at a site: of each feature the middle one of those that
// know it.
func medians(normal []feature.Vector) (m [feature.Dim]float32) {
	for i := range m {
		var xs []float32
		for j := range normal {
			if normal[j].Known(i) {
				xs = append(xs, normal[j].X[i])
			}
		}
		if len(xs) > 0 {
			slices.Sort(xs)
			m[i] = xs[len(xs)/2]
		}
	}
	return m
}

// beaten is how many of a hundred triples by lot take less away from the score than
// the named three do, when each is put at what is usual.
func beaten(score func(*feature.Vector) float64, v *feature.Vector, usual *[feature.Dim]float32, named, known []int, rng *rand.Rand) (n int) {
	less := func(three []int) float64 {
		w := *v
		for _, i := range three {
			w.X[i] = usual[i]
		}
		return score(&w)
	}
	best := less(named)
	for range triples {
		lot := make([]int, 0, 3)
		for len(lot) < 3 {
			if i := known[rng.IntN(len(known))]; !slices.Contains(lot, i) {
				lot = append(lot, i)
			}
		}
		if best < less(lot) {
			n++
		}
	}
	return n
}

// TestTheNamedFeaturesMatterMost: of a hundred triples of features by lot, the three
// that an explanation names beat at least 95, in nine alerts of ten; three that are
// named by lot do so seldom.
func TestTheNamedFeaturesMatterMost(t *testing.T) {
	slow(t)
	d := someDay(t)
	usual := medians(d.normal)
	s := learner.NewScratch()
	rng := rand.New(rand.NewPCG(8, 8))
	score := func(v *feature.Vector) float64 { return d.model.Score(v, s).Self }
	var all, control []int
	for _, kind := range kindsOfAttack {
		var of []int
		for i := range d.after {
			v := &d.after[i].v
			if d.after[i].label != kind || len(of) == eachAttack || d.model.Score(v, s).P >= 0.01 {
				continue
			}
			c := d.model.Explain(v, s)
			if len(c) < 3 {
				continue
			}
			var known []int
			for f := range feature.Dim {
				if v.Known(f) {
					known = append(known, f)
				}
			}
			of = append(of, beaten(score, v, &usual, []int{c[0].Feature, c[1].Feature, c[2].Feature}, known, rng))
			p := rng.Perm(len(known))
			control = append(control, beaten(score, v, &usual, []int{known[p[0]], known[p[1]], known[p[2]]}, known, rng))
		}
		if slices.Sort(of); len(of) == 0 {
			t.Fatalf("%s: no alert", kind)
		}
		t.Logf("%s: %d alerts, the named three beat %d of 100 in the middle, %d in the least; at least %d in %d", kind, len(of), of[len(of)/2], of[0], mustBeat, reach(of))
		all = append(all, of...)
	}
	slices.Sort(all)
	slices.Sort(control)
	t.Logf("all: %d alerts, %d in the middle, tenth %d, at least %d in %d; named by lot %d in the middle, %d in the least, in %d",
		len(all), all[len(all)/2], all[len(all)/10], mustBeat, reach(all), control[len(control)/2], control[0], reach(control))
	if all[len(all)/10] < mustBeat || reach(control) > len(control)/4 {
		t.Errorf("the named three beat %d of 100 in the tenth alert from below: expected %d; named by lot, %d of %d alerts reach that", all[len(all)/10], mustBeat, reach(control), len(control))
	}
}

func reach(of []int) (n int) {
	for _, x := range of {
		if x >= mustBeat {
			n++
		}
	}
	return n
}
