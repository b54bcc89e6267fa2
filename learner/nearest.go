package learner

import (
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
)

const (
	// maxRefs is how many normal vectors a model remembers.
	maxRefs = 512
	// knee is where a difference begins to count linearly, in standard
	// deviations (Huber 1964).
	knee = 1
	// The features before this one are the flow's own, the others its context's.
	ownFeatures = feature.Dim - feature.ContextDim
	// maxPick bounds the vectors that references are picked from.
	maxPick = 4096
)

// Package wide is laid out for this schema.
var _ = [1]struct{}{}[(feature.Dim-wide.Dim)|(ownFeatures-wide.Own)|(clipZ-wide.Clip)]

// references are normal vectors of this site that cover its traffic: every
// training vector is close to one. Distance to the nearest (Knorr and Ng 1998)
// sees combinations that an autoencoder smooths over, and names the normal flow
// that a stranger is compared with.
type references struct {
	v []feature.Vector
	z []wide.Row // the same in this site's units
	sieve
}

// pickReferences chooses vectors by farthest-first traversal (Gonzalez 1985),
// which keeps the greatest distance to a reference within twice the least
// possible, so that rare kinds of normal are not forgotten.
func pickReferences(p *selfPart, train []feature.Vector, rng *rand.Rand) references {
	train = sample(train, maxPick, rng)
	asks := make([]wide.Query, len(train))
	near := make([]float32, len(train))
	var s Scratch
	for i := range train {
		p.ask(&train[i], &s)
		asks[i], near[i] = s.query, math.MaxFloat32
	}
	var r references
	for at := rng.IntN(len(train)); len(r.v) < maxRefs; {
		chosen := asks[at].Z // at moves on below
		r.v, r.z = append(r.v, train[at]), append(r.z, chosen)
		var far float32
		for i := range asks {
			near[i] = min(near[i], asks[i].Differ(&chosen, sides))
			if near[i] > far {
				far, at = near[i], i
			}
		}
		if far == 0 {
			break
		}
	}
	return r
}

// wholes says that all are of flows that had ended, and some of them so long that
// live they would have been reported before: who learnt from them has never seen
// a flow half-way, and can say nothing of one.
func (r *references) wholes() bool {
	long := 0
	for i := range r.v {
		v := &r.v[i]
		if v.X[iEnded] != 1 {
			return false
		}
		if v.Known(iPackets) && feature.Natural(iPackets, v.X[iPackets]) > 3.5 {
			long++
		}
	}
	return long >= minSeen
}

var iEnded, iPackets = feature.Index("ended"), feature.Index("packets")

// distance is what a difference of feature i counts, without its weight.
func distance(i int, d float32) float32 {
	if i >= ownFeatures {
		return huber(d * side[i])
	}
	return huber(max(d, -d))
}

// huber is the square of a positive difference, from the knee on linear, and 0
// of a negative one.
func huber(d float32) float32 {
	if d <= 0 {
		return 0
	}
	if d <= knee {
		return d * d
	}
	return knee * (2*d - knee)
}

// weigh gives what one feature of each group weighs when those in has are known.
func weigh(has feature.Mask) (w [2]float32) {
	n := [2]float32{float32(has.Without(contextMask).Len()), float32(has.And(contextMask).Len())}
	return [2]float32{1 / max(n[0], 1), 1 / max(n[1], 1)}
}

// sample keeps at most n vectors, evenly over time from a random start.
func sample(v []feature.Vector, n int, rng *rand.Rand) []feature.Vector {
	if len(v) <= n {
		return v
	}
	out := make([]feature.Vector, n)
	start := rng.Float64()
	for i := range out {
		out[i] = v[int((float64(i)+start)*float64(len(v))/float64(n))]
	}
	return out
}
