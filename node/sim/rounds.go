package sim

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hedgerow-mesh/hedgerow/federation/attack"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/federation/wire"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// Options say where data are and how to run; nothing of it changes a result.
type Options struct {
	Library *Library              // Builtin
	Folder  string                // of the data sets
	Workers int                   // 0: one for each core
	Told    func(done, total int) // after each round; may be nil

	data  *benches // shared by the runs of a sweep
	paths *paths   // likewise; nil: none are kept
}

// RoundRow is what a round measured of one kind of model on one set of rows.
type RoundRow struct {
	Round   int
	Set     string // Validation, on which rules are chosen, or Test
	Model   string // Mesh, Alone or Used
	Figures Figures
}

// Sets of rows, and kinds of models.
const (
	Validation = "validation"
	Test       = "test"
	Mesh       = "mesh"  // what the rounds made
	Alone      = "alone" // what honest sites made without the others, on average
	Used       = "used"  // what judges at honest sites, after their gates, on average
)

// StepRow is what happened in a round.
type StepRow struct {
	Round    int
	Present  int // sites that sent an update
	Liars    int // among them
	Refused  int // updates that the wire's bounds keep out
	Sealed   bool
	Clipped  int
	Frozen   int
	Length   float64 // of the aggregate
	Adopted  int     // sites where the round's model judges afterwards, or a mixture with it
	Bytes    int64   // sent in all: each update to each other site
	Withheld string  // why there was no aggregate
}

// SiteRow is what a site has in the end, on test rows; and on validation rows, which
// are like those that sites learn from.
type SiteRow struct {
	Site          int
	Liar          bool
	Teach, Held   int
	Attacks       int // rows of attacks among Teach
	Classes       int // of attacks among Teach
	Alone, Used   Figures
	Known         struct{ Alone, Used Figures } // on validation rows
	UsesMesh      bool
	RefusedModels int
	Epsilon       float64 // what all its updates tell of one row, at privacy.delta; 0 where no noise was added
}

// Result is all that a run made. Equal scenarios give equal results.
type Result struct {
	Scenario Scenario
	Hashes   []string
	Shape    []int
	Params   int
	F        int
	Rounds   []RoundRow
	Steps    []StepRow
	Sites    []SiteRow
}

// Last is a figure of the last round.
func (r *Result) Last(set, model string) Figures {
	for _, x := range slices.Backward(r.Rounds) {
		if x.Set == set && x.Model == model {
			return x.Figures
		}
	}
	return Figures{}
}

// world is a run on its way.
type world struct {
	s        *Scenario
	b        *bench
	rule     robust.Rule
	f        int
	attack   attack.Attack
	trainers []*mlp.Trainer // one for each worker
	sites    []*site
	sample   []*site // honest ones, over which figures are averaged
	model    []float32
	last     []float32 // what the last round that made a model added
	poison   *poison   // nil: no back door
	links    *links
	path     *path // what the sites make alone
	walked   bool  // it was made before
	res      *Result
}

// sampled is over how many honest sites figures of a round are averaged. In the
// end every site is measured.
const sampled = 10

// Run plays a scenario.
func Run(ctx context.Context, s *Scenario, o Options) (*Result, error) {
	if o.Library == nil {
		o.Library = Builtin()
	}
	if o.data == nil {
		o.data = &benches{folder: o.Folder, lib: o.Library}
	}
	w, err := newWorld(s, o)
	if err != nil {
		return nil, err
	}
	path, walked, keep, err := o.paths.of(s, w.res.Params)
	if err != nil {
		return nil, err
	}
	w.path, w.walked = path, walked
	for round := 1; round <= s.Training.Rounds; round++ {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("sim: round %d of %d: %w", round, s.Training.Rounds, err)
		}
		if err := w.round(round); err != nil {
			return nil, fmt.Errorf("sim: round %d: %w", round, err)
		}
		if round%s.Measure.Every == 0 || round == s.Training.Rounds {
			if err := w.measure(round); err != nil {
				return nil, fmt.Errorf("sim: round %d: %w", round, err)
			}
		}
		if o.Told != nil {
			o.Told(round, s.Training.Rounds)
		}
	}
	if err := w.measureSites(); err != nil {
		return nil, err
	}
	keep()
	return w.res, nil
}

