package mlp

import (
	"fmt"
	"math/rand/v2"
)

// A Sum cuts what each row contributes to a step to a length and adds noise to what
// they come to. Release divides it by how many rows were expected.
type Sum interface {
	Add(gradient []float32) error
	Release(expected float64) ([]float32, error)
}

// TrainPrivately is Train by noisy gradient descent (Abadi et al., CCS 2016): each row
// is in each step by itself, with the chance that makes o.Batch a step, at most 1.
func (t *Trainer) TrainPrivately(weights []float32, rows *Rows, of []int, label func(row int) int, o Options, sum Sum, rng *rand.Rand) error {
	if err := t.ready(weights, of, o); err != nil {
		return err
	}
	rate, one := Rate(o.Batch, len(of)), make([]int, 1)
	for range o.Steps {
		for _, r := range of {
			if rng.Float64() >= rate {
				continue
			}
			one[0] = r
			if _, g := t.Gradient(weights, rows, one, label); sum.Add(g) != nil {
				return fmt.Errorf("mlp: the sum refuses a gradient of %d numbers", len(g))
			}
		}
		g, err := sum.Release(rate * float64(len(of)))
		if err == nil {
			err = t.opt.Step(weights, g)
		}
		if err != nil {
			return err
		}
	}
	return finite(weights)
}

// Rate is the chance of a row to be in a step of TrainPrivately.
func Rate(batch, rows int) float64 { return min(1, float64(batch)/float64(rows)) }
