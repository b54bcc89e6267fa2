package tabular

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// Names of the parts of a detector.
const (
	Trees    = "trees"    // boosted trees: attacks that were shown
	Grove    = "grove"    // a random forest: the same, by many deep trees' vote
	Contrast = "contrast" // nearer to an attack that was shown, or to a normal row
	Self     = "self"     // autoencoder of normal rows
	Nearest  = "nearest"  // distance to the nearest normal row
)

// Parts are the names of all parts: first those that are shown attacks.
func Parts() []string { return []string{Trees, Grove, Contrast, Self, Nearest} }

// Options say how to train. Zero values take the defaults.
type Options struct {
	Seed uint64
	// Unseen is how much finding families that were not shown counts in
	// choosing the way, against finding those that were; 0 to 1.
	Unseen float64
	// Rounds of the boosted trees; default 150.
	Rounds int
	// Steps of training a network; default 6000.
	Steps int
	// Progress is told what begins; may be nil.
	Progress func(string)
}

func (o Options) withDefaults() (Options, error) {
	if o.Rounds == 0 {
		o.Rounds = 150
	}
	if o.Steps == 0 {
		o.Steps = 6000
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Rounds < 1 || o.Steps < 1 || o.Steps > 1_000_000 || !(o.Unseen >= 0 && o.Unseen <= 1) {
		return o, fmt.Errorf("options: %d rounds, %d steps, unseen %v: expected at least 1, 1 to 1000000, 0 to 1", o.Rounds, o.Steps, o.Unseen)
	}
	return o, nil
}

func (o Options) boost() trees.Options { return trees.Options{Rounds: o.Rounds, Seed: o.Seed} }

func (o Options) net(hidden ...int) netOptions {
	return netOptions{hidden: hidden, steps: o.Steps, rate: 0.002, seed: o.Seed}
}

// groveTrees is how many trees the forest among the parts has.
const groveTrees = 60

// ErrTooFew says that a table does not hold what training needs.
var ErrTooFew = errors.New("too few rows to train on")

// minNormal and minAttack are the least that a detector is trained on.
const (
	minNormal = 200
	minAttack = 2
)

// boosted are boosted trees with their encoding.
type boosted struct {
	enc   *treeEncoder
	model *trees.Model
}

// byFamily weighs attack rows so that a family of ten thousand does not drown
// one of fifty: each family counts as the root of its size, and all together as
// much as before.
func byFamily(t *Table) []float32 {
	size := make([]float64, len(t.Family.Names))
	for _, f := range t.Family.Of {
		size[f]++
	}
	var before, after float64
	for f, n := range size {
		if f > 0 && n > 0 {
			before, after = before+n, after+math.Sqrt(n)
		}
	}
	w := make([]float32, t.Rows())
	for r, f := range t.Family.Of {
		w[r] = 1
		if f > 0 {
			w[r] = float32(before / after / math.Sqrt(size[f]))
		}
	}
	return w
}

func binary(t *Table) []int {
	y := make([]int, t.Rows())
	for i, k := range t.Class.Of {
		y[i] = min(k, 1)
	}
	return y
}

// fitBoosted learns attack against normal; balanced weighs rows by family.
func fitBoosted(ctx context.Context, t *Table, balanced bool, o trees.Options) (*boosted, error) {
	var w []float32
	if balanced {
		w = byFamily(t)
	}
	enc, d := fitTrees(t, OneHot, o.Seed)
	m, err := trees.Boost(ctx, d, binary(t), w, 2, o)
	return &boosted{enc, m}, err
}

func (b *boosted) score(t *Table) ([]float64, error) {
	s, err := b.model.Scores(b.enc.apply(t))
	if err != nil {
		return nil, err
	}
	return s[0], nil
}

// importance is each table column's share in the trees.
func (b *boosted) importance(columns int) []float64 {
	out := make([]float64, columns)
	for i, x := range b.model.Importance() {
		out[b.enc.from[i]] += x
	}
	return out
}

// known is what is learnt from normal rows alone: it stays when a family of
// attacks is left out.
type known struct {
	self *autoencoder
	near *nearest
}

func fitKnown(ctx context.Context, normal *Table, o Options) (*known, error) {
	if normal.Rows() < minNormal {
		return nil, fmt.Errorf("%w: %d normal rows: expected at least %d", ErrTooFew, normal.Rows(), minNormal)
	}
	self, err := fitAutoencoder(ctx, normal, o.net(96, 24, 96))
	if err != nil {
		return nil, err
	}
	return &known{self, fitNearest(normal, maxExamples, o.Seed)}, nil
}

// scores are those of the parts that know normal rows only.
func (k *known) scores(t *Table) map[string][]float64 {
	return map[string][]float64{Self: k.self.score(t, false), Nearest: k.near.score(t)}
}

// normals are the normal rows among some.
func (t *Table) normals() *Table {
	return t.Pick(t.Where(func(r int) bool { return t.Class.Of[r] == 0 }))
}

// attacks counts the attack rows.
func (t *Table) attacks() int {
	n := 0
	for _, k := range t.Class.Of {
		n += min(k, 1)
	}
	return n
}
