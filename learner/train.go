package learner

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Limits of training.
const (
	// MinNormal is the least number of normal vectors to train on.
	MinNormal = 120
	maxSteps  = 100_000
)

// Config says how to train. Zero values take the defaults.
type Config struct {
	Seed      uint64
	TrainedAt time.Time // put into Meta
	// Epochs is how often the self part sees each vector; default 40, within
	// 800 to 3000 steps of 64.
	Epochs int
	// Rate is the first learning rate of the self part; default 0.003.
	Rate float64
	// SharedSteps and SharedRate are for the attack part; defaults 300 and 0.1.
	SharedSteps int
	SharedRate  float64
	// Holdout is the share of normal that is held out to calibrate; default 0.3.
	Holdout float64
	// Pause, if any, is called after each step, a millisecond or less, in the
	// goroutine that trains, so that the caller can let other work go first.
	Pause func()
}

func (c Config) withDefaults() (Config, error) {
	if c.Epochs == 0 {
		c.Epochs = 40
	}
	if c.Rate == 0 {
		c.Rate = 0.003
	}
	if c.SharedSteps == 0 {
		c.SharedSteps = 300
	}
	if c.SharedRate == 0 {
		c.SharedRate = 0.1
	}
	if c.Holdout == 0 {
		c.Holdout = 0.3
	}
	switch {
	case c.Epochs < 1 || c.Epochs > 10_000:
		return c, fmt.Errorf("config: epochs: %d: expected 1 to 10000", c.Epochs)
	case !(c.Rate > 0 && c.Rate <= 1) || !(c.SharedRate > 0 && c.SharedRate <= 1):
		return c, fmt.Errorf("config: rates: %v and %v: expected above 0 and at most 1", c.Rate, c.SharedRate)
	case c.SharedSteps < 1 || c.SharedSteps > maxSteps:
		return c, fmt.Errorf("config: shared steps: %d: expected 1 to %d", c.SharedSteps, maxSteps)
	case !(c.Holdout >= 0.1 && c.Holdout <= 0.5):
		return c, fmt.Errorf("config: holdout: %v: expected 0.1 to 0.5", c.Holdout)
	}
	return c, nil
}

func (c Config) selfSteps(n int) int {
	return min(max(c.Epochs*n/batchRows, 800), 3000)
}

// blocks is how many stretches of time normals are cut into.
const blocks = 20

// split parts normals, which come in the order of time, into those that train
// and those that calibrate. What is held out is every second stretch of time,
// counted from the newest: whole stretches, because neighbours in time depend
// on each other and single vectors would flatter; the newer ones, because a
// site that is being learnt becomes familiar, and what counts is how it looks
// from now on; every second, so that the newest also trains.
func split(normal []feature.Vector, c Config) (train, held []feature.Vector, err error) {
	if len(normal) < MinNormal {
		return nil, nil, fmt.Errorf("%w: %d: expected at least %d", ErrTooFew, len(normal), MinNormal)
	}
	for i := range normal {
		if err := normal[i].Valid(); err != nil {
			return nil, nil, fmt.Errorf("normal vector %d: %w", i, err)
		}
	}
	first := blocks - 2*int(math.Round(c.Holdout*blocks)) // at least 0, as Holdout is at most a half
	for b := range blocks {
		part := normal[b*len(normal)/blocks : (b+1)*len(normal)/blocks]
		if b >= first && (blocks-b)%2 == 1 {
			held = append(held, part...)
		} else {
			train = append(train, part...)
		}
	}
	return train, held, nil
}

// Train makes a model from this site's normal vectors, oldest first, and its
// confirmed attacks. The self part is always trained anew, for normal drifts.
// The attack part goes on from prev's when there is one; without attacks of its own the
// site leaves it as it was. What a mesh taught is put in by WithShared.
func Train(ctx context.Context, cfg Config, prev *Model, normal []feature.Vector, attacks []Example) (*Model, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	train, held, err := split(normal, cfg)
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if err := checkExamples(attacks); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	m := &Model{meta: Meta{
		Schema: feature.Version, Normal: len(normal), Attacks: len(attacks),
		Seed: cfg.Seed, TrainedAt: cfg.TrainedAt.UTC(),
	}}
	shared := InitShared(cfg.Seed)
	if prev != nil {
		m.meta.Parent = prev.meta.Hash
		shared = prev.Shared()
	}
	if m.self, err = trainSelf(ctx, cfg, train, held); err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	if len(attacks) > 0 {
		if shared, err = trainAttack(ctx, cfg, shared, train, attacks, cfg.SharedSteps); err != nil {
			return nil, fmt.Errorf("train: attack part: %w", err)
		}
	}
	if m.attack, err = newAttackPart(shared, held); err != nil {
		return nil, fmt.Errorf("train: attack part: %w", err)
	}
	m.weigh()
	return m.sealed()
}
