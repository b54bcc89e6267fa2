package evaluate

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// Report is what a study found. The first four figures are those of the
// combination: medians over the seeds.
type Report struct {
	AUC     float64 `json:"auc,omitempty"`
	At1     float64 `json:"dr_at_1pct,omitempty"`
	At5     float64 `json:"dr_at_5pct,omitempty"`
	MacroF1 float64 `json:"macro_f1,omitempty"`

	Dataset     string          `json:"dataset"`
	Quick       bool            `json:"quick,omitempty"` // the figures mean nothing
	Data        *dataset.Report `json:"data"`
	Split       string          `json:"split"`
	Columns     int             `json:"columns"`
	Train       int             `json:"train_rows"`
	Test        int             `json:"test_rows"`
	TestAttacks int             `json:"test_attacks"`
	Classes     []string        `json:"classes"`
	Seeds       []uint64        `json:"seeds"`

	Models  []Model   `json:"models,omitempty"`
	Against []Against `json:"against,omitempty"`
	Ways    []string  `json:"ways,omitempty"` // chosen, of each seed
	// What follows is of the seed whose AUC is the median.
	Shown       uint64          `json:"shown_seed,omitempty"`
	Trials      []tabular.Trial `json:"trials,omitempty"`
	Families    []Family        `json:"families,omitempty"`
	Confusion   [][]float64     `json:"confusion,omitempty"` // true class, said class
	Calibration []metrics.Bin   `json:"calibration,omitempty"`
	Off         float64         `json:"calibration_error,omitempty"`
	Importance  []Share         `json:"importance,omitempty"`
	Curves      []Curve         `json:"curves,omitempty"`

	ZeroDay []LeftOut `json:"zero_day,omitempty"`
	Places  []Place   `json:"places,omitempty"`
	// Campaigns is of data sets that are traffic with a campaign in it.
	Campaigns *Campaigns `json:"campaigns,omitempty"`
	// Control are the AUCs of trees trained on shuffled labels; about a half.
	Control []float64 `json:"control_auc,omitempty"`
}

// Model is one model's figures: the median over seeds, all seeds, and the
// bounds of the shown seed.
type Model struct {
	Name    string           `json:"name"`
	AUC     float64          `json:"auc"`
	At1     float64          `json:"dr_at_1pct"`
	At5     float64          `json:"dr_at_5pct"`
	MacroF1 float64          `json:"macro_f1,omitempty"`
	Seeds   [][4]float64     `json:"seeds"` // the same four of each seed
	Bounds  metrics.Interval `json:"auc_bounds"`
	Bounds1 metrics.Interval `json:"dr_at_1pct_bounds"`
	Bounds5 metrics.Interval `json:"dr_at_5pct_bounds"`
	BoundsF metrics.Interval `json:"macro_f1_bounds,omitzero"`
}

// Against is how much better the combination is than a reference, on the same
// draws of the shown seed's rows.
type Against struct {
	Name    string           `json:"name"`
	AUC     metrics.Interval `json:"auc"`
	At1     metrics.Interval `json:"dr_at_1pct"`
	At5     metrics.Interval `json:"dr_at_5pct"`
	MacroF1 metrics.Interval `json:"macro_f1,omitzero"`
}

// Family is how much of one family of attacks is found.
type Family struct {
	Name  string           `json:"name"`
	Class string           `json:"class"`
	Rows  int              `json:"rows"`
	Shown bool             `json:"shown"` // there were rows of it in training
	At1   metrics.Interval `json:"dr_at_1pct"`
	At5   metrics.Interval `json:"dr_at_5pct"`
	Best1 float64          `json:"best_reference_at_1pct"`
}

// Share is one column's part in what the trees go by.
type Share struct {
	Column string  `json:"column"`
	Share  float64 `json:"share"`
}

// Curve is one model's ROC and precision-recall curves.
type Curve struct {
	Name string          `json:"name"`
	ROC  []metrics.Point `json:"roc"`
	PR   []metrics.Point `json:"pr"`
	AP   float64         `json:"average_precision"`
}

// LeftOut is a class of attacks that was left out of all training: medians over
// the seeds.
type LeftOut struct {
	Class    string   `json:"class"`
	Rows     int      `json:"rows"`
	Ways     []string `json:"ways"`
	Together Found    `json:"together"`
	Trees    Found    `json:"classifier"`
	Self     Found    `json:"autoencoder"`
	Nearest  Found    `json:"nearest"`
}

