package sim

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hedgerow-mesh/hedgerow/node/internal/plot"
)

// head names the columns of a sweep's table.
func (w *Sweep) head() []string {
	return slices.Concat(w.Keys, []string{"f", "liars", "rounds_without_model", "sites_with_mesh", "data", "rows", "model"}, figuresHead)
}

// rows are what a sweep keeps of a cell: the figures of its last round.
func (w *Sweep) rows(i int, r *Result) (out [][]string) {
	s, mesh := &r.Scenario, 0
	for _, x := range r.Sites {
		if x.UsesMesh && !x.Liar {
			mesh++
		}
	}
	data := sha256.Sum256([]byte(strings.Join(r.Hashes, "\n")))
	for _, set := range []string{Validation, Test} {
		for _, model := range []string{Mesh, Alone, Used} {
			row := slices.Concat(w.Cells[i].Values, []string{
				strconv.Itoa(r.F), strconv.Itoa(s.Attackers.liars(s.Sites.Count)), strconv.Itoa(r.unsealed()), strconv.Itoa(mesh),
				hex.EncodeToString(data[:6]), set, model,
			}, r.Last(set, model).cells())
			out = append(out, row)
		}
	}
	return out
}

// cellRows is how many rows a cell has.
const cellRows = 6

// read gives the rows of a cell that is done; one that is not whole is not.
func (w *Sweep) read(dir string, i int) (rows [][]string, err error) {
	f, err := os.Open(w.file(dir, i))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	all, err := csv.NewReader(io.LimitReader(f, maxFile)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	n := len(w.Keys)
	if len(all) != 1+cellRows || !slices.Equal(all[0], w.head()) || !slices.Equal(all[1][:n], w.Cells[i].Values) {
		return nil, fmt.Errorf("%s: is not a cell of this sweep: remove it", f.Name())
	}
	return all[1:], nil
}

// finish writes the tables and figures of a sweep whose cells are all there.
func (w *Sweep) finish(dir string) (complete bool, err error) {
	t := table{name: "cells.csv", head: w.head()}
	data := map[string]string{}
	column := len(w.Keys) + 4
	for i := range w.Cells {
		rows, err := w.read(dir, i)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("sim: %w", err)
		}
		d := &w.Cells[i].Scenario.Data
		key := d.Set + "|" + d.File + "|" + d.Captures
		if have, ok := data[key]; ok && have != rows[0][column] {
			return false, fmt.Errorf("sim: %s was made from other data than the cells before it", w.file(dir, i))
		}
		data[key] = rows[0][column]
		t.rows = append(t.rows, rows...)
	}
	put := func(name string, write func(io.Writer) error) {
		if err == nil {
			err = wholly(filepath.Join(dir, name), write)
		}
	}
	v := w.view(t)
	groups := v.groups()
	for _, x := range []*table{&t, &groups} {
		put(x.name, x.write)
		put(x.columns(), x.parquet)
	}
	for _, f := range v.drawings() {
		put(f.name, f.draw)
	}
	put("report.html", func(out io.Writer) error {
		return writePage(out, w.Cells[0].Scenario.Name, v.words(), v.drawings(), string(w.text), []table{groups, t})
	})
	return err == nil, err
}

// view looks at a sweep's table.
type view struct {
	keys  []string
	cells []viewed
}

// viewed is one row of the table.
type viewed struct {
	values     []string
	set, model string
	figures    []float64
}

func (w *Sweep) view(t table) *view {
	v, n := &view{keys: w.Keys}, len(w.Keys)
	for _, row := range t.rows {
		x := viewed{values: row[:n], set: row[n+5], model: row[n+6]}
		for _, cell := range row[n+7:] {
			f, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				f = 0 // it was written by number
			}
			x.figures = append(x.figures, f)
		}
		v.cells = append(v.cells, x)
	}
	return v
}

func (v *view) words() string {
	return fmt.Sprintf("%d cells over %s.\nEvery figure is of the last round; bands and figures are the mean, least and greatest over the seeds.\n", len(v.cells)/cellRows, strings.Join(v.keys, ", "))
}

// spread is a figure's mean, least and greatest.
type spread struct{ mean, low, high float64 }

