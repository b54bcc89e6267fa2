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
	// The least variance of a reconstruction error, in standard units.
	minResidual = 0.1
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
	scale *calibrate.Scale
}

// standard brings a vector into this site's units: what is absent is 0.
func (p *selfPart) standard(z *[feature.Dim]float32, v *feature.Vector) {
	for i, x := range v.X {
		z[i] = 0
		if v.Known(i) {
			z[i] = min(max((x-p.mean[i])*p.inv[i], -clipZ), clipZ)
		}
	}
}

// raw is the logarithm of the mean reconstruction error over present features,
// each in units of its own error on normal traffic.
func (p *selfPart) raw(v *feature.Vector, s *Scratch) float64 {
	p.standard(&s.z, v)
	return math.Log(p.err(v.Has, s) + 1e-6)
}

// err is the mean weighted error of s.z; it leaves the errors in s.e.
func (p *selfPart) err(has uint64, s *Scratch) float64 {
	out := p.net.Forward(s.z[:], s.self)
	var sum float64
	n := 0
	for i, y := range out {
		s.e[i] = 0
		if has>>uint(i)&1 == 1 {
			s.e[i] = y - s.z[i]
			sum += float64(s.e[i]*s.e[i]) * float64(p.trust[i])
			n++
		}
	}
	return sum / float64(max(n, 1))
}

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
	scores := make([]float64, len(held))
	s := NewScratch()
	for i := range held {
		scores[i] = p.raw(&held[i], s)
	}
	p.scale, err = calibrate.New(scores)
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
		if n > 0 {
			mean = sum / n
			sd = max(minSpread, math.Sqrt(max(0, sq/n-mean*mean)))
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
		p.err(train[j].Has, s)
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
	return t.Weights(), errJoin(err, t.Close())
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