// Found is detection at 1 % and 5 % false alarms, and the AUC.
type Found struct {
	At1 float64 `json:"dr_at_1pct"`
	At5 float64 `json:"dr_at_5pct"`
	AUC float64 `json:"auc"`
}

func median(xs []float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	s := slices.Clone(xs)
	slices.Sort(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// finish turns the runs into the report.
func (s *study) finish(ctx context.Context) error {
	if len(s.runs) == 0 {
		return errNoRun
	}
	shown := s.medianRun()
	rep := &s.rep
	rep.Shown, rep.Trials = shown.seed, shown.trials
	for _, r := range s.runs {
		rep.Ways = append(rep.Ways, r.way.String())
	}
	for i := range shown.models {
		m, err := s.model(shown, i)
		if err != nil {
			return err
		}
		rep.Models = append(rep.Models, m)
	}
	ours := rep.Models[0]
	rep.AUC, rep.At1, rep.At5, rep.MacroF1 = ours.AUC, ours.At1, ours.At5, ours.MacroF1
	if err := s.against(shown); err != nil {
		return err
	}
	if err := s.detail(shown); err != nil {
		return err
	}
	var err error
	if rep.Control, err = s.control(ctx); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if s.o.Dataset == dataset.Westermo && !s.o.Quick {
		rep.Places, err = s.places(ctx)
	}
	return err
}

// medianRun is the run whose AUC is the median, or the next above.
func (s *study) medianRun() *run {
	order := allRows(len(s.runs))
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(s.runs[a].models[0].rank.AUC(), s.runs[b].models[0].rank.AUC())
	})
	return &s.runs[order[len(order)/2]]
}

func (s *study) sampler(r *run) (*metrics.Sampler, error) {
	class := make([]int, r.test.Rows())
	for i, k := range r.test.Class.Of {
		class[i] = min(k, 1)
	}
	return metrics.NewSampler(class, r.test.Group, r.seed)
}

func (r *run) classSampler() (*metrics.Sampler, error) {
	return metrics.NewSampler(r.test.Class.Of, r.test.Group, r.seed)
}

var rates = []metrics.Rate{{}, {Alarms: 0.01}, {Alarms: 0.05}}

// model gathers the i-th model's figures.
func (s *study) model(shown *run, i int) (Model, error) {
	m := Model{Name: shown.models[i].name}
	var cols [4][]float64
	for _, r := range s.runs {
		x := r.models[i]
		at1, _ := x.rank.Detection(0.01)
		at5, _ := x.rank.Detection(0.05)
		four := [4]float64{x.rank.AUC(), at1, at5, x.macro}
		m.Seeds = append(m.Seeds, four)
		for k := range cols {
			cols[k] = append(cols[k], four[k])
		}
	}
	m.AUC, m.At1, m.At5, m.MacroF1 = median(cols[0]), median(cols[1]), median(cols[2]), median(cols[3])
	sm, err := s.sampler(shown)
	if err != nil {
		return m, err
	}
	b, err := metrics.Bounds(shown.models[i].rank, rates, sm, draws)
	if err != nil {
		return m, err
	}
	m.Bounds, m.Bounds1, m.Bounds5 = b[0], b[1], b[2]
	if said := shown.models[i].said; said != nil {
		if sm, err = shown.classSampler(); err != nil {
			return m, err
		}
		m.BoundsF, err = metrics.MacroF1Bounds(shown.test.Class.Of, said, len(shown.test.Class.Names), sm, draws)
	}
	return m, err
}

// against compares the combination with every other model on the same draws.
func (s *study) against(shown *run) error {
	ours := shown.models[0]
	for _, m := range shown.models[1:] {
		sm, err := s.sampler(shown)
		if err != nil {
			return err
		}
		d, err := metrics.Paired(ours.rank, m.rank, rates, sm, draws)
		if err != nil {
			return err
		}
		a := Against{Name: m.name, AUC: d[0], At1: d[1], At5: d[2]}
		if m.said != nil {
			if sm, err = shown.classSampler(); err != nil {
				return err
			}
			if a.MacroF1, err = metrics.MacroF1Paired(shown.test.Class.Of, ours.said, m.said, len(shown.test.Class.Names), sm, draws); err != nil {
				return err
			}
		}
		s.rep.Against = append(s.rep.Against, a)
	}
	return nil
}

