package distill

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/graph"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
)

// Net is the other form that a kernel could run: a network of 8-bit integers. It is
// what the trees are compared with, not what is shipped.
type Net struct {
	layers []netLayer
}

type netLayer struct {
	in, out int
	weight  []int8 // of each input, then each output
	bias    []int32
	shift   uint // of the sums, back to 8 bits
}

// hidden are the widths of the layers between, and netSteps how long it learns.
var hidden = []int{16, 8}

const (
	netSteps = 3000
	netRows  = 64
	inputBit = 16 // an input is the logarithm of a feature, to base 2 to the 1/4, over this
)

// input brings a feature into 8 bits: four times its binary logarithm, with its sign.
// The fraction is read off the bits behind the first one, as a kernel could.
func input(x int32) int8 {
	u := uint64(max(int64(x), -int64(x)))
	if u == 0 {
		return 0
	}
	n := bits.Len64(u)
	q := int8(4*(n-1)+int(u<<2>>(n-1)&3)) + 1
	if x < 0 {
		return -q
	}
	return q
}

// DistilNet trains a network on what Distil grows trees on.
func DistilNet(ctx context.Context, normal, attacks []Flow, o Options) (*Net, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("distil net: options: %w", err)
	}
	if err := checkAll(normal, attacks); err != nil {
		return nil, fmt.Errorf("distil net: %w", err)
	}
	if len(normal) < MinFlows {
		return nil, fmt.Errorf("distil net: %w: %d: expected at least %d", ErrTooFew, len(normal), MinFlows)
	}
	train, _ := split(normal)
	r, err := gather(train, attacks, o)
	if err != nil {
		return nil, fmt.Errorf("distil net: %w", err)
	}
	shape := append(append(infer.Shape{len(columns)}, hidden...), 2)
	rng := rand.New(rand.NewPCG(o.Seed, 0x1e7))
	t, err := graph.New(shape, graph.CrossEntropy, netRows, infer.Init(shape, rng, false))
	if err != nil {
		return nil, fmt.Errorf("distil net: %w", err)
	}
	t.Pause = o.Pause
	_, err = graph.Run(ctx, t, graph.NewAdam(shape.Params(), 0.003), netSteps, r.batches(t, rng))
	if err != nil {
		return nil, fmt.Errorf("distil net: %w", err)
	}
	return rounded(shape, t.Weights(), r), nil
}

// batches draws rows by weight.
func (r *rows) batches(t *graph.Trainer, rng *rand.Rand) func(int) {
	x, target, weight := t.Inputs()
	sum := make([]float64, len(r.weight))
	all := 0.0
	for i, w := range r.weight {
		all += float64(w)
		sum[i] = all
	}
	return func(int) {
		for b := range netRows {
			i := pick(sum, rng.Float64()*all)
			for c := range columns {
				x[b*len(columns)+c] = float32(input(int32(r.data[c][i]))) / inputBit
			}
			target[2*b], target[2*b+1] = 1-r.share[i], r.share[i]
			weight[2*b], weight[2*b+1] = 1, 1
		}
	}
}

// pick is the first place whose sum is above x.
func pick(sum []float64, x float64) int {
	lo, hi := 0, len(sum)-1
	for lo < hi {
		if mid := (lo + hi) / 2; sum[mid] > x {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// rounded makes weights 8 bits wide, each layer by a factor of its own, and picks
// shifts so that the sums of the training rows just fit 8 bits again.
func rounded(shape infer.Shape, w []float32, r *rows) *Net {
	n, at, unit := &Net{}, 0, float64(inputBit) // unit: what 1.0 is among the layer's inputs
	for l := range len(shape) - 1 {
		in, out := shape[l], shape[l+1]
		y := netLayer{in: in, out: out, weight: make([]int8, in*out), bias: make([]int32, out)}
		largest := 1e-9
		for _, x := range w[at : at+in*out] {
			largest = math.Max(largest, math.Abs(float64(x)))
		}
		factor := 127 / largest
		for i, x := range w[at : at+in*out] {
			y.weight[i] = int8(math.Round(float64(x) * factor))
		}
		for i, x := range w[at+in*out : at+in*out+out] {
			y.bias[i] = int32(math.Round(float64(x) * factor * unit))
		}
		at += in*out + out
		n.layers = append(n.layers, y)
		if l < len(shape)-2 {
			last := &n.layers[l]
			last.shift = uint(max(0, bits.Len32(uint32(n.largest(r)))-7))
			unit *= factor / float64(uint64(1)<<last.shift)
		}
	}
	return n
}

// largest is the greatest sum of the last layer so far, over some rows.
func (n *Net) largest(r *rows) (most int32) {
	step := max(1, len(r.share)/2000)
	var v score.Vector
	for i := 0; i < len(r.share); i += step {
		for c := range columns {
			v[columns[c].feature] = int32(r.data[c][i])
		}
		for _, s := range n.run(&v) {
			most = max(most, s)
		}
	}
	return most
}

// Eval is the score of a vector: higher is more like what was sought.
func (n *Net) Eval(v *score.Vector) int32 {
	seen := *v
	for i := range columns {
		seen[columns[i].feature] = int32(columns[i].value(v))
	}
	out := n.run(&seen)
	return out[1] - out[0]
}

// run gives the sums of the last layer, of a vector as the rows have it.
func (n *Net) run(v *score.Vector) []int32 {
	x := make([]int32, len(columns))
	for c := range columns {
		x[c] = int32(input(v[columns[c].feature]))
	}
	for l := range n.layers {
		y := &n.layers[l]
		sum := append([]int32(nil), y.bias...)
		for i, a := range x {
			for k := range sum {
				sum[k] += a * int32(y.weight[i*y.out+k])
			}
		}
		if l == len(n.layers)-1 {
			return sum
		}
		for k := range sum {
			sum[k] = min(max(sum[k], 0)>>y.shift, 127)
		}
		x = sum
	}
	return x
}
