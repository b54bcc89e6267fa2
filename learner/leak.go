package learner

import (
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// Prober is what somebody who sees an update can compute about a record that he
// guesses: for studies of what updates betray. It is for one goroutine.
type Prober struct {
	weights []float32
	grad    *mlp.Trainer
}

// NewProber probes shared weights.
func NewProber(weights []float32) (*Prober, error) {
	if _, err := infer.New(attackShape, weights); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	t, err := mlp.NewTrainer(attackShape)
	return &Prober{weights: weights, grad: t}, err
}

// Gradient is the loss of a record that is taught as normal, and its gradient, a
// copy.
func (p *Prober) Gradient(v *feature.Vector) (loss float64, grad []float32, err error) {
	rows, err := mlp.NewRows(SharedInput(v), feature.Dim, []int{0})
	if err != nil {
		return 0, nil, fmt.Errorf("probe: %w", err)
	}
	loss, g := p.grad.Gradient(p.weights, rows, []int{0}, nil)
	return loss, append([]float32(nil), g...), nil
}

// SharedInput is a vector in the units of the shared classifier's input.
func SharedInput(v *feature.Vector) []float32 {
	x := make([]float32, feature.Dim)
	attackInput(x, v)
	return x
}

// Guesses are the inputs that an update suggests, by the oldest way of inverting
// one: the gradient of a first-layer unit's weights over that of its bias is the
// input, when there was only one (Phong et al. 2018). Units that did not move
// suggest nothing.
func Guesses(update []float32) [][]float32 {
	in, out := attackShape[0], attackShape[1]
	var guesses [][]float32
	for j := range out {
		bias := update[in*out+j]
		if bias == 0 {
			continue
		}
		x := make([]float32, in)
		for i := range x {
			x[i] = update[i*out+j] / bias
		}
		guesses = append(guesses, x)
	}
	return guesses
}
