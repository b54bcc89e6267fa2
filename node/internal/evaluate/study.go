package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
	"github.com/hedgerow-mesh/hedgerow/learner/trees"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// Options say what to evaluate, and how.
type Options struct {
	Dataset string           // a known name, or the CSV file of a mapping
	Data    string           // folder of the known data sets
	Mapping *dataset.Mapping // for a CSV file
	Seeds   int              // how many; default 1
	Seed    uint64           // the first; default 1
	ZeroDay bool             // leave classes out instead of the main study
	Quick   bool             // few rows and rounds: shows that it works
	// Normal are captures or logs of normal traffic. Dataset is then a capture or a
	// log of a campaign, which is looked for among it.
	Normal  []string
	Evasion bool // of campaigns: also what evading costs and gives
	// Progress is told what begins; may be nil.
	Progress func(string)
}

// Limits of a study.
const (
	maxSeeds   = 100
	draws      = 400 // of the bootstrap
	quickRows  = 6000
	trainShare = 0.7
)

// Run trains and measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Seeds == 0 {
		o.Seeds = 1
	}
	if o.Seed == 0 {
		o.Seed = 1
	}
	if o.Seeds < 1 || o.Seeds > maxSeeds {
		return nil, fmt.Errorf("evaluate: %d seeds: expected 1 to %d", o.Seeds, maxSeeds)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Dataset == dataset.Stratosphere || len(o.Normal) > 0 {
		r, err := campaigns(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
		return r, nil
	}
	s := &study{o: o}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	for i := range o.Seeds {
		seed := o.Seed + uint64(i)
		s.rep.Seeds = append(s.rep.Seeds, seed)
		train, test, err := s.split(seed)
		if err != nil {
			return nil, fmt.Errorf("evaluate: %w", err)
		}
		if o.ZeroDay {
			err = s.zeroDay(ctx, seed, train, test)
		} else {
			err = s.main(ctx, seed, train, test)
		}
		if err != nil {
			return nil, fmt.Errorf("evaluate: seed %d: %w", seed, err)
		}
	}
	if o.ZeroDay {
		s.rep.ZeroDay = medianLeftOut(s.left)
		return &s.rep, nil
	}
	if err := s.finish(ctx); err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	return &s.rep, nil
}

type study struct {
	o      Options
	t      *tabular.Table
	how    string  // how it is split
	unseen float64 // how much families that were not shown count in choosing
	rep    Report
	runs   []run
	left   [][]tabular.LeftOut
}

// run is one seed's models on its test rows.
type run struct {
	seed       uint64
	test       *tabular.Table
	models     []model
	trials     []tabular.Trial
	way        tabular.Way
	prob       []float64
	importance []float64
}

type model struct {
	name  string
	score []float64
	said  []int
	rank  *metrics.Ranking
	macro float64
}

// load reads the data set and says how it will be split.
func (s *study) load() (err error) {
	var rep *dataset.Report
	s.how = "group"
	switch s.o.Dataset {
	case dataset.NSLKDD:
		s.t, _, rep, err = dataset.NSLBoth(s.o.Data)
		// Its test file has attacks that the training file has not.
		s.how, s.unseen = "files", 0.5
	case dataset.UNSWNB15:
		s.t, rep, err = dataset.UNSW(s.o.Data)
	case dataset.Westermo:
		s.t, rep, err = dataset.WestermoFlows(s.o.Data)
		s.how = "time"
	default:
		if s.o.Mapping == nil {
			return fmt.Errorf("data set %q: expected one of %v, or a CSV file with a mapping", s.o.Dataset, dataset.Known())
		}
		s.t, rep, err = dataset.Read(s.o.Mapping, dataset.Part{File: s.o.Dataset})
		s.how = s.o.Mapping.Split
	}
	if err != nil {
		return err
	}
	s.rep.Dataset, s.rep.Data, s.rep.Quick = s.o.Dataset, rep, s.o.Quick
	s.rep.Columns, s.rep.Classes = len(s.t.Columns), s.t.Class.Names
	s.rep.Split = map[string]string{
		"files": "the official training and test files",
		"group": "70 % to 30 %, rows with equal features on one side",
		"":      "70 % to 30 %, rows with equal features on one side",
		"time":  "the first 70 % in time at each place to the last 30 %",
		"place": "the first place to all others",
	}[s.how]
	return nil
}

func (s *study) split(seed uint64) (train, test *tabular.Table, err error) {
	var first, second []int
	switch s.how {
	case "files", "place":
		first, second = s.t.ByPlace(0)
	case "time":
		first, second, err = s.t.ByTime(trainShare)
	default:
		first, second = s.t.ByGroup(trainShare, seed)
	}
	if err != nil {
		return nil, nil, err
	}
	if s.o.Quick {
		first, second = few(first, seed), few(second, seed)
	}
	train, test = s.t.Pick(first), s.t.Pick(second)
	s.rep.Train, s.rep.Test = train.Rows(), test.Rows()
	s.rep.TestAttacks = test.Rows() - count(test.Class.Of, 0)
	return train, test, nil
}

func few(rows []int, seed uint64) []int {
	rows = slices.Clone(rows)
	rand.New(rand.NewPCG(seed, 0x9c)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return rows[:min(len(rows), quickRows)]
}

func (s *study) options(seed uint64) tabular.Options {
	o := tabular.Options{Seed: seed, Unseen: s.unseen, Progress: func(p string) { s.o.Progress(fmt.Sprintf("seed %d: %s", seed, p)) }}
	if s.o.Quick {
		o.Rounds, o.Steps = 25, 400
	}
	return o
}

// Ours is the name of the combination in a report.
const Ours = "hedgerow"

func (s *study) main(ctx context.Context, seed uint64, train, test *tabular.Table) error {
	o := s.options(seed)
	r := run{seed: seed, test: test}
	var err error
	if r.way, r.trials, err = tabular.Choose(ctx, train, o); err != nil {
		return err
	}
	d, err := tabular.Fit(ctx, train, r.way, o)
	if err != nil {
		return err
	}
	parts, err := d.Surprises(test)
	if err != nil {
		return err
	}
	joint := d.Join(parts)
	for _, j := range joint {
		r.prob = append(r.prob, d.Probability(j))
	}
	r.importance = d.Importance(len(test.Columns))
	c, err := tabular.FitClassifier(ctx, train, o)
	if err != nil {
		return err
	}
	said, plain, err := c.Say(test)
	if err != nil {
		return err
	}
	refs, err := tabular.References(ctx, train, test, o)
	if err != nil {
		return err
	}
	r.models = append(r.models, model{name: Ours, score: joint, said: said})
	for _, p := range tabular.Parts() {
		r.models = append(r.models, model{name: "part: " + p, score: parts[p]})
	}
	for _, ref := range refs {
		if ref.Name == tabular.RefBoosted {
			ref.Said = plain
		}
		r.models = append(r.models, model{name: ref.Name, score: ref.Score, said: ref.Said})
	}
	if err := r.rank(); err != nil {
		return err
	}
	s.runs = append(s.runs, r)
	return nil
}

func (r *run) rank() error {
	attack := r.test.Attack()
	for i := range r.models {
		m := &r.models[i]
		var err error
		if m.rank, err = metrics.Rank(m.score, attack); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if m.said == nil {
			continue
		}
		c, err := metrics.Confuse(r.test.Class.Of, m.said, len(r.test.Class.Names), nil)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		m.macro = c.MacroF1()
	}
	return nil
}

func (s *study) zeroDay(ctx context.Context, seed uint64, train, test *tabular.Table) error {
	x, err := tabular.LeaveOut(ctx, train, test, s.options(seed))
	if err != nil {
		return err
	}
	s.left = append(s.left, x)
	return nil
}

// controls is how many shufflings of the labels are tried.
const controls = 5

// control trains trees on shuffled labels: what they find on the test rows is
// what a leak, or chance, would find.
func (s *study) control(ctx context.Context) ([]float64, error) {
	train, test, err := s.split(s.o.Seed)
	if err != nil {
		return nil, err
	}
	train = train.Pick(few(allRows(train.Rows()), s.o.Seed))
	words := func(t *tabular.Table) trees.Data {
		var d trees.Data
		for _, c := range t.Columns {
			col := c.Num
			if c.IsWords() {
				col = make([]float32, len(c.Word))
				for i, w := range c.Word {
					col[i] = float32(w)
				}
			}
			d = append(d, col)
		}
		return d
	}
	y := make([]int, train.Rows())
	for i, a := range train.Attack() {
		if a {
			y[i] = 1
		}
	}
	td, attack := words(test), test.Attack()
	var out []float64
	for k := range controls {
		rng := rand.New(rand.NewPCG(s.o.Seed, uint64(k)))
		rng.Shuffle(len(y), func(i, j int) { y[i], y[j] = y[j], y[i] })
		m, err := trees.Boost(ctx, words(train), y, nil, 2, trees.Options{Rounds: 30, Seed: uint64(k)})
		if err != nil {
			return nil, err
		}
		score, err := m.Scores(td)
		if err != nil {
			return nil, err
		}
		r, err := metrics.Rank(score[0], attack)
		if err != nil {
			return nil, err
		}
		out = append(out, r.AUC())
	}
	return out, nil
}

func allRows(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// errNoRun cannot happen: a study has at least one seed.
var errNoRun = errors.New("no run")
