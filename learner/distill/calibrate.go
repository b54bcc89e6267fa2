package distill

import (
	"context"
	"math"
	"sort"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
)

// tail is what is believed of the scores of normal flows beyond their body.
var tail = calibrate.Options{Share: 0.05, MaxShape: 0.25}

// level95 is the confidence of the interval that a report tells.
const level95 = 0.95

// calibrated sets the thresholds so that the held flows keep the budget, and
// reports how well they do.
func calibrated(ctx context.Context, s *score.Scorer, held []*Flow, o Options, rep *Report) error {
	scales, err := scalesOf(ctx, s, held, o, rep)
	if err != nil {
		return err
	}
	least := make([]float64, len(held)) // of each flow, the least p-value, as -ln p
	for i, f := range held {
		for k := range f.Looks {
			l := &f.Looks[k]
			least[i] = math.Max(least[i], -math.Log(scales[l.At].P(float64(s.Eval(l.At, &l.X)))))
		}
	}
	flows, err := calibrate.New(least, tail)
	if err != nil {
		return err
	}
	// The lowest -ln p of a milestone at which flows keep the budget.
	most := levelOf(flows, o.Budget)
	rep.Wanted = int(math.Ceil(1 / (calibrate.Extrapolate * o.Budget)))
	for m := range s.Steps {
		t := thresholdOf(scales[m], most)
		s.Steps[m].Limit, s.Steps[m].Suspend = t, t
	}
	for _, f := range held {
		if acts(s, f) {
			rep.Over++
		}
	}
	rep.Low, rep.High = calibrate.Binomial(rep.Over, len(held), level95)
	return nil
}

// scalesOf calibrates each milestone by its held looks, or by those of all when
// they are too few.
func scalesOf(ctx context.Context, s *score.Scorer, held []*Flow, o Options, rep *Report) (out [score.Milestones]*calibrate.Scale, err error) {
	var at [score.Milestones][]float64
	var all []float64
	for i, f := range held {
		if i&1023 == 0 {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			o.Pause()
		}
		for k := range f.Looks {
			l := &f.Looks[k]
			x := float64(s.Eval(l.At, &l.X))
			at[l.At], all = append(at[l.At], x), append(all, x)
		}
	}
	for m := range at {
		rep.Looks[m] = len(at[m])
		rep.Alone[m] = len(at[m]) >= minAlone
		of := at[m]
		if !rep.Alone[m] {
			of = all
		}
		if out[m], err = calibrate.New(of, tail); err != nil {
			return out, err
		}
	}
	return out, nil
}

// minAlone is the least number of held looks that calibrate a milestone.
const minAlone = 200

// levelOf is the least x whose p-value is within a budget; infinite when the scale
// cannot say so little.
func levelOf(c *calibrate.Scale, budget float64) float64 {
	if c.P(math.MaxFloat64) > budget {
		return math.Inf(1)
	}
	lo, hi := 0.0, 1.0
	for c.P(hi) > budget {
		hi *= 2
	}
	for range 60 {
		if mid := (lo + hi) / 2; c.P(mid) > budget {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi
}

// thresholdOf is the least score whose -ln p is at least most.
func thresholdOf(c *calibrate.Scale, most float64) int32 {
	const bound = score.MaxBase + score.MaxTrees<<15
	n := sort.Search(2*bound+1, func(i int) bool { return -math.Log(c.P(float64(i-bound))) >= most })
	if n > 2*bound {
		return score.Never
	}
	return int32(n - bound)
}
