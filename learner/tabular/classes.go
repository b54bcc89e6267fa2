package tabular

import (
	"context"
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// Classifier says which class a row is of. Its trees say probabilities; a
// class's probability is weighed before the greatest is said, since a rare
// class is otherwise never said at all. The weights are those that make the
// macro-F1 on training rows greatest, of which no tree in question saw the
// labels.
type Classifier struct {
	trees   *boosted
	classes int
	weigh   []float64 // added to the log-probability of each class
}

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
	logs := make([][]float64, c.classes)
	for k := range logs {
		logs[k] = make([]float64, t.Rows())
	}
	for f := range 2 {
		o.Progress(fmt.Sprintf("classes: half %d", f+1))
		in := t.Pick(t.Where(func(r int) bool { return fold[r] != f }))
		rows := t.Where(func(r int) bool { return fold[r] == f })
		b, err := fitClasses(ctx, in, bo)
		if err != nil {
			return nil, fmt.Errorf("fit classes: %w", err)
		}
		part, err := b.logs(t.Pick(rows), c.classes)
		if err != nil {
			return nil, fmt.Errorf("fit classes: %w", err)
		}
		for k := range part {
			for i, r := range rows {
				logs[k][r] = part[k][i]
			}
		}
	}
	c.tune(logs, t.Class.Of)
	o.Progress("classes: all rows")
	if c.trees, err = fitClasses(ctx, t, bo); err != nil {
		return nil, fmt.Errorf("fit classes: %w", err)
	}
	return c, nil
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
	logs, err := c.trees.logs(t, c.classes)
	if err != nil {
		return nil, nil, fmt.Errorf("say classes: %w", err)
	}
	return greatest(logs, c.weigh), greatest(logs, nil), nil
}
