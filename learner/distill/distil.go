package distill

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane/score"
	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// Limits and defaults.
const (
	// MinFlows is the least number of normal flows to distil from.
	MinFlows = 200
	// MaxRows bounds the looks that trees are grown on; of more normal ones a
	// random part is taken. All of them calibrate.
	MaxRows = 40_000

	defaultBudget = 1e-3
	// What a packet at a milestone pays for is trees and their depth. On the labelled
	// captures twice as many and deeper ones found nothing that these did not.
	defaultTrees = 32
	defaultDepth = 5
	// Of the weight of all normal looks, this much is given to those that are to be
	// found, as long as no single one counts more than mostOfOne normal ones.
	found     = 1.0 / 3
	mostOfOne = 400
	// alarm is the teacher's p-value that is half an alarm.
	alarm = 1e-3
	// unit is how many of a score's units make 1 of log-odds, at the most.
	unit = 1024
)

// ErrNothing says that there is nothing to look for: nobody confirmed an attack,
// and the teacher alarms on nothing.
var ErrNothing = errors.New("nothing to look for: no confirmed flow, and no alarm of the model's")

// ErrTooFew says that there are not enough normal flows.
var ErrTooFew = errors.New("too few normal flows")

// Options say how to distil. Zero values take the defaults.
type Options struct {
	Seed    uint64
	Version uint32   // of the scorer
	Parent  [32]byte // hash of the teacher
	// Budget is the share of normal flows for which the scorer may act, at
	// whichever milestone; default 0.001, at most 0.05.
	Budget float64
	Trees  int // default 32, at most score.MaxTrees
	Depth  int // default 5, at most score.MaxDepth
	// Pause, if any, is called between steps of some milliseconds, in the goroutine
	// that distils, so that the caller can let other work go first.
	Pause func()
}

func (o Options) withDefaults() (Options, error) {
	if o.Budget == 0 {
		o.Budget = defaultBudget
	}
	if o.Trees == 0 {
		o.Trees = defaultTrees
	}
	if o.Depth == 0 {
		o.Depth = defaultDepth
	}
	if o.Pause == nil {
		o.Pause = func() {}
	}
	switch {
	case !(o.Budget > 0 && o.Budget <= 0.05):
		return o, fmt.Errorf("budget %v: expected above 0 to 0.05", o.Budget)
	case o.Trees < 1 || o.Trees > score.MaxTrees:
		return o, fmt.Errorf("trees: %d: expected 1 to %d", o.Trees, score.MaxTrees)
	case o.Depth < 1 || o.Depth > score.MaxDepth:
		return o, fmt.Errorf("depth: %d: expected 1 to %d", o.Depth, score.MaxDepth)
	}
	return o, nil
}

// Result is a scorer and how it came about.
type Result struct {
	Scorer *score.Scorer
	Report Report
}

// Report says what a scorer was made from and what it does. Held flows did not
// train it.
type Report struct {
	Normals int `json:"normals"` // normal flows
	Rows    int `json:"rows"`    // looks that trees were grown on
	Attacks int `json:"attacks"` // confirmed flows
	Found   int `json:"found"`   // of them, for which it would act
	Held    int `json:"held"`    // normal flows that calibrated
	Wanted  int `json:"wanted"`  // of which it takes so many to say a share as small as the budget
	Over    int `json:"over"`    // of them, for which it would act
	// Low and High are the exact interval of the share of normal flows for which it
	// acts, at 95 %.
	Low    float64                `json:"low"`
	High   float64                `json:"high"`
	Budget float64                `json:"budget"`
	Looks  [score.Milestones]int  `json:"looks"` // held looks of each milestone
	Alone  [score.Milestones]bool `json:"alone"` // whose own scores were enough to calibrate it
}

// Mute says that the scorer acts on nothing whatever it sees, since too few normal
// flows were held to say when it may.
func (r *Report) Mute() bool { return r.Held < r.Wanted }

// Distil makes a scorer from normal flows, oldest first, and confirmed attacks.
func Distil(ctx context.Context, normal, attacks []Flow, o Options) (*Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("distil: options: %w", err)
	}
	if len(normal) < MinFlows {
		return nil, fmt.Errorf("distil: %w: %d: expected at least %d", ErrTooFew, len(normal), MinFlows)
	}
	if err := checkAll(normal, attacks); err != nil {
		return nil, fmt.Errorf("distil: %w", err)
	}
	train, held := split(normal)
	r, err := gather(train, attacks, o)
	if err != nil {
		return nil, fmt.Errorf("distil: %w", err)
	}
	f, err := grow(ctx, r, o)
	if err != nil {
		return nil, fmt.Errorf("distil: %w", err)
	}
	s := &score.Scorer{Version: o.Version, Parent: o.Parent, Forests: []score.Forest{*f}}
	out := &Result{Scorer: s, Report: Report{Normals: len(normal), Rows: len(r.share), Attacks: len(attacks), Held: len(held), Budget: o.Budget}}
	if err := calibrated(ctx, s, held, o, &out.Report); err != nil {
		return nil, fmt.Errorf("distil: %w", err)
	}
	for i := range attacks {
		if acts(s, &attacks[i]) {
			out.Report.Found++
		}
	}
	return out, s.Validate()
}

