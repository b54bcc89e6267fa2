package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/learner/lifecycle"
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
	sent  int       // rounds that it trained for
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
	if err := w.alone(t, x, round); err != nil {
		return err
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
	var err error
	if rng := source(w.s.Seed, forTraining, x.id, round); w.s.Privacy.on() && !x.liar {
		err = x.trainPrivately(t, w, round, weights, o, rng)
	} else {
		err = t.Train(weights, rows, of, label, o, rng)
	}
	if err != nil {
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

// gate is the life cycle of a site's models, the gateway's, with its stages of
// waiting left out: here a model has no traffic to wait for.
type gate struct {
	m       *lifecycle.Machine
	normals int
	models  map[string]*examined
	refused int // models of rounds that did not come into use
}

// examined is a model with what it did in the site's exam.
type examined struct {
	weights []float32
	count   *lifecycle.Count
}

func newGate(g Gate) *gate {
	return &gate{
		m:       lifecycle.New(lifecycle.Options{Shadow: -1, Canary: -1, Watch: -1, MinNormals: g.Normals, MaxModels: 8}),
		normals: g.Normals, models: map[string]*examined{},
	}
}

// roundTime is the virtual time between two rounds.
const roundTime = time.Hour

// judge lets a site choose between its own model and the round's, and says which
// judges from now on.
func (x *site) judge(t *mlp.Trainer, w *world, round int, mesh []float32) error {
	if x.gate == nil {
		if mesh != nil {
			x.used = mesh
		}
		return nil
	}
	if w.s.Gate.Mix {
		return x.judgeMixtures(t, w, round, mesh)
	}
	own := fmt.Sprintf("a%x", round)
	if err := x.gate.propose(t, w, x, round, lifecycle.Proposal{ID: own, Origin: lifecycle.Local}, x.alone); err != nil {
		return err
	}
	if mesh != nil {
		id := fmt.Sprintf("b%x", round)
		if err := x.gate.propose(t, w, x, round, lifecycle.Proposal{ID: id, Origin: lifecycle.Round, Round: uint64(round), Base: own}, mesh); err != nil {
			return err
		}
		if x.gate.m.Roles().Active != id {
			x.gate.refused++
		}
	}
	if m := x.gate.models[x.gate.m.Roles().Active]; m != nil {
		x.used = m.weights
	}
	return nil
}

// propose carries a model through the machine.
func (g *gate) propose(t *mlp.Trainer, w *world, x *site, round int, p lifecycle.Proposal, weights []float32) error {
	now := time.Unix(0, 0).UTC().Add(time.Duration(round) * roundTime)
	g.models[p.ID] = &examined{weights: weights}
	fx, err := g.m.Propose(now, p)
	for len(fx) > 0 && err == nil {
		e := fx[0]
		fx = fx[1:]
		if e.Examine != nil {
			var more []lifecycle.Effect
			more, err = g.m.Examined(now, e.Examine.ID, g.trial(t, w, x, e.Examine))
			fx = append(fx, more...)
		}
	}
	if len(g.models) > 2*g.m.Options().MaxModels {
		g.prune()
	}
	if err != nil {
		return fmt.Errorf("site %d: gate: %w", x.id, err)
	}
	return nil
}

// prune drops the weights of models that can no longer be asked for: those that the
// machine has forgotten, and that are inside of none that it knows.
func (g *gate) prune() {
	known := map[string]bool{g.m.Roles().Champion: true}
	for _, m := range g.m.Models() {
		known[m.ID], known[m.Base] = true, true
	}
	maps.DeleteFunc(g.models, func(id string, _ *examined) bool { return !known[id] })
}

// trial measures a model, and those it is compared with, on the rows that the site
// kept; each of them is a cause of its own.
func (g *gate) trial(t *mlp.Trainer, w *world, x *site, e *lifecycle.Examine) lifecycle.Trial {
	var trial lifecycle.Trial
	for _, r := range x.exam {
		if w.b.learn.Class[r] == 0 {
			trial.Normals++
		} else {
			trial.AttackSet++
		}
	}
	trial.Causes = trial.Normals
	trial.Own = *g.count(t, w, x, e.ID)
	if e.Alone != "" {
		trial.Alone = g.count(t, w, x, e.Alone)
	}
	if e.Incumbent != "" {
		trial.Incumbent = g.count(t, w, x, e.Incumbent)
	}
	return trial
}

func (g *gate) count(t *mlp.Trainer, w *world, x *site, id string) *lifecycle.Count {
	m := g.models[id]
	if m.count != nil {
		return m.count
	}
	c := &lifecycle.Count{}
	for _, r := range x.exam {
		switch alarm := argmax(t.Forward(m.weights, w.b.learn, r)) != 0; {
		case alarm && w.b.learn.Class[r] == 0:
			c.Alarms++
		case alarm:
			c.Detected++
		}
	}
	m.count = c
	return c
}
