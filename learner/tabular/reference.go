package tabular

import (
	"context"
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// Reference is one of the simple models that a detector is measured beside:
// its score of each row, and the class that it says, if it says any.
type Reference struct {
	Name  string
	Score []float64
	Said  []int
}

// Names of the references.
const (
	RefForest  = "forest"
	RefBoosted = "boosted trees"
	RefNetwork = "network"
	RefSelf    = "autoencoder"
)

// References trains each simple model on one table and scores another.
func References(ctx context.Context, train, test *Table, o Options) ([]Reference, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	var out []Reference
	for _, f := range []func(context.Context, *Table, *Table, Options) (Reference, error){refForest, refBoosted, refNetwork, refSelf} {
		r, err := f(ctx, train, test, o)
		if err != nil {
			return nil, fmt.Errorf("reference %s: %w", r.Name, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// ForestClassifier is the reference forest, as a classifier.
type ForestClassifier struct {
	enc    *treeEncoder
	forest *trees.Forest
}

// FitForest grows the reference forest.
func FitForest(ctx context.Context, train *Table, o Options) (*ForestClassifier, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	enc, d := fitTrees(train, OneHot, o.Seed)
	f, err := trees.GrowForest(ctx, d, train.Class.Of, nil, len(train.Class.Names), trees.ForestOptions{Seed: o.Seed, Trees: min(100, o.Rounds)})
	return &ForestClassifier{enc, f}, err
}

// Say gives each row's most probable class.
func (f *ForestClassifier) Say(t *Table) ([]int, error) {
	p, err := f.forest.Probabilities(f.enc.apply(t))
	if err != nil {
		return nil, err
	}
	return greatest(p, nil), nil
}

func refForest(ctx context.Context, train, test *Table, o Options) (Reference, error) {
	o.Progress("reference: " + RefForest)
	r := Reference{Name: RefForest}
	f, err := FitForest(ctx, train, o)
	if err != nil {
		return r, err
	}
	p, err := f.forest.Probabilities(f.enc.apply(test))
	if err != nil {
		return r, err
	}
	for _, x := range p[0] {
		r.Score = append(r.Score, 1-x)
	}
	r.Said = greatest(p, nil)
	return r, nil
}

func refBoosted(ctx context.Context, train, test *Table, o Options) (Reference, error) {
	o.Progress("reference: " + RefBoosted)
	r := Reference{Name: RefBoosted}
	b, err := fitBoosted(ctx, train, false, o.boost())
	if err != nil {
		return r, err
	}
	r.Score, err = b.score(test)
	return r, err
}

func refNetwork(ctx context.Context, train, test *Table, o Options) (Reference, error) {
	o.Progress("reference: " + RefNetwork)
	r := Reference{Name: RefNetwork}
	m, err := fitMLP(ctx, train, o.net(64, 32))
	if err != nil {
		return r, err
	}
	out := m.outputs(test)
	r.Said = greatest(out, nil)
	for i := range test.Rows() { // log-odds of any attack
		top := math.Inf(-1)
		for k := 1; k < len(out); k++ {
			top = max(top, out[k][i])
		}
		var sum float64
		for k := 1; k < len(out); k++ {
			sum += math.Exp(out[k][i] - top)
		}
		r.Score = append(r.Score, top+math.Log(sum)-out[0][i])
	}
	return r, nil
}

func refSelf(ctx context.Context, train, test *Table, o Options) (Reference, error) {
	o.Progress("reference: " + RefSelf)
	r := Reference{Name: RefSelf}
	a, err := fitAutoencoder(ctx, train.normals(), o.net(64, 32, 12, 32, 64))
	if err != nil {
		return r, err
	}
	r.Score = a.score(test, true)
	return r, nil
}