func newWorld(s *Scenario, o Options) (*world, error) {
	if s.Depth != DepthRounds {
		return nil, fmt.Errorf("depth: found %q: expected %q", s.Depth, DepthRounds)
	}
	if err := s.Check(o.Library); err != nil {
		return nil, err
	}
	w := &world{s: s, links: newLinks(&s.Network, s.Seed, s.Sites.Count)}
	var err error
	if w.b, err = o.data.of(s); err != nil {
		return nil, err
	}
	if s.Data.Shuffle {
		if w.b, err = w.b.shuffled(s.Seed); err != nil {
			return nil, err
		}
	}
	if w.rule, err = o.Library.rule(s.Rule.Name); err != nil {
		return nil, err
	}
	if w.f, err = s.withstand(o.Library); err != nil {
		return nil, err
	}
	if s.Attackers.Attack != "" {
		if w.attack, err = o.Library.attack(s.Attackers.Attack); err != nil {
			return nil, err
		}
	}
	shape := w.b.shape(s.Training.Hidden)
	n := o.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for range min(n, s.Sites.Count) {
		t, err := mlp.NewTrainer(shape)
		if err != nil {
			return nil, fmt.Errorf("training.hidden: %w", err)
		}
		w.trainers = append(w.trainers, t)
	}
	w.model = mlp.Init(shape, mix(s.Seed^forInit))
	w.res = &Result{Scenario: *s, Hashes: w.b.hashes, Shape: shape, Params: shape.Params(), F: w.f}
	return w, w.populate(o.Library)
}

// populate makes the sites.
func (w *world) populate(lib *Library) error {
	p, err := lib.partition(w.s.Sites.Partition)
	if err != nil {
		return err
	}
	n := w.s.Sites.Count
	parts, err := deal(p, w.b.table, Deal{n, w.s.Sites.Alpha}, source(w.s.Seed, forPartition, 0, 0))
	if err != nil {
		return err
	}
	order := source(w.s.Seed, forLiars, 0, 0).Perm(n)
	liars := order[:w.s.Attackers.liars(n)]
	for i, rows := range parts {
		w.sites = append(w.sites, newSite(i, rows, slices.Contains(liars, i), w.s, w.model))
	}
	for _, i := range order[len(liars):] {
		if len(w.sample) < sampled {
			w.sample = append(w.sample, w.sites[i])
		}
	}
	return w.prepare()
}

