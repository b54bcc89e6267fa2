package tabular

import (
	"context"
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// Classifier says which class a row is of. Boosted trees and a forest say
// probabilities, of which a mean is taken; a class's probability is weighed before
// the greatest is said, since a rare class is otherwise never said at all. The
// weights are those that make the macro-F1 on training rows greatest, of which no
// tree in question saw the labels; how much the forest counts is chosen in the
// same way.
type Classifier struct {
	trees   *boosted
	forest  *ForestClassifier
	share   float64 // of the forest in the mean
	classes int
	weigh   []float64 // added to the log-probability of each class
}

// forestShares are what is tried.
var forestShares = []float64{0, 0.5, 1}

// ClassRounds is how many rounds the classifier's trees take; they are many,
// since each class has its own.
const ClassRounds = 80

// FitClassifier trains on a table.
func FitClassifier(ctx context.Context, t *Table, o Options) (*Classifier, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Classifier{classes: len(t.Class.Names), weigh: make([]float64, len(t.Class.Names))}
	bo := trees.Options{Rounds: min(o.Rounds, ClassRounds), Seed: o.Seed, Rate: 0.15}
	fold := t.Folds(2, o.Seed)
	var logs [2][][]float64 // of the trees and the forest, out of fold
	for m := range logs {
		logs[m] = make([][]float64, c.classes)
		for k := range logs[m] {
			logs[m][k] = make([]float64, t.Rows())
		}
	}
	for f := range 2 {
		o.Progress(fmt.Sprintf("classes: half %d", f+1))
		rows := t.Where(func(r int) bool { return fold[r] == f })
		half := &Classifier{classes: c.classes}
		if err := half.fit(ctx, t.Pick(t.Where(func(r int) bool { return fold[r] != f })), bo, o); err != nil {
			return nil, err
		}
		trees, forest, err := half.logs(t.Pick(rows))
		if err != nil {
			return nil, err
		}
		for m, part := range [][][]float64{trees, forest} {
			for k := range part {
				for i, r := range rows {
					logs[m][k][r] = part[k][i]
				}
			}
		}
	}
	c.choose(logs[0], logs[1], t.Class.Of)
	o.Progress("classes: all rows")
	return c, c.fit(ctx, t, bo, o)
}

// choose takes the share of the forest, with the weights that go with it, that
// says the classes best.
func (c *Classifier) choose(trees, forest [][]float64, truth []int) {
	best := *c
	top := -1.0
	for _, share := range forestShares {
		x := &Classifier{classes: c.classes, weigh: make([]float64, c.classes), share: share}
		mixed := x.mix(trees, forest)
		x.tune(mixed, truth)
		if f := x.macro(mixed, truth); f > top {
			best, top = *x, f
		}
	}
	*c = best
}

// mix is the logarithm of the mean of the two models' probabilities.
func (c *Classifier) mix(trees, forest [][]float64) [][]float64 {
	if c.share == 0 {
		return trees
	}
	out := make([][]float64, len(trees))
	for k := range trees {
		out[k] = make([]float64, len(trees[k]))
		for r := range out[k] {
			out[k][r] = math.Log((1-c.share)*math.Exp(trees[k][r]) + c.share*math.Exp(forest[k][r]))
		}
	}
	return out
}

// fit trains the trees and the forest.
func (c *Classifier) fit(ctx context.Context, t *Table, bo trees.Options, o Options) (err error) {
	if c.trees, err = fitClasses(ctx, t, bo); err != nil {
		return fmt.Errorf("fit classes: %w", err)
	}
	if c.forest, err = FitForest(ctx, t, o); err != nil {
		return fmt.Errorf("fit classes: %w", err)
	}
	return nil
}

// rarest keeps a forest's share of nothing from being the logarithm of nothing.
const rarest = 1e-4

// logs are the logarithms of both models' probabilities.
func (c *Classifier) logs(t *Table) (trees, forest [][]float64, err error) {
	if trees, err = c.trees.logs(t, c.classes); err != nil {
		return nil, nil, fmt.Errorf("classes: %w", err)
	}
	if forest, err = c.forest.forest.Probabilities(c.forest.enc.apply(t)); err != nil {
		return nil, nil, fmt.Errorf("classes: %w", err)
	}
	for k := range forest {
		for r, p := range forest[k] {
			forest[k][r] = math.Log(max(p, rarest))
		}
	}
	return trees, forest, nil
}

func fitClasses(ctx context.Context, t *Table, o trees.Options) (*boosted, error) {
	enc, d := fitTrees(t, OneHot, o.Seed)
	m, err := trees.Boost(ctx, d, t.Class.Of, nil, len(t.Class.Names), o)
	return &boosted{enc, m}, err
}

// logs are the logarithms of the classes' probabilities: [class][row].
func (b *boosted) logs(t *Table, classes int) ([][]float64, error) {
	s, err := b.model.Scores(b.enc.apply(t))
	if err != nil {
		return nil, err
	}
	if classes == 2 { // one output
		s = [][]float64{make([]float64, t.Rows()), s[0]}
	}
	for r := range t.Rows() {
		top, sum := math.Inf(-1), 0.0
		for k := range s {
			top = max(top, s[k][r])
		}
		for k := range s {
			sum += math.Exp(s[k][r] - top)
		}
		for k := range s {
			s[k][r] -= top + math.Log(sum)
		}
	}
	return s, nil
}

// tune climbs, one class at a time, to the weights of greatest macro-F1.
func (c *Classifier) tune(logs [][]float64, truth []int) {
	best := c.macro(logs, truth)
	for _, step := range []float64{1, 0.5, 0.25, 0.5, 0.25, 0.12} {
		for k := range c.weigh {
			for _, d := range []float64{step, -step} {
				for {
					c.weigh[k] += d
					if m := c.macro(logs, truth); m > best+1e-6 && math.Abs(c.weigh[k]) < 4 {
						best = m
						continue
					}
					c.weigh[k] -= d
					break
				}
			}
		}
	}
}

func (c *Classifier) macro(logs [][]float64, truth []int) float64 {
	m, err := metrics.Confuse(truth, greatest(logs, c.weigh), c.classes, nil)
	if err != nil {
		return 0
	}
	return m.MacroF1()
}

// greatest is the class of greatest weighed value, row by row.
func greatest(logs [][]float64, weigh []float64) []int {
	out := make([]int, len(logs[0]))
	for r := range out {
		top := math.Inf(-1)
		for k := range logs {
			x := logs[k][r]
			if weigh != nil {
				x += weigh[k]
			}
			if x > top {
				out[r], top = k, x
			}
		}
	}
	return out
}

// Say gives each row's class: weighed, and as the trees alone would have it.
func (c *Classifier) Say(t *Table) (weighed, plain []int, err error) {
	trees, forest, err := c.logs(t)
	if err != nil {
		return nil, nil, fmt.Errorf("say: %w", err)
	}
	return greatest(c.mix(trees, forest), c.weigh), greatest(trees, nil), nil
}
