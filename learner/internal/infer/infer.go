// Package infer runs a trained dense network forward without Gorgonia and
// without allocating, and differentiates it with respect to its input, which
// explanations need.
package infer

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

// Shape lists the widths of a network's layers, input first. Hidden layers are
// rectified, the last is linear.
type Shape []int

// Limits of a shape.
const (
	MaxWidth  = 1024
	MaxLayers = 8
)

// Validate checks that a network of this shape can be built.
func (s Shape) Validate() error {
	if len(s) < 2 || len(s) > MaxLayers {
		return fmt.Errorf("shape: %d layers: expected 2 to %d", len(s), MaxLayers)
	}
	for _, w := range s {
		if w < 1 || w > MaxWidth {
			return fmt.Errorf("shape: width %d: expected 1 to %d", w, MaxWidth)
		}
	}
	return nil
}

// Params is the number of weights: for each layer the matrix, then the bias.
func (s Shape) Params() int {
	n := 0
	for l := range len(s) - 1 {
		n += s[l]*s[l+1] + s[l+1]
	}
	return n
}

func (s Shape) widest() int {
	w := 0
	for _, x := range s {
		w = max(w, x)
	}
	return w
}

// Init draws weights by the rule of He et al. (2015) for rectified layers;
// biases are 0. With zeroLast the last layer starts at 0, so that an untrained
// network says the same of everything.
func Init(s Shape, rng *rand.Rand, zeroLast bool) []float32 {
	w := make([]float32, 0, s.Params())
	for l := range len(s) - 1 {
		sd := math.Sqrt(2 / float64(s[l]))
		if l == len(s)-2 {
			sd = math.Sqrt(1 / float64(s[l]))
			if zeroLast {
				sd = 0
			}
		}
		for range s[l] * s[l+1] {
			w = append(w, float32(sd*rng.NormFloat64()))
		}
		w = append(w, make([]float32, s[l+1])...)
	}
	return w
}

// Net is a network with its weights. It is immutable and may be shared.
type Net struct {
	shape   Shape
	weights []float32
	layers  []layer
}

// layer is what one layer is multiplied by: columns filled up with zeros to a
// multiple of what is multiplied at once.
type layer struct{ w, b []float32 }

func newLayers(s Shape, weights []float32) []layer {
	out := make([]layer, 0, len(s)-1)
	for l := range len(s) - 1 {
		rows, cols := s[l], s[l+1]
		pad := wide.Pad(cols)
		x := layer{make([]float32, rows*pad), make([]float32, pad)}
		for i := range rows {
			copy(x.w[i*pad:], weights[i*cols:(i+1)*cols])
		}
		copy(x.b, weights[rows*cols:(rows+1)*cols])
		weights = weights[(rows+1)*cols:]
		out = append(out, x)
	}
	return out
}

// New checks and copies the weights.
func New(s Shape, weights []float32) (*Net, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if len(weights) != s.Params() {
		return nil, fmt.Errorf("network: %d weights: expected %d", len(weights), s.Params())
	}
	for _, w := range weights {
		if x := float64(w); math.IsNaN(x) || math.IsInf(x, 0) || math.Abs(x) > 1e4 {
			return nil, errors.New("network: a weight is not finite or beyond ten thousand")
		}
	}
	return &Net{append(Shape(nil), s...), append([]float32(nil), weights...), newLayers(s, weights)}, nil
}

// Weights are the network's; the caller must not change them.
func (n *Net) Weights() []float32 { return n.weights }

// Shape is the network's; the caller must not change it.
func (n *Net) Shape() Shape { return n.shape }

// Scratch holds a network's activations for one goroutine.
type Scratch struct {
	act  [MaxLayers][]float32 // act[l] is the output of layer l; act[0] the input
	back [2][]float32
}

// NewScratch makes room for one shape.
func NewScratch(s Shape) *Scratch {
	c := &Scratch{}
	for l, w := range s {
		c.act[l] = make([]float32, w, wide.Pad(w))
	}
	c.back[0], c.back[1] = make([]float32, s.widest()), make([]float32, s.widest())
	return c
}

// Forward runs x through the network. The result lives in the scratch until its next
// use, with zeros behind it up to a multiple of 16. It allocates nothing.
func (n *Net) Forward(x []float32, c *Scratch) []float32 {
	copy(c.act[0], x)
	last := len(n.layers)
	for l := range n.layers {
		h := c.act[l+1][:wide.Pad(n.shape[l+1])]
		copy(h, n.layers[l].b)
		wide.Mul(h, c.act[l], n.layers[l].w, 1, len(h), n.shape[l], len(h), n.shape[l], 1, len(h))
		if l < last-1 {
			wide.Rectify(h)
		}
	}
	return c.act[last]
}

// InputGradient adds to dst the gradient, with respect to the input of the
// last Forward on this scratch, of the sum over outputs of up times output.
func (n *Net) InputGradient(dst, up []float32, c *Scratch) {
	cur, next := c.back[0], c.back[1]
	copy(cur, up)
	at := len(n.weights)
	for l := len(n.shape) - 2; l >= 0; l-- {
		in, out := n.shape[l], n.shape[l+1]
		at -= in*out + out
		w := n.weights[at : at+in*out]
		for i := range in {
			var sum float32
			if l == 0 || c.act[l][i] > 0 {
				for j, wij := range w[i*out : (i+1)*out] {
					sum += wij * cur[j]
				}
			}
			next[i] = sum
		}
		cur, next = next, cur
	}
	for i := range n.shape[0] {
		dst[i] += cur[i]
	}
}
