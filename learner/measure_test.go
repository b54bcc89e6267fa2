package learner_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
)

// exam is a day's later normal traffic and its scans.
func exam(d *day) *learner.Exam {
	x := &learner.Exam{Attacks: examples(d.after, "scan"), Known: d.normal[:200], Level: level}
	for _, s := range d.after {
		if s.label == "normal" && len(x.Normal) < 1500 {
			var h uint64
			for _, c := range s.cause {
				h = h*31 + uint64(c)
			}
			x.Normal, x.Causes = append(x.Normal, s.v), append(x.Causes, h)
		}
	}
	return x
}

// The gate lets a model stand against itself, and refuses one that was taught
// that scans are normal, whether it comes as a first model or not.
func TestGate(t *testing.T) {
	slow(t)
	d := someDay(t)
	x := exam(d)
	// A candidate that was taught that scans are normal misses them.
	var soiled []feature.Vector
	scans := vectors(d.after, "scan")
	for i, v := range d.normal {
		soiled = append(soiled, v)
		if i%4 == 0 {
			soiled = append(soiled, scans[i/4%len(scans)])
		}
	}
	bad, err := learner.Train(t.Context(), learner.Config{Seed: 2, Epochs: 1}, nil, soiled, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := lifecycle.New(lifecycle.Options{Level: level})
	now := time.Unix(1_700_000_000, 0)
	models := map[string]*learner.Model{"": nil, d.model.Meta().Hash: d.model, bad.Meta().Hash: bad}
	propose := func(c *learner.Model) lifecycle.Model {
		fx, err := m.Propose(now, lifecycle.Proposal{ID: c.Meta().Hash, Origin: lifecycle.Local})
		if err != nil {
			t.Fatal(err)
		}
		for len(fx) > 0 {
			if e := fx[0].Examine; e != nil {
				a := x.Trial()
				a.Own = models[e.ID].Measure(x)
				if ref := models[e.Alone]; ref != nil {
					n := ref.Measure(x)
					a.Alone, a.Incumbent = &n, &n
				}
				more, err := m.Examined(now, e.ID, a)
				if err != nil {
					t.Fatal(err)
				}
				fx = append(fx, more...)
			}
			fx = fx[1:]
		}
		l, err := m.Model(c.Meta().Hash)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(l.History[len(l.History)-1].Why)
		return l
	}
	if l := propose(d.model); l.Stage != lifecycle.Active || l.Trial.Own.Detected == 0 {
		t.Errorf("the day's own model: %s, %+v", l.Stage, l.Trial)
	}
	if l := propose(bad); l.End != lifecycle.Refused || !strings.Contains(l.History[len(l.History)-1].Why, "own attacks detected") {
		t.Errorf("a poisoned candidate: %s %s", l.Stage, l.End)
	}
}
