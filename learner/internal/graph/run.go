package graph

import (
	"context"
	"fmt"
	"runtime"
)

// Run makes steps updates of t's weights. Before each it calls fill, which
// writes the buffers of t.Inputs. Between steps it looks at ctx and lets other
// goroutines run, because a gateway has better things to do than to train. The
// mean loss of the last tenth of the steps is returned.
func Run(ctx context.Context, t *Trainer, opt Optimiser, steps int, fill func(step int)) (float64, error) {
	return run(ctx, t, opt, steps, fill, func(int) {})
}

// RunAveraged is Run, and leaves t with the mean of its weights over the last
// half of the steps: with a constant rate the single iterate goes on wandering
// about what it has found, and its mean does not (Polyak and Juditsky 1992).
func RunAveraged(ctx context.Context, t *Trainer, opt Optimiser, steps int, fill func(step int)) (float64, error) {
	sum := make([]float64, len(t.weights))
	first := steps / 2
	loss, err := run(ctx, t, opt, steps, fill, func(s int) {
		if s >= first {
			for i, w := range t.weights {
				sum[i] += float64(w)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	for i := range t.weights {
		t.weights[i] = float32(sum[i] / float64(steps-first))
	}
	return loss, nil
}

// run calls after with each step's number once its update is made.
func run(ctx context.Context, t *Trainer, opt Optimiser, steps int, fill, after func(step int)) (float64, error) {
	tail := max(1, steps/10)
	var sum float64
	for s := range steps {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("train: step %d of %d: %w", s, steps, err)
		}
		fill(s)
		loss, grad, err := t.Gradient()
		if err != nil {
			return 0, fmt.Errorf("train: step %d of %d: %w", s, steps, err)
		}
		if err := opt.Step(t.weights, grad); err != nil {
			return 0, fmt.Errorf("train: step %d of %d: %w", s, steps, err)
		}
		after(s)
		if s >= steps-tail {
			sum += loss / float64(tail)
		}
		runtime.Gosched()
		if t.Pause != nil {
			t.Pause()
		}
	}
	if err := finite(0, t.weights); err != nil {
		return 0, fmt.Errorf("train: after %d steps: weights: %w", steps, err)
	}
	return sum, nil
}
