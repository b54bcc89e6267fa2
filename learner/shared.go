package learner

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/graph"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
)

// batchRows is the number of vectors in a training step.
const batchRows = 64

// attackRows is how many of them are attacks at a site that has some.
const attackRows = 16

// jitter is the standard deviation of the noise on attack examples, in the
// schema's scale: a few examples stand for their neighbourhood.
const jitter = 0.03

// Example is a vector of a confirmed attack.
type Example struct {
	V      feature.Vector
	Weight float32 // how much it counts; 0 is taken as 1
	Family string  // what its confirmer calls it
}

// SharedDim is the number of shared weights.
func SharedDim() int { return attackShape.Params() }

// InitShared is where every site of a mesh starts: random features below, and
// a last layer of zeros, so that the classifier knows nothing and says so.
func InitShared(seed uint64) []float32 {
	return infer.Init(attackShape, rand.New(rand.NewPCG(seed, 0x5ba4ed)), true)
}

// Shared is a copy of the weights of the attack part that this site learnt.
func (m *Model) Shared() []float32 {
	return append([]float32(nil), m.attack.net.Weights()...)
}

// Mesh is a copy of the weights that a mesh learnt, nil where there are none.
func (m *Model) Mesh() []float32 {
	if m.mesh == nil {
		return nil
	}
	return append([]float32(nil), m.mesh.net.Weights()...)
}

// TrainShared makes exactly steps training steps on the shared weights from
// base and returns the new ones; the delta to send is their difference. A site
// without attacks of its own only objects: it corrects what the classifier
// calls an attack although it is normal there. Were it to teach that all is
// normal, a mean over sites would bury what the few that met an attack know.
// Sites must make equal numbers of steps. What split holds out is not used, so
// that WithShared can calibrate on it.
func TrainShared(ctx context.Context, cfg Config, base []float32, normal []feature.Vector, attacks []Example, steps int) ([]float32, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("train shared: %w", err)
	}
	train, _, err := split(normal, cfg)
	if err != nil {
		return nil, fmt.Errorf("train shared: %w", err)
	}
	if steps < 1 || steps > maxSteps {
		return nil, fmt.Errorf("train shared: %d steps: expected 1 to %d", steps, maxSteps)
	}
	if err := checkExamples(attacks); err != nil {
		return nil, fmt.Errorf("train shared: %w", err)
	}
	if _, err := infer.New(attackShape, base); err != nil {
		return nil, fmt.Errorf("train shared: base: %w", err)
	}
	w, err := trainAttack(ctx, cfg, base, train, attacks, steps)
	if err != nil {
		return nil, fmt.Errorf("train shared: %w", err)
	}
	return w, nil
}

func trainAttack(ctx context.Context, cfg Config, base []float32, train []feature.Vector, attacks []Example, steps int) ([]float32, error) {
	loss := graph.CrossEntropy
	if len(attacks) == 0 {
		loss = graph.Contradicted
	}
	t, err := graph.New(attackShape, loss, batchRows, base)
	if err != nil {
		return nil, err
	}
	t.Pause = cfg.Pause
	rng := rand.New(rand.NewPCG(cfg.Seed, 0xa77ac4))
	opt := graph.NewMomentum(attackShape.Params(), cfg.SharedRate)
	b := attackBatch{normal: train, attacks: attacks, order: newShuffle(len(train), rng), rng: rng}
	b.x, b.target, b.weight = t.Inputs()
	b.sums = cumulative(attacks)
	_, err = graph.RunAveraged(ctx, t, opt, steps, func(int) { b.fill() })
	return t.Weights(), err
}

// contextGain is how much more a context feature counts in the classifier's
// input than one of the flow's own: attacks differ there most.
const contextGain = 2

// attackInput brings a vector into the classifier's units, the same at every
// site: known features centred, context features amplified, the absent 0.
func attackInput(x []float32, v *feature.Vector) {
	for i, xi := range v.X {
		switch {
		case !v.Known(i):
			x[i] = 0
		case i < ownFeatures:
			x[i] = 2*xi - 1
		default:
			x[i] = contextGain * (2*xi - 1)
		}
	}
}

// attackBatch mixes normal vectors with attacks drawn by weight.
type attackBatch struct {
	normal            []feature.Vector
	attacks           []Example
	sums              []float64
	order             *shuffle
	rng               *rand.Rand
	x, target, weight []float32
}

