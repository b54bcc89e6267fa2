package score

import (
	"fmt"
	"math"
	"math/bits"
)

// Limits of a scorer.
const (
	MaxDepth = 6
	MaxTrees = 128     // of a forest
	MaxBase  = 1 << 24 // of a forest, either way
)

// Never is a threshold that no score reaches.
const Never = math.MaxInt32

// Action is what follows from a score. The numbers are those of dataplane.Action.
type Action uint8

// Actions.
const (
	Pass      Action = iota // nothing
	RateLimit               // the flow gets a budget of bytes
	Suspend                 // the flow is dropped for a while
)

// String is the action's word: pass, rate-limit, suspend.
func (a Action) String() string {
	switch a {
	case RateLimit:
		return "rate-limit"
	case Suspend:
		return "suspend"
	}
	return "pass"
}

// Milestone numbers the moments at which a flow is scored.
type Milestone uint8

// Milestones is how many there are: at packets 4, 8, 16, 32 and 64.
const Milestones = 5

// Packets is how many packets a flow has at the milestone, 4 to 64.
func (m Milestone) Packets() uint32 { return 4 << (m % Milestones) }

// At is the last milestone that a flow of n packets has reached. ok is false
// below 4 packets, and from 256 on, where flows are reported but not scored.
// Several packets may come as one, so that a flow is scored at the milestone of
// 4 while it has 7.
func At(n uint32) (m Milestone, ok bool) {
	if n < 4 || n >= 256 {
		return 0, false
	}
	return min(Milestone(bits.Len32(n)-3), Milestones-1), true
}

// Due is the milestone at which a flow is scored that had before packets and now
// has n: the last of those that it passed.
func Due(before, n uint32) (m Milestone, ok bool) {
	m, ok = At(n)
	return m, ok && before < m.Packets()
}

// Tree is an oblivious tree: level l asks whether feature Feature[l] is greater
// than Threshold[l], and the answer is bit l of the leaf's number. Levels from
// Depth on are zero.
type Tree struct {
	Depth     uint8 // 1 to MaxDepth
	Feature   [MaxDepth]uint8
	Threshold [MaxDepth]int32 // below math.MaxInt32, which nothing exceeds
	Leaf      []int16         // 1<<Depth of them
}

// Forest adds up the leaves of its trees.
type Forest struct {
	Base  int32 // what no tree says, -MaxBase to MaxBase
	Trees []Tree
}

// Step says how a milestone is scored and what follows: a score of Suspend or
// more suspends, else one of Limit or more limits. Limit is at most Suspend;
// either may be Never.
type Step struct {
	Forest         uint8 // index into Scorer.Forests
	Limit, Suspend int32
}

// Scorer is a model that decides. Forests may be shared by milestones; each is
// used by one at least.
type Scorer struct {
	Version uint32   // the maker's count; the greater is the later
	Parent  [32]byte // names the model that it was distilled from, zero for none
	Forests []Forest // 1 to Milestones
	Steps   [Milestones]Step
}

// Eval is the score of v at a milestone. s must be valid.
func (s *Scorer) Eval(m Milestone, v *Vector) int32 {
	return s.Forests[s.Steps[m].Forest].Eval(v)
}

// Decide says what follows from a score at a milestone.
func (s *Scorer) Decide(m Milestone, score int32) Action {
	switch st := &s.Steps[m]; {
	case score >= st.Suspend:
		return Suspend
	case score >= st.Limit:
		return RateLimit
	}
	return Pass
}

// Eval is the sum of the leaves that v leads to. f must be valid.
func (f *Forest) Eval(v *Vector) int32 {
	sum := f.Base
	for i := range f.Trees {
		t := &f.Trees[i]
		leaf := 0
		for l := range t.Depth {
			if v[t.Feature[l]] > t.Threshold[l] {
				leaf |= 1 << l
			}
		}
		sum += int32(t.Leaf[leaf])
	}
	return sum
}

// Validate checks that s can be evaluated, compiled and encoded.
func (s *Scorer) Validate() error {
	if len(s.Forests) < 1 || len(s.Forests) > Milestones {
		return fmt.Errorf("scorer: %d forests: expected 1 to %d", len(s.Forests), Milestones)
	}
	var used [Milestones]bool
	for m, st := range s.Steps {
		if int(st.Forest) >= len(s.Forests) {
			return fmt.Errorf("scorer: step %d: forest %d: expected one of %d", m, st.Forest, len(s.Forests))
		}
		if st.Limit > st.Suspend {
			return fmt.Errorf("scorer: step %d: limits at %d, suspends at %d: expected the limit first", m, st.Limit, st.Suspend)
		}
		used[st.Forest] = true
	}
	for i := range s.Forests {
		if !used[i] {
			return fmt.Errorf("scorer: forest %d: no step uses it: leave it out", i)
		}
		if err := s.Forests[i].validate(); err != nil {
			return fmt.Errorf("scorer: forest %d: %w", i, err)
		}
	}
	return nil
}

func (f *Forest) validate() error {
	if f.Base < -MaxBase || f.Base > MaxBase {
		return fmt.Errorf("base %d: expected %d to %d", f.Base, -MaxBase, MaxBase)
	}
	if len(f.Trees) > MaxTrees {
		return fmt.Errorf("%d trees: expected at most %d", len(f.Trees), MaxTrees)
	}
	for i := range f.Trees {
		if err := f.Trees[i].validate(); err != nil {
			return fmt.Errorf("tree %d: %w", i, err)
		}
	}
	return nil
}

func (t *Tree) validate() error {
	if t.Depth < 1 || t.Depth > MaxDepth {
		return fmt.Errorf("depth %d: expected 1 to %d", t.Depth, MaxDepth)
	}
	if len(t.Leaf) != 1<<t.Depth {
		return fmt.Errorf("%d leaves: expected %d for depth %d", len(t.Leaf), 1<<t.Depth, t.Depth)
	}
	for l := range t.Feature {
		switch on := l < int(t.Depth); {
		case on && t.Feature[l] >= Dim:
			return fmt.Errorf("level %d: feature %d: expected less than %d", l, t.Feature[l], Dim)
		case on && t.Threshold[l] == math.MaxInt32:
			return fmt.Errorf("level %d: threshold %d: no value exceeds it", l, t.Threshold[l])
		case !on && (t.Feature[l] != 0 || t.Threshold[l] != 0):
			return fmt.Errorf("level %d: is set, but the depth is %d", l, t.Depth)
		}
	}
	return nil
}
