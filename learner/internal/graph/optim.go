package graph

import (
	"fmt"
	"math"
)

// Optimiser changes weights by a gradient.
type Optimiser interface {
	// Step updates weights in place; grad is left as it is.
	Step(weights, grad []float32) error
}

// Adam is the method of Kingma and Ba (2015) on flat slices. Its fields are
// its whole state and can be stored.
type Adam struct {
	Rate    float64
	Beta1   float64
	Beta2   float64
	Epsilon float64
	T       int
	M, V    []float32
}

// NewAdam starts with the paper's constants for n weights.
func NewAdam(n int, rate float64) *Adam {
	return &Adam{Rate: rate, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-8, M: make([]float32, n), V: make([]float32, n)}
}

// Step is one bias-corrected update.
func (a *Adam) Step(weights, grad []float32) error {
	if len(weights) != len(a.M) || len(grad) != len(a.M) || len(a.V) != len(a.M) {
		return fmt.Errorf("adam: %d weights and %d gradients: expected %d", len(weights), len(grad), len(a.M))
	}
	a.T++
	c1 := 1 - math.Pow(a.Beta1, float64(a.T))
	c2 := 1 - math.Pow(a.Beta2, float64(a.T))
	b1, b2 := float32(a.Beta1), float32(a.Beta2)
	rate, root, eps := float32(a.Rate/c1), float32(1/math.Sqrt(c2)), float32(a.Epsilon)
	for i, g := range grad {
		a.M[i] = b1*a.M[i] + (1-b1)*g
		a.V[i] = b2*a.V[i] + (1-b2)*g*g
		weights[i] -= rate * a.M[i] / (float32(math.Sqrt(float64(a.V[i])))*root + eps)
	}
	return nil
}

// Momentum is gradient descent with Polyak's momentum and an L2 pull on the
// weights. Unlike Adam its steps shrink with the gradient, so a site that has
// nothing to teach leaves shared weights nearly as they are.
type Momentum struct {
	Rate, Beta, Decay float64
	Clip              float64 // longest gradient, in L2 norm; 0 no limit
	V                 []float32
}

// NewMomentum starts at rest for n weights.
func NewMomentum(n int, rate float64) *Momentum {
	return &Momentum{Rate: rate, Beta: 0.9, Clip: 5, V: make([]float32, n)}
}

// Step is one update.
func (m *Momentum) Step(weights, grad []float32) error {
	if len(weights) != len(m.V) || len(grad) != len(m.V) {
		return fmt.Errorf("momentum: %d weights and %d gradients: expected %d", len(weights), len(grad), len(m.V))
	}
	scale := 1.0
	if m.Clip > 0 {
		var sq float64
		for _, g := range grad {
			sq += float64(g) * float64(g)
		}
		if norm := math.Sqrt(sq); norm > m.Clip {
			scale = m.Clip / norm
		}
	}
	for i, g := range grad {
		d := float32(scale)*g + float32(m.Decay)*weights[i]
		m.V[i] = float32(m.Beta)*m.V[i] + d
		weights[i] -= float32(m.Rate) * m.V[i]
	}
	return nil
}
