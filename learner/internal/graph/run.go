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
