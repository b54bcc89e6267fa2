package learner

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
	"github.com/hedgerow-mesh/hedgerow/learner/internal/wide"
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

// oneByOne is the slow twin of references.nearest: it asks every reference for the whole
// of its difference, of which w is what one feature of each group weighs.
func oneByOne(z []wide.Row, q *wide.Row, has feature.Mask) (at int, d float32) {
	d = math.MaxFloat32
	w := weigh(has)
	for k := range z {
		var sum float32
		for n := range feature.Dim {
			if i := (n + ownFeatures) % feature.Dim; has.Has(i) { // the context's first
				sum += w[group[i]] * distance(i, q[i]-z[k][i])
			}
		}
		if sum < d {
			at, d = k, sum
		}
	}
	return at, d
}

// The sieve lets exactly that pass which asking all finds: the same reference, and
// the same difference to the last bit, also among equals, for strangers, and for few.
func TestSieveEqualsAskingAll(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	vs := someVectors(2500, rng)
	var p selfPart
	p.fitScale(vs[:2000])
	var s Scratch
	for _, n := range []int{1, 2, 8, 129, maxRefs} {
		r := references{z: make([]wide.Row, n)}
		for k := range n {
			p.standard(&r.z[k], &vs[k-k%3%2]) // some twice
		}
		r.sieve = newSieve(r.z)
		for k := range 400 {
			v := vs[2000+k]
			if k%5 == 0 {
				v = vs[k%n]
			}
			for i := range v.X {
				if k%4 == 0 {
					v.X[i] += 0.3 * float32(rng.NormFloat64())
				}
			}
			has := p.ask(&v, &s)
			at, d := r.nearest(&s.query, &s.bounds)
			if wantAt, want := oneByOne(r.z, &s.query.Z, has); at != wantAt || d != want {
				t.Fatalf("%d references: %d at %v, expected %d at %v", n, at, d, wantAt, want)
			}
		}
	}
}

// The logarithm of a product is the sum of logarithms, also where no number holds
// the product.
func TestSoftenedIsASum(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for _, size := range []float64{1e-9, 1, 1e4, 1e9} {
		for n := range ownFeatures + 1 {
			var want float64
			sq := make([]float32, n)
			for i := range sq {
				sq[i] = float32(size * rng.ExpFloat64())
				want += soften(sq[i])
			}
			if got := softened(sq); !(math.Abs(got-want) <= 1e-12*(1+want)) {
				t.Errorf("%d of %g: %v: expected %v", n, size, got, want)
			}
		}
	}
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
		if _, d := oneByOne(r.z[:k], &r.z[k], r.v[k].Has.And(p.seen)); d < closest {
			closest = d
		}
	}
	r.sieve = newSieve(r.z)
	var s Scratch
	var farthest float32
	for i := range train {
		p.ask(&train[i], &s)
		_, d := r.nearest(&s.query, &s.bounds)
		farthest = max(farthest, d)
	}
	t.Logf("no reference is nearer than %.3g to those before it, no training vector farther than %.3g from one", closest, farthest)
	if !(closest > 0) || farthest > closest*1.0001 {
		t.Errorf("a training vector is %v from its nearest reference, a reference %v from those before it", farthest, closest)
	}
}
