package sim

import (
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/hedgerow-mesh/hedgerow/node/internal/plot"
)

// at1 is where detection at 1 % false alarms is in Figures, passed where the share
// of attacks that pass is.
const (
	at1    = 1
	passed = 4
)

// drawings are the figures of a sweep that its keys ask for.
func (v *view) drawings() (out []drawing) {
	if v.form == &meshForm {
		return v.meshDrawings()
	}
	if _, rounds := v.rounds(); len(rounds) > 1 {
		for _, model := range []string{Mesh, Used} {
			out = append(out, drawing{"curves-" + model + ".svg", v.curves(model)})
		}
	}
	_, rules := v.values("rule.name")
	_, attacks := v.values("attackers.attack")
	_, shares := v.values("attackers.share")
	if len(rules) > 0 && len(attacks) > 0 {
		for _, model := range []string{Mesh, Used} {
			out = append(out,
				drawing{"heat-" + model + ".svg", v.heat("rule.name", "attackers.attack", at1, Test, model, "Attacks found at 1 % false alarms, test rows: "+model)},
				drawing{"heat-" + model + "-passed.svg", v.heat("rule.name", "attackers.attack", passed, Test, model, "Attacks called normal, test rows: "+model)})
		}
	}
	if len(rules) > 0 && len(shares) > 1 {
		out = append(out, drawing{"shares.svg", v.shares})
	}
	return out
}

// meshDrawings are those of whole nodes: what sharing prevents, by lie and by who
// trusts whom.
func (v *view) meshDrawings() (out []drawing) {
	const rows, cols = "attackers.attack", "nodes.organisations"
	_, lies := v.values(rows)
	_, trust := v.values(cols)
	if len(lies) == 0 || len(trust) == 0 {
		return nil
	}
	for _, x := range []struct{ figure, title string }{
		{"prevented_share", "First contacts prevented, of those whose attacker another site had met"},
		{"answered_share", "Attackers' connections that got an answer"},
	} {
		out = append(out, drawing{"heat-" + x.figure + ".svg", v.heat(rows, cols, slices.Index(meshFigures, x.figure), "", "", x.title)})
	}
	return out
}

// heat is a field of two keys, the mean over everything else.
func (v *view) heat(rowKey, colKey string, k int, set, model, title string) func(io.Writer) error {
	r, rows := v.values(rowKey)
	c, cols := v.values(colKey)
	return func(w io.Writer) error {
		return plot.Heat(w, title, "mean over all other keys of the grid", rows, cols, func(row, col int) float64 {
			s, ok := v.figure(k, set, model, func(x *viewed) bool { return x.last && x.values[r] == rows[row] && x.values[c] == cols[col] })
			if !ok {
				return math.NaN()
			}
			return s.mean
		})
	}
}

// shares draws a curve for each rule over the share of liars.
func (v *view) shares(w io.Writer) error {
	r, rules := v.values("rule.name")
	a, shares := v.values("attackers.share")
	var curves []plot.Curve
	for _, rule := range rules {
		c := plot.Curve{Name: rule}
		for _, share := range shares {
			x, err := strconv.ParseFloat(share, 64)
			s, ok := v.figure(at1, Test, Mesh, func(x *viewed) bool { return x.last && x.values[r] == rule && x.values[a] == share })
			if ok && err == nil {
				put(&c, x, s)
			}
		}
		curves = append(curves, c)
	}
	return plot.Curves(w, "Attacks found at 1 % false alarms, test rows: mesh", bands, "share of liars", "share of attacks found", []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5}, curves)
}

const bands = "mean, least and greatest over seeds and all other keys of the grid"

func put(c *plot.Curve, x float64, s spread) {
	c.X, c.Y, c.Low, c.High = append(c.X, x), append(c.Y, s.mean), append(c.Low, s.low), append(c.High, s.high)
}

// rounds are those that some cell measured, in order.
func (v *view) rounds() (words []string, out []int) {
	for _, c := range v.cells {
		if n, err := strconv.Atoi(c.round); err == nil && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	for _, n := range out {
		words = append(words, strconv.Itoa(n))
	}
	return words, out
}

// curves draws a curve for each rule over the rounds, and one for what sites have
// alone.
func (v *view) curves(model string) func(io.Writer) error {
	words, rounds := v.rounds()
	r, rules := v.values("rule.name")
	return func(w io.Writer) error {
		curve := func(name, model string, want func(*viewed) bool) plot.Curve {
			c := plot.Curve{Name: name}
			for i, word := range words {
				if s, ok := v.figure(at1, Test, model, func(x *viewed) bool { return x.round == word && want(x) }); ok {
					put(&c, float64(rounds[i]), s)
				}
			}
			return c
		}
		all := func(*viewed) bool { return true }
		out := []plot.Curve{curve(Alone, Alone, all)}
		for _, rule := range rules {
			out = append(out, curve(rule, model, func(x *viewed) bool { return x.values[r] == rule }))
		}
		if len(rules) == 0 {
			out = append(out, curve(model, model, all))
		}
		return plot.Curves(w, "Attacks found at 1 % false alarms, test rows: "+model, bands, "round", "share of attacks found", ticks(rounds[len(rounds)-1]), out)
	}
}
