package learner_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// counting is a sum without cut and noise, which counts what it got.
type counting struct {
	total []float32
	added int
	steps int
	moved bool // any contribution that was not zeros
}

func newCounting() *counting { return &counting{total: make([]float32, learner.SharedDim())} }

func (c *counting) Add(g []float32) error {
	c.added++
	for i, x := range g {
		c.total[i] += x
		c.moved = c.moved || x != 0
	}
	return nil
}

func (c *counting) Release(expected float64) ([]float32, error) {
	c.steps++
	out := make([]float32, len(c.total))
	for i, x := range c.total {
		out[i] = x / float32(expected)
	}
	clear(c.total)
	return out, nil
}

// kinds are finished flows that are alike, with one number that says how far they
// are from normal.
func kinds(n int, far float32, seed uint64) []feature.Vector {
	rng := rand.New(rand.NewPCG(seed, 5))
	out := make([]feature.Vector, n)
	for i := range out {
		out[i].Has = feature.All()
		for k := range out[i].X {
			out[i].X[k] = min(0.4+far+0.05*float32(rng.NormFloat64()), 1)
		}
		out[i].X[feature.Index("ended")] = 1
	}
	return out
}

// evil are attacks that one can tell from what is normal.
func evil() (attacks []learner.Example) {
	for _, v := range kinds(20, 0.3, 2) {
		attacks = append(attacks, learner.Example{V: v})
	}
	return attacks
}

func each(vs []feature.Vector) (units [][]feature.Vector) {
	for i := range vs {
		units = append(units, vs[i:i+1])
	}
	return units
}

// Without a cut and without noise the private training separates what the plain
// one does; every unit is drawn as often as its rate says.
func TestPrivateTrainingTeaches(t *testing.T) {
	normal, attacks := kinds(300, 0, 1), evil()
	c := newCounting()
	p := learner.Private{Rate: 0.1, Clip: 10, Sum: c, Random: rand.New(rand.NewPCG(1, 1))}
	base := learner.InitShared(1)
	w, err := learner.TrainSharedPrivately(t.Context(), learner.Config{}, base, each(normal), attacks, 60, p)
	if err != nil {
		t.Fatal(err)
	}
	if mean := float64(c.added) / 60; c.steps != 60 || mean < 25 || mean > 35 {
		t.Errorf("%d steps drew %.1f of 300 units at rate 0.1", c.steps, mean)
	}
	probe, err := learner.NewProber(w)
	if err != nil {
		t.Fatal(err)
	}
	loss := func(vs []feature.Vector) (worst, best float64) {
		best = 1e9
		for i := range vs {
			l, _, err := probe.Gradient(&vs[i])
			if err != nil {
				t.Fatal(err)
			}
			worst, best = max(worst, l), min(best, l)
		}
		return worst, best
	}
	most, _ := loss(kinds(50, 0, 3))
	_, least := loss(kinds(50, 0.3, 4))
	if most >= least {
		t.Errorf("normal costs up to %.2f, attacks from %.2f on", most, least)
	}
	c = newCounting()
	p.Sum = c
	if w, err = learner.TrainSharedPrivately(t.Context(), learner.Config{}, base, each(normal), nil, 5, p); err != nil || c.moved || !slices.Equal(w, base) {
		t.Errorf("a site without attacks, before anybody knows one, has something to say: %v", err)
	}
}

// A host counts as one unit, however many flows it has.
func TestAUnitIsOneContribution(t *testing.T) {
	c := newCounting()
	p := learner.Private{Rate: 1, Clip: 1, Sum: c, Random: rand.New(rand.NewPCG(1, 1))}
	vs := kinds(50, 0, 1)
	if _, err := learner.TrainSharedPrivately(t.Context(), learner.Config{}, learner.InitShared(1), [][]feature.Vector{vs[:49], vs[49:]}, nil, 3, p); err != nil {
		t.Fatal(err)
	}
	if c.added != 6 {
		t.Errorf("%d contributions of two hosts in three steps", c.added)
	}
}

func TestPrivateTrainingRefuses(t *testing.T) {
	vs := each(kinds(10, 0, 1))
	good := learner.Private{Rate: 0.5, Clip: 1, Sum: newCounting(), Random: rand.New(rand.NewPCG(1, 1))}
	bad := kinds(1, 0, 1)
	bad[0].X[0] = 5
	base := learner.InitShared(1)
	for want, f := range map[string]func(p learner.Private) error{
		"rate": func(p learner.Private) error { p.Rate = 1.5; return run(t.Context(), base, vs, 1, p) },
		"clip": func(p learner.Private) error { p.Clip = 0; return run(t.Context(), base, vs, 1, p) },
		"a sum and a source": func(p learner.Private) error {
			p.Sum = nil
			return run(t.Context(), base, vs, 1, p)
		},
		"steps":      func(p learner.Private) error { return run(t.Context(), base, vs, 0, p) },
		"base":       func(p learner.Private) error { return run(t.Context(), base[1:], vs, 1, p) },
		"no units":   func(p learner.Private) error { return run(t.Context(), base, nil, 1, p) },
		"no vectors": func(p learner.Private) error { return run(t.Context(), base, [][]feature.Vector{nil}, 1, p) },
		"unit 0":     func(p learner.Private) error { return run(t.Context(), base, [][]feature.Vector{bad}, 1, p) },
	} {
		if err := f(good); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, base, vs, 1, good); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

func run(ctx context.Context, base []float32, units [][]feature.Vector, steps int, p learner.Private) error {
	_, err := learner.TrainSharedPrivately(ctx, learner.Config{}, base, units, nil, steps, p)
	return err
}

// One flow in one step is rebuilt from its gradient exactly; it is the attack
// that noise is there against.
func TestOneGradientIsInverted(t *testing.T) {
	normal, attacks := kinds(200, 0, 1), evil()
	p := learner.Private{Rate: 0.2, Clip: 10, Sum: newCounting(), Random: rand.New(rand.NewPCG(1, 1))}
	w, err := learner.TrainSharedPrivately(t.Context(), learner.Config{}, learner.InitShared(1), each(normal), attacks, 20, p)
	if err != nil {
		t.Fatal(err)
	}
	probe, err := learner.NewProber(w)
	if err != nil {
		t.Fatal(err)
	}
	_, g, err := probe.Gradient(&normal[0])
	if err != nil {
		t.Fatal(err)
	}
	x := learner.SharedInput(&normal[0])
	exact := func(guess []float32) bool {
		for i := range guess {
			if d := guess[i] - x[i]; d > 1e-3 || d < -1e-3 {
				return false
			}
		}
		return true
	}
	if !slices.ContainsFunc(learner.Guesses(g), exact) {
		t.Error("a single flow's gradient does not show it")
	}
	if len(learner.Guesses(make([]float32, learner.SharedDim()))) != 0 {
		t.Error("an update of zeros suggests something")
	}
}