// detail fills what is told of one seed only.
func (s *study) detail(shown *run) error {
	s.families(shown)
	c, err := metrics.Confuse(shown.test.Class.Of, shown.models[0].said, len(shown.test.Class.Names), nil)
	if err != nil {
		return err
	}
	s.rep.Confusion = c
	if s.rep.Calibration, s.rep.Off, err = metrics.Reliability(shown.prob, shown.test.Attack(), 10); err != nil {
		return err
	}
	for i, x := range shown.importance {
		s.rep.Importance = append(s.rep.Importance, Share{shown.test.Columns[i].Name, x})
	}
	slices.SortStableFunc(s.rep.Importance, func(a, b Share) int { return cmp.Compare(b.Share, a.Share) })
	for _, m := range shown.models {
		s.rep.Curves = append(s.rep.Curves, Curve{m.name, m.rank.ROC(200), m.rank.PrecisionRecall(200), m.rank.AveragePrecision()})
	}
	return nil
}

// families counts what is found of each, at thresholds that let 1 % and 5 % of
// the normal test rows through.
func (s *study) families(shown *run) {
	t := shown.test
	trained := map[int]bool{}
	if first, _, err := s.split(shown.seed); err == nil {
		for _, f := range first.Family.Of {
			trained[f] = true
		}
	}
	_, at1 := shown.models[0].rank.Detection(0.01)
	_, at5 := shown.models[0].rank.Detection(0.05)
	for f := 1; f < len(t.Family.Names); f++ {
		rows := t.Where(func(r int) bool { return t.Family.Of[r] == f })
		if len(rows) == 0 {
			continue
		}
		above := func(score []float64, cut float64) (n int) {
			for _, r := range rows {
				if score[r] >= cut {
					n++
				}
			}
			return n
		}
		x := Family{Name: t.Family.Names[f], Class: t.Class.Names[t.Class.Of[rows[0]]], Rows: len(rows), Shown: trained[f],
			At1: metrics.Proportion(above(shown.models[0].score, at1), len(rows)), At5: metrics.Proportion(above(shown.models[0].score, at5), len(rows))}
		for _, m := range shown.models[1:] {
			_, cut := m.rank.Detection(0.01)
			x.Best1 = math.Max(x.Best1, float64(above(m.score, cut))/float64(len(rows)))
		}
		s.rep.Families = append(s.rep.Families, x)
	}
	slices.SortStableFunc(s.rep.Families, func(a, b Family) int { return cmp.Compare(b.Rows, a.Rows) })
}

func count(xs []int, of int) (n int) {
	for _, x := range xs {
		if x == of {
			n++
		}
	}
	return n
}

// medianLeftOut takes the median over seeds, class by class.
func medianLeftOut(seeds [][]tabular.LeftOut) []LeftOut {
	of := map[string][]tabular.LeftOut{}
	var order []string
	for _, s := range seeds {
		for _, x := range s {
			if of[x.Class] == nil {
				order = append(order, x.Class)
			}
			of[x.Class] = append(of[x.Class], x)
		}
	}
	var out []LeftOut
	for _, class := range order {
		xs := of[class]
		found := func(part func(*tabular.LeftOut) *tabular.Figures) Found {
			var v [3][]float64
			for i := range xs {
				f := part(&xs[i])
				v[0], v[1], v[2] = append(v[0], f.At1), append(v[1], f.At5), append(v[2], f.AUC)
			}
			return Found{median(v[0]), median(v[1]), median(v[2])}
		}
		x := LeftOut{Class: class, Rows: xs[0].Rows}
		for i := range xs {
			x.Ways = append(x.Ways, xs[i].Way.String())
		}
		x.Together = found(func(l *tabular.LeftOut) *tabular.Figures { return &l.Together })
		x.Trees = found(func(l *tabular.LeftOut) *tabular.Figures { return &l.Trees })
		x.Self = found(func(l *tabular.LeftOut) *tabular.Figures { return &l.Self })
		x.Nearest = found(func(l *tabular.LeftOut) *tabular.Figures { return &l.Nearest })
		out = append(out, x)
	}
	return out
}
