package robust

import "fmt"

// Quorum is the number of organisations below which no rule can both withstand
// a liar and keep what the others know: then sites share indicators only.
const Quorum = 7

// DefaultClip is the Euclidean norm above which an update is shortened.
const DefaultClip = MaxNorm

// Spec names a rule with its parameters, equal at every member.
type Spec struct {
	Rule string
	F    int     // liars to withstand
	Clip float64 // DefaultClip when 0
}

// Lab is for the sites of one organisation, which trust each other: the mean,
// which withstands no liar.
func Lab() Spec { return Spec{Rule: NameMean, Clip: DefaultClip} }

// Tolerated is how many of n organisations the default withstands: 30 %.
func Tolerated(n int) int { return 3 * n / 10 }

// Default is the rule among n organisations.
func Default(n int) (Spec, error) {
	if n < Quorum {
		return Spec{}, fmt.Errorf("%w: %d organisations: at least %d are needed to learn from each other; below, share indicators and train alone", ErrVoid, n, Quorum)
	}
	return Spec{Rule: NameGeometricMasked, F: Tolerated(n), Clip: DefaultClip}, nil
}

// Check says whether the rule exists and promises something for n updates.
func (s Spec) Check(n int) error {
	r, err := All().Find(s.Rule)
	if err != nil {
		return err
	}
	if c := s.clip(); !(c > 0) || c > MaxNorm {
		return fmt.Errorf("%w: clip %g: expected more than 0, at most %d", ErrBound, s.Clip, MaxNorm)
	}
	return promises(r, n, s.F)
}

// Aggregate combines updates by the named rule.
func (s Spec) Aggregate(updates [][]float32) (Result, error) {
	r, err := All().Find(s.Rule)
	if err != nil {
		return Result{}, err
	}
	return Run(r, s.F, s.clip(), updates)
}

func (s Spec) clip() float64 {
	if s.Clip == 0 {
		return DefaultClip
	}
	return s.Clip
}

// String is for status and logs.
func (s Spec) String() string {
	if s.F == 0 {
		return s.Rule + "; tolerates no liar (f = 0)"
	}
	return fmt.Sprintf("%s; tolerates %d liars", s.Rule, s.F)
}
