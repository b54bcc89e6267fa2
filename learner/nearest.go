package learner

import (
	"math"
	"math/rand/v2"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

const (
	// maxRefs is how many normal vectors a model remembers.
	maxRefs = 512
	// knee is where a difference begins to count linearly, in standard
	// deviations (Huber 1964).
	knee = 1
	// The features before this one are the flow's own, the others its context's.
	ownFeatures = feature.Dim - feature.ContextDim
	// blockLen is how many of them are compared between two looks at the limit.
	blockLen = 19
	// maxPick bounds the vectors that references are picked from.
	maxPick = 4096
)

var _ = [1]struct{}{}[ownFeatures%blockLen] // the blocks cover them, and nothing else

// references are normal vectors of this site that cover its traffic: every
// training vector is close to one. Distance to the nearest (Knorr and Ng 1998)
// sees combinations that an autoencoder smooths over, and names the normal flow
// that a stranger is compared with.
type references struct {
	v []feature.Vector
	z [][feature.Dim]float32 // the same in this site's units
	sieve
}

// pickReferences chooses vectors by farthest-first traversal (Gonzalez 1985),
// which keeps the greatest distance to a reference within twice the least
// possible, so that rare kinds of normal are not forgotten.
func pickReferences(p *selfPart, train []feature.Vector, rng *rand.Rand) references {
	train = sample(train, maxPick, rng)
	z := make([][feature.Dim]float32, len(train))
	asks := make([]query, len(train))
	near := make([]float32, len(train))
	for i := range train {
		p.standard(&z[i], &train[i])
		asks[i], near[i] = asked(&z[i], train[i].Has.And(p.seen)), math.MaxFloat32
	}
	var r references
	for at := rng.IntN(len(train)); len(r.v) < maxRefs; {
		chosen := z[at] // at moves on below
		r.v, r.z = append(r.v, train[at]), append(r.z, chosen)
		var far float32
		for i := range z {
			near[i] = min(near[i], asks[i].differ(&chosen, near[i]))
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

// nearest finds the reference that differs least from a vector given in this
// site's units, the first of equals, and by how much: exactly what comparing it with
// each of them gives.
func (r *references) nearest(z *[feature.Dim]float32, has feature.Mask, work *sieveWork) (at int, d float32) {
	q := asked(z, has)
	bounds := r.bounds(&q, work)[:len(r.z)]
	for k, least := range bounds {
		if least < bounds[at] {
			at = k
		}
	}
	d = q.differ(&r.z[at], math.MaxFloat32)
	for k, least := range bounds {
		if least > d {
			continue
		}
		if x := q.differ(&r.z[k], d); x < d || x == d && k < at {
			at, d = k, x
		}
	}
	return at, d
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

// query is a vector that is compared with many: its features and what a
// difference in each weighs, 0 where it is unknown.
type query struct{ z, w [feature.Dim]float32 }

func asked(z *[feature.Dim]float32, has feature.Mask) query {
	q := query{z: *z}
	w := weigh(has)
	for i := range q.w {
		if has.Has(i) {
			q.w[i] = w[group[i]]
		}
	}
	return q
}

// differ says how much the vector differs from a reference over the features
// that are known of it: the mean over its own plus the mean over its
// context's, as in selfPart.err. It stops early, with a number above limit,
// when the sum has passed it.
func (q *query) differ(ref *[feature.Dim]float32, limit float32) float32 {
	var sum float32
	for i := ownFeatures; i < feature.Dim; i++ { // few, and they weigh most
		sum += q.w[i] * huber((q.z[i]-ref[i])*side[i])
	}
	for block := 0; block < ownFeatures && sum <= limit; block += blockLen {
		for i := block; i < block+blockLen; i++ {
			d := q.z[i] - ref[i]
			if d < 0 {
				d = -d
			}
			sum += q.w[i] * huber(d)
		}
	}
	return sum
}

// share is what feature i adds to differ.
func (q *query) share(i int, ref *[feature.Dim]float32) float32 {
	d := q.z[i] - ref[i]
	if i >= ownFeatures {
		return q.w[i] * huber(d*side[i])
	}
	return q.w[i] * huber(max(d, -d))
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
