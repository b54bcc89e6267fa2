package graph

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"math"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Loss is what a network is trained to make small.
type Loss uint8

const (
	// MSE is the mean over a batch of weight * (output - target)^2.
	MSE Loss = iota
	// CrossEntropy is the mean over a batch's rows of minus the sum of
	// weight * target * log softmax(output).
	CrossEntropy
	// Contradicted is CrossEntropy over those rows only whose target class is
	// not the greatest output already (a tie counts as right): it corrects
	// mistakes and leaves the rest of the network in peace.
	Contradicted
)

// lossOp is a loss as one node: (output, target, weight), each of B rows and K
// columns, to a scalar. Gorgonia's own LogSoftMax takes its maximum over the
// whole batch and overflows; here each row has its own.
type lossOp struct{ loss Loss }

// diffOp is the gradient of lossOp with respect to the output, times the
// gradient of whatever the loss flows into.
type diffOp struct{ loss Loss }

func matrixOf(a hm.Type) hm.Type { return gorgonia.TensorType{Dims: 2, Of: a} }

func (o lossOp) Arity() int { return 3 }
func (o diffOp) Arity() int { return 4 }

func (o lossOp) Type() hm.Type {
	a := hm.TypeVariable('a')
	m := matrixOf(a)
	return hm.NewFnType(m, m, m, a)
}

func (o diffOp) Type() hm.Type {
	a := hm.TypeVariable('a')
	m := matrixOf(a)
	return hm.NewFnType(m, m, m, a, m)
}

func (o lossOp) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) {
	return tensor.ScalarShape(), nil
}

func (o diffOp) InferShape(in ...gorgonia.DimSizer) (tensor.Shape, error) {
	s, ok := in[0].(tensor.Shape)
	if !ok {
		return nil, errors.New("loss gradient: first input has no shape")
	}
	return s.Clone(), nil
}

func (o lossOp) ReturnsPtr() bool     { return false }
func (o diffOp) ReturnsPtr() bool     { return false }
func (o lossOp) CallsExtern() bool    { return false }
func (o diffOp) CallsExtern() bool    { return false }
func (o lossOp) OverwritesInput() int { return -1 }
func (o diffOp) OverwritesInput() int { return -1 }
func (o lossOp) String() string       { return fmt.Sprintf("loss-%d", o.loss) }
func (o diffOp) String() string       { return fmt.Sprintf("loss-gradient-%d", o.loss) }

func (o lossOp) WriteHash(h hash.Hash) { _, _ = h.Write([]byte(o.String())) }
func (o diffOp) WriteHash(h hash.Hash) { _, _ = h.Write([]byte(o.String())) }
func (o lossOp) Hashcode() uint32      { return hashOf(o) }
func (o diffOp) Hashcode() uint32      { return hashOf(o) }

func hashOf(s fmt.Stringer) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.String()))
	return h.Sum32()
}

// DiffWRT says that only the output's gradient is wanted.
func (o lossOp) DiffWRT(int) []bool { return []bool{true, false, false} }

// SymDiff adds the gradient's node.
func (o lossOp) SymDiff(in gorgonia.Nodes, _, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	n, err := gorgonia.ApplyOp(diffOp(o), in[0], in[1], in[2], grad)
	if err != nil {
		return nil, err
	}
	return gorgonia.Nodes{n, nil, nil}, nil
}

// Do computes the loss.
func (o lossOp) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	b, err := batchOf(in)
	if err != nil {
		return nil, err
	}
	var sum float64
	if o.loss == MSE {
		sum = b.mse(nil, 0)
	} else {
		sum = b.crossEntropy(nil, 0, o.loss == Contradicted)
	}
	return gorgonia.NewF32(float32(sum)), nil
}

// Do computes the gradient.
func (o diffOp) Do(in ...gorgonia.Value) (gorgonia.Value, error) {
	if len(in) == 0 {
		return nil, errors.New("loss gradient: no inputs")
	}
	return o.UsePreallocDo(tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(in[0].Shape()...)), in...)
}

// UsePreallocDo computes the gradient into memory of the output's shape.
func (o diffOp) UsePreallocDo(mem gorgonia.Value, in ...gorgonia.Value) (gorgonia.Value, error) {
	b, err := batchOf(in)
	if err != nil {
		return nil, err
	}
	up, ok := in[3].Data().(float32)
	if !ok {
		return nil, fmt.Errorf("loss gradient: upstream is %T: expected float32", in[3].Data())
	}
	d, ok := mem.Data().([]float32)
	if !ok || len(d) != len(b.out) {
		return nil, fmt.Errorf("loss gradient: memory is %T of shape %v: expected float32, %d by %d", mem.Data(), mem.Shape(), b.rows, b.cols)
	}
	clear(d) // rows that are right are left out
	if o.loss == MSE {
		b.mse(d, float64(up))
	} else {
		b.crossEntropy(d, float64(up), o.loss == Contradicted)
	}
	return mem, nil
}

type batch struct {
	rows, cols          int
	out, target, weight []float32
}

func batchOf(in []gorgonia.Value) (batch, error) {
	var data [3][]float32
	for i := range data {
		t, ok := in[i].(tensor.Tensor)
		if !ok {
			return batch{}, fmt.Errorf("loss: input %d is %T: expected a tensor", i, in[i])
		}
		if data[i], ok = t.Data().([]float32); !ok {
			return batch{}, fmt.Errorf("loss: input %d holds %T: expected float32", i, t.Data())
		}
	}
	s := in[0].Shape()
	if len(s) != 2 || len(data[0]) != len(data[1]) || len(data[0]) != len(data[2]) {
		return batch{}, errors.New("loss: inputs differ in shape")
	}
	return batch{s[0], s[1], data[0], data[1], data[2]}, nil
}

// mse returns the loss; with d it also writes the gradient times up.
func (b *batch) mse(d []float32, up float64) float64 {
	n := float64(len(b.out))
	var sum float64
	for i, x := range b.out {
		e := float64(x) - float64(b.target[i])
		we := float64(b.weight[i]) * e
		sum += we * e
		if d != nil {
			d[i] = float32(2 * we / n * up)
		}
	}
	return sum / n
}

// crossEntropy returns the loss; with d it also writes the gradient times up.
// With wrong, rows that are right count nothing.
func (b *batch) crossEntropy(d []float32, up float64, wrong bool) float64 {
	var sum float64
	n := float64(b.rows)
	for r := range b.rows {
		at := r * b.cols
		row := b.out[at : at+b.cols]
		top := math.Inf(-1)
		for _, x := range row {
			top = math.Max(top, float64(x))
		}
		if wrong && b.right(at, top) {
			continue // d is zero there
		}
		var z, mass float64
		for i, x := range row {
			z += math.Exp(float64(x) - top)
			mass += float64(b.weight[at+i]) * float64(b.target[at+i])
		}
		for i, x := range row {
			wt := float64(b.weight[at+i]) * float64(b.target[at+i])
			sum -= wt * (float64(x) - top - math.Log(z))
			if d != nil {
				p := math.Exp(float64(x)-top) / z
				d[at+i] = float32((p*mass - wt) / n * up)
			}
		}
	}
	return sum / n
}

// right says that the row at an offset has its largest target where its
// largest output is.
func (b *batch) right(at int, top float64) bool {
	best := at
	for i := at; i < at+b.cols; i++ {
		if b.target[i] > b.target[best] {
			best = i
		}
	}
	return float64(b.out[best]) >= top
}
