package sim

import (
	"fmt"
	"math"

	"github.com/hedgerow-mesh/hedgerow/learner/metrics"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
)

// Figures are how good a model is on some rows.
type Figures struct {
	AUC     float64 // area under the ROC curve of attack against normal
	At1     float64 // share of attacks found where 1 % of the normal rows raise an alarm
	At5     float64 // likewise at 5 %
	MacroF1 float64 // over the classes
	// Passed is the share of attacks that the model calls normal: what attackers
	// of the mesh are after.
	Passed float64
	False  float64 // share of the normal rows that the model calls an attack
	// Success is the share of attacks that pass when they carry the mark for which
	// the attackers of the mesh opened a back door; where they have none, Passed.
	Success float64
}

// figuresHead names the columns of Figures, in the order of cells.
var figuresHead = []string{"auc", "detected_at_1pct", "detected_at_5pct", "macro_f1", "attacks_passed", "attack_success"}

func (f Figures) cells() []string {
	return []string{number(f.AUC), number(f.At1), number(f.At5), number(f.MacroF1), number(f.Passed), number(f.Success)}
}

func (f *Figures) add(g Figures, share float64) {
	f.AUC += share * g.AUC
	f.At1 += share * g.At1
	f.At5 += share * g.At5
	f.MacroF1 += share * g.MacroF1
	f.Passed += share * g.Passed
	f.False += share * g.False
	f.Success += share * g.Success
}

// exam is what a model is measured on.
type exam struct {
	rows   *mlp.Rows
	marked *mlp.Rows // the attacks among them with the mark of a back door; nil: there is none
}

// measure runs a model over rows.
func measure(t *mlp.Trainer, weights []float32, e exam, classes int) (f Figures, err error) {
	rows := e.rows
	n := rows.Len()
	score, said, attack := make([]float64, n), make([]int, n), make([]bool, n)
	attacks, passed, alarms := 0, 0, 0
	for r := range n {
		out := t.Forward(weights, rows, r)
		score[r], said[r] = odds(out), argmax(out)
		if attack[r] = rows.Class[r] != 0; attack[r] {
			attacks++
			if said[r] == 0 {
				passed++
			}
		} else if said[r] != 0 {
			alarms++
		}
	}
	rank, err := metrics.Rank(score, attack)
	if err != nil {
		return f, fmt.Errorf("measure: %w", err)
	}
	c, err := metrics.Confuse(rows.Class, said, classes, nil)
	if err != nil {
		return f, fmt.Errorf("measure: %w", err)
	}
	f = Figures{AUC: rank.AUC(), MacroF1: c.MacroF1(), Passed: float64(passed) / float64(attacks), False: float64(alarms) / float64(n-attacks)}
	if f.Success = f.Passed; e.marked != nil {
		let := 0
		for r := range e.marked.Len() {
			if argmax(t.Forward(weights, e.marked, r)) == 0 {
				let++
			}
		}
		f.Success = float64(let) / float64(e.marked.Len())
	}
	f.At1, _ = rank.Detection(0.01)
	f.At5, _ = rank.Detection(0.05)
	return f, nil
}

// odds are the log-odds of attack, whichever.
func odds(out []float32) float64 {
	top := math.Inf(-1)
	for _, x := range out[1:] {
		top = max(top, float64(x))
	}
	var z float64
	for _, x := range out[1:] {
		z += math.Exp(float64(x) - top)
	}
	return top + math.Log(z) - float64(out[0])
}

// argmax is the class that a model says; of equal ones the first, normal.
func argmax(out []float32) int {
	best := 0
	for k, x := range out {
		if x > out[best] {
			best = k
		}
	}
	return best
}