func spreadOf(x []float64) (s spread) {
	s = spread{0, slices.Min(x), slices.Max(x)}
	for _, v := range x {
		s.mean += v / float64(len(x))
	}
	return s
}

// figure picks the cells that want accepts, of a set and a model, and spreads one
// of their figures.
func (v *view) figure(k int, set, model string, want func(values []string) bool) (s spread, ok bool) {
	var x []float64
	for _, c := range v.cells {
		if c.set == set && c.model == model && want(c.values) {
			x = append(x, c.figures[k])
		}
	}
	if len(x) == 0 {
		return s, false
	}
	return spreadOf(x), true
}

// groups are the cells with their seeds put together.
func (v *view) groups() table {
	seed := slices.Index(v.keys, "seed")
	drop := func(values []string) []string {
		if seed < 0 {
			return values
		}
		return slices.Concat(values[:seed], values[seed+1:])
	}
	t := table{name: "groups.csv", head: slices.Concat(drop(v.keys), []string{"rows", "model", "seeds"})}
	for _, h := range figuresHead {
		t.head = append(t.head, h, h+"_least", h+"_greatest")
	}
	where := map[string]int{}
	var found [][]viewed
	for _, c := range v.cells {
		key := strings.Join(slices.Concat(drop(c.values), []string{c.set, c.model}), "\x00")
		i, ok := where[key]
		if !ok {
			i = len(found)
			where[key], found = i, append(found, nil)
		}
		found[i] = append(found[i], c)
	}
	for _, cells := range found {
		row := slices.Concat(drop(cells[0].values), []string{cells[0].set, cells[0].model, strconv.Itoa(len(cells))})
		for k := range figuresHead {
			var x []float64
			for _, c := range cells {
				x = append(x, c.figures[k])
			}
			s := spreadOf(x)
			row = append(row, number(s.mean), number(s.low), number(s.high))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// values are those of a key, in the order of the grid.
func (v *view) values(key string) (at int, out []string) {
	at = slices.Index(v.keys, key)
	if at < 0 {
		return at, nil
	}
	for _, c := range v.cells {
		if !slices.Contains(out, c.values[at]) {
			out = append(out, c.values[at])
		}
	}
	return at, out
}

// at1 is where detection at 1 % false alarms is in Figures, passed where the share
// of attacks that pass is.
const (
	at1    = 1
	passed = 4
)

func (v *view) drawings() (out []drawing) {
	if _, rules := v.values("rule.name"); len(rules) > 0 {
		if _, attacks := v.values("attackers.attack"); len(attacks) > 0 {
			for _, model := range []string{Mesh, Used} {
				out = append(out,
					drawing{"heat-" + model + ".svg", v.heat(at1, model, "Attacks found at 1 % false alarms, test rows: "+model)},
					drawing{"heat-" + model + "-passed.svg", v.heat(passed, model, "Attacks called normal, test rows: "+model)})
			}
		}
		if _, shares := v.values("attackers.share"); len(shares) > 1 {
			out = append(out, drawing{"shares.svg", v.shares})
		}
	}
	return out
}

// heat is a field of rules and attacks, the mean over everything else.
func (v *view) heat(k int, model, title string) func(io.Writer) error {
	r, rules := v.values("rule.name")
	a, attacks := v.values("attackers.attack")
	return func(w io.Writer) error {
		return plot.Heat(w, title, "mean over all other keys of the grid", rules, attacks, func(row, col int) float64 {
			s, ok := v.figure(k, Test, model, func(x []string) bool { return x[r] == rules[row] && x[a] == attacks[col] })
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
			if s, ok := v.figure(at1, Test, Mesh, func(x []string) bool { return x[r] == rule && x[a] == share }); ok && err == nil {
				c.X, c.Y, c.Low, c.High = append(c.X, x), append(c.Y, s.mean), append(c.Low, s.low), append(c.High, s.high)
			}
		}
		curves = append(curves, c)
	}
	return plot.Curves(w, "Attacks found at 1 % false alarms, test rows: mesh", "mean, least and greatest over all other keys of the grid", "share of liars", "share of attacks found", []float64{0, 0.1, 0.2, 0.3, 0.4, 0.5}, curves)
}
