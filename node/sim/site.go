package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
	"github.com/hedgerow-mesh/hedgerow/learner/mixing"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// site is one member.
type site struct {
	id    int
	liar  bool
	teach []int // rows that it learns from
	exam  []int // rows that it keeps to examine models with
	alone []float32
	gate  *gate // nil where the scenario has none
	// what the last round made of it
	delta []float32
	used  []float32 // the model that judges here
	mixed bool      // it is a mixture with the mesh's
}

// newSite keeps a share of the rows for examinations.
func newSite(id int, rows []int, liar bool, s *Scenario, initial []float32) *site {
	x := &site{id: id, liar: liar, alone: slices.Clone(initial), used: initial}
	rng := source(s.Seed, forHeld, id, 0)
	rows = slices.Clone(rows)
	rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	held := min(max(1, int(s.Gate.Held*float64(len(rows)))), len(rows)-1)
	x.exam, x.teach = rows[:held], rows[held:]
	if s.Gate.On {
		x.gate = newGate(s.Gate)
	}
	return x
}

// train makes the site's change to the base, and a step further alone.
func (x *site) train(t *mlp.Trainer, w *world, round int, base []float32) error {
	o := mlp.Options{Steps: w.s.Training.Steps, Batch: w.s.Training.Batch, Rate: w.s.Training.Rate}
	if err := t.Train(x.alone, w.b.learn, x.teach, nil, o, source(w.s.Seed, forAlone, x.id, round)); err != nil {
		return fmt.Errorf("site %d alone: %w", x.id, err)
	}
	if base == nil { // it misses this round
		x.delta = nil
		return nil
	}
	weights := slices.Clone(base)
	rows, of := w.b.learn, x.teach
	var label func(int) int
	if x.liar && w.attack.Relabel != nil {
		label = func(row int) int { return w.relabel(w.b.learn.Class[row]) }
	}
	if x.liar && w.poison != nil {
		rows, of = w.poison.rows, w.poison.of[x.id]
	}
	if err := t.Train(weights, rows, of, label, o, source(w.s.Seed, forTraining, x.id, round)); err != nil {
		return fmt.Errorf("site %d: %w", x.id, err)
	}
	for i := range weights {
		weights[i] -= base[i]
	}
	x.delta = weights
	return nil
}

// relabel is what a colluder trains a class as.
func (w *world) relabel(class int) int {
	switch is := class != 0; w.attack.Relabel(is) {
	case is:
		return class
	case true:
		return w.b.common
	}
	return 0
}

// gate examines what rounds made: mixtures of it with what the site made alone, from
// the same rows in as many steps. One that does better in the exam passes through the
// life cycle of models, the gateway's, with its stages of waiting left out: here a
// model has no traffic to wait for.
type gate struct {
	o       lifecycle.Options
	least   int // rows of each kind that an exam needs
	refused int // models of rounds that did not come into use
}

func newGate(g Gate) *gate {
	return &gate{o: lifecycle.Options{Shadow: -1, Canary: -1, Watch: -1, MinNormals: g.Normals, MaxModels: 8}, least: g.Normals}
}

// judge lets a site choose between what it made alone and mixtures of that with the
// round's model. Without a round it has what it made alone.
func (x *site) judge(t *mlp.Trainer, w *world, round int, mesh []float32) error {
	if x.gate == nil {
		if mesh != nil {
			x.used = mesh
		}
		return nil
	}
	x.used, x.mixed = slices.Clone(x.alone), false
	if mesh == nil {
		return nil
	}
	rows := x.kept(w)
	var tried []mixing.Tried
	if len(rows.normal) >= x.gate.least && len(rows.attack) >= x.gate.least {
		var err error
		if tried, err = mixing.Try(x.used, mesh, func(m []float32) mixing.Exam { return rows.exam(t, w, m) }); err != nil {
			return fmt.Errorf("site %d: %w", x.id, err)
		}
	}
	for _, m := range tried {
		ok, err := x.gate.passes(rows.exam(t, w, x.used), rows.exam(t, w, m.Weights))
		if err != nil {
			return fmt.Errorf("site %d: round %d: gate: %w", x.id, round, err)
		}
		if ok {
			x.used, x.mixed = m.Weights, true
			return nil
		}
	}
	x.gate.refused++
	return nil
}

// keptRows are a site's rows for examinations, by kind.
type keptRows struct{ normal, attack []int }

func (x *site) kept(w *world) (k keptRows) {
	for _, r := range x.exam {
		if w.b.learn.Class[r] == 0 {
			k.normal = append(k.normal, r)
		} else {
			k.attack = append(k.attack, r)
		}
	}
	return k
}

// exam is what a model says of the rows.
func (k keptRows) exam(t *mlp.Trainer, w *world, weights []float32) (e mixing.Exam) {
	for _, r := range k.normal {
		e.Normal = append(e.Normal, odds(t.Forward(weights, w.b.learn, r)))
	}
	for _, r := range k.attack {
		e.Attack = append(e.Attack, odds(t.Forward(weights, w.b.learn, r)))
	}
	return e
}

// passes sends a site's own model through a life of its own, and one with the mesh's
// part after it. Each row is a cause of its own.
func (g *gate) passes(alone, mixed mixing.Exam) (bool, error) {
	m := lifecycle.New(g.o)
	exams := map[string]mixing.Exam{"a": alone, "b": mixed}
	for _, p := range []lifecycle.Proposal{{ID: "a", Origin: lifecycle.Local}, {ID: "b", Origin: lifecycle.Round, Base: "a"}} {
		now := time.Unix(0, 0).UTC()
		fx, err := m.Propose(now, p)
		for len(fx) > 0 && err == nil {
			e := fx[0]
			fx = fx[1:]
			if e.Examine != nil {
				var more []lifecycle.Effect
				more, err = m.Examined(now, e.Examine.ID, trial(exams, e.Examine))
				fx = append(fx, more...)
			}
		}
		if err != nil || m.Roles().Active != p.ID {
			return false, err
		}
	}
	return true, nil
}

// trial is the answer to an examination.
func trial(exams map[string]mixing.Exam, e *lifecycle.Examine) lifecycle.Trial {
	own := exams[e.ID]
	t := lifecycle.Trial{Normals: len(own.Normal), Causes: len(own.Normal), AttackSet: len(own.Attack), Own: counted(own)}
	for _, x := range []struct {
		id   string
		into **lifecycle.Count
	}{{e.Alone, &t.Alone}, {e.Incumbent, &t.Incumbent}} {
		if x.id != "" {
			c := counted(exams[x.id])
			*x.into = &c
		}
	}
	return t
}

func counted(e mixing.Exam) (c lifecycle.Count) {
	for _, o := range e.Normal {
		if o > 0 {
			c.Alarms++
		}
	}
	for _, o := range e.Attack {
		if o > 0 {
			c.Detected++
		}
	}
	return c
}
