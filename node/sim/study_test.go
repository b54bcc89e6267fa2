//go:build !race

package sim

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

var studyDir = filepath.Join("..", "..", "docs", "study")

// study reads a part of the study and what is committed of it.
func study(t *testing.T, name string) (w *Sweep, groups [][]string) {
	t.Helper()
	f, err := os.Open(filepath.Join(studyDir, name+".toml"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if w, err = ParseSweep(f, name, studyDir, Builtin()); err != nil {
		t.Fatal(err)
	}
	c, err := os.Open(filepath.Join(studyDir, name+".csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if groups, err = csv.NewReader(c).ReadAll(); err != nil {
		t.Fatal(err)
	}
	return w, groups
}

// TestStudyIsWhole wants what is committed of each part to be all of its grid.
func TestStudyIsWhole(t *testing.T) {
	parts, err := filepath.Glob(filepath.Join(studyDir, "*.toml"))
	if err != nil || len(parts) == 0 {
		t.Fatalf("%v, %v", parts, err)
	}
	const seeds = 5
	for _, p := range parts {
		w, have := study(t, strings.TrimSuffix(filepath.Base(p), ".toml"))
		if len(have) != 1+len(w.Cells)/seeds*len(cellSets)*len(cellModels) || have[0][len(w.Keys)-1] != "rows" {
			t.Errorf("%s: %d lines for %d cells", p, len(have), len(w.Cells))
		}
	}
}

// TestStudyCell plays one group of cells again, under all seeds, and compares it with
// what is committed. Another architecture may round otherwise, hence the tolerance.
func TestStudyCell(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("some seconds of training: HEDGEROW_LONG=1 runs it")
	}
	folder := realdata.Dir(t, dataset.NSLKDD)
	w, want := study(t, "nsl-kdd")
	seed := slices.Index(w.Keys, "seed")
	group := func(values []string) []string { return slices.Concat(values[:seed], values[seed+1:]) }
	const any = 7
	of := group(w.Cells[any].Values)
	cells := table{head: w.head()}
	data := &benches{folder: folder, lib: Builtin()}
	for i, c := range w.Cells {
		if !slices.Equal(group(c.Values), of) {
			continue
		}
		r, err := Run(t.Context(), &c.Scenario, Options{Folder: folder, data: data})
		if err != nil {
			t.Fatal(err)
		}
		cells.rows = append(cells.rows, w.rows(i, r)...)
	}
	got := w.view(cells).groups()
	if !slices.Equal(got.head, want[0]) {
		t.Fatalf("columns %q: committed %q", got.head, want[0])
	}
	for _, row := range got.rows {
		at := slices.IndexFunc(want, func(x []string) bool { return slices.Equal(x[:len(of)+2], row[:len(of)+2]) })
		if at < 0 {
			t.Fatalf("%q is not committed", row[:len(of)+2])
		}
		for c := len(of) + 2; c < len(row); c++ {
			x, _ := strconv.ParseFloat(row[c], 64)
			y, err := strconv.ParseFloat(want[at][c], 64)
			if err != nil || x-y > 0.02 || y-x > 0.02 {
				t.Errorf("%q: %s is %s, committed %s", row[:len(of)+2], got.head[c], row[c], want[at][c])
			}
		}
	}
}
