package learner

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

// Contribution is one feature's share in a score.
type Contribution struct {
	Feature int
	Name    string
	Words   string  // with numbers, and what is usual here
	Value   float64 // in the feature's natural unit
	Normal  float64 // of the nearest normal flow here; 0 when it has none
	Usual   bool    // Normal is known
	Weight  float64 // share of the score, above 0; all sum to 1
}

// pathSteps is how finely the path from normal to the flow is walked.
const pathSteps = 24

// Explain says which features made the score of the part that spoke (see
// Score.By), strongest first. The comparison is the normal flow of this
// site that differs least; the shares are integrated gradients along the way
// from there to the flow (Sundararajan, Taly, Yan 2017), which add up to the
// difference of the two scores. Features that speak for normal are left out.
// Only features that are known of the flow take part.
func (m *Model) Explain(v *feature.Vector, s *Scratch) []Contribution {
	base := m.nearest(v, s)
	var share [feature.Dim]float64
	if said := m.Score(v, s); said.By == Attack {
		part := &m.attack
		if said.Mesh {
			part = m.mesh
		}
		m.walkAttack(part, &share, v, base, s)
	} else {
		m.walkSelf(&share, v, base, s)
	}
	var total float64
	for i, x := range share {
		if !v.Known(i) || !(x > 0) {
			share[i] = 0
		}
		total += share[i]
	}
	if total <= 0 {
		return nil
	}
	out := make([]Contribution, 0, 16)
	for i, x := range share {
		if x > 0 {
			out = append(out, contribution(i, v, base, x/total))
		}
	}
	slices.SortStableFunc(out, func(a, b Contribution) int { return cmp.Compare(b.Weight, a.Weight) })
	return out
}

func contribution(i int, v, base *feature.Vector, weight float64) Contribution {
	c := Contribution{Feature: i, Name: feature.Name(i), Words: feature.Describe(i, v), Value: v.Value(i), Weight: weight}
	if n := base.Value(i); !math.IsNaN(n) {
		c.Normal, c.Usual = n, true
		if !feature.IsFlag(i) {
			c.Words += fmt.Sprintf(" (usual here: %s)", feature.Quantity(i, math.Abs(n)))
		}
	}
	return c
}

// nearest is the reference that is closest in this site's units.
func (m *Model) nearest(v *feature.Vector, s *Scratch) *feature.Vector {
	m.self.ask(v, s)
	at, _ := m.self.refs.nearest(&s.query, &s.bounds)
	return &m.self.refs.v[at]
}

// walkSelf shares out the two measures of the self part, each scaled to 1 at
// the flow: the distance from base is a sum over features by itself, the
// autoencoder's error is integrated along the way.
func (m *Model) walkSelf(share *[feature.Dim]float64, v, base *feature.Vector, s *Scratch) {
	var from wide.Row
	var up, grad [feature.Dim]float32
	m.self.standard(&from, base)
	has := m.self.ask(v, s)
	to := s.query.Z
	for i := range feature.Dim {
		if !v.Known(i) {
			from[i] = 0 // as absent in both
		}
	}
	d := float64(s.query.Differ(&from, sides)) + least
	scale := m.self.err(s) + least
	for k := range pathSteps {
		t := (float32(k) + 0.5) / pathSteps
		for i := range to {
			s.query.Z[i] = from[i] + t*(to[i]-from[i])
		}
		m.self.err(s)
		for i := range up {
			e, trust := s.e[i], m.self.trust[i]
			up[i], grad[i] = 2*e*trust/(1+e*e*trust/elbow)*s.w[group[i]], 0
		}
		m.self.net.InputGradient(grad[:], up[:], s.self)
		for i := range share {
			share[i] += float64((grad[i]-up[i])*(to[i]-from[i])/pathSteps) / scale
		}
	}
	for i := range share {
		if has.Has(i) {
			share[i] += float64(s.w[group[i]]*distance(i, to[i]-from[i])) / d
		}
	}
}

// walkAttack integrates the gradient of the log-odds of attack.
func (m *Model) walkAttack(part *attackPart, share *[feature.Dim]float64, v, base *feature.Vector, s *Scratch) {
	var from, to, x, grad [feature.Dim]float32
	other := feature.Vector{Has: v.Has} // the base, known where the flow is
	for i := range other.X {
		switch {
		case v.Known(i) && base.Known(i):
			other.X[i] = base.X[i]
		case v.Known(i):
			other.X[i] = m.self.unit.Mean[i]
		}
	}
	attackInput(from[:], &other)
	attackInput(to[:], v)
	for k := range pathSteps {
		t := (float32(k) + 0.5) / pathSteps
		for i := range x {
			x[i], grad[i] = from[i]+t*(to[i]-from[i]), 0
		}
		part.net.Forward(x[:], s.attack)
		part.net.InputGradient(grad[:], []float32{-1, 1}, s.attack)
		for i := range share {
			share[i] += float64(grad[i] * (to[i] - from[i]) / pathSteps)
		}
	}
}
