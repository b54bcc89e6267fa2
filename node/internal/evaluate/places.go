package evaluate

import (
	"context"
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// Place is the macro-F1 of classes at one place after training at another; at
// the same place, of the last 30 % in time after the first 70 %.
type Place struct {
	Train  string           `json:"train"`
	Test   string           `json:"test"`
	Ours   float64          `json:"hedgerow"`
	Forest float64          `json:"forest"`
	Better metrics.Interval `json:"difference"`
}

// places trains at each place and tests at all, with the first seed.
func (s *study) places(ctx context.Context) ([]Place, error) {
	var out []Place
	for p := range s.t.Place.Names {
		rows, _ := s.t.ByPlace(p)
		here := s.t.Pick(rows)
		first, last, err := here.ByTime(trainShare)
		if err != nil {
			return nil, err
		}
		same, err := s.place(ctx, here.Pick(first), map[int]*tabular.Table{p: here.Pick(last)}, p)
		if err != nil {
			return nil, err
		}
		others := map[int]*tabular.Table{}
		for q := range s.t.Place.Names {
			if q != p {
				there, _ := s.t.ByPlace(q)
				others[q] = s.t.Pick(there)
			}
		}
		away, err := s.place(ctx, here, others, p)
		if err != nil {
			return nil, err
		}
		out = append(append(out, same...), away...)
	}
	return out, nil
}

func (s *study) place(ctx context.Context, train *tabular.Table, tests map[int]*tabular.Table, p int) ([]Place, error) {
	o := s.options(s.o.Seed)
	s.o.Progress(fmt.Sprintf("place %s", s.t.Place.Names[p]))
	c, err := tabular.FitClassifier(ctx, train, o)
	if err != nil {
		return nil, err
	}
	f, err := tabular.FitForest(ctx, train, o)
	if err != nil {
		return nil, err
	}
	var out []Place
	for q := range s.t.Place.Names {
		test := tests[q]
		if test == nil {
			continue
		}
		ours, _, err := c.Say(test)
		if err != nil {
			return nil, err
		}
		forest, err := f.Say(test)
		if err != nil {
			return nil, err
		}
		n := len(s.t.Class.Names)
		sm, err := metrics.NewSampler(test.Class.Of, test.Group, s.o.Seed)
		if err != nil {
			return nil, err
		}
		x := Place{Train: s.t.Place.Names[p], Test: s.t.Place.Names[q]}
		a, err := metrics.Confuse(test.Class.Of, ours, n, nil)
		if err != nil {
			return nil, err
		}
		b, err := metrics.Confuse(test.Class.Of, forest, n, nil)
		if err != nil {
			return nil, err
		}
		x.Ours, x.Forest = a.MacroF1(), b.MacroF1()
		if x.Better, err = metrics.MacroF1Paired(test.Class.Of, ours, forest, n, sm, draws); err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}
