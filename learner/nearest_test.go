package learner

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// someVectors are of a few kinds, each with small variations, some rare; some
// features are unknown of some.
func someVectors(n int, rng *rand.Rand) []feature.Vector {
	kinds := make([]feature.Vector, 40)
	for k := range kinds {
		for i := range kinds[k].X {
			kinds[k].X[i] = rng.Float32()
		}
	}
	out := make([]feature.Vector, n)
	for j := range out {
		v := &out[j]
		*v = kinds[int(math.Pow(rng.Float64(), 4)*float64(len(kinds)))]
		for i := range v.X {
			if v.X[i] += 0.02 * float32(rng.NormFloat64()); rng.IntN(20) > 0 {
				v.Has.Add(i)
			} else {
				v.X[i] = 0
			}
		}
	}
	return out
}

// Farthest-first traversal chooses each time what is farthest from all that
// were chosen: so no training vector is farther from its reference than any
// reference was from those before it.
func TestReferencesCoverTheTraining(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	train := someVectors(1500, rng)
	var p selfPart
	p.fitScale(train)
	r := pickReferences(&p, train, rng)
	if len(r.z) != maxRefs {
		t.Fatalf("%d references: expected %d", len(r.z), maxRefs)
	}
	closest := float32(math.MaxFloat32)
	for k := 1; k < len(r.z); k++ {
		earlier := references{v: r.v[:k], z: r.z[:k]}
		if _, d := earlier.nearest(&r.z[k], r.v[k].Has.And(p.seen)); d < closest {
			closest = d
		}
	}
	var farthest float32
	var z [feature.Dim]float32
	for i := range train {
		p.standard(&z, &train[i])
		_, d := r.nearest(&z, train[i].Has.And(p.seen))
		farthest = max(farthest, d)
	}
	t.Logf("no reference is nearer than %.3g to those before it, no training vector farther than %.3g from one", closest, farthest)
	if !(closest > 0) || farthest > closest*1.0001 {
		t.Errorf("a training vector is %v from its nearest reference, a reference %v from those before it", farthest, closest)
	}
}
