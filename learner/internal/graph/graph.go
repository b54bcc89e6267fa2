// Package graph trains small dense networks with Gorgonia. It is the only
// package that knows Gorgonia; what leaves it is a flat slice of weights,
// which learner/internal/infer runs without it.
//
// A Trainer is one static graph with one machine and belongs to one goroutine.
// Weights, gradients and the optimiser's state are flat slices in the layout
// of infer.Shape: for each layer the matrix (inputs by outputs, row by row),
// then the bias. Everything is seeded by the caller; equal inputs give equal
// bits on one architecture.
package graph

import (
	"errors"
	"fmt"
	"math"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

// Gorgonia multiplies with what it is given, gonum by default: the same products to
// the last bit, in a fifth of the time and without goroutines.
func init() { tensor.Use(wide.Blas{}) }

// Trainer computes losses and gradients of one network.
type Trainer struct {
	shape  infer.Shape
	rows   int
	vm     *machine
	params []*tensor.Dense // one per matrix and bias, aliasing weights
	grads  gorgonia.Nodes
	in     [3][]float32 // x, target, weight: written before a run
	loss   *gorgonia.Node
	output *gorgonia.Node

	weights []float32
	grad    []float32

	// Pause is called by Run after each step; nil: nothing.
	Pause func()
}

// New builds the graph of a network with rectified hidden layers for batches
// of exactly rows rows, starting from the given weights, which are copied.
func New(shape infer.Shape, loss Loss, rows int, weights []float32) (*Trainer, error) {
	if err := shape.Validate(); err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	if rows < 1 || rows > 4096 {
		return nil, fmt.Errorf("build graph: %d rows: expected 1 to 4096", rows)
	}
	if len(weights) != shape.Params() {
		return nil, fmt.Errorf("build graph: %d weights: expected %d", len(weights), shape.Params())
	}
	t := &Trainer{
		shape: shape, rows: rows,
		weights: append([]float32(nil), weights...), grad: make([]float32, len(weights)),
	}
	if err := t.build(loss); err != nil {
		return nil, fmt.Errorf("build graph: %w", err)
	}
	return t, nil
}

// build makes the nodes. Gorgonia reports some mistakes by panics: none may
// leave this package.
func (t *Trainer) build(loss Loss) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("gorgonia: %v", r)
		}
	}()
	g := gorgonia.NewGraph()
	last := t.shape[len(t.shape)-1]
	x := t.input(g, 0, "x", t.shape[0])
	target := t.input(g, 1, "target", last)
	weight := t.input(g, 2, "weight", last)
	var learn gorgonia.Nodes
	h, at := x, 0
	for l := range len(t.shape) - 1 {
		in, out := t.shape[l], t.shape[l+1]
		w := t.param(g, fmt.Sprintf("w%d", l), at, in, out)
		b := t.param(g, fmt.Sprintf("b%d", l), at+in*out, 1, out)
		at += in*out + out
		learn = append(learn, w, b)
		if h, err = gorgonia.Mul(h, w); err != nil {
			return err
		}
		if h, err = gorgonia.BroadcastAdd(h, b, nil, []byte{0}); err != nil {
			return err
		}
		if l < len(t.shape)-2 {
			if h, err = gorgonia.Rectify(h); err != nil {
				return err
			}
		}
	}
	if t.loss, err = gorgonia.ApplyOp(lossOp{loss}, h, target, weight); err != nil {
		return err
	}
	t.output = h
	if t.grads, err = gorgonia.Grad(t.loss, learn...); err != nil {
		return err
	}
	t.vm, err = newMachine(g, append(gorgonia.Nodes{t.loss, t.output}, t.grads...)...)
	return err
}

// input makes an input node over a buffer that stays for the trainer's life.
func (t *Trainer) input(g *gorgonia.ExprGraph, i int, name string, cols int) *gorgonia.Node {
	t.in[i] = make([]float32, t.rows*cols)
	v := tensor.New(tensor.WithShape(t.rows, cols), tensor.WithBacking(t.in[i]))
	return gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName(name), gorgonia.WithShape(t.rows, cols), gorgonia.WithValue(v))
}

// param makes a weight node over its part of the flat weights.
func (t *Trainer) param(g *gorgonia.ExprGraph, name string, at, rows, cols int) *gorgonia.Node {
	v := tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(t.weights[at:at+rows*cols:at+rows*cols]))
	t.params = append(t.params, v)
	return gorgonia.NewMatrix(g, tensor.Float32, gorgonia.WithName(name), gorgonia.WithShape(rows, cols), gorgonia.WithValue(v))
}

// Weights are the current weights; the caller may change them in place between calls.
func (t *Trainer) Weights() []float32 { return t.weights }

// Inputs are the buffers to fill before Gradient: rows of inputs, of targets
// and of weights for each target.
func (t *Trainer) Inputs() (x, target, weight []float32) { return t.in[0], t.in[1], t.in[2] }

// Rows is the fixed batch size.
func (t *Trainer) Rows() int { return t.rows }

// ErrNotFinite says that a loss or a gradient was NaN or infinite. The weights
// were not changed.
var ErrNotFinite = errors.New("loss or gradient is not finite")

// Gradient runs the batch in the buffers and returns its loss and gradient.
// The gradient is overwritten by the next call.
func (t *Trainer) Gradient() (loss float64, grad []float32, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("run graph: gorgonia: %v", r)
		}
	}()
	if err := t.vm.run(); err != nil {
		return 0, nil, fmt.Errorf("run graph: %v", err)
	}
	v, ok := t.vm.value(t.loss).Data().(float32)
	if !ok {
		return 0, nil, fmt.Errorf("run graph: loss is %T", t.vm.value(t.loss).Data())
	}
	at := 0
	for _, n := range t.grads {
		part, ok := t.vm.value(n).Data().([]float32)
		if !ok {
			return 0, nil, fmt.Errorf("run graph: gradient is %T", t.vm.value(n).Data())
		}
		at += copy(t.grad[at:], part)
	}
	if at != len(t.grad) {
		return 0, nil, fmt.Errorf("run graph: %d gradients: expected %d", at, len(t.grad))
	}
	return float64(v), t.grad, finite(float64(v), t.grad)
}

// Output copies the network's output of the last run, rows by outputs.
func (t *Trainer) Output() ([]float32, error) {
	v := t.vm.value(t.output)
	if v == nil {
		return nil, errors.New("graph output: nothing was run yet")
	}
	out, ok := v.Data().([]float32)
	if !ok {
		return nil, fmt.Errorf("graph output: it is %T", v.Data())
	}
	return append([]float32(nil), out...), nil
}

func finite(loss float64, grad []float32) error {
	sum := loss * 0 // NaN when loss is NaN or infinite
	for _, g := range grad {
		sum += float64(g) * 0
	}
	if math.IsNaN(sum) {
		return ErrNotFinite
	}
	return nil
}
