package tabular

import (
	"context"

	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// shown is what is learnt from attacks beside normal rows.
type shown struct {
	trees   *boosted
	grove   *grove
	attacks *nearest // in the encoding of the known normal rows
}

// grove is a random forest with its encoding.
type grove struct {
	enc    *treeEncoder
	forest *trees.Forest
}

// fitShown trains what learns from attacks; k has been fitted to normal rows of
// the same table.
func fitShown(ctx context.Context, k *known, t *Table, balanced bool, o Options) (*shown, error) {
	o.Progress("train: trees")
	s := &shown{}
	var err error
	if s.trees, err = fitBoosted(ctx, t, balanced, o.boost()); err != nil {
		return nil, err
	}
	o.Progress("train: forest")
	if s.grove, err = fitGrove(ctx, t, balanced, o); err != nil {
		return nil, err
	}
	s.attacks = k.attacks(t, o.Seed)
	return s, nil
}

// attacks are examples of attacks, to be told apart from the normal ones.
func (k *known) attacks(t *Table, seed uint64) *nearest {
	rows := t.Where(func(r int) bool { return t.Class.Of[r] != 0 })
	return fitExamples(t.Pick(rows), k.near.enc, maxExamples, seed)
}

func fitGrove(ctx context.Context, t *Table, balanced bool, o Options) (*grove, error) {
	var w []float32
	if balanced {
		w = byFamily(t)
	}
	enc, d := fitTrees(t, OneHot, o.Seed)
	f, err := trees.GrowForest(ctx, d, binary(t), w, 2, trees.ForestOptions{Seed: o.Seed, Trees: min(groveTrees, o.Rounds)})
	return &grove{enc, f}, err
}

// score is the mean share of attacks in the leaves that a row falls into.
func (g *grove) score(t *Table) ([]float64, error) {
	p, err := g.forest.Probabilities(g.enc.apply(t))
	if err != nil {
		return nil, err
	}
	return p[1], nil
}

// scores adds the raw scores of the shown parts to those of the known ones.
func (s *shown) scores(t *Table, raw map[string][]float64) error {
	var err error
	if raw[Trees], err = s.trees.score(t); err != nil {
		return err
	}
	if raw[Grove], err = s.grove.score(t); err != nil {
		return err
	}
	raw[Contrast] = contrast(raw[Nearest], s.attacks, t)
	return nil
}

// contrast is how much nearer, in logarithms, a row is to an attack than to a
// normal row.
func contrast(near []float64, attacks *nearest, t *Table) []float64 {
	out := attacks.score(t)
	for i := range out {
		out[i] = near[i] - out[i]
	}
	return out
}
