package trees

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
)

// Options say how to boost. Zero values take the defaults.
type Options struct {
	Rounds  int     // trees for each output; default 200
	Depth   int     // questions of a tree, 1 to 6; default 6
	Rate    float64 // share of each tree that is believed; default 0.1
	L2      float64 // pull of leaves towards 0, in units of the second derivative; default 3
	Bins    int     // 3 to 255; default 128
	Rows    float64 // share of the rows that a tree is fitted on; default 0.5
	Columns float64 // share of the columns that a tree may ask; default 0.5
	Seed    uint64
	Workers int // goroutines; default 1. It does not change the result.
	// Pause, if any, is called after each tree, in the goroutine that trains, so
	// that the caller can let other work go first.
	Pause func()
}

func (o Options) withDefaults() (Options, error) {
	set := func(x *float64, d float64) {
		if *x == 0 {
			*x = d
		}
	}
	seti := func(x *int, d int) {
		if *x == 0 {
			*x = d
		}
	}
	seti(&o.Rounds, 200)
	seti(&o.Depth, MaxDepth)
	seti(&o.Bins, 128)
	seti(&o.Workers, 1)
	set(&o.Rate, 0.1)
	set(&o.L2, 3)
	set(&o.Rows, 0.5)
	set(&o.Columns, 0.5)
	switch {
	case o.Rounds < 1 || o.Rounds > 10_000:
		return o, fmt.Errorf("rounds: %d: expected 1 to 10000", o.Rounds)
	case o.Depth < 1 || o.Depth > MaxDepth:
		return o, fmt.Errorf("depth: %d: expected 1 to %d", o.Depth, MaxDepth)
	case o.Bins < 3 || o.Bins > MaxBins:
		return o, fmt.Errorf("bins: %d: expected 3 to %d", o.Bins, MaxBins)
	case !(o.Rate > 0 && o.Rate <= 1) || !(o.Rows > 0 && o.Rows <= 1) || !(o.Columns > 0 && o.Columns <= 1):
		return o, fmt.Errorf("rate %v, rows %v, columns %v: expected above 0 and at most 1", o.Rate, o.Rows, o.Columns)
	case !(o.L2 > 0 && o.L2 <= 1e9):
		return o, fmt.Errorf("l2: %v: expected above 0", o.L2)
	case o.Workers < 1 || o.Workers > 1024:
		return o, fmt.Errorf("workers: %d: expected 1 to 1024", o.Workers)
	}
	return o, nil
}

// Boost learns classes 0 to classes-1 of rows. Two classes make one output, the
// log-odds of class 1; more make one output each, to be compared by softmax.
// weight may be nil.
func Boost(ctx context.Context, d Data, class []int, weight []float32, classes int, o Options) (*Model, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("boost: options: %w", err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("boost: %w", err)
	}
	if err := checkTarget(d.Rows(), class, weight, classes); err != nil {
		return nil, fmt.Errorf("boost: %w", err)
	}
	b := newBooster(newBinned(d, o.Bins, o.Seed), class, weight, classes, o)
	return b.run(ctx)
}

// Shares learns from 0 to 1 how much of each row is of class 1: a share is as
// much as a row of either class, weighted by it and by what is left. There is one
// output, the log-odds of class 1. weight may be nil.
func Shares(ctx context.Context, d Data, share, weight []float32, o Options) (*Model, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("boost: options: %w", err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("boost: %w", err)
	}
	if len(share) != d.Rows() {
		return nil, fmt.Errorf("boost: %d rows, %d shares: expected as many", d.Rows(), len(share))
	}
	for r, x := range share {
		if !(x >= 0 && x <= 1) {
			return nil, fmt.Errorf("boost: row %d: share %v: expected 0 to 1", r, x)
		}
	}
	if err := checkTarget(d.Rows(), make([]int, len(share)), weight, 2); err != nil {
		return nil, fmt.Errorf("boost: %w", err)
	}
	b := newBooster(newBinned(d, o.Bins, o.Seed), nil, weight, 2, o)
	b.share = share
	b.begin([]float64{priorOfShares(share, weight)})
	return b.run(ctx)
}

func (b *booster) run(ctx context.Context) (*Model, error) {
	for round := range b.o.Rounds {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("boost: round %d of %d: %w", round, b.o.Rounds, err)
		}
		b.sample()
		b.beginRound()
		for k := range b.model.Outputs {
			b.gradient(k)
			t := b.grow()
			t.Output = uint16(k)
			b.add(&t)
			b.model.Trees = append(b.model.Trees, t)
			runtime.Gosched()
			if b.o.Pause != nil {
				b.o.Pause()
			}
		}
	}
	return b.model, nil
}

// booster is the state of one training.
type booster struct {
	o      Options
	data   *binned
	class  []int     // of each row, or
	share  []float32 // how much of it is of class 1
	weight []float32
	model  *Model
	score  [][]float64 // of each output and row
	prob   [][]float32 // softmax at the beginning of the round, for several outputs
	grad   []pair      // of each row
	rows   []int32     // those of this round's sample, ascending
	cols   []int       // those that this round may ask
	rng    *rand.Rand
	grow1  grower
}

