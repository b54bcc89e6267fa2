//go:build linux

package forwarding

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/distill"
)

const (
	remembered = 1 << 14 // flows that a site distils from
	confirmed  = 200
)

// learn trains the full model, and distils scorers, each of which is compiled, verified
// and swapped into the packet path, without a pause. A scorer found in these made flows knows nothing of
// the traffic that is measured: it counts, and does nothing.
func (t *thinker) learn(ctx context.Context) {
	p, ok := t.plane.(dataplane.Scorer)
	if !ok {
		t.did(ctx, nil, errors.New("this packet path scores nothing"))
		return
	}
	made := make(chan *score.Scorer)
	t.task(ctx, &t.work.Trainings, func() error { return t.train(ctx) })
	t.task(ctx, &t.work.Distilled, func() error {
		s, err := t.distil(ctx)
		if err != nil {
			return err
		}
		select {
		case made <- s:
		case <-ctx.Done():
		}
		return nil
	})
	t.tasks.Go(func() { // as on a site, beside what is done in the background
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-made:
				if !t.did(ctx, &t.work.Swaps, swap(p, s)) {
					return
				}
			}
		}
	})
}

func (t *thinker) distil(ctx context.Context) (*score.Scorer, error) {
	if t.flows[0] == nil {
		t.flows = madeFlows(remembered, confirmed)
	}
	x, err := distill.Distil(ctx, t.flows[0], t.flows[1], distill.Options{Seed: 1, Pause: t.back.Turns()})
	if err != nil {
		return nil, err
	}
	return x.Scorer, nil
}

func swap(p dataplane.Scorer, s *score.Scorer) error {
	return p.SetScoring(dataplane.Scoring{Active: s, Shadow: true})
}

// madeFlows are ordinary flows and some attacks, which are smaller packets.
func madeFlows(ordinary, attacks int) (out [2][]distill.Flow) {
	rng := rand.New(rand.NewPCG(9, 9))
	for i, n := range []int{ordinary, attacks} {
		out[i] = make([]distill.Flow, n)
		for k := range out[i] {
			f := &out[i][k]
			f.Weight = float32(i)
			for m := range score.Milestone(1 + rng.IntN(score.Milestones)) {
				l := distill.Look{At: m, P: rng.Float32()}
				for x := range l.X {
					l.X[x] = rng.Int32N(1 << 12)
				}
				if i == 1 {
					l.X[score.DirBase+score.SizeMean] /= 8
				}
				f.Looks = append(f.Looks, l)
			}
		}
	}
	return out
}
