package tabular

import (
	"context"
	"fmt"
	"math"
)

// heldOut is the share of the training rows, by groups, that is kept to put the
// parts' scores on one scale and to say probabilities.
const heldOut = 0.15

// Detector is the combination, fitted. It may be used by one goroutine at a time
// for each table.
type Detector struct {
	Way    Way
	known  *known
	shown  *shown
	scales map[string]*scale
	slope  float64 // of the log-odds of attack by the joint surprise
	shift  float64
}

// Fit trains the parts on a table and puts them together in a given way, which
// Choose has found on the same table.
func Fit(ctx context.Context, t *Table, way Way, o Options) (*Detector, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	train, held := t.hold(o.Seed)
	o.Progress("train: normal rows")
	k, err := fitKnown(ctx, train.normals(), o)
	if err != nil {
		return nil, fmt.Errorf("fit: %w", err)
	}
	return assemble(ctx, k, train, held, way, o)
}

// hold parts a table into what trains and what calibrates.
func (t *Table) hold(seed uint64) (train, held *Table) {
	first, second := t.ByGroup(1-heldOut, seed^0x4e1d)
	return t.Pick(first), t.Pick(second)
}

// assemble trains the trees and calibrates.
func assemble(ctx context.Context, k *known, train, held *Table, way Way, o Options) (*Detector, error) {
	d := &Detector{Way: way, known: k, scales: map[string]*scale{}}
	if n := train.attacks(); n < minAttack {
		return nil, fmt.Errorf("fit: %w: %d attacks: expected at least %d", ErrTooFew, n, minAttack)
	}
	var err error
	if way.Rounds > 0 {
		o.Rounds = way.Rounds
	}
	if d.shown, err = fitShown(ctx, k, train, way.Balanced, o); err != nil {
		return nil, fmt.Errorf("fit: %w", err)
	}
	raw, err := d.raw(held)
	if err != nil {
		return nil, fmt.Errorf("fit: %w", err)
	}
	normal := held.Where(func(r int) bool { return held.Class.Of[r] == 0 })
	surprise := map[string][]float64{}
	for p, s := range raw {
		if d.scales[p], err = newScale(pick(s, normal)); err != nil {
			return nil, fmt.Errorf("fit: %s: %w", p, err)
		}
		surprise[p] = d.scales[p].all(s)
	}
	d.slope, d.shift = logistic(way.join(surprise), held.Attack())
	return d, nil
}

// raw gives the parts' own scores.
func (d *Detector) raw(t *Table) (map[string][]float64, error) {
	out := d.known.scores(t)
	return out, d.shown.scores(t, out)
}

// Surprises gives the parts' scores of all rows on one scale (see surprise.go).
func (d *Detector) Surprises(t *Table) (map[string][]float64, error) {
	raw, err := d.raw(t)
	if err != nil {
		return nil, fmt.Errorf("score: %w", err)
	}
	for p, s := range raw {
		raw[p] = d.scales[p].all(s)
	}
	return raw, nil
}

// Join puts surprises together in the detector's way.
func (d *Detector) Join(surprise map[string][]float64) []float64 { return d.Way.join(surprise) }

// Probability is that of attack, given a joint surprise, if attacks are as
// frequent as in training.
func (d *Detector) Probability(joint float64) float64 {
	return 1 / (1 + math.Exp(-(d.slope*squash(joint) + d.shift)))
}

// Importance is each column's share in what the trees go by.
func (d *Detector) Importance(columns int) []float64 { return d.shown.trees.importance(columns) }

// squash keeps the far tail of surprise, whose size says little, from ruling
// the fit of the probability.
func squash(joint float64) float64 { return math.Log1p(max(joint, 0)) }

// logistic fits log-odds = slope * squash(x) + shift by Newton's method, with a
// little pull towards 0 that keeps separable rows finite (Platt 1999).
func logistic(x []float64, y []bool) (slope, shift float64) {
	const pull = 1e-3
	for range 50 {
		g0, g1 := pull*slope, pull*shift
		h00, h01, h11 := pull, 0.0, pull
		for i, v := range x {
			z := squash(v)
			p := 1 / (1 + math.Exp(-(slope*z + shift)))
			e := p
			if y[i] {
				e--
			}
			w := max(p*(1-p), 1e-9)
			g0, g1 = g0+e*z, g1+e
			h00, h01, h11 = h00+w*z*z, h01+w*z, h11+w
		}
		det := h00*h11 - h01*h01
		if !(det > 1e-12) {
			break
		}
		d0, d1 := (h11*g0-h01*g1)/det, (h00*g1-h01*g0)/det
		far := max(math.Abs(d0), math.Abs(d1), 5) / 5 // no step beyond 5
		slope, shift = slope-d0/far, shift-d1/far
		if math.Abs(d0)+math.Abs(d1) < 1e-9 {
			break
		}
	}
	return slope, shift
}
