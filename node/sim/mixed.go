package sim

import (
	"fmt"

	"github.com/hedgerow-mesh/hedgerow/learner/mixing"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// judgeMixtures lets a site choose between what it made alone, from the same rows in as
// many steps, and mixtures of that with the round's model. Without one that does better
// in the exam it has what it made alone.
func (x *site) judgeMixtures(t *mlp.Trainer, w *world, round int, mesh []float32) error {
	x.used, x.mixed = x.alone, false
	if mesh == nil {
		return nil
	}
	rows := x.kept(w)
	var tried []mixing.Tried
	if len(rows.normal) >= x.gate.normals && len(rows.attack) >= x.gate.normals {
		var err error
		if tried, err = mixing.Try(x.used, mesh, func(m []float32) mixing.Exam { return rows.exam(t, w, m) }); err != nil {
			return fmt.Errorf("site %d: %w", x.id, err)
		}
	}
	if len(tried) > 0 {
		x.used, x.mixed = tried[0].Weights, true
		return nil
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
