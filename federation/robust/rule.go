package robust

import (
	"errors"
	"fmt"
	"slices"
)

// Errors of bad input.
var (
	ErrNone      = errors.New("robust: no updates: expected at least one")
	ErrLength    = errors.New("robust: updates of unequal or no length")
	ErrNotFinite = errors.New("robust: an update is not finite")
	ErrBound     = errors.New("robust: out of bounds")
	ErrVoid      = errors.New("robust: the rule promises nothing here")
	ErrUnknown   = errors.New("robust: unknown rule")
)

// Names of the rules of All.
const (
	NameMean             = "mean"
	NameMedian           = "median"
	NameTrimmed          = "trimmed-mean"
	NameKrum             = "krum"
	NameMultiKrum        = "multi-krum"
	NameBulyan           = "bulyan"
	NameCentred          = "centred-clipping"
	NameDnC              = "dnc"
	NameGeometric        = "geometric-median"
	NameGeometricMasked  = "geometric-median+mask"
	NameMixedTrimmed     = "clip+mix+trimmed-mean"
	NameMixedTrimmedMask = "clip+mix+trimmed-mean+mask"
)

// About says where a rule comes from and what it promises.
type About struct {
	Name      string
	Paper     string
	Breakdown string // in words: how many liars it withstands
	Research  bool   // for comparison only: not to be used between organisations
}

// A Rule makes one update out of many.
type Rule interface {
	About() About
	// Check says why the rule promises nothing for n updates of which f lie, or
	// returns nil. n is at least 1, f at least 0.
	Check(n, f int) error
	// Combine makes one update of x: equally long rows of whole numbers of 1/Unit,
	// in an order that does not depend on who sent what, each of a Euclidean norm
	// of at most MaxNorm. Check(len(x), f) has passed. It changes nothing of x and
	// uses no floating point, so that the result is the same on every machine.
	Combine(x [][]int32, f int) ([]int32, error)
}

// A Set is what a rule is looked up in by name.
type Set []Rule

// All is every rule of this package.
func All() Set {
	return Set{
		geometric{mask: true},
		mixed{mask: true},
		geometric{},
		mixed{},
		mean{},
		median{},
		trimmed{},
		krum{},
		multiKrum{},
		bulyan{},
		centred{},
		dnc{},
	}
}

// Find looks a rule up.
func (s Set) Find(name string) (Rule, error) {
	for _, r := range s {
		if r.About().Name == name {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%w: %q: expected one of %q", ErrUnknown, name, s.Names())
}

// Names lists the rules.
func (s Set) Names() []string {
	names := make([]string, len(s))
	for i, r := range s {
		names[i] = r.About().Name
	}
	return names
}

// Result is one update and what happened on the way.
type Result struct {
	Update  []float32
	Clipped int   // updates that were longer than the clip
	Spoiled []int // updates that were not finite and counted as zero
	Frozen  int   // numbers that stay as they are although somebody would change them
}

// Run combines updates by a rule that withstands f liars, each update cut to
// the Euclidean norm clip (0 < clip <= MaxNorm) before. Updates are not changed.
func Run(r Rule, f int, clip float64, updates [][]float32) (Result, error) {
	if err := bounds(updates, clip); err != nil {
		return Result{}, err
	}
	if err := promises(r, len(updates), f); err != nil {
		return Result{}, err
	}
	var res Result
	x := make([][]int32, len(updates))
	for i, u := range updates {
		q, long, ok := quantise(u, clip)
		if !ok {
			res.Spoiled = append(res.Spoiled, i)
		}
		if long {
			res.Clipped++
		}
		x[i] = q
	}
	slices.SortFunc(x, slices.Compare)
	z, err := r.Combine(x, f)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", r.About().Name, err)
	}
	if len(z) != len(x[0]) {
		return Result{}, fmt.Errorf("%w: rule %s returned %d numbers, expected %d", ErrLength, r.About().Name, len(z), len(x[0]))
	}
	res.Update, res.Frozen = floats(z), frozen(x, z)
	return res, nil
}

func promises(r Rule, n, f int) error {
	if f < 0 || f > n {
		return fmt.Errorf("%w: %d liars among %d: expected 0 to %d", ErrBound, f, n, n)
	}
	if err := r.Check(n, f); err != nil {
		return fmt.Errorf("%s: %w", r.About().Name, err)
	}
	return nil
}

func bounds(updates [][]float32, clip float64) error {
	switch {
	case len(updates) == 0:
		return ErrNone
	case len(updates) > MaxUpdates:
		return fmt.Errorf("%w: %d updates: expected at most %d", ErrBound, len(updates), MaxUpdates)
	case !(clip > 0) || clip > MaxNorm:
		return fmt.Errorf("%w: clip %g: expected more than 0, at most %d", ErrBound, clip, MaxNorm)
	}
	for i, u := range updates {
		if len(u) == 0 || len(u) != len(updates[0]) {
			return fmt.Errorf("%w: update %d has %d numbers, update 0 has %d", ErrLength, i, len(u), len(updates[0]))
		}
	}
	if len(updates[0]) > MaxLength {
		return fmt.Errorf("%w: %d numbers: expected at most %d", ErrBound, len(updates[0]), MaxLength)
	}
	return nil
}

// less is the usual form of Check: it wants n above some multiple of f.
func less(n, f, times, plus int) error {
	if least := times*f + plus; n < least {
		return fmt.Errorf("%w: %d updates of which %d may lie: at least %d updates are needed", ErrVoid, n, f, least)
	}
	return nil
}
