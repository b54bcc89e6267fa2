package sim

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// form is what a sweep keeps of a cell.
type form struct {
	facts   []string // columns after the keys
	figures []string // columns after the facts
}

var (
	roundsForm = form{[]string{"f", "liars", "rounds_without_model", "sites_with_mesh", "data", "round", "rows", "model"}, figuresHead}
	meshForm   = form{[]string{"liars"}, meshFigures}
)

// form is that of all cells: they are of one depth.
func (w *Sweep) form() *form {
	if w.Cells[0].Scenario.Depth == DepthMesh {
		return &meshForm
	}
	return &roundsForm
}

// fact is where a column of facts is in a row with so many keys before; -1 if there is none.
func (f *form) fact(keys int, name string) int {
	if i := slices.Index(f.facts, name); i >= 0 {
		return keys + i
	}
	return -1
}

// head names the columns of a sweep's table.
func (w *Sweep) head() []string {
	f := w.form()
	return slices.Concat(w.Keys, f.facts, f.figures)
}

// measured are the rounds of a scenario that are measured.
func (s *Scenario) measured() (rounds []int) {
	for r := s.Measure.Every; r < s.Training.Rounds; r += s.Measure.Every {
		rounds = append(rounds, r)
	}
	return append(rounds, s.Training.Rounds)
}

// Of each measured round there are validation and test rows, and of each the mesh's
// figures, those alone and those in use.
var (
	cellSets   = []string{Validation, Test}
	cellModels = []string{Mesh, Alone, Used}
)

// size is how many rows a cell has.
func (w *Sweep) size(i int) int {
	if s := &w.Cells[i].Scenario; s.Depth == DepthRounds {
		return len(s.measured()) * len(cellSets) * len(cellModels)
	}
	return 1
}

// rows are what a sweep keeps of a cell.
func (w *Sweep) rows(i int, o Outcome) [][]string {
	values := w.Cells[i].Values
	switch r := o.(type) {
	case *MeshResult:
		return [][]string{slices.Concat(values, []string{strconv.Itoa(r.Scenario.Attackers.liars(r.Scenario.Sites.Count))}, r.figures())}
	case *Result:
		return r.cell(values)
	}
	return nil // there is no other depth
}

// cell is a run's figures after the values of a sweep's keys.
func (r *Result) cell(values []string) (out [][]string) {
	s, mesh := &r.Scenario, 0
	for _, x := range r.Sites {
		if x.UsesMesh && !x.Liar {
			mesh++
		}
	}
	data := sha256.Sum256([]byte(strings.Join(r.Hashes, "\n")))
	facts := slices.Concat(values, []string{
		strconv.Itoa(r.F), strconv.Itoa(s.Attackers.liars(s.Sites.Count)), strconv.Itoa(r.unsealed()), strconv.Itoa(mesh), hex.EncodeToString(data[:6]),
	})
	for _, x := range r.Rounds {
		out = append(out, slices.Concat(facts, []string{strconv.Itoa(x.Round), x.Set, x.Model}, x.Figures.cells()))
	}
	return out
}

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
	if len(all) != 1+w.size(i) || !slices.Equal(all[0], w.head()) || !slices.Equal(all[1][:n], w.Cells[i].Values) {
		return nil, fmt.Errorf("%s: is not a cell of this sweep: remove it", f.Name())
	}
	return all[1:], nil
}

// finish writes the tables and figures of a sweep whose cells are all there.
func (w *Sweep) finish(dir string) (complete bool, err error) {
	t := table{name: "cells.csv", head: w.head()}
	data := map[string]string{}
	column := w.form().fact(len(w.Keys), "data")
	for i := range w.Cells {
		rows, err := w.read(dir, i)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("sim: %w", err)
		}
		if column >= 0 {
			d := &w.Cells[i].Scenario.Data
			key := d.Set + "|" + d.File + "|" + d.Captures
			if have, ok := data[key]; ok && have != rows[0][column] {
				return false, fmt.Errorf("sim: %s was made from other data than the cells before it", w.file(dir, i))
			}
			data[key] = rows[0][column]
		}
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
	form  *form
	count int // of the sweep's cells
	cells []viewed
}

// viewed is one row of the table.
type viewed struct {
	values     []string
	round      string
	last       bool // it is of the last round
	set, model string
	figures    []float64
}

func (w *Sweep) view(t table) *view {
	f, n := w.form(), len(w.Keys)
	v := &view{keys: w.Keys, form: f, count: len(w.Cells)}
	round, set, model := f.fact(n, "round"), f.fact(n, "rows"), f.fact(n, "model")
	rounds := map[string]string{}
	for _, c := range w.Cells {
		rounds[strings.Join(c.Values, "\x00")] = strconv.Itoa(c.Scenario.Training.Rounds)
	}
	for _, row := range t.rows {
		x := viewed{values: row[:n], last: true}
		if round >= 0 {
			x.round, x.set, x.model = row[round], row[set], row[model]
			x.last = x.round == rounds[strings.Join(x.values, "\x00")]
		}
		for _, cell := range row[n+len(f.facts):] {
			y, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				y = 0 // it was written by number
			}
			x.figures = append(x.figures, y)
		}
		v.cells = append(v.cells, x)
	}
	return v
}

func (v *view) words() string {
	return fmt.Sprintf("%d cells over %s.\nTables and maps are of the end; figures are the mean, least and greatest over the seeds.\n", v.count, strings.Join(v.keys, ", "))
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

// figure picks the rows that want accepts, of a set and a model, and spreads one of
// their figures.
func (v *view) figure(k int, set, model string, want func(c *viewed) bool) (s spread, ok bool) {
	var x []float64
	for i := range v.cells {
		if c := &v.cells[i]; c.set == set && c.model == model && want(c) {
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
	of := []string{"rows", "model"}
	if v.form.fact(0, "rows") < 0 {
		of = nil
	}
	t := table{name: "groups.csv", head: slices.Concat(drop(v.keys), of, []string{"seeds"})}
	for _, h := range v.form.figures {
		t.head = append(t.head, h, h+"_least", h+"_greatest")
	}
	where := map[string]int{}
	var found [][]viewed
	for _, c := range v.cells {
		if !c.last {
			continue
		}
		key := strings.Join(slices.Concat(drop(c.values), []string{c.set, c.model}), "\x00")
		i, ok := where[key]
		if !ok {
			i = len(found)
			where[key], found = i, append(found, nil)
		}
		found[i] = append(found[i], c)
	}
	for _, cells := range found {
		row := slices.Concat(drop(cells[0].values), []string{cells[0].set, cells[0].model}[:len(of)], []string{strconv.Itoa(len(cells))})
		for k := range v.form.figures {
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