// pair is a sum of first and of second derivatives.
type pair struct{ g, h float32 }

func newBooster(d *binned, class []int, weight []float32, classes int, o Options) *booster {
	outputs := classes
	if classes == 2 {
		outputs = 1
	}
	b := &booster{
		o: o, data: d, class: class, weight: weight,
		grad: make([]pair, d.rows), rng: rand.New(rand.NewPCG(o.Seed, 0x7ee5)),
		model: &Model{Columns: len(d.cols), Outputs: outputs, Borders: d.borders},
	}
	for range outputs {
		b.score = append(b.score, make([]float64, d.rows))
		if outputs > 1 {
			b.prob = append(b.prob, make([]float32, d.rows))
		}
	}
	b.begin(prior(class, weight, classes))
	return b
}

// begin has every row score the bias.
func (b *booster) begin(bias []float64) {
	b.model.Bias = bias
	for k, s := range b.score {
		for i := range s {
			s[i] = bias[k]
		}
	}
}

// priorOfShares is prior for rows that are of both classes.
func priorOfShares(share, weight []float32) float64 {
	of := [2]float64{1, 1}
	for i, x := range share {
		w := 1.0
		if weight != nil {
			w = float64(weight[i])
		}
		of[1] += w * float64(x)
		of[0] += w * float64(1-x)
	}
	return math.Log(of[1] / of[0])
}

// prior is the score that says the classes' shares of everything.
func prior(class []int, weight []float32, classes int) []float64 {
	share := make([]float64, classes)
	total := float64(classes) // one made row of each: no class is impossible
	for i := range share {
		share[i] = 1
	}
	for i, k := range class {
		w := 1.0
		if weight != nil {
			w = float64(weight[i])
		}
		share[k], total = share[k]+w, total+w
	}
	if classes == 2 {
		return []float64{math.Log(share[1] / share[0])}
	}
	for i := range share {
		share[i] = math.Log(share[i] / total)
	}
	return share
}

// sample draws the rows and columns of a round.
func (b *booster) sample() {
	b.rows = b.rows[:0]
	for r := range b.data.rows {
		if b.o.Rows == 1 || b.rng.Float64() < b.o.Rows {
			b.rows = append(b.rows, int32(r))
		}
	}
	b.cols = b.cols[:0]
	for c := range b.data.cols {
		if len(b.data.borders[c]) > 0 {
			b.cols = append(b.cols, c)
		}
	}
	if b.o.Columns < 1 {
		keep := int(math.Ceil(b.o.Columns * float64(len(b.cols))))
		b.rng.Shuffle(len(b.cols), func(i, j int) { b.cols[i], b.cols[j] = b.cols[j], b.cols[i] })
		b.cols = b.cols[:keep]
	}
}

// beginRound takes the softmax of all outputs, so that the trees of one round
// are fitted to the same state.
func (b *booster) beginRound() {
	if b.model.Outputs == 1 {
		return
	}
	z := make([]float64, len(b.score))
	for r := range b.data.rows {
		for k := range z {
			z[k] = b.score[k][r]
		}
		softmax(z)
		for k := range z {
			b.prob[k][r] = float32(z[k])
		}
	}
}

// gradient writes the derivatives of the loss by output k.
func (b *booster) gradient(k int) {
	for r := range b.grad {
		var p, y float64
		if b.model.Outputs == 1 {
			p, y = sigmoid(b.score[0][r]), b.wanted(r)
		} else {
			p = float64(b.prob[k][r])
			if b.class[r] == k {
				y = 1
			}
		}
		w := 1.0
		if b.weight != nil {
			w = float64(b.weight[r])
		}
		b.grad[r] = pair{float32(w * (p - y)), float32(w * max(p*(1-p), 1e-6))}
	}
}

// wanted is how much of a row is of class 1.
func (b *booster) wanted(r int) float64 {
	if b.share != nil {
		return float64(b.share[r])
	}
	return float64(b.class[r])
}

// add brings a tree's values into the scores.
func (b *booster) add(t *Tree) {
	s := b.score[t.Output]
	leaf := make([]uint8, b.data.rows)
	for l, c := range t.Column {
		above, bit := t.Border[l]+1, uint8(1)<<l
		for r, x := range b.data.cols[c] {
			if x > above {
				leaf[r] |= bit
			}
		}
	}
	for r, at := range leaf {
		s[r] += float64(t.Leaf[at])
	}
}

func sigmoid(z float64) float64 { return 1 / (1 + math.Exp(-z)) }

// softmax replaces scores by probabilities.
func softmax(z []float64) {
	top := math.Inf(-1)
	for _, x := range z {
		top = max(top, x)
	}
	var sum float64
	for i, x := range z {
		z[i] = math.Exp(x - top)
		sum += z[i]
	}
	for i := range z {
		z[i] /= sum
	}
}
