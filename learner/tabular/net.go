package tabular

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/internal/graph"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
)

// batchRows is the number of rows in a training step.
const batchRows = 64

// netOptions say how to train a network.
type netOptions struct {
	hidden []int
	steps  int
	rate   float64
	blank  float64 // share of inputs blanked in training
	seed   uint64
}

// trainNet fits a network from encoded rows to targets. target writes the
// target and the weights of one training row.
func trainNet(ctx context.Context, x []float32, width, outputs int, loss graph.Loss, o netOptions, target func(row int, y, w []float32)) (*infer.Net, error) {
	if width == 0 || width > infer.MaxWidth {
		return nil, fmt.Errorf("%d inputs: expected 1 to %d", width, infer.MaxWidth)
	}
	shape := append(append(infer.Shape{width}, o.hidden...), outputs)
	rng := rand.New(rand.NewPCG(o.seed, 0x7ab))
	t, err := graph.New(shape, loss, batchRows, infer.Init(shape, rng, false))
	if err != nil {
		return nil, err
	}
	in, y, w := t.Inputs()
	order := rng.Perm(len(x) / width)
	at := 0
	opt := graph.NewAdam(shape.Params(), o.rate)
	_, err = graph.Run(ctx, t, opt, o.steps, func(step int) {
		opt.Rate = o.rate * (1 - 0.95*float64(step)/float64(o.steps))
		for b := range batchRows {
			if at == len(order) {
				rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
				at = 0
			}
			row := order[at]
			at++
			part := in[b*width : (b+1)*width]
			copy(part, x[row*width:(row+1)*width])
			target(row, y[b*outputs:(b+1)*outputs], w[b*outputs:(b+1)*outputs])
			if o.blank > 0 {
				for i := range part {
					if rng.Float64() < o.blank {
						part[i] = 0
					}
				}
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return infer.New(shape, t.Weights())
}

// autoencoder knows normal: it reconstructs what it saw, and little else.
type autoencoder struct {
	enc   *netEncoder
	net   *infer.Net
	trust []float32 // 1 / variance of the error of each input on normal rows
}

func fitAutoencoder(ctx context.Context, normal *Table, o netOptions) (*autoencoder, error) {
	a := &autoencoder{enc: fitNet(normal)}
	x, width := a.enc.apply(normal), a.enc.width
	var err error
	a.net, err = trainNet(ctx, x, width, width, graph.MSE, o, func(row int, y, w []float32) {
		copy(y, x[row*width:(row+1)*width])
		for i := range w {
			w[i] = 1
		}
	})
	if err != nil {
		return nil, fmt.Errorf("autoencoder: %w", err)
	}
	sq := make([]float64, width)
	a.errors(x, func(_ int, e []float32) {
		for i, d := range e {
			sq[i] += float64(d) * float64(d)
		}
	})
	for _, s := range sq {
		a.trust = append(a.trust, float32(1/max(minResidual, s/float64(normal.Rows()))))
	}
	return a, nil
}

// minResidual is the least variance of a reconstruction error that is believed.
const minResidual = 0.02

// errors calls f with the reconstruction errors of each row.
func (a *autoencoder) errors(x []float32, f func(row int, e []float32)) {
	width := a.enc.width
	c := infer.NewScratch(a.net.Shape())
	e := make([]float32, width)
	for r := range len(x) / width {
		row := x[r*width : (r+1)*width]
		for i, y := range a.net.Forward(row, c) {
			e[i] = y - row[i]
		}
		f(r, e)
	}
}

// elbow is where an error, in variances on normal rows, begins to count with its
// logarithm only: several odd columns weigh more than a single wild one.
const elbow = 6

// score is the logarithm of the mean error, each input's in units of its own
// variance on normal rows. plain leaves out these units and the elbow.
func (a *autoencoder) score(t *Table, plain bool) []float64 {
	out := make([]float64, t.Rows())
	a.errors(a.enc.apply(t), func(r int, e []float32) {
		var sum float64
		for i, d := range e {
			sq := float64(d) * float64(d)
			if !plain {
				sq = elbow * math.Log1p(sq*float64(a.trust[i])/elbow)
			}
			sum += sq
		}
		out[r] = math.Log(sum/float64(len(e)) + 1e-6)
	})
	return out
}

// mlp is a classifier of all classes.
type mlp struct {
	enc *netEncoder
	net *infer.Net
}

func fitMLP(ctx context.Context, t *Table, o netOptions) (*mlp, error) {
	m := &mlp{enc: fitNet(t)}
	class, classes := t.Class.Of, len(t.Class.Names)
	x := m.enc.apply(t)
	var err error
	m.net, err = trainNet(ctx, x, m.enc.width, classes, graph.CrossEntropy, o, func(row int, y, w []float32) {
		clear(y)
		y[class[row]] = 1
		for i := range w {
			w[i] = 1
		}
	})
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return m, nil
}

// outputs gives each class's log-odds scores: [class][row].
func (m *mlp) outputs(t *Table) [][]float64 {
	x, width := m.enc.apply(t), m.enc.width
	shape := m.net.Shape()
	out := make([][]float64, shape[len(shape)-1])
	for k := range out {
		out[k] = make([]float64, t.Rows())
	}
	c := infer.NewScratch(shape)
	for r := range t.Rows() {
		for k, y := range m.net.Forward(x[r*width:(r+1)*width], c) {
			out[k][r] = float64(y)
		}
	}
	return out
}
