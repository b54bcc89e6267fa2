package mlp

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/blas/gonum"
)

var kernel gonum.Implementation // stateless

// plainForward is Forward one input at a time.
func (t *Trainer) plainForward(weights []float32, rows *Rows, r int) []float32 {
	at, last := 0, len(t.shape)-1
	for l := range last {
		in, out := t.shape[l], t.shape[l+1]
		w, h := weights[at:at+in*out], t.act[l+1]
		copy(h, weights[at+in*out:at+in*out+out])
		at += in*out + out
		if l == 0 {
			index, value := rows.row(r)
			for k, j := range index {
				kernel.Saxpy(out, value[k], w[int(j)*out:int(j)*out+out], 1, h, 1)
			}
		} else {
			for j, v := range t.act[l] {
				if v != 0 {
					kernel.Saxpy(out, v, w[j*out:j*out+out], 1, h, 1)
				}
			}
		}
		if l < last-1 {
			for i, v := range h {
				h[i] = max(v, 0)
			}
		}
	}
	return t.act[last]
}

// plainBackward is backward one input at a time.
func (t *Trainer) plainBackward(weights []float32, rows *Rows, r int) {
	d, next := t.delta[0], t.delta[1]
	at := len(weights)
	for l := len(t.shape) - 2; l >= 0; l-- {
		in, out := t.shape[l], t.shape[l+1]
		at -= in*out + out
		w, g := weights[at:at+in*out], t.grad[at:at+in*out]
		kernel.Saxpy(out, 1, d[:out], 1, t.grad[at+in*out:at+in*out+out], 1)
		if l == 0 {
			index, value := rows.row(r)
			for k, j := range index {
				kernel.Saxpy(out, value[k], d[:out], 1, g[int(j)*out:int(j)*out+out], 1)
			}
			return
		}
		for i, v := range t.act[l] {
			if v == 0 {
				next[i] = 0
				continue
			}
			kernel.Saxpy(out, v, d[:out], 1, g[i*out:i*out+out], 1)
			next[i] = kernel.Sdot(out, w[i*out:i*out+out], 1, d[:out], 1)
		}
		d, next = next, d
	}
}

// TestStepEqualsOneInputAtATime wants the same bits of both, whatever the shape: what a
// study found must not depend on how fast it was computed.
func TestStepEqualsOneInputAtATime(t *testing.T) {
	const batch = 8
	for _, s := range []Shape{{118, 48, 5}, {40, 24, 12, 5}, {7, 3, 2}, {20, 4}, {33, 17, 9, 6, 11}, {70, 80, 66, 2}} {
		w := newTwin(t, s, 60, batch)
		fast, err := NewTrainer(s)
		if err != nil {
			t.Fatal(err)
		}
		slow, err := NewTrainer(s)
		if err != nil {
			t.Fatal(err)
		}
		weights := Init(s, 7)
		rng := rand.New(rand.NewPCG(5, 6))
		for i := range weights { // also what an untrained last layer has
			weights[i] += float32(rng.NormFloat64()) / 8
		}
		fast.opt.Rate = 0.05
		for step := range 20 {
			for b := range w.batch {
				w.batch[b] = rng.IntN(w.rows.Len())
			}
			_, got := fast.Gradient(weights, w.rows, w.batch, nil)
			clear(slow.grad)
			for _, r := range w.batch {
				out := slow.plainForward(weights, w.rows, r)
				softmax(slow.delta[0][:len(out)], out, w.rows.Class[r], batch)
				slow.plainBackward(weights, w.rows, r)
			}
			for i, want := range slow.grad {
				if math.Float32bits(got[i]) != math.Float32bits(want) {
					t.Fatalf("%v: step %d: gradient %d is %v, one input at a time %v", s, step, i, got[i], want)
				}
			}
			if err := fast.opt.Step(weights, got); err != nil {
				t.Fatal(err)
			}
		}
	}
}
