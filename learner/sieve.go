package learner

import (
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/infer"
)

// sieve says of all references how much a vector differs from each at the least, so
// that few need be asked for the whole. Over a flow's own features differ is a sum of
// huber(|a - b|). With
//
//	f(z) = z up to a half, and the root of |z| - 1/4 with z's sign beyond,
//
// (f(a) - f(b))^2 is never above it: f is odd and bends towards 0, so f(a) - f(b) is
// greatest where a = -b, and there both are equal. Multiplied out, and with one weight
// for all features that are known, the sum for all references is a row times a matrix,
// which costs a fraction of as many comparisons:
//
//	w * (sum of f(b)^2 over all - the same over the unknown - 2 * sum of f(a) f(b) + sum of f(a)^2)
//
// What the surroundings add is left out.
type sieve [maxRefs / sieveWidth]*infer.Net

const (
	// sieveWidth is how many references one matrix has; wider ones would be multiplied
	// by several goroutines.
	sieveWidth = 128
	// sieveInputs are f of each feature, its square where it is unknown, and a one for
	// the sum of all squares.
	sieveInputs = 2*ownFeatures + 1
	// nobody is the bound of a reference that is not there.
	nobody = 1e4
	// rounding is more than what rounding can add to a bound.
	rounding = 1e-4
)

var sieveShape = infer.Shape{sieveInputs, sieveWidth}

// sieveWork is the working memory of a search.
type sieveWork struct {
	in  [sieveInputs]float32
	out [maxRefs]float32
	net *infer.Scratch
}

func newSieveWork() sieveWork { return sieveWork{net: infer.NewScratch(sieveShape)} }

func newSieve(z [][feature.Dim]float32) (s sieve, err error) {
	for n := range s {
		w := make([]float32, sieveShape.Params())
		for k := range sieveWidth {
			if at := n*sieveWidth + k; at < len(z) {
				sieveColumn(w[k:], &z[at])
			} else {
				w[sieveInputs*sieveWidth+k] = nobody
			}
		}
		if s[n], err = infer.New(sieveShape, w); err != nil {
			return s, fmt.Errorf("sieve of references: %w", err)
		}
	}
	return s, nil
}

// sieveColumn writes a reference into every sieveWidth-th place.
func sieveColumn(w []float32, ref *[feature.Dim]float32) {
	var all float32
	for i := range ownFeatures {
		f := bend(ref[i])
		w[2*i*sieveWidth], w[(2*i+1)*sieveWidth] = f, f*f
		all += f * f
	}
	w[2*ownFeatures*sieveWidth] = all
}

// bend is f.
func bend(z float32) float32 {
	a := max(z, -z)
	if a <= 0.5 {
		return z
	}
	return float32(math.Copysign(math.Sqrt(float64(a)-0.25), float64(z)))
}

// bounds are how much the query differs from each reference at the least. They live
// in the working memory until its next use.
func (s *sieve) bounds(q *query, work *sieveWork) []float32 {
	var own, base float32 // the weight of a feature that is known
	for i := range ownFeatures {
		own = max(own, q.w[i])
	}
	for i := range ownFeatures {
		f := bend(q.z[i])
		square := own - q.w[i]
		base += q.w[i] * f * f
		work.in[2*i], work.in[2*i+1] = -2*q.w[i]*f, -square
	}
	work.in[2*ownFeatures] = own
	for n, net := range s {
		copy(work.out[n*sieveWidth:], net.Forward(work.in[:], work.net))
	}
	for k := range work.out {
		work.out[k] += base - rounding
	}
	return work.out[:]
}
