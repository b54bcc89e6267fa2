// Package mlp trains small classifiers where a thousand of them are trained a
// hundred times: in a simulation. On a gateway learner/internal/graph trains,
// with Gorgonia; there a step may take a millisecond. Here the same step is
// written out for rows that are mostly zeros, as one-hot columns make them, and a
// test holds its loss and gradient to Gorgonia's within the noise of float32.
//
// Weights are flat slices in the layout of learner/internal/infer. A Trainer is
// the memory of one goroutine. Equal inputs give equal bits on one architecture.
package mlp

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/internal/graph"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

// Shape lists the widths of a network's layers, inputs first and classes last.
type Shape = infer.Shape

// Init draws weights from a seed; the last layer is zeros, so that an untrained
// network says the same of everything.
func Init(s Shape, seed uint64) []float32 {
	return infer.Init(s, rand.New(rand.NewPCG(seed, 0x317)), true)
}

// Rows are labelled inputs without their zeros. They are not changed once made,
// and may be shared.
type Rows struct {
	at    []int // row r is index[at[r]:at[r+1]] and value likewise
	index []uint16
	value []float32
	Class []int
}

// NewRows packs dense rows of a width; class has one entry for each.
func NewRows(x []float32, width int, class []int) (*Rows, error) {
	if width < 1 || width > infer.MaxWidth || len(x) != width*len(class) {
		return nil, fmt.Errorf("rows: %d numbers in rows of %d for %d classes", len(x), width, len(class))
	}
	r := &Rows{at: make([]int, 1, len(class)+1), Class: class}
	for i := range class {
		for j, v := range x[i*width : (i+1)*width] {
			if v != 0 {
				r.index, r.value = append(r.index, uint16(j)), append(r.value, v)
			}
		}
		r.at = append(r.at, len(r.index))
	}
	return r, nil
}

// Len is the number of rows.
func (r *Rows) Len() int { return len(r.Class) }

// Relabelled is the same inputs under other classes.
func (r *Rows) Relabelled(class []int) (*Rows, error) {
	if len(class) != r.Len() {
		return nil, fmt.Errorf("rows: %d classes: expected %d", len(class), r.Len())
	}
	out := *r
	out.Class = class
	return &out, nil
}

func (r *Rows) row(i int) ([]uint16, []float32) {
	return r.index[r.at[i]:r.at[i+1]], r.value[r.at[i]:r.at[i+1]]
}

// runs calls f for what of row i lies side by side: values[0] is of input from, and so on.
// Numbers of a table do, and only flags of words are apart.
func (r *Rows) runs(i int, f func(from int, values []float32)) {
	index, value := r.row(i)
	for k := 0; k < len(index); {
		end := k + 1
		for end < len(index) && index[end] == index[end-1]+1 {
			end++
		}
		f(int(index[k]), value[k:end])
		k = end
	}
}

// Dense writes row i into x, zeros included.
func (r *Rows) Dense(i int, x []float32) {
	clear(x)
	index, value := r.row(i)
	for k, j := range index {
		x[j] = value[k]
	}
}

// Options say how to train.
type Options struct {
	Steps int
	Batch int
	Rate  float64
}

// Trainer is working memory for networks of one shape.
type Trainer struct {
	shape Shape
	act   [infer.MaxLayers][]float32 // of one row; act[l] is what layer l puts out
	delta [2][]float32
	grad  []float32
	opt   *graph.Momentum
}

// NewTrainer makes working memory.
func NewTrainer(s Shape) (*Trainer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	t := &Trainer{shape: s, grad: make([]float32, s.Params()), opt: graph.NewMomentum(s.Params(), 0)}
	widest := 0
	for l, w := range s[1:] {
		t.act[l+1] = make([]float32, w)
		widest = max(widest, w)
	}
	t.delta[0], t.delta[1] = make([]float32, widest), make([]float32, widest)
	return t, nil
}

// ErrNotFinite says that training ran off to infinity.
var ErrNotFinite = errors.New("mlp: a weight is not finite: use a lower rate")