func checkAll(normal, attacks []Flow) error {
	for _, fs := range [][]Flow{normal, attacks} {
		for i := range fs {
			if err := fs[i].check(); err != nil {
				return fmt.Errorf("flow %d: %w", i, err)
			}
		}
	}
	return nil
}

// blocks is how many stretches of time normal flows are cut into.
const blocks = 20

// split parts flows as the teacher parts its vectors: whole stretches of time,
// for neighbours depend on each other, every second of the newer ones held out.
func split(normal []Flow) (train, held []*Flow) {
	for b := range blocks {
		for i := b * len(normal) / blocks; i < (b+1)*len(normal)/blocks; i++ {
			if b >= blocks*2/5 && (blocks-b)%2 == 1 {
				held = append(held, &normal[i])
			} else {
				train = append(train, &normal[i])
			}
		}
	}
	return train, held
}

// sought is how much of a look the pupil is to find: all of what somebody said was
// an attack, and of the rest what the teacher would alarm on.
func sought(f *Flow, l *Look) float32 {
	if f.Weight > 0 {
		return 1
	}
	p := float64(l.P) / alarm
	return float32(1 / (1 + p*p))
}

// sums are the weights of what is ordinary, of what the teacher alarms on, and of
// what somebody confirmed.
type sums struct{ normals, alarms, confirmed float64 }

func total(train []*Flow, attacks []Flow) (s sums) {
	for _, f := range train {
		for i := range f.Looks {
			y := float64(sought(f, &f.Looks[i]))
			s.normals, s.alarms = s.normals+1-y, s.alarms+y
		}
	}
	for i := range attacks {
		s.confirmed += float64(attacks[i].Weight) * float64(len(attacks[i].Looks))
	}
	return s
}

// each is what one look of a kind counts, when its kind counts sum in all.
func (s *sums) each(sum, most float64) float64 {
	return math.Min(most, math.Max(1, found*s.normals/math.Max(sum, 1)))
}

// gather makes the rows to learn from.
func gather(train []*Flow, attacks []Flow, o Options) (*rows, error) {
	s := total(train, attacks)
	if s.confirmed == 0 && s.alarms < 1 {
		return nil, ErrNothing
	}
	rng := rand.New(rand.NewPCG(o.Seed, 0xd157))
	keep := min(1, MaxRows/math.Max(1, s.normals)) // of the ordinary
	r := newRows(int(math.Min(s.normals, MaxRows) + s.alarms + s.confirmed))
	for _, f := range train {
		for i := range f.Looks {
			l := &f.Looks[i]
			switch y := sought(f, l); {
			case y > 0.1:
				r.add(&l.X, y, 1+y*float32(s.each(s.alarms, alarmWeight)-1))
			case rng.Float64() < keep:
				r.add(&l.X, y, float32(1/keep))
			}
		}
	}
	for i := range attacks {
		f := &attacks[i]
		for k := range f.Looks {
			if f.Weight > 0 {
				r.add(&f.Looks[k].X, 1, f.Weight*float32(s.each(s.confirmed, mostOfOne)))
			}
		}
	}
	return r, nil
}

// alarmWeight is what an alarm of the teacher counts at most, in normal looks:
// less than somebody's word, for among normal flows it is mostly a false one.
const alarmWeight = 20

// grow boosts trees and makes them integers.
func grow(ctx context.Context, r *rows, o Options) (*score.Forest, error) {
	m, err := trees.Shares(ctx, r.data, r.share, r.weight, trees.Options{
		Rounds: o.Trees, Depth: o.Depth, Rate: 0.2, Seed: o.Seed, Pause: o.Pause,
	})
	if err != nil {
		return nil, err
	}
	return quantised(m), nil
}

// quantised turns leaves into int16 by one factor for all, and borders into
// integers that part the same values.
func quantised(m *trees.Model) *score.Forest {
	largest := 0.0
	for i := range m.Trees {
		for _, x := range m.Trees[i].Leaf {
			largest = math.Max(largest, math.Abs(float64(x)))
		}
	}
	factor := float64(unit)
	if largest*factor > math.MaxInt16 {
		factor = math.MaxInt16 / largest
	}
	base := m.Bias[0]
	f := &score.Forest{}
	for i := range m.Trees {
		t := &m.Trees[i]
		if len(t.Column) == 0 {
			base += float64(t.Leaf[0])
			continue
		}
		q := score.Tree{Depth: uint8(len(t.Column)), Leaf: make([]int16, len(t.Leaf))}
		for l, c := range t.Column {
			q.Feature[l] = columns[c].feature
			q.Threshold[l] = columns[c].threshold(m.Borders[c][t.Border[l]])
		}
		for k, x := range t.Leaf {
			q.Leaf[k] = int16(math.Round(float64(x) * factor))
		}
		f.Trees = append(f.Trees, q)
	}
	f.Base = int32(math.Round(min(max(base*factor, -score.MaxBase), score.MaxBase)))
	return f
}

// acts says whether the scorer would do anything to a flow.
func acts(s *score.Scorer, f *Flow) bool {
	return slices.ContainsFunc(f.Looks, func(l Look) bool { return s.Decide(l.At, s.Eval(l.At, &l.X)) != score.Pass })
}
