package world

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hedgerow-mesh/hedgerow/federation"
	"github.com/hedgerow-mesh/hedgerow/federation/robust"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo"
	"github.com/hedgerow-mesh/hedgerow/node/internal/demo/scenario"
)

// What the voting sites learn: to tell six families of attacks from ordinary flows,
// in made examples of twelve numbers. Each honest organisation has met three
// families, and each family three organisations. The flows are made because a story
// of a minute has no days of traffic; the training, the rounds, their rule and the
// gates are not.
const (
	families  = 6
	numbers   = 12
	metBy     = 3
	perFamily = 60
	ordinary  = 240
	localRate = 0.1
	localFor  = 60 // steps of training in a round
	lessons   = 5  // rounds
	magnified = 10 // how much further the poisoner goes, in the wrong direction
	tolerance = 0.01
)

// lessonSeed draws the examples: every demo has the same ones.
const lessonSeed = 3

var lessonShape = mlp.Shape{numbers, 16, 2}

// class is what an organisation knows: rows to train on, and rows of all families
// for the verdict. The first 'ordinary' rows of each are no attacks.
type class struct{ train, test *mlp.Rows }

// centres are the families' centres; the last is of ordinary flows.
func centres(rng *rand.Rand) (out [families + 1][numbers]float64) {
	for k := range out {
		for j := range out[k] {
			out[k][j] = rng.NormFloat64()
		}
	}
	return out
}

func newClass(rng *rand.Rand, centre *[families + 1][numbers]float64, met []int) (c class, err error) {
	draw := func(met []int) (*mlp.Rows, error) {
		var x []float32
		var of []int
		put := func(n, family, label int) {
			for range n {
				for _, m := range centre[family] {
					x = append(x, float32(m+rng.NormFloat64()))
				}
				of = append(of, label)
			}
		}
		put(ordinary, families, 0)
		for _, f := range met {
			put(perFamily, f, 1)
		}
		return mlp.NewRows(x, numbers, of)
	}
	if c.train, err = draw(met); err != nil {
		return c, err
	}
	all := make([]int, families)
	for f := range all {
		all[f] = f
	}
	c.test, err = draw(all)
	return c, err
}

// pupil is the trainer and the gate of one voting site.
type pupil struct {
	class
	name   string
	poison bool
	rng    *rand.Rand
	tr     *mlp.Trainer
	alone  []float32 // its own model, which a round's has to be as good as

	mu      sync.Mutex
	best    []float32
	round   uint64
	refused string
}

// study is one round's training from base.
func (p *pupil) study(base []float32) ([]float32, error) {
	w, rows := slices.Clone(base), make([]int, p.train.Len())
	for i := range rows {
		rows[i] = i
	}
	err := p.tr.Train(w, p.train, rows, nil, mlp.Options{Steps: localFor, Batch: 32, Rate: localRate}, p.rng)
	for i := range w {
		if p.poison {
			w[i] = base[i] - magnified*(w[i]-base[i])
		}
	}
	return w, err
}

// Train implements federation.Trainer.
func (p *pupil) Train(_ context.Context, _ uint64, base []float32) ([]float32, int, error) {
	w, err := p.study(base)
	return w, p.train.Len(), err
}

// Adopt implements federation.Trainer: the gate. What comes after the last lesson is
// judged, too, but no longer kept: rounds go on until every site has seen that one,
// and how many that are is the machine's speed, not the story.
func (p *pupil) Adopt(_ context.Context, round uint64, _ string, params []float32) (bool, string, error) {
	why := p.worse(params)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.round >= lessons {
		return why == "", why, nil
	}
	p.round, p.refused = round, why
	if why == "" {
		p.best = slices.Clone(params)
	}
	return why == "", why, nil
}

// worse says why the site is better off alone, or nothing.
func (p *pupil) worse(params []float32) string {
	own, theirs := p.verdict(p.alone), p.verdict(params)
	switch {
	case theirs.FalseAlarms > own.FalseAlarms+2*tolerance:
		return fmt.Sprintf("refused by the gate: it would call %.0f %% of ordinary flows attacks; the site's own %.0f %%", 100*theirs.FalseAlarms, 100*own.FalseAlarms)
	case theirs.Detected < own.Detected-tolerance:
		return fmt.Sprintf("refused by the gate: it would detect %.0f %%; the site's own model %.0f %%", 100*theirs.Detected, 100*own.Detected)
	}
	return ""
}

// verdict is a model's worth on rows that nobody trained on.
func (p *pupil) verdict(w []float32) demo.LessonResult {
	tr, err := mlp.NewTrainer(lessonShape) // the gate may ask while the site trains
	if err != nil {
		return demo.LessonResult{Name: p.name}
	}
	var hits [2]int
	for r := range p.test.Len() {
		if out := tr.Forward(w, p.test, r); out[1] > out[0] {
			hits[p.test.Class[r]]++
		}
	}
	return demo.LessonResult{Name: p.name, Detected: float64(hits[1]) / (families * perFamily), FalseAlarms: float64(hits[0]) / ordinary}
}

