// Package scoretest makes scorers and vectors for tests of whatever evaluates
// them: any that are valid, and vectors at the very edges of a scorer's
// questions and of what the features can be.
package scoretest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
)

// Random is a valid scorer of 1 to 5 forests with so many trees each; depth 0 is any.
func Random(rng *rand.Rand, forests, trees, depth int) *score.Scorer {
	s := &score.Scorer{Version: rng.Uint32(), Forests: make([]score.Forest, forests)}
	for i := range s.Parent {
		s.Parent[i] = byte(rng.Uint32())
	}
	for i := range s.Forests {
		f := &s.Forests[i]
		f.Base = rng.Int32N(2*score.MaxBase+1) - score.MaxBase
		if rng.IntN(2) == 0 {
			f.Base = rng.Int32N(2000) - 1000
		}
		for range trees {
			f.Trees = append(f.Trees, tree(rng, depth))
		}
	}
	for m := range s.Steps {
		st := score.Step{Forest: uint8(m % forests), Suspend: rng.Int32N(100000) - 50000}
		if rng.IntN(5) == 0 {
			st.Suspend = score.Never
		}
		st.Limit = st.Suspend - rng.Int32N(20000)
		s.Steps[m] = st
	}
	return s
}

// Constant is a scorer that says the same of every flow: the action, with a score of
// 5, at the named milestones, or at all where none is named.
func Constant(version uint32, a score.Action, at ...score.Milestone) *score.Scorer {
	const base = 5
	s := &score.Scorer{Version: version, Forests: []score.Forest{{Base: base}}}
	for m := range s.Steps {
		s.Steps[m] = score.Step{Limit: score.Never, Suspend: score.Never}
		if len(at) > 0 && !slices.Contains(at, score.Milestone(m)) {
			continue
		}
		switch a {
		case score.Suspend:
			s.Steps[m].Limit, s.Steps[m].Suspend = base, base
		case score.RateLimit:
			s.Steps[m].Limit = base
		}
	}
	return s
}

func tree(rng *rand.Rand, depth int) score.Tree {
	if depth == 0 {
		depth = 1 + rng.IntN(score.MaxDepth)
	}
	t := score.Tree{Depth: uint8(depth), Leaf: make([]int16, 1<<depth)}
	for l := range depth {
		t.Feature[l] = uint8(rng.IntN(score.Dim))
		t.Threshold[l] = min(value(rng), math.MaxInt32-1)
	}
	for i := range t.Leaf {
		t.Leaf[i] = int16(rng.Uint32())
	}
	return t
}

// value is of any size, and often an extreme one.
func value(rng *rand.Rand) int32 {
	switch rng.IntN(6) {
	case 0:
		return [...]int32{0, -1, 1, math.MinInt32, math.MaxInt32, math.MaxInt32 - 1, math.MinInt32 + 1, 1 << 30}[rng.IntN(8)]
	case 1:
		return int32(rng.Uint32())
	}
	return int32(rng.Uint32()) >> rng.IntN(32)
}

// Vector is one that asks s hard questions: many features are at a threshold
// that s compares them with, or one beside it. None is below its floor.
func Vector(rng *rand.Rand, s *score.Scorer) (v score.Vector) {
	defer Raise(&v)
	for i := range v {
		v[i] = value(rng)
	}
	if rng.IntN(4) == 0 {
		return v
	}
	for i := range s.Forests {
		for _, t := range s.Forests[i].Trees {
			l := rng.IntN(int(t.Depth))
			v[t.Feature[l]] = t.Threshold[l] + rng.Int32N(3) - 1
		}
	}
	return v
}

// Raise makes all features of v at least their floors.
func Raise(v *score.Vector) {
	for i := range v {
		v[i] = max(v[i], score.Floor(i))
	}
}

// Either is one of two scorers, of which one may be nil.
func Either(rng *rand.Rand, of [2]*score.Scorer) *score.Scorer {
	if of[0] == nil || of[1] != nil && rng.IntN(2) == 0 {
		return of[1]
	}
	return of[0]
}