// Train makes steps of gradient descent with momentum on weights, in place, each
// on a batch that is drawn from the rows with replacement. of lists the rows that
// may be drawn; label gives the class that one is trained as, nil its own.
func (t *Trainer) Train(weights []float32, rows *Rows, of []int, label func(row int) int, o Options, rng *rand.Rand) error {
	if err := t.ready(weights, of, o); err != nil {
		return err
	}
	batch := make([]int, o.Batch)
	for range o.Steps {
		for b := range batch {
			batch[b] = of[rng.IntN(len(of))]
		}
		t.Gradient(weights, rows, batch, label)
		if err := t.opt.Step(weights, t.grad); err != nil {
			return err
		}
	}
	return finite(weights)
}

// ready begins a training.
func (t *Trainer) ready(weights []float32, of []int, o Options) error {
	if len(weights) != t.shape.Params() || len(of) == 0 || o.Steps < 1 || o.Batch < 1 {
		return fmt.Errorf("mlp: %d weights, %d rows, %d steps of %d rows: expected %d weights and at least one of the others",
			len(weights), len(of), o.Steps, o.Batch, t.shape.Params())
	}
	t.opt.Rate = o.Rate
	clear(t.opt.V)
	return nil
}

func finite(weights []float32) error {
	var sum float64
	for _, w := range weights {
		sum += float64(w) * 0 // NaN when w is NaN or infinite
	}
	if math.IsNaN(sum) {
		return ErrNotFinite
	}
	return nil
}

// Gradient is the mean cross-entropy of a batch and its gradient, which the next
// call overwrites.
func (t *Trainer) Gradient(weights []float32, rows *Rows, batch []int, label func(row int) int) (loss float64, grad []float32) {
	clear(t.grad)
	for _, r := range batch {
		class := rows.Class[r]
		if label != nil {
			class = label(r)
		}
		out := t.Forward(weights, rows, r)
		d := t.delta[0][:len(out)]
		loss += softmax(d, out, class, float64(len(batch)))
		t.backward(weights, rows, r)
	}
	return loss / float64(len(batch)), t.grad
}

// softmax writes the gradient of a row's cross-entropy over n, and returns the
// cross-entropy.
func softmax(d, out []float32, class int, n float64) float64 {
	top, z := math.Inf(-1), 0.0
	for _, x := range out {
		top = max(top, float64(x))
	}
	for _, x := range out {
		z += math.Exp(float64(x) - top)
	}
	for i, x := range out {
		p := math.Exp(float64(x)-top) / z
		if i == class {
			p--
		}
		d[i] = float32(p / n)
	}
	return math.Log(z) - (float64(out[class]) - top)
}

// Forward runs a row through a network. The result, one number for each class,
// lives until the next call.
func (t *Trainer) Forward(weights []float32, rows *Rows, r int) []float32 {
	at, last := 0, len(t.shape)-1
	for l := range last {
		in, out := t.shape[l], t.shape[l+1]
		w, h := weights[at:at+in*out], t.act[l+1]
		copy(h, weights[at+in*out:at+in*out+out])
		at += in*out + out
		if l == 0 {
			rows.runs(r, func(from int, x []float32) {
				wide.Mul(h, x, w[from*out:], 1, out, len(x), out, len(x), 1, out)
			})
		} else {
			wide.Mul(h, t.act[l], w, 1, out, in, out, in, 1, out)
		}
		if l < last-1 {
			for i, v := range h {
				h[i] = max(v, 0)
			}
		}
	}
	return t.act[last]
}

// backward adds the gradient of the row that went forward last; delta[0] is the
// gradient with respect to its output.
func (t *Trainer) backward(weights []float32, rows *Rows, r int) {
	d, next := t.delta[0], t.delta[1]
	at := len(weights)
	for l := len(t.shape) - 2; l >= 0; l-- {
		in, out := t.shape[l], t.shape[l+1]
		at -= in*out + out
		w, g := weights[at:at+in*out], t.grad[at:at+in*out]
		for i, v := range d[:out] {
			t.grad[at+in*out+i] += v
		}
		if l == 0 {
			rows.runs(r, func(from int, x []float32) {
				wide.Mul(g[from*out:], x, d, len(x), out, 1, out, 1, 1, out)
			})
			return
		}
		act := t.act[l]
		wide.Mul(g, act, d, in, out, 1, out, 1, 1, out)
		clear(next[:in])
		wide.MulRows(next, w, d, in, 1, out, 1, out, out)
		for i, v := range act {
			if v == 0 { // rectified, or nothing to learn from
				next[i] = 0
			}
		}
		d, next = next, d
	}
}