// newPupils makes the voting sites' trainers; those of the honest come first.
func newPupils() ([]*pupil, error) {
	const seed = lessonSeed
	rng := rand.New(rand.NewPCG(seed, 0x6c6573736f6e))
	centre := centres(rng)
	names := slices.DeleteFunc(slices.Clone(scenario.Organisations), func(s string) bool { return s == scenario.Poisoner })
	var out []*pupil
	for i, name := range append(names, scenario.Liar, scenario.Poisoner) { // who lies about indicators teaches honestly
		var met []int
		for k := range metBy {
			met = append(met, (i+k)%families)
		}
		c, err := newClass(rng, &centre, met)
		if err != nil {
			return nil, err
		}
		p := &pupil{class: c, name: name, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		if p.tr, err = mlp.NewTrainer(lessonShape); err != nil {
			return nil, err
		}
		p.alone = mlp.Init(lessonShape, seed)
		for range lessons {
			if p.alone, err = p.study(p.alone); err != nil {
				return nil, err
			}
		}
		p.best, p.poison = p.alone, name == scenario.Poisoner
		out = append(out, p)
	}
	return out, nil
}

// Teach lets the seven voting sites make models together, in the rounds that real
// consortia have, and beside them by a plain mean.
func (w *Consortium) Teach(ctx context.Context, say func(who, words string)) (_ *demo.Lesson, err error) {
	pupils, err := newPupils()
	if err != nil {
		return nil, err
	}
	l := &demo.Lesson{}
	honest := pupils[:len(pupils)-1]
	for _, p := range honest {
		l.Alone = append(l.Alone, p.verdict(p.alone))
	}
	say("", "the voting sites begin rounds of models")
	if err := w.rounds(ctx, pupils, say); err != nil {
		return nil, err
	}
	l.Rounds = lessons
	for _, p := range honest {
		p.mu.Lock()
		l.Together = append(l.Together, p.verdict(p.best))
		if p.refused == "" {
			l.Adopted++
		}
		p.mu.Unlock()
	}
	return l, control(l)
}

// rounds runs the voting sites until the honest have what so many rounds made.
func (w *Consortium) rounds(ctx context.Context, pupils []*pupil, say func(who, words string)) (err error) {
	ctx, stop := context.WithCancel(ctx)
	var work sync.WaitGroup
	failed := make(chan error, len(pupils))
	defer func() {
		stop()
		work.Wait()
		close(failed)
		for e := range failed {
			err = errors.Join(err, e)
		}
	}()
	var names []string
	for _, p := range pupils {
		names = append(names, p.name)
	}
	c, err := newCompany(names)
	if err != nil {
		return err
	}
	for i, p := range pupils {
		m, err := w.voter(c, i, p)
		if err != nil {
			return fmt.Errorf("%s: voting site: %w", p.name, err)
		}
		work.Go(func() {
			if err := m.Run(ctx); err != nil {
				failed <- err
			}
		})
	}
	for _, p := range pupils[:len(pupils)-1] {
		if err := p.learnt(ctx, say); err != nil {
			return err
		}
	}
	return nil
}

func (w *Consortium) voter(c *company, i int, p *pupil) (*federation.Member, error) {
	t, _, err := c.join(i, w.vote, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	roll := c.roll(i)
	init := mlp.Init(lessonShape, lessonSeed)
	g, err := federation.NewGenesis("grove", "demo-lesson/1", init, roll.Counted)
	if err != nil {
		return nil, err
	}
	return federation.New(federation.Options{
		Site: "vote", Key: c.keys[i], Transport: t, Trainer: p, Schema: g.Schema, ParamDim: len(init), Init: init,
		RoundEvery: time.Nanosecond, DeltaDeadline: gather, Seed: uint64(i),
		Consortium: &federation.Consortium{Organisation: p.name, Roll: roll, Genesis: g},
	})
}

// learnt waits until a site's gate has seen the model of the last lesson.
func (p *pupil) learnt(ctx context.Context, say func(who, words string)) error {
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		round, refused := p.round, p.refused
		p.mu.Unlock()
		if round >= lessons {
			words := "its gate takes the model of round " + fmt.Sprint(round)
			if refused != "" {
				words = fmt.Sprintf("round %d: %s", round, refused)
			}
			say(p.name, words)
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("%s: the models of %d rounds did not come within two minutes", p.name, lessons)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// control is the same lesson under a plain mean, which withstands nobody.
func control(l *demo.Lesson) error {
	pupils, err := newPupils()
	if err != nil {
		return err
	}
	model := mlp.Init(lessonShape, lessonSeed)
	for range lessons {
		var updates [][]float32
		for _, p := range pupils {
			w, err := p.study(model)
			if err != nil {
				return err
			}
			for i := range w {
				w[i] -= model[i]
			}
			updates = append(updates, w)
		}
		r, err := robust.Lab().Aggregate(updates)
		if err != nil {
			return err
		}
		for i := range model {
			model[i] += r.Update[i]
		}
	}
	l.Mean = pupils[0].verdict(model)
	l.MeanRefused = pupils[0].worse(model)
	return nil
}
