package leak

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
)

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

// scores are the two ways of asking about a flow.
func (b *bench) scores(update []float32, vs []feature.Vector) (loss, along []float64, err error) {
	before, err := learner.NewProber(b.base)
	if err != nil {
		return nil, nil, err
	}
	now := make([]float32, len(update))
	for i := range now {
		now[i] = b.base[i] + update[i]
	}
	after, err := learner.NewProber(now)
	if err != nil {
		return nil, nil, err
	}
	for i := range vs {
		was, g, err := before.Gradient(&vs[i])
		if err != nil {
			return nil, nil, err
		}
		is, _, err := after.Gradient(&vs[i])
		if err != nil {
			return nil, nil, err
		}
		size := max(math.Sqrt(dot(g, g)), 1e-12)
		loss, along = append(loss, was-is), append(along, -dot(update, g)/size)
	}
	return loss, along, nil
}

func (b *bench) members(r *Row, update []float32) error {
	// Of plain training a part is held out, but never of the first two fifths.
	lossIn, alongIn, err := b.scores(update, b.in[:2*len(b.in)/5])
	if err != nil {
		return err
	}
	lossOut, alongOut, err := b.scores(update, b.out)
	if err != nil {
		return err
	}
	for _, s := range [][2][]float64{{lossIn, lossOut}, {alongIn, alongOut}} {
		rank, err := ranked(s[0], s[1])
		if err != nil {
			return err
		}
		if a := rank.AUC(); a > r.Member {
			r.Member = a
			r.Caught, _ = rank.Detection(0.01)
		}
	}
	return nil
}

// ranked puts yes before no where its scores are higher.
func ranked(yes, no []float64) (*metrics.Ranking, error) {
	is := make([]bool, len(yes)+len(no))
	for i := range yes {
		is[i] = true
	}
	return metrics.Rank(slices.Concat(yes, no), is)
}

func area(yes, no []float64) (float64, error) {
	rank, err := ranked(yes, no)
	if err != nil {
		return 0, err
	}
	return rank.AUC(), nil
}

// plant trains with the planted flow and without, again and again.
func (b *bench) plant(ctx context.Context, w way) (float64, error) {
	with, without := slices.Clone(b.in), b.in[1:]
	with[0] = b.planted
	if w.noise < 0 {
		without = b.in // one fewer would move what plain training holds out
	}
	var yes, no []float64
	p, err := learner.NewProber(b.base)
	if err != nil {
		return 0, err
	}
	_, g, err := p.Gradient(&b.planted)
	if err != nil {
		return 0, err
	}
	for trial := range uint64(b.Trials) {
		b.Progress(fmt.Sprintf("planted flow, %d of %d", trial+1, b.Trials))
		for _, c := range []struct {
			normal []feature.Vector
			to     *[]float64
		}{{with, &yes}, {without, &no}} {
			u, err := b.train(ctx, w, c.normal, trial)
			if err != nil {
				return 0, err
			}
			*c.to = append(*c.to, -dot(u, g))
		}
	}
	return area(yes, no)
}

// one rebuilds a flow from the update of a step that saw only it.
func (b *bench) one(w way) (float64, error) {
	p, err := learner.NewProber(b.base)
	if err != nil {
		return 0, err
	}
	_, g, err := p.Gradient(&b.in[0])
	if err != nil {
		return 0, err
	}
	if w.noise >= 0 {
		s, err := b.sum(w)
		if err != nil {
			return 0, err
		}
		if err := s.Add(g); err != nil {
			return 0, err
		}
		if g, err = s.Release(1); err != nil {
			return 0, err
		}
	}
	best, x := math.Inf(1), learner.SharedInput(&b.in[0])
	for _, guess := range learner.Guesses(g) {
		best = min(best, distance(guess, x))
	}
	return best, nil
}

func distance(a, b []float32) float64 {
	var sq float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sq += d * d
	}
	return math.Sqrt(sq / float64(len(a)))
}

// near is how close a guess must come, root mean square of a feature, in the input's
// units of -1 to 1.
const near = 0.1

// invert counts whom the guesses of a whole update come near to.
func (b *bench) invert(r *Row, update []float32) {
	guesses := learner.Guesses(update)
	count := func(vs []feature.Vector) (n int) {
		for i := range vs {
			x := learner.SharedInput(&vs[i])
			if slices.ContainsFunc(guesses, func(g []float32) bool { return distance(g, x) < near }) {
				n++
			}
		}
		return n
	}
	r.Near, r.Control = count(b.in), count(b.out)
}

// useful says what the update is worth: lower losses as normal are normal.
func (b *bench) useful(r *Row, update []float32) error {
	now := make([]float32, len(update))
	for i := range now {
		now[i] = b.base[i] + update[i]
	}
	p, err := learner.NewProber(now)
	if err != nil {
		return err
	}
	var evil, normal []float64
	for i := range b.unseen {
		l, _, err := p.Gradient(&b.unseen[i].V)
		if err != nil {
			return err
		}
		evil = append(evil, l)
	}
	for i := range b.out {
		l, _, err := p.Gradient(&b.out[i])
		if err != nil {
			return err
		}
		normal = append(normal, l)
	}
	r.Utility, err = area(evil, normal)
	return err
}
