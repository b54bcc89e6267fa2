package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/crypto/privacy"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// Privacy bounds what the updates of an honest site tell of one of its rows, by the
// gateways' own sum and accountant. What a site makes for itself has no noise.
type Privacy struct {
	Noise float64 `toml:"noise"` // deviation of what is added to each step's sum, in clips; 0: none
	Clip  float64 `toml:"clip"`  // longest contribution of a row
	Delta float64 `toml:"delta"` // for which epsilon is told
}

func (p *Privacy) on() bool { return p.Noise != 0 }

func (p *Privacy) check() error {
	switch {
	case p.on() && !(p.Noise >= 0.1 && p.Noise <= 1e6):
		return fmt.Errorf("privacy.noise: found %g: expected 0 (off), or 0.1 to a million", p.Noise)
	case !(p.Clip > 0 && p.Clip <= 1e6):
		return fmt.Errorf("privacy.clip: found %g: expected more than 0, at most a million", p.Clip)
	case !(p.Delta > 0 && p.Delta < 1):
		return fmt.Errorf("privacy.delta: found %g: expected more than 0, less than 1", p.Delta)
	}
	return nil
}

// noisy is a sum whose noise comes from the scenario's seed.
type noisy struct {
	*privacy.Sum
	from *rand.Rand
}

// Release implements mlp.Sum.
func (n noisy) Release(expected float64) ([]float32, error) { return n.Sum.Release(expected, n.from) }

// trainPrivately trains what a site sends, with noise.
func (x *site) trainPrivately(t *mlp.Trainer, w *world, round int, weights []float32, o mlp.Options, rng *rand.Rand) error {
	sum, err := privacy.NewSum(len(weights), w.s.Privacy.Clip, w.s.Privacy.Noise)
	if err != nil {
		return err
	}
	x.sent++
	return t.TrainPrivately(weights, w.b.learn, x.teach, nil, o, noisy{sum, source(w.s.Seed, forNoise, x.id, round)}, rng)
}

// epsilon is what all that a site trained for others tells of one of its rows.
func (x *site) epsilon(s *Scenario) (float64, error) {
	if !s.Privacy.on() || x.liar {
		return 0, nil
	}
	var a privacy.Account
	err := a.Spend(mlp.Rate(s.Training.Batch, len(x.teach)), s.Privacy.Noise, x.sent*s.Training.Steps)
	eps, err2 := a.Epsilon(s.Privacy.Delta)
	return eps, errors.Join(err, err2)
}

// epsilons are the least and the greatest of the honest sites.
func (r *Result) epsilons() (low, high float64) {
	low = math.Inf(1)
	for _, x := range r.honest() {
		low, high = min(low, x.Epsilon), max(high, x.Epsilon)
	}
	return low, high
}
