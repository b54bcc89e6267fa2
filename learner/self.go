package learner

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/calibrate"
	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/graph"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

const (
	// Deviations beyond this many standard deviations look alike.
	clipZ = 8
	// A feature that hardly moved in training is taken to move this much, so
	// that its first small move is not a sensation.
	minSpread = 0.03
	// Where soften begins to bend, in variances.
	elbow = 6
	// Added to both measures, so that an exact copy of normal has a score.
	least = 1e-3
	// The least variance of a reconstruction error, in standard units.
	minResidual = 0.1
	// A feature that fewer training vectors have is not judged by. Logs of other
	// tools lack many; without this the first live flow would be a sensation for
	// having them. unseen is how it is written down: a spread that nothing has.
	minSeen = 8
	unseen  = 1e6
	// Share of inputs blanked in training, which keeps the autoencoder from
	// learning to copy (denoising autoencoder, Vincent et al. 2008).
	blank = 0.1
)

// selfPart knows this site's normal.
type selfPart struct {
	net   *infer.Net
	unit  wide.Scale // mean of each feature where present, and 1 / standard deviation
	trust wide.Row   // 1 / variance of the reconstruction error on normal
	refs  references
	scale *calibrate.Scale
	// seen are the features that training had; of others it knows nothing.
	seen feature.Mask
	// wholes says that training had whole flows only, as logs tell them.
	wholes bool
}

// ask brings a vector into this site's units: what is absent is 0. What one of the
// features that are known weighs is left in s.w.
func (p *selfPart) ask(v *feature.Vector, s *Scratch) (has feature.Mask) {
	has = v.Has.And(p.seen)
	s.w = weigh(has)
	s.query.Ask(&v.X, has, s.w[0], s.w[1], &p.unit, sides)
	return has
}

// standard is what ask makes of a vector.
func (p *selfPart) standard(z *wide.Row, v *feature.Vector) {
	var s Scratch
	p.ask(v, &s)
	*z = s.query.Z
}

// raw is the logarithm of the product of two measures: how badly the
// autoencoder reconstructs the vector, and how far the nearest reference is.
// The first knows the shape of normal, the second its combinations.
func (p *selfPart) raw(v *feature.Vector, s *Scratch) float64 {
	p.ask(v, s)
	_, d := p.refs.nearest(&s.query, &s.bounds)
	return math.Log(p.err(s)+least) + 0.5*math.Log(float64(d)+least)
}

// soften lets an error grow only with its logarithm beyond the usual: several
// odd features weigh more than a single wild one.
func soften(e float32) float64 { return elbow * math.Log1p(float64(e)/elbow) }

// err is the error of what was asked: the mean over the flow's own features plus the
// mean over those of its context, so that the few are not outvoted by the many. It
// leaves the errors that counted in s.e: negative when the value is above the expected.
func (p *selfPart) err(s *Scratch) float64 {
	out := p.net.Forward(s.query.Z[:feature.Dim], s.self)
	s.query.Residuals(&s.e, &s.sq, (*wide.Row)(out[:wide.Lanes]), &p.trust, sides)
	own, context := softened(s.sq[:ownFeatures]), softened(s.sq[ownFeatures:feature.Dim])
	return own*float64(s.w[0]) + context*float64(s.w[1])
}

// softened is the sum of soften over some errors, as the logarithm of a product.
func softened(sq []float32) float64 {
	p := [4]float64{1, 1, 1, 1}
	k := 0
	for ; k+4 <= len(sq); k += 4 {
		p[0] *= 1 + float64(sq[k])*(1.0/elbow)
		p[1] *= 1 + float64(sq[k+1])*(1.0/elbow)
		p[2] *= 1 + float64(sq[k+2])*(1.0/elbow)
		p[3] *= 1 + float64(sq[k+3])*(1.0/elbow)
	}
	for _, x := range sq[k:] {
		p[0] *= 1 + float64(x)*(1.0/elbow)
	}
	if all := p[0] * p[1] * (p[2] * p[3]); all <= math.MaxFloat64 {
		return elbow * math.Log(all)
	}
	var sum float64 // a network gone wild: more than a number can hold
	for _, x := range sq {
		sum += soften(x)
	}
	return sum
}

// sides, side and group hold what the schema says of each feature; never written.
var sides = wide.NewSides(feature.Suspect)

