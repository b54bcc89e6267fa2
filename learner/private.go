package learner

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/graph"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// Sum is one step's gradient: what each unit contributes is cut to a length, and
// noise is added to the whole before anything else sees it.
type Sum interface {
	Add(gradient []float32) error
	// Release is the noisy sum over how many units were expected; the next step
	// begins with it.
	Release(expected float64) ([]float32, error)
}

// Private says how TrainSharedPrivately keeps to itself what single units of
// normal traffic taught.
type Private struct {
	Rate   float64    // probability with which each unit is in a step, above 0 to 1
	Clip   float64    // that Sum cuts to; what attacks contribute is cut alike
	Sum    Sum        //
	Random *rand.Rand // draws who is in a step: nobody may foretell it
}

// Finished picks the vectors that tell of whole flows: one for each flow, where
// its earlier reports are vectors of their own.
func Finished(normal []feature.Vector) []feature.Vector {
	var out []feature.Vector
	for i := range normal {
		if normal[i].X[iEnded] == 1 {
			out = append(out, normal[i])
		}
	}
	return out
}

// TrainSharedPrivately is TrainShared by noisy gradient descent (Abadi et al.,
// CCS 2016). A unit is what shall be hidden: a flow's one vector, or all vectors
// of a host, whose mean gradient counts as one. Each unit is drawn by itself into
// each step, and nothing else looks at units: all of them teach, none is held
// out, for that a single one changes little is what the noise is for.
//
// Attacks are not units. What a person confirmed as an attack is what sites share
// on purpose; its gradient goes in without noise, and unlike in TrainShared it
// borrows no surroundings of normal flows.
func TrainSharedPrivately(ctx context.Context, cfg Config, base []float32, units [][]feature.Vector, attacks []Example, steps int, p Private) ([]float32, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("train privately: %w", err)
	}
	switch {
	case steps < 1 || steps > maxSteps:
		return nil, fmt.Errorf("train privately: %d steps: expected 1 to %d", steps, maxSteps)
	case !(p.Rate > 0 && p.Rate <= 1) || !(p.Clip > 0):
		return nil, fmt.Errorf("train privately: rate %v, clip %v: expected above 0 to 1, and above 0", p.Rate, p.Clip)
	case p.Sum == nil || p.Random == nil:
		return nil, fmt.Errorf("train privately: expected a sum and a source of randomness")
	}
	if err := checkExamples(attacks); err != nil {
		return nil, fmt.Errorf("train privately: %w", err)
	}
	if _, err := infer.New(attackShape, base); err != nil {
		return nil, fmt.Errorf("train privately: base: %w", err)
	}
	d, err := newDescent(cfg, base, units, attacks, p)
	if err != nil {
		return nil, fmt.Errorf("train privately: %w", err)
	}
	for s := range steps {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("train privately: step %d of %d: %w", s, steps, err)
		}
		if err := d.step(s >= steps/2); err != nil {
			return nil, fmt.Errorf("train privately: step %d of %d: %w", s, steps, err)
		}
		if cfg.Pause != nil {
			cfg.Pause()
		}
	}
	return d.averaged()
}

// descent is one private training.
type descent struct {
	Private
	units   *mlp.Rows // all vectors of all units
	of      [][]int   // rows of each unit
	attacks []Example
	sums    []float64
	near    attackBatch // for the jitter only

	weights []float32
	grad    *mlp.Trainer
	opt     *graph.Momentum
	mean    []float64 // sum of the later weights
	later   int
	unit    []float32
}

func newDescent(cfg Config, base []float32, units [][]feature.Vector, attacks []Example, p Private) (*descent, error) {
	d := &descent{
		Private: p, attacks: attacks, sums: cumulative(attacks),
		near:    attackBatch{rng: rand.New(rand.NewPCG(cfg.Seed, 0xa77ac4))},
		weights: append([]float32(nil), base...), opt: graph.NewMomentum(attackShape.Params(), cfg.SharedRate),
		mean: make([]float64, len(base)), unit: make([]float32, len(base)),
	}
	var x []float32
	for u, vs := range units {
		if len(vs) == 0 {
			return nil, fmt.Errorf("unit %d has no vectors", u)
		}
		rows := make([]int, len(vs))
		for i := range vs {
			if err := vs[i].Valid(); err != nil {
				return nil, fmt.Errorf("unit %d: %w", u, err)
			}
			rows[i] = len(x) / feature.Dim
			x = append(x, make([]float32, feature.Dim)...)
			attackInput(x[len(x)-feature.Dim:], &vs[i])
		}
		d.of = append(d.of, rows)
	}
	if len(x) == 0 {
		return nil, fmt.Errorf("%w: no units", ErrTooFew)
	}
	var err error
	if d.units, err = mlp.NewRows(x, feature.Dim, make([]int, len(x)/feature.Dim)); err != nil {
		return nil, err
	}
	d.grad, err = mlp.NewTrainer(attackShape)
	return d, err
}

// step is one update. Normal and attacks weigh as in TrainShared.
func (d *descent) step(keep bool) error {
	for u := range d.of {
		if d.Random.Float64() >= d.Rate {
			continue
		}
		if err := d.Sum.Add(d.contribution(d.of[u])); err != nil {
			return err
		}
	}
	g, err := d.Sum.Release(d.Rate * float64(len(d.of)))
	if err != nil {
		return err
	}
	if len(d.attacks) > 0 {
		if err := d.addAttacks(g); err != nil {
			return err
		}
		const share = float32(batchRows-attackRows) / batchRows
		for i := range g {
			g[i] *= share
		}
	}
	if err := d.opt.Step(d.weights, g); err != nil {
		return err
	}
	if keep {
		d.later++
		for i, w := range d.weights {
			d.mean[i] += float64(w)
		}
	}
	return nil
}

// contribution is the mean gradient of a unit's rows. A site without attacks
// only objects: rows that are called normal already contribute nothing.
func (d *descent) contribution(rows []int) []float32 {
	clear(d.unit)
	for _, r := range rows {
		if len(d.attacks) == 0 {
			if out := d.grad.Forward(d.weights, d.units, r); out[0] >= out[1] {
				continue
			}
		}
		_, g := d.grad.Gradient(d.weights, d.units, []int{r}, nil)
		for i := range g {
			d.unit[i] += g[i] / float32(len(rows))
		}
	}
	return d.unit
}

// addAttacks adds the mean gradient of some attacks, no longer than one unit's.
func (d *descent) addAttacks(g []float32) error {
	x, class, batch := make([]float32, attackRows*feature.Dim), make([]int, attackRows), make([]int, attackRows)
	for r := range attackRows {
		class[r], batch[r] = 1, r
		d.near.jittered(x[r*feature.Dim:(r+1)*feature.Dim], d.attacks[pick(d.sums, d.near.rng)].V)
	}
	rows, err := mlp.NewRows(x, feature.Dim, class)
	if err != nil {
		return err
	}
	_, a := d.grad.Gradient(d.weights, rows, batch, nil)
	var sq float64
	for _, v := range a {
		sq += float64(v) * float64(v)
	}
	scale := float32(min(1, d.Clip/math.Sqrt(sq)))
	for i := range g {
		g[i] += scale * a[i]
	}
	return nil
}

// averaged is the mean over the later half, as in RunAveraged.
func (d *descent) averaged() ([]float32, error) {
	out := make([]float32, len(d.mean))
	for i, sum := range d.mean {
		out[i] = float32(sum / float64(d.later))
	}
	if _, err := infer.New(attackShape, out); err != nil {
		return nil, fmt.Errorf("train privately: result: %w", err)
	}
	return out, nil
}