func (b *attackBatch) fill() {
	evil := 0
	if len(b.attacks) > 0 {
		evil = attackRows
	}
	for r := range batchRows {
		x := b.x[r*feature.Dim : (r+1)*feature.Dim]
		class, w := 0, float32(1)
		if r < evil {
			// Both classes weigh the same in all.
			class, w = 1, float32(batchRows-attackRows)/attackRows
			b.near(x, &b.attacks[pick(b.sums, b.rng)].V)
		} else {
			attackInput(x, &b.normal[b.order.next()])
		}
		for k := range 2 {
			b.target[2*r+k], b.weight[2*r+k] = 0, w
		}
		b.target[2*r+class] = 1
	}
}

// near writes a neighbour of an attack: what is known and not a flag moves a
// little. In half of the draws its surroundings are those of some normal flow:
// confirmed examples are mostly a behaviour's first flows, to a peer that nobody
// knows yet, and the behaviour shall be known again when it has gone on for a
// while.
func (b *attackBatch) near(x []float32, v *feature.Vector) {
	n := *v
	if b.rng.IntN(2) == 0 {
		around := &b.normal[b.rng.IntN(len(b.normal))]
		n.Has = n.Has.Without(contextMask).Or(around.Has.And(contextMask))
		for i := range n.X {
			if feature.IsContext(i) {
				n.X[i] = around.X[i]
			}
		}
	}
	b.jittered(x, n)
}

// jittered writes a vector of which what is known and not a flag moves a little.
func (b *attackBatch) jittered(x []float32, n feature.Vector) {
	for i, xi := range n.X {
		if n.Known(i) && !feature.IsFlag(i) {
			n.X[i] = min(max(xi+float32(jitter*b.rng.NormFloat64()), -1), 1)
		}
	}
	attackInput(x, &n)
}

func cumulative(attacks []Example) []float64 {
	sums := make([]float64, len(attacks))
	var sum float64
	for i, a := range attacks {
		w := a.Weight
		if w == 0 {
			w = 1
		}
		sum += float64(w)
		sums[i] = sum
	}
	return sums
}

// pick draws an index in proportion to its weight.
func pick(sums []float64, rng *rand.Rand) int {
	x := rng.Float64() * sums[len(sums)-1]
	for i, s := range sums {
		if x < s {
			return i
		}
	}
	return len(sums) - 1
}

// WithShared puts what a mesh learnt beside what the site learnt itself, and calibrates
// it on this site's own newer normals. The other parts stay as they are, and so does
// what they would say: the mesh adds what it finds, and can hide hardly anything.
func (m *Model) WithShared(params []float32, normal []feature.Vector) (*Model, error) {
	return m.with("adopt shared", params, normal, func(next *Model, a attackPart) { next.mesh = &a })
}

// WithOwn swaps in another attack part of the site's own.
func (m *Model) WithOwn(params []float32, normal []feature.Vector) (*Model, error) {
	return m.with("own attack part", params, normal, func(next *Model, a attackPart) { next.attack = a })
}

func (m *Model) with(op string, params []float32, normal []feature.Vector, put func(*Model, attackPart)) (*Model, error) {
	cfg, err := Config{}.withDefaults()
	if err != nil {
		return nil, err
	}
	_, held, err := split(normal, cfg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	a, err := newAttackPart(params, held)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	next := *m
	put(&next, a)
	next.meta.Parent = m.meta.Hash
	next.weigh()
	return next.sealed()
}

func newAttackPart(params []float32, held []feature.Vector) (attackPart, error) {
	net, err := infer.New(attackShape, params)
	if err != nil {
		return attackPart{}, err
	}
	a := attackPart{net: net}
	s := NewScratch()
	scores := make([]float64, len(held))
	for i := range held {
		scores[i] = a.raw(&held[i], s)
	}
	a.scale, err = calibrate.New(scores, attackTail)
	return a, err
}

func checkExamples(attacks []Example) error {
	for i := range attacks {
		if w := attacks[i].Weight; !(w >= 0 && w <= 1000) {
			return fmt.Errorf("attack example %d: weight %v: expected 0 to 1000", i, w)
		}
		if err := attacks[i].V.Valid(); err != nil {
			return fmt.Errorf("attack example %d: %w", i, err)
		}
	}
	return nil
}
