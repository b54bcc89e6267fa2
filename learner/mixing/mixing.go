// Package mixing decides how much of the mesh's part a site takes into its own.
//
// A model of rounds is good for everybody on average and may be worse than what a
// site made alone on that site's own traffic, because the site is unlike the others or
// because somebody lied. So a site does not choose between the two, it tries mixtures
// of both, and takes one only if it is better than its own part on traffic that taught
// neither. Weights may be averaged because both started from the same ones
// (Deng, Kamani, Mahdavi 2020, "Adaptive Personalized Federated Learning"; that few
// steps apart averages of weights are as good as their ends: Frankle et al. 2020).
// What is not taken costs nothing: the share 0 is the site alone.
//
// The package is pure.
package mixing

import (
	"fmt"
	"math"
	"slices"
)

// Shares of the mesh's part that a site tries. More than a half is not among them: a
// site that learns as much as the others do gains little by it, and where the gate's
// window is small it costs more than a point now and then.
var Shares = []float64{0.5, 0.25, 0.125}

// Mix is share times the mesh's weights and the rest of one's own.
func Mix(own, mesh []float32, share float64) ([]float32, error) {
	if len(own) != len(mesh) {
		return nil, fmt.Errorf("mix: %d weights of the mesh's: expected %d", len(mesh), len(own))
	}
	out := make([]float32, len(own))
	for i := range out {
		out[i] = float32((1-share)*float64(own[i]) + share*float64(mesh[i]))
	}
	return out, nil
}

// Exam is what a part said about the rows of a window, in their order: log-odds of
// attack, above 0 an alarm.
type Exam struct {
	Normal []float64
	Attack []float64
}

// Gain is how a part did beside another on the same rows.
type Gain struct {
	// Loss is what the mean cross-entropy fell by, both kinds of rows weighing the
	// same however few there are; below 0 it rose.
	Loss float64
	// Points is what the share of attacks found, less that of false alarms, rose by.
	Points float64
}

// Better says that a part did better in all: surer of what is true, and not more often
// wrong. The first alone would let in a part that is much surer of the easy rows and
// wrong about others; the second alone cannot tell parts apart on a small window.
func (g Gain) Better() bool { return g.Loss > 0 && g.Points >= 0 }

// Compare holds a part against another one. A kind of rows that the window lacks
// decides nothing.
func Compare(part, other Exam) (g Gain, err error) {
	if len(part.Normal) != len(other.Normal) || len(part.Attack) != len(other.Attack) {
		return g, fmt.Errorf("compare: %d and %d rows beside %d and %d: expected the same", len(part.Normal), len(part.Attack), len(other.Normal), len(other.Attack))
	}
	for _, x := range []struct {
		part, other []float64
		sign        float64
	}{{part.Normal, other.Normal, 1}, {part.Attack, other.Attack, -1}} {
		for i := range x.part {
			n := float64(len(x.part))
			g.Loss += (loss(x.sign*x.other[i]) - loss(x.sign*x.part[i])) / n / 2
			g.Points += (wrong(x.sign, x.other[i]) - wrong(x.sign, x.part[i])) / n
		}
	}
	return g, nil
}

// sure bounds log-odds, so that one row that a part is absurdly sure of cannot
// outweigh a window. No number is as wrong as can be.
const sure = 30

func loss(odds float64) float64 {
	if math.IsNaN(odds) {
		return sure
	}
	return math.Log1p(math.Exp(min(max(odds, -sure), sure)))
}

// wrong is 1 for an alarm on a normal row (sign 1), or none on an attack (sign -1).
func wrong(sign, odds float64) float64 {
	if alarm := odds > 0; math.IsNaN(odds) || alarm == (sign > 0) {
		return 1
	}
	return 0
}

// Tried is a mixture that did better than one's own part.
type Tried struct {
	Share   float64
	Weights []float32
	Gain    Gain
}

// Try examines the mixtures and gives those that do better than one's own part, the
// best first. examine says what weights make of the window.
func Try(own, mesh []float32, examine func(weights []float32) Exam) ([]Tried, error) {
	alone := examine(own)
	var out []Tried
	for _, share := range Shares {
		w, err := Mix(own, mesh, share)
		if err != nil {
			return nil, err
		}
		g, err := Compare(examine(w), alone)
		if err != nil {
			return nil, err
		}
		if g.Better() {
			out = append(out, Tried{share, w, g})
		}
	}
	slices.SortStableFunc(out, func(a, b Tried) int {
		switch {
		case a.Gain.Loss > b.Gain.Loss:
			return -1
		case a.Gain.Loss < b.Gain.Loss:
			return 1
		}
		return 0
	})
	return out, nil
}
