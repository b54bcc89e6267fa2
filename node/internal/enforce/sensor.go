package enforce

import (
	"cmp"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/node/internal/event"
)

// telling is the p-value up to which a report may recall a confirmed behaviour.
// The first packets of an attack look like anybody's; what lies near them and is
// usual here is no variant of it.
const telling = 0.01

// Sensor turns what the plane reports into judgements: context, vector, score.
// It is not safe for concurrent use. Judging a flow allocates nothing; only
// Reasons does.
type Sensor struct {
	context  *feature.Context
	horizons *feature.Horizons
	model    *learner.Model
	memory   *learner.Memory
	scratch  *learner.Scratch
	vec      feature.Vector
	last     learner.Score
	decided  *learner.Model // whose score last is
	marks    []*mark
	borne    *mark // by the last judged flow, where it made a difference
	bench    Bench
	pairs    []Pair
}

// NewSensor returns a sensor without a model: it counts context and judges
// nothing.
func NewSensor(o feature.ContextOptions) (*Sensor, error) {
	c, err := feature.NewContext(o)
	if err != nil {
		return nil, err
	}
	h, err := feature.NewHorizons(o)
	if err != nil {
		return nil, err
	}
	return &Sensor{context: c, horizons: h, memory: learner.NewMemory(nil), scratch: learner.NewScratch(), pairs: make([]Pair, 0, maxWatched)}, nil
}

// SetModel makes m judge from now on; nil ends judging.
func (s *Sensor) SetModel(m *learner.Model) { s.model, s.decided = m, nil }

// Raw is the last judged flow's score before calibration, for ranking: the self
// part's, or the attack part's where that one spoke. Higher is stranger.
func (s *Sensor) Raw() float64 {
	if s.last.By == learner.Attack {
		return 1/max(s.last.P, 1e-12) + s.last.Attack
	}
	return s.last.Self
}

// Telling picks, of an incident's vectors, those that this site's model finds
// unusual: the first packets of an attack mostly look like anything else, and
// would teach that everything is one. Where fewer than least stand out, it is
// the most unusual ones.
func (s *Sensor) Telling(vecs []feature.Vector) []feature.Vector {
	const unusual, least = 0.02, 6
	if s.model == nil || len(vecs) <= least {
		return vecs
	}
	type scored struct {
		i int
		p float64
	}
	by := make([]scored, len(vecs))
	for i := range vecs {
		by[i] = scored{i, s.model.Score(&vecs[i], s.scratch).P}
	}
	slices.SortStableFunc(by, func(a, b scored) int { return cmp.Compare(a.p, b.p) })
	var out []feature.Vector
	for k, x := range by {
		if k >= least && x.p > unusual {
			break
		}
		out = append(out, vecs[x.i])
	}
	return out
}

// Remember keeps a confirmed behaviour: near variants of it are recognised from
// now on, whatever their address, before any training.
func (s *Sensor) Remember(v *feature.Vector, incident string) { s.memory.Add(v, incident) }

// ForgetAttack undoes Remember for an incident.
func (s *Sensor) ForgetAttack(incident string) { s.memory.Forget(incident) }

// Recalibrate measures what is remembered against newer normal traffic.
func (s *Sensor) Recalibrate(normal []feature.Vector) { s.memory.Recalibrate(normal) }

// Settled says that the context knows what is familiar here: until then no
// flow is fit to be learnt from.
func (s *Sensor) Settled() bool { return s.context.Settled() }

// Familiar is what the context knows of who is familiar, encoded to outlast a restart.
func (s *Sensor) Familiar() []byte { return s.context.AppendFamiliar(nil) }

// SetFamiliar goes on from what Familiar gave. An error changes nothing.
func (s *Sensor) SetFamiliar(b []byte) error { return s.context.ReadFamiliar(b) }

// Judge counts the report and scores the flow. The vector is valid until the
// next call.
func (s *Sensor) Judge(ev *dataplane.Event) (Judgement, *feature.Vector) {
	if ev.Kind != dataplane.EventMilestone && ev.Kind != dataplane.EventEnd || ev.Record.OnlyResets() {
		return Judgement{}, nil // not of a flow, or not of its behaviour
	}
	s.context.Update(&ev.Record, ev.Kind == dataplane.EventEnd)
	s.context.Vector(&s.vec, &ev.Record)
	s.borne = nil
	var much feature.Excess
	if ev.Kind == dataplane.EventEnd && !control(&ev.Record) {
		much = s.horizons.Observe(&ev.Record, guess(&ev.Record))
	}
	if s.model == nil {
		return Judgement{Much: much}, &s.vec
	}
	s.decided = s.decide(&ev.Record)
	j := s.judgement()
	j.Much = much
	if _, ok := s.memory.Match(&s.vec); ok && j.P <= telling {
		j.Detector, j.P, j.Recalled = learner.Recall.String(), min(j.P, s.decided.Floor()), true
	} else if m := s.marked(&ev.Record, &s.vec, j.P > telling); m != nil {
		j.Detector, j.P, j.Recalled, s.borne = learner.Recall.String(), min(j.P, s.decided.Floor()), true, m
	}
	return j, &s.vec
}

func (s *Sensor) judgement() Judgement {
	return Judgement{Judged: true, P: s.last.P, Rank: s.last.Rank, Detector: s.last.By.String(), Model: s.decided.Hash()}
}

// Look scores a flow without counting it, for Reasons. The vector is valid until the
// next call.
func (s *Sensor) Look(rec *flow.Record) (Judgement, *feature.Vector) {
	if s.model == nil {
		return Judgement{}, nil
	}
	s.borne = nil
	s.context.Vector(&s.vec, rec)
	s.decided = s.decide(rec)
	return s.judgement(), &s.vec
}

// Reasons explains the last judged flow: what stands out, most of all first.
func (s *Sensor) Reasons() []event.Reason {
	if s.model == nil || s.decided == nil {
		return nil
	}
	var out []event.Reason
	if s.borne != nil {
		out = append(out, s.borne.reason())
	}
	for _, c := range s.decided.Explain(&s.vec, s.scratch) {
		if len(out) == 5 || c.Weight < 0.02 {
			break
		}
		out = append(out, event.Reason{Feature: c.Name, Words: c.Words, Value: c.Value, Normal: c.Normal, Weight: c.Weight})
	}
	return out
}
