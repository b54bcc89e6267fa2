package softplane

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

var _ dataplane.Scorer = (*Plane)(nil)

// maxHeld is how many flows are held at most, as in the kernel.
const maxHeld = 65536

// hold is a flow that a verdict suspends or limits.
type hold struct {
	action         dataplane.Action
	until          int64
	rate, reason   uint32
	full           int64 // when the bucket of a limit will be full again
	packets, bytes uint64
}

// scoring is what the plane judges flows by, and what it found.
type scoring struct {
	set    dataplane.Scoring
	models [2]*dataplane.Model
	holds  map[flow.Key]*hold
	state  dataplane.ScoringState // totals only
}

// SetScoring implements [dataplane.Scorer].
func (p *Plane) SetScoring(s dataplane.Scoring) error {
	if err := s.Validate(); err != nil {
		return err
	}
	s = s.Filled()
	var models [2]*dataplane.Model
	for i, m := range []*score.Scorer{s.Active, s.Trial} {
		if m == nil {
			continue
		}
		hash, err := m.Hash()
		if err != nil {
			return fmt.Errorf("set scoring: %w", err)
		}
		models[i] = &dataplane.Model{Hash: hash, Version: m.Version}
	}
	s.Shadow = s.Shadow || s.Active == nil // a trial alone decides nothing
	return p.locked(func() error {
		k := &p.scoring
		k.set, k.models = s, models
		if s.Judges() {
			k.state.Swaps++
		} else {
			k.holds, k.set.Shadow = nil, false
		}
		return nil
	})
}

// ScoringState implements [dataplane.Scorer].
func (p *Plane) ScoringState() (s dataplane.ScoringState, err error) {
	err = p.locked(func() error {
		k := &p.scoring
		s = k.state
		s.Active, s.Trial, s.Shadow = k.models[0], k.models[1], k.set.Shadow
		now := p.opts.Now().UnixNano()
		for _, h := range k.holds {
			if h.until > now {
				s.Held++
			}
		}
		return nil
	})
	return s, err
}

// Held implements [dataplane.Scorer]; in the order of their expiry.
func (p *Plane) Held() (hits []dataplane.Hit, err error) {
	err = p.locked(func() error {
		now := p.opts.Now().UnixNano()
		for k, h := range p.scoring.holds {
			if h.until <= now {
				continue
			}
			hits = append(hits, dataplane.Hit{Packets: h.packets, Bytes: h.bytes, Rule: dataplane.Rule{
				Target: dataplane.Target{Flow: k}, Action: h.action, Expires: time.Unix(0, h.until), Reason: h.reason, Rate: h.rate,
			}})
		}
		slices.SortFunc(hits, func(a, b dataplane.Hit) int {
			return cmp.Or(a.Rule.Expires.Compare(b.Rule.Expires), cmp.Compare(a.Rule.Target.Flow.String(), b.Rule.Target.Flow.String()))
		})
		return nil
	})
	return hits, err
}

// stops says whether a packet's flow is held and the packet has to stop for it.
func (k *scoring) stops(q *parsed, t int64) bool {
	h := k.holds[q.Key]
	switch {
	case h == nil:
		return false
	case h.until <= t:
		delete(k.holds, q.Key)
		return false
	case h.action == dataplane.RateLimit && !h.over(q.Size, t):
		return false
	}
	h.packets++
	h.bytes += uint64(q.Size)
	k.state.Dropped++
	return true
}

// over is a token bucket (GCRA) of one second's worth; what costs more finds
// room in a full one.
func (h *hold) over(cost int, t int64) bool {
	next := max(h.full, t) + int64(cost)*int64(time.Second)/int64(h.rate)
	if h.full > t && next > t+int64(time.Second) {
		return true
	}
	h.full = next
	return false
}

// expire forgets holds whose time is over.
func (k *scoring) expire(t int64) {
	for key, h := range k.holds {
		if h.until <= t {
			delete(k.holds, key)
		}
	}
}

// judge scores a flow that has just reached a milestone by packet q, and does
// what follows. Only where that is to drop q does it not pass.
func (p *Plane) judge(s *state, q *parsed, t int64) (passed bool) {
	k := &p.scoring
	v, at, ok := score.FromRecord(&s.rec)
	if !k.set.Judges() || !ok {
		return true
	}
	k.state.Due[at]++
	k.state.Scored[at]++
	var by [2]dataplane.Verdict
	for i, m := range []*score.Scorer{k.set.Active, k.set.Trial} {
		if m == nil {
			continue
		}
		one := dataplane.Verdict{Model: k.models[i].Hash, Version: m.Version, Trial: i == 1, Milestone: at, Score: m.Eval(at, &v)}
		one.Action, one.Outcome = m.Decide(at, one.Score), dataplane.Shadowed
		by[i] = one
	}
	decides := 0
	if k.set.Canary.Picks(dataplane.ScoredHost(&s.rec).As16()) {
		decides = 1
	}
	passed = p.follow(s, q, &by[decides], t)
	p.tellVerdict(s, &by[decides], t)
	p.tellVerdict(s, &by[1-decides], t)
	return passed
}

// follow does what the scorer that decides says, and notes in v what came of it.
func (p *Plane) follow(s *state, q *parsed, v *dataplane.Verdict, t int64) (passed bool) {
	k := &p.scoring
	switch {
	case v.Action == score.Pass || k.set.Shadow:
		return true
	case p.rules.Spared(&q.Packet, t):
		v.Outcome = dataplane.Spared
		if v.Action == score.Suspend {
			p.stats.NeverSaved++
		}
		return true
	case p.mode != dataplane.Enforce || q.way&waySensor != 0:
		v.Outcome = dataplane.Monitored
	default:
		v.Outcome, v.Until = k.hold(q.Key, v.Action, t)
	}
	if v.Action != score.Suspend {
		return true
	}
	s.rec.Dropped++
	k.state.Dropped++
	q.judged = true
	return p.leave()
}

// hold holds a flow from now on.
func (k *scoring) hold(key flow.Key, a score.Action, t int64) (dataplane.Outcome, int64) {
	h := k.holds[key]
	if h == nil {
		if len(k.holds) >= maxHeld {
			return dataplane.Crowded, 0
		}
		if k.holds == nil {
			k.holds = map[flow.Key]*hold{}
		}
		h = &hold{}
		k.holds[key] = h
	}
	h.action, h.until, h.reason, h.rate = dataplane.Action(a), t+int64(k.set.Hold), k.set.Reason, 0
	if a == score.RateLimit {
		h.rate = k.set.Rate
	}
	return dataplane.Acted, h.until
}

func (p *Plane) tellVerdict(s *state, v *dataplane.Verdict, t int64) {
	if v.Action == score.Pass {
		return
	}
	by := 0
	if v.Trial {
		by = 1
	}
	p.scoring.state.Verdicts[by][v.Action][v.Outcome]++
	told := *v
	p.emit(dataplane.Event{Kind: dataplane.EventVerdict, Record: s.rec, At: t, Mode: p.mode, Verdict: &told})
}
