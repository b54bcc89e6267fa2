package learner

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// Contribution is one feature's share in a score.
type Contribution struct {
	Feature int
	Name    string
	Words   string  // with numbers, and what is usual here
	Value   float64 // in the feature's natural unit
	Normal  float64 // of the nearest kind of normal traffic here; 0 when it has none
	Weight  float64 // share of the score, above 0; all sum to 1
}

// pathSteps is how finely the path from normal to the flow is walked.
const pathSteps = 24

// Explain says which features made the score of the part that spoke (see
// Score.By), strongest first. The comparison is the nearest kind of this
// site's normal traffic; the shares are integrated gradients along the way
// from there to the flow (Sundararajan, Taly, Yan 2017), which add up to the
// difference of the two scores. Features that speak for normal are left out.
// Only features that are known of the flow take part.
func (m *Model) Explain(v *feature.Vector, s *Scratch) []Contribution {
	base := m.nearest(v, s)
	var share [feature.Dim]float64
	if m.Score(v, s).By == Attack {
		m.walkAttack(&share, v, &base, s)
	} else {
		m.walkSelf(&share, v, &base, s)
	}
	var total float64
	for i, x := range share {
		if !v.Known(i) || !(x > 0) {
			share[i] = 0
		}
		total += share[i]
	}
	if total <= 0 {
		return nil
	}
	out := make([]Contribution, 0, 16)
	for i, x := range share {
		if x > 0 {
			out = append(out, contribution(i, v, &base, x/total))
		}
	}
	slices.SortStableFunc(out, func(a, b Contribution) int { return cmp.Compare(b.Weight, a.Weight) })
	return out
}

func contribution(i int, v, base *feature.Vector, weight float64) Contribution {
	c := Contribution{Feature: i, Name: feature.Name(i), Words: feature.Describe(i, v), Value: v.Value(i), Weight: weight}
	if n := base.Value(i); !math.IsNaN(n) {
		c.Normal = n
		if !feature.IsFlag(i) {
			c.Words += fmt.Sprintf(" (usual here: %s)", feature.Quantity(i, math.Abs(n)))
		}
	}
	return c
}

// nearest is the typical normal vector that is closest in this site's units.
func (m *Model) nearest(v *feature.Vector, s *Scratch) feature.Vector {
	m.self.standard(&s.z, v)
	best, at := math.Inf(1), 0
	var z [feature.Dim]float32
	for k := range m.normals {
		m.self.standard(&z, &m.normals[k])
		if d := distance(&z, &s.z, m.normals[k].Has&v.Has); d < best {
			best, at = d, k
		}
	}
	return m.normals[at]
}

// distance is the mean absolute difference over the features of a mask: less
// moved by one wild feature than squares are.
func distance(a, b *[feature.Dim]float32, has uint64) float64 {
	var sum float64
	n := 0
	for i := range a {
		if has>>uint(i)&1 == 1 {
			sum += math.Abs(float64(a[i] - b[i]))
			n++
		}
	}
	return sum / float64(max(n, 1))
}

// walkSelf integrates the gradient of the self part's error.
func (m *Model) walkSelf(share *[feature.Dim]float64, v, base *feature.Vector, s *Scratch) {
	var from, to, up, grad [feature.Dim]float32
	m.self.standard(&to, v)
	m.self.standard(&from, base)
	for i := range from {
		if !v.Known(i) {
			from[i] = 0 // as absent in both
		}
	}
	for k := range pathSteps {
		t := (float32(k) + 0.5) / pathSteps
		for i := range s.z {
			s.z[i] = from[i] + t*(to[i]-from[i])
		}
		m.self.err(v.Has, s)
		for i := range up {
			up[i], grad[i] = 2*s.e[i]*m.self.trust[i], 0
		}
		m.self.net.InputGradient(grad[:], up[:], s.self)
		for i := range share {
			share[i] += float64((grad[i] - up[i]) * (to[i] - from[i]) / pathSteps)
		}
	}
}

// walkAttack integrates the gradient of the log-odds of attack.
func (m *Model) walkAttack(share *[feature.Dim]float64, v, base *feature.Vector, s *Scratch) {
	var from, x, grad [feature.Dim]float32
	for i := range from {
		switch {
		case v.Known(i) && base.Known(i):
			from[i] = base.X[i]
		case v.Known(i):
			from[i] = m.self.mean[i]
		}
	}
	for k := range pathSteps {
		t := (float32(k) + 0.5) / pathSteps
		for i := range x {
			x[i], grad[i] = from[i]+t*(v.X[i]-from[i]), 0
		}
		m.attack.net.Forward(x[:], s.attack)
		m.attack.net.InputGradient(grad[:], []float32{-1, 1}, s.attack)
		for i := range share {
			share[i] += float64(grad[i] * (v.X[i] - from[i]) / pathSteps)
		}
	}
}

// kinds is how many typical normal vectors a model keeps.
const kinds = 32

// typical picks normal vectors that are far from each other and then replaces
// each by the member of its cluster that is nearest to the cluster's medians,
// so that what is called usual is a flow that happened.
func typical(p *selfPart, train []feature.Vector, seed uint64) []feature.Vector {
	rng := rand.New(rand.NewPCG(seed, 0x7ec))
	train = sample(train, 1500, rng)
	z := make([][feature.Dim]float32, len(train))
	for i := range train {
		p.standard(&z[i], &train[i])
	}
	all := ^uint64(0)
	centres := [][feature.Dim]float32{z[rng.IntN(len(z))]}
	near := make([]float64, len(z))
	own := make([]int, len(z))
	for i := range near {
		near[i] = math.Inf(1)
	}
	for {
		var sum float64
		last := len(centres) - 1
		for i := range z {
			if d := distance(&z[i], &centres[last], all); d < near[i] {
				near[i], own[i] = d, last
			}
			sum += near[i]
		}
		if len(centres) == kinds || sum == 0 {
			break
		}
		centres = append(centres, z[draw(near, sum, rng)])
	}
	return medoids(train, z, own, len(centres))
}

// draw picks an index in proportion to its distance (k-means++, Arthur and Vassilvitskii 2007).
func draw(w []float64, sum float64, rng *rand.Rand) int {
	x := rng.Float64() * sum
	for i, d := range w {
		if x -= d; x < 0 {
			return i
		}
	}
	return len(w) - 1
}

// medoids takes from each cluster the member nearest to its medians.
func medoids(train []feature.Vector, z [][feature.Dim]float32, own []int, k int) []feature.Vector {
	out := make([]feature.Vector, 0, k)
	var col []float32
	for c := range k {
		var mid [feature.Dim]float32
		for i := range mid {
			col = col[:0]
			for j := range z {
				if own[j] == c {
					col = append(col, z[j][i])
				}
			}
			if len(col) > 0 {
				slices.Sort(col)
				mid[i] = col[len(col)/2]
			}
		}
		best, at := math.Inf(1), -1
		for j := range z {
			if own[j] == c {
				if d := distance(&z[j], &mid, ^uint64(0)); d < best {
					best, at = d, j
				}
			}
		}
		if at >= 0 {
			out = append(out, train[at])
		}
	}
	return out
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
