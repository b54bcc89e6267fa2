package enforce

import (
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
)

// Bench is who scores beside the model that judges, and who judges for some
// hosts in its stead.
type Bench struct {
	Shadow   *learner.Model // scores beside, without a say
	Canary   *learner.Model // judges for the hosts that Chosen names
	Chosen   func(host netip.Addr) bool
	Fallback *learner.Model // scores beside a new model: the one before it
}

// Pair is what two models made of one report. Own is the one that is watched.
type Pair struct {
	Model      string // hash of the one that is watched
	Own, Other float64
	Sound      bool // the watched one's score was made of numbers
}

// maxWatched is who may be watched at a time: one on trial, and a new active model.
const maxWatched = 2

// SetBench names who scores beside from now on.
func (s *Sensor) SetBench(b Bench) { s.bench, s.pairs = b, s.pairs[:0] }

// Floor is the least p-value that a canary can say, 0 without one.
func (s *Sensor) Floor() float64 {
	if s.bench.Canary == nil {
		return 0
	}
	return s.bench.Canary.Floor()
}

// Pairs are the comparisons of the last judged report; valid until the next.
func (s *Sensor) Pairs() []Pair { return s.pairs }

// decide scores the vector with the model that has the say for this flow, and
// with those that are compared with it.
func (s *Sensor) decide(rec *flow.Record) *learner.Model {
	s.pairs = s.pairs[:0]
	m, b := s.model, &s.bench
	canary := b.Canary != nil && b.Chosen != nil && b.Chosen(insideHost(rec))
	active := m.Score(&s.vec, s.scratch)
	s.last = active
	if b.Fallback != nil {
		s.pair(m, &active, b.Fallback.Score(&s.vec, s.scratch).P)
	}
	switch {
	case canary:
		m, s.last = b.Canary, b.Canary.Score(&s.vec, s.scratch)
		s.pair(m, &s.last, active.P)
	case b.Shadow != nil:
		x := b.Shadow.Score(&s.vec, s.scratch)
		s.pair(b.Shadow, &x, active.P)
	}
	return m
}

func (s *Sensor) pair(m *learner.Model, own *learner.Score, other float64) {
	s.pairs = append(s.pairs, Pair{Model: m.Hash(), Own: own.P, Other: other, Sound: own.Sound()})
}