// each calls f for numbers below n on all workers, each with a trainer of its own.
// What f does must not depend on the order; of several errors the one of the
// lowest number is returned.
func (w *world) each(n int, f func(t *mlp.Trainer, i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, t := range w.trainers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				errs[i] = f(t, i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// round is one round: train, send, combine, and let each site judge.
func (w *world) round(round int) error {
	here, joined := w.present(round)
	err := w.each(len(w.sites), func(t *mlp.Trainer, i int) error {
		if !here[i] {
			return w.sites[i].train(t, w, round, nil)
		}
		return w.sites[i].train(t, w, round, w.model)
	})
	if err != nil {
		return err
	}
	step := StepRow{Round: round}
	sent, err := w.send(round, &step)
	if err != nil {
		return err
	}
	mesh := w.combine(sent, &step)
	err = w.each(len(w.sites), func(t *mlp.Trainer, i int) error {
		if !joined[i] {
			return w.sites[i].judge(t, w, round, nil)
		}
		return w.sites[i].judge(t, w, round, mesh)
	})
	if err != nil {
		return err
	}
	for _, x := range w.sites {
		if mesh != nil && (x.mixed || &x.used[0] == &mesh[0]) {
			step.Adopted++
		}
	}
	w.res.Steps = append(w.res.Steps, step)
	return nil
}

// present says whose updates are in a round, and who hears what comes of it. Cut off
// are all that are not in the largest part of the network; where that has less than two
// thirds of the sites, the round finds no quorum. An update that is lost, or under way
// for a round or longer, is not in.
func (w *world) present(round int) (here, joined []bool) {
	w.links.until(float64(round))
	joined = w.links.largest()
	together := 0
	for _, in := range joined {
		if in {
			together++
		}
	}
	n, absent := &w.s.Network, source(w.s.Seed, forAbsence, round, 0)
	here = make([]bool, len(w.sites))
	for i := range here {
		fate := source(w.s.Seed, forFate, round, i)
		here[i] = (w.s.Sites.Absent == 0 || absent.Float64() >= w.s.Sites.Absent) && joined[i] &&
			3*together >= 2*len(here) && fate.Float64() >= n.Loss && n.Delay+n.Jitter*fate.Float64() < 1
	}
	return here, joined
}

// send is what goes over the wire: the honest updates, and what liars make of theirs.
func (w *world) send(round int, step *StepRow) ([][]float32, error) {
	v := attack.View{Rand: source(w.s.Seed, forAttack, round, 0), Rule: w.aggregate, Last: w.last}
	for _, x := range w.sites {
		switch {
		case x.delta == nil:
		case x.liar:
			v.Own = append(v.Own, x.delta)
		default:
			v.Honest = append(v.Honest, x.delta)
		}
	}
	if w.rule.Check(len(v.Honest)+len(v.Own), w.f) != nil {
		v.Rule = nil // so few are here that there will be no aggregate
	}
	sent := slices.Clone(v.Honest)
	if len(v.Own) > 0 && len(v.Honest) > 0 {
		lies, err := w.attack.Send(v)
		if err != nil {
			return nil, err
		}
		sent = append(sent, lies...)
	}
	step.Present, step.Liars = len(sent), len(v.Own)
	step.Bytes = int64(step.Present) * int64(len(w.sites)-1) * int64(4*len(w.model))
	all := len(sent)
	sent = slices.DeleteFunc(sent, func(u []float32) bool { return wire.CheckParams(u) != nil })
	step.Refused = all - len(sent)
	return sent, nil
}

func (w *world) aggregate(updates [][]float32) ([]float32, error) {
	r, err := robust.Run(w.rule, w.f, w.s.Rule.Clip, updates)
	return r.Update, err
}

// combine makes the next model, or nil where too few updates came: then the base
// stays, and the round cost nothing but time.
func (w *world) combine(sent [][]float32, step *StepRow) []float32 {
	r, err := robust.Run(w.rule, w.f, w.s.Rule.Clip, sent)
	var next []float32
	if err == nil {
		next, err = robust.Apply(w.model, r.Update)
	}
	if err != nil {
		step.Withheld = err.Error()
		return nil
	}
	var sq float64
	for _, x := range r.Update {
		sq += float64(x) * float64(x)
	}
	step.Sealed, step.Clipped, step.Frozen, step.Length = true, r.Clipped, r.Frozen, math.Sqrt(sq)
	w.model, w.last = next, r.Update
	return next
}

// measure adds the figures of a round.
func (w *world) measure(round int) error {
	n := len(w.sample)
	for _, set := range []string{Validation, Test} {
		f := make([]Figures, 1+2*n) // of the mesh, of each site alone, and of what judges there
		err := w.each(len(f), func(t *mlp.Trainer, i int) (err error) {
			switch {
			case i == 0:
				f[i], err = measure(t, w.model, w.exam(set), w.b.classes)
			case i <= n:
				f[i], err = w.aloneFigures(t, w.sample[i-1], round, set)
			case w.s.Gate.On: // else all use the mesh's
				f[i], err = w.usedFigures(t, w.sample[i-1-n], round, set)
			}
			return err
		})
		if err != nil {
			return err
		}
		var alone, used Figures
		share := 1 / float64(n)
		for i := range w.sample {
			alone.add(f[1+i], share)
			used.add(f[1+n+i], share)
		}
		if !w.s.Gate.On {
			used = f[0]
		}
		w.res.Rounds = append(w.res.Rounds, RoundRow{round, set, Mesh, f[0]}, RoundRow{round, set, Alone, alone}, RoundRow{round, set, Used, used})
	}
	return nil
}

// usedFigures measures what judges at a site.
func (w *world) usedFigures(t *mlp.Trainer, x *site, round int, set string) (Figures, error) {
	if &x.used[0] == &x.alone[0] {
		return w.aloneFigures(t, x, round, set)
	}
	return measure(t, x.used, w.exam(set), w.b.classes)
}

// measureSites adds what each site has in the end.
func (w *world) measureSites() error {
	rows := make([]SiteRow, len(w.sites))
	err := w.each(len(w.sites), func(t *mlp.Trainer, i int) (err error) {
		x, r := w.sites[i], &rows[i]
		*r = SiteRow{Site: i, Liar: x.liar, Teach: len(x.teach), Held: len(x.exam), UsesMesh: x.mixed || &x.used[0] == &w.model[0]}
		seen := map[int]bool{}
		for _, row := range x.teach {
			if k := w.b.learn.Class[row]; k != 0 {
				r.Attacks++
				seen[k] = true
			}
		}
		r.Classes = len(seen)
		if x.gate != nil {
			r.RefusedModels = x.gate.refused
		}
		if r.Alone, r.Used, err = w.own(t, x, Test); err != nil {
			return err
		}
		if r.Known.Alone, r.Known.Used, err = w.own(t, x, Validation); err != nil {
			return err
		}
		r.Epsilon, err = x.epsilon(w.s)
		return err
	})
	w.res.Sites = rows
	return err
}

// own are the figures of what a site has in the end alone, and of what judges there.
func (w *world) own(t *mlp.Trainer, x *site, set string) (alone, used Figures, err error) {
	last := w.s.Training.Rounds
	if alone, err = w.aloneFigures(t, x, last, set); err != nil {
		return alone, used, err
	}
	if &x.used[0] == &w.model[0] {
		return alone, w.res.Last(set, Mesh), nil
	}
	used, err = w.usedFigures(t, x, last, set)
	return alone, used, err
}
