package learner

import (
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/feature"
)

// MaxMemory is how many prototypes a Memory holds; the oldest goes first.
const MaxMemory = 512

const (
	// reach is the share of the distance to the nearest normal vector within
	// which a prototype claims what it meets.
	reach = 0.5
	// farthest is the largest distance ever claimed, in root mean square of
	// the schema's scale.
	farthest = 0.12
)

// Memory is an index of confirmed behaviours that answers at once: a vector
// close to a prototype is the same behaviour, whatever its address. How close
// is calibrated against normal: a prototype claims at most half the way to the
// nearest normal vector, so one that lies among normal traffic claims nothing.
// It is for one goroutine.
type Memory struct {
	normals []feature.Vector
	protos  []proto
}

type proto struct {
	v      feature.Vector
	family string
	radius float64
}

// NewMemory starts empty, calibrated against normal vectors, which it copies
// (at most 2048 of them, evenly over time).
func NewMemory(normals []feature.Vector) *Memory {
	m := &Memory{}
	m.Recalibrate(normals)
	return m
}

// Recalibrate measures every prototype against other normals.
func (m *Memory) Recalibrate(normals []feature.Vector) {
	const most = 2048
	step := max(1, (len(normals)+most-1)/most)
	m.normals = m.normals[:0]
	for i := len(normals) - 1; i >= 0; i -= step {
		m.normals = append(m.normals, normals[i])
	}
	for i := range m.protos {
		m.protos[i].radius = m.radius(&m.protos[i].v)
	}
}

func (m *Memory) radius(v *feature.Vector) float64 {
	near := farthest / reach
	for i := range m.normals {
		near = math.Min(near, gapBetween(v, &m.normals[i]))
	}
	return near * reach
}

// Add remembers a confirmed behaviour and says whether it can be told from
// normal at all.
func (m *Memory) Add(v *feature.Vector, family string) bool {
	p := proto{*v, family, m.radius(v)}
	if len(m.protos) == MaxMemory {
		copy(m.protos, m.protos[1:])
		m.protos = m.protos[:MaxMemory-1]
	}
	m.protos = append(m.protos, p)
	return p.radius > 0
}

// Forget removes what was remembered under a family, when it was a mistake.
func (m *Memory) Forget(family string) int {
	kept := m.protos[:0]
	for _, p := range m.protos {
		if p.family != family {
			kept = append(kept, p)
		}
	}
	n := len(m.protos) - len(kept)
	m.protos = kept
	return n
}

// Len is how many prototypes it holds.
func (m *Memory) Len() int { return len(m.protos) }

// Match says whether the vector is a near variant of a confirmed behaviour,
// and how far it is from the nearest prototype as a share of what that one
// claims: below 1 is a match. It allocates nothing.
func (m *Memory) Match(v *feature.Vector) (dist float64, ok bool) {
	_, dist, ok = m.Nearest(v)
	return dist, ok
}

// Nearest is Match with the family of the nearest prototype.
func (m *Memory) Nearest(v *feature.Vector) (family string, dist float64, ok bool) {
	dist = math.Inf(1)
	for i := range m.protos {
		p := &m.protos[i]
		if p.radius <= 0 {
			continue
		}
		if d := gapBetween(v, &p.v) / p.radius; d < dist {
			family, dist = p.family, d
		}
	}
	return family, dist, dist < 1
}

// gapBetween is the root mean square difference in the schema's scale. What is
// known of one and not of the other differs by a half. What the first schema had
// not does so only where both know it: a behaviour that was confirmed under it, or
// whose client's first message was missed, is the same behaviour.
func gapBetween(a, b *feature.Vector) float64 {
	both, one := a.Has.And(b.Has), a.Has.Xor(b.Has).And(feature.First())
	var sum float64
	n := 0
	for i := range a.X {
		switch {
		case both.Has(i):
			d := float64(a.X[i] - b.X[i])
			sum += d * d
			n++
		case one.Has(i):
			sum += 0.25
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return math.Sqrt(sum / float64(n))
}
