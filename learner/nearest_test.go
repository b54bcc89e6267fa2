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

// oneByOne is the slow twin of references.nearest: it asks every reference for the whole
// of its difference.
func oneByOne(z [][feature.Dim]float32, q *query) (at int, d float32) {
	d = math.MaxFloat32
	for k := range z {
		var sum float32
		for i := ownFeatures; i < feature.Dim; i++ {
			sum += q.w[i] * huber((q.z[i]-z[k][i])*side[i])
		}
		for i := range ownFeatures {
			sum += q.w[i] * huber(float32(math.Abs(float64(q.z[i]-z[k][i]))))
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
	work := newSieveWork()
	for _, n := range []int{1, 2, 129, maxRefs} {
		r := references{z: make([][feature.Dim]float32, n)}
		for k := range n {
			p.standard(&r.z[k], &vs[k-k%3%2]) // some twice
		}
		var err error
		if r.sieve, err = newSieve(r.z); err != nil {
			t.Fatal(err)
		}
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
			var x [feature.Dim]float32
			p.standard(&x, &v)
			has := v.Has.And(p.seen)
			q := asked(&x, has)
			at, d := r.nearest(&x, has, &work)
			if wantAt, want := oneByOne(r.z, &q); at != wantAt || d != want {
				t.Fatalf("%d references: %d at %v, expected %d at %v", n, at, d, wantAt, want)
			}
		}
	}
}

// What the sieve goes by is at most what a comparison gives, and reaches it.
func TestBendStaysBelowHuber(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 100_000 {
		a, b := clipZ*(2*rng.Float32()-1), clipZ*(2*rng.Float32()-1)
		least, d := bend(a)-bend(b), huber(max(a-b, b-a))
		if least*least > d*(1+1e-5) {
			t.Fatalf("%v and %v: %v is above %v", a, b, least*least, d)
		}
		if least, d := 2*bend(a), huber(2*max(a, -a)); math.Abs(float64(least*least-d)) > 1e-5*float64(d) {
			t.Fatalf("%v and its opposite: %v, expected %v", a, least*least, d)
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
		q := asked(&r.z[k], r.v[k].Has.And(p.seen))
		if _, d := oneByOne(r.z[:k], &q); d < closest {
			closest = d
		}
	}
	var err error
	if r.sieve, err = newSieve(r.z); err != nil {
		t.Fatal(err)
	}
	work := newSieveWork()
	var farthest float32
	var z [feature.Dim]float32
	for i := range train {
		p.standard(&z, &train[i])
		_, d := r.nearest(&z, train[i].Has.And(p.seen), &work)
		farthest = max(farthest, d)
	}
	t.Logf("no reference is nearer than %.3g to those before it, no training vector farther than %.3g from one", closest, farthest)
	if !(closest > 0) || farthest > closest*1.0001 {
		t.Errorf("a training vector is %v from its nearest reference, a reference %v from those before it", farthest, closest)
	}
}
