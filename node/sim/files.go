package sim

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// number prints a figure: six digits say more than is known, and are the same
// everywhere.
func number(x float64) string { return strconv.FormatFloat(x, 'f', 6, 64) }

// table is a CSV file.
type table struct {
	name string
	head []string
	rows [][]string
}

// tables are the figures of a run, in the order in which they happened.
func (r *Result) tables() []table {
	rounds := table{name: "rounds.csv", head: append([]string{"round", "rows", "model"}, figuresHead...)}
	for _, x := range r.Rounds {
		rounds.rows = append(rounds.rows, append([]string{strconv.Itoa(x.Round), x.Set, x.Model}, x.Figures.cells()...))
	}
	steps := table{name: "steps.csv", head: []string{"round", "present", "liars", "refused", "sealed", "clipped", "frozen", "length", "adopted", "bytes", "withheld"}}
	for _, x := range r.Steps {
		steps.rows = append(steps.rows, []string{strconv.Itoa(x.Round), strconv.Itoa(x.Present), strconv.Itoa(x.Liars), strconv.Itoa(x.Refused),
			strconv.FormatBool(x.Sealed), strconv.Itoa(x.Clipped), strconv.Itoa(x.Frozen), number(x.Length), strconv.Itoa(x.Adopted),
			strconv.FormatInt(x.Bytes, 10), x.Withheld})
	}
	sites := table{name: "sites.csv", head: []string{"site", "liar", "teach_rows", "held_rows", "attack_rows", "attack_classes", "uses_mesh", "refused_models"}}
	for _, model := range []string{Alone, Used} {
		for _, h := range figuresHead {
			sites.head = append(sites.head, model+"_"+h)
		}
	}
	sites.head = append(sites.head, Alone+"_validation_detected_at_1pct", Used+"_validation_detected_at_1pct", "epsilon")
	for _, x := range r.Sites {
		row := []string{strconv.Itoa(x.Site), strconv.FormatBool(x.Liar), strconv.Itoa(x.Teach), strconv.Itoa(x.Held), strconv.Itoa(x.Attacks),
			strconv.Itoa(x.Classes), strconv.FormatBool(x.UsesMesh), strconv.Itoa(x.RefusedModels)}
		sites.rows = append(sites.rows, slices.Concat(row, x.Alone.cells(), x.Used.cells(), []string{number(x.Known.Alone.At1), number(x.Known.Used.At1), number(x.Epsilon)}))
	}
	hashes := table{name: "hashes.csv", head: []string{"file", "sha256"}}
	for i, h := range r.Hashes {
		hashes.rows = append(hashes.rows, []string{strconv.Itoa(i + 1), h})
	}
	return []table{rounds, steps, sites, hashes}
}

func (t *table) write(w io.Writer) error {
	c := csv.NewWriter(w)
	if err := c.Write(t.head); err != nil {
		return err
	}
	return c.WriteAll(t.rows)
}

// Save writes a run's figures into a folder, which it makes: the scenario in full,
// CSV tables, figures as SVG, and one page of all.
func (r *Result) Save(dir string) error {
	return save(dir, &r.Scenario, r.tables(), r.drawings(), r.HTML)
}

func save(dir string, s *Scenario, tables []table, figures []drawing, page func(io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("sim: output: %w", err)
	}
	b, err := s.Encode()
	if err != nil {
		return err
	}
	put := func(name string, write func(io.Writer) error) {
		if err == nil {
			err = wholly(filepath.Join(dir, name), write)
		}
	}
	put("scenario.toml", func(w io.Writer) error { _, err := w.Write(b); return err })
	for _, t := range tables {
		put(t.name, t.write)
		put(t.columns(), t.parquet)
	}
	for _, f := range figures {
		put(f.name, f.draw)
	}
	put("report.html", page)
	return err
}

// wholly writes a file so that it is there in full or not at all.
func wholly(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("sim: output: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("sim: output %s: %w", name, errors.Join(err, os.Remove(f.Name())))
		}
	}()
	w := bufio.NewWriter(f)
	if err := errors.Join(write(w), w.Flush(), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
