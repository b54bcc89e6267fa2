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
	mean  [feature.Dim]float32 // of each feature where present
	inv   [feature.Dim]float32 // 1 / standard deviation
	trust [feature.Dim]float32 // 1 / variance of the reconstruction error on normal
	refs  references
	scale *calibrate.Scale
	// seen are the features that training had; of others it knows nothing.
	seen feature.Mask
	// wholes says that training had whole flows only, as logs tell them.
	wholes bool
}

// standard brings a vector into this site's units: what is absent is 0.
func (p *selfPart) standard(z *[feature.Dim]float32, v *feature.Vector) {
	for i, x := range v.X {
		z[i] = 0
		if v.Known(i) && p.seen.Has(i) {
			z[i] = min(max((x-p.mean[i])*p.inv[i], -clipZ), clipZ)
		}
	}
}

// raw is the logarithm of the product of two measures: how badly the
// autoencoder reconstructs the vector, and how far the nearest reference is.
// The first knows the shape of normal, the second its combinations.
func (p *selfPart) raw(v *feature.Vector, s *Scratch) float64 {
	p.standard(&s.z, v)
	has := v.Has.And(p.seen)
	_, d := p.refs.nearest(&s.z, has, &s.sieve)
	return math.Log(p.err(has, s)+least) + 0.5*math.Log(float64(d)+least)
}

// soften lets an error grow only with its logarithm beyond the usual: several
// odd features weigh more than a single wild one.
func soften(e float32) float64 { return elbow * math.Log1p(float64(e)/elbow) }

// err is the error of s.z: the mean over the flow's own features plus the mean
// over those of its context, so that the few are not outvoted by the many. It
// leaves the errors that counted in s.e and the groups' weights in s.w.
func (p *selfPart) err(has feature.Mask, s *Scratch) float64 {
	out := p.net.Forward(s.z[:], s.self)
	s.w = weigh(has)
	var sum [2]float64
	for i, y := range out {
		s.e[i] = 0
		if !has.Has(i) {
			continue
		}
		if e := y - s.z[i]; e*side[i] <= 0 { // e is negative when the value is above the expected
			s.e[i] = e
			sum[group[i]] += soften(e * e * p.trust[i])
		}
	}
	return sum[0]*float64(s.w[0]) + sum[1]*float64(s.w[1])
}

// side and group hold what the schema says of each feature; never written.
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
	if p.refs.sieve, err = newSieve(p.refs.z); err != nil {
		return p, err
	}
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
	for i := range p.mean {
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
		p.mean[i], p.inv[i] = float32(mean), float32(1/sd)
	}
}

// fitTrust measures how well each feature is reconstructed on normal traffic.
func (p *selfPart) fitTrust(train []feature.Vector) {
	var n, sq [feature.Dim]float64
	for i := range p.trust {
		p.trust[i] = 1
	}
	s := NewScratch()
	for j := range train {
		p.standard(&s.z, &train[j])
		p.err(train[j].Has.And(p.seen), s)
		for i, e := range s.e {
			if train[j].Known(i) {
				n[i]++
				sq[i] += float64(e) * float64(e)
			}
		}
	}
	for i := range p.trust {
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
	var z [feature.Dim]float32
	order := newShuffle(len(train), rng)
	_, err = graph.Run(ctx, t, opt, steps, func(step int) {
		opt.Rate = cfg.Rate * (1 - 0.9*float64(step)/float64(steps))
		for r := range batchRows {
			v := &train[order.next()]
			p.standard(&z, v)
			for i, zi := range z {
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