var side, group = func() (side [feature.Dim]float32, group [feature.Dim]uint8) {
	for i := range side {
		side[i] = float32(feature.Suspect(i))
		if feature.IsContext(i) {
			group[i] = 1
		}
	}
	return side, group
}()

// contextMask has the bits of the features that tell of the surroundings.
var contextMask = func() (m feature.Mask) {
	for i := range feature.Dim {
		if feature.IsContext(i) {
			m.Add(i)
		}
	}
	return m
}()

// trainSelf fits the self part on the older normals and calibrates it on the newer.
func trainSelf(ctx context.Context, cfg Config, train, held []feature.Vector) (selfPart, error) {
	var p selfPart
	p.fitScale(train)
	rng := rand.New(rand.NewPCG(cfg.Seed, 0x5e1f))
	w, err := trainAutoencoder(ctx, cfg, &p, train, rng)
	if err != nil {
		return p, fmt.Errorf("self part: %w", err)
	}
	if p.net, err = infer.New(selfShape, w); err != nil {
		return p, fmt.Errorf("self part: %w", err)
	}
	p.fitTrust(train)
	p.refs = pickReferences(&p, train, rng)
	p.refs.sieve = newSieve(p.refs.z)
	p.wholes = p.refs.wholes()
	scores := make([]float64, len(held))
	s := NewScratch()
	for i := range held {
		scores[i] = p.raw(&held[i], s)
	}
	p.scale, err = calibrate.New(scores, selfTail)
	return p, err
}

func (p *selfPart) fitScale(train []feature.Vector) {
	for i := range feature.Dim {
		var n, sum, sq float64
		for j := range train {
			if train[j].Known(i) {
				x := float64(train[j].X[i])
				n, sum, sq = n+1, sum+x, sq+x*x
			}
		}
		mean, sd := 0.0, minSpread
		if n >= minSeen {
			p.seen.Add(i)
		} else {
			sd = unseen
		}
		if n > 0 {
			mean = sum / n
			sd = max(sd, math.Sqrt(max(0, sq/n-mean*mean)))
		}
		p.unit.Mean[i], p.unit.Inv[i] = float32(mean), float32(1/sd)
	}
}

// fitTrust measures how well each feature is reconstructed on normal traffic.
func (p *selfPart) fitTrust(train []feature.Vector) {
	var n, sq [feature.Dim]float64
	for i := range feature.Dim {
		p.trust[i] = 1
	}
	s := NewScratch()
	for j := range train {
		p.ask(&train[j], s)
		p.err(s)
		for i, e := range s.e[:feature.Dim] {
			if train[j].Known(i) {
				n[i]++
				sq[i] += float64(e) * float64(e)
			}
		}
	}
	for i := range feature.Dim {
		p.trust[i] = float32(1 / max(minResidual, sq[i]/max(n[i], 1)))
	}
}

func trainAutoencoder(ctx context.Context, cfg Config, p *selfPart, train []feature.Vector, rng *rand.Rand) ([]float32, error) {
	t, err := graph.New(selfShape, graph.MSE, batchRows, infer.Init(selfShape, rng, false))
	if err != nil {
		return nil, err
	}
	t.Pause = cfg.Pause
	opt := graph.NewAdam(selfShape.Params(), cfg.Rate)
	steps := cfg.selfSteps(len(train))
	x, target, weight := t.Inputs()
	var z wide.Row
	order := newShuffle(len(train), rng)
	_, err = graph.Run(ctx, t, opt, steps, func(step int) {
		opt.Rate = cfg.Rate * (1 - 0.9*float64(step)/float64(steps))
		for r := range batchRows {
			v := &train[order.next()]
			p.standard(&z, v)
			for i, zi := range z[:feature.Dim] {
				at := r*feature.Dim + i
				x[at], target[at], weight[at] = zi, zi, 0
				if v.Known(i) {
					weight[at] = 1
				}
				if rng.Float32() < blank {
					x[at] = 0
				}
			}
		}
	})
	return t.Weights(), err
}

// shuffle walks over indices in a new random order each time round.
type shuffle struct {
	order []int
	at    int
	rng   *rand.Rand
}

func newShuffle(n int, rng *rand.Rand) *shuffle {
	return &shuffle{order: rng.Perm(n), rng: rng}
}

func (s *shuffle) next() int {
	if s.at == len(s.order) {
		s.rng.Shuffle(len(s.order), func(i, j int) { s.order[i], s.order[j] = s.order[j], s.order[i] })
		s.at = 0
	}
	s.at++
	return s.order[s.at-1]
}
