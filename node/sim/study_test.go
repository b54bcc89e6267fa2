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

// studyParts are the names of all parts.
func studyParts(t *testing.T) (names []string) {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(studyDir, "*.toml"))
	if err != nil || len(parts) == 0 {
		t.Fatalf("%v, %v", parts, err)
	}
	for _, p := range parts {
		names = append(names, strings.TrimSuffix(filepath.Base(p), ".toml"))
	}
	return names
}

// TestStudyIsWhole wants what is committed of each part to be all of its grid.
func TestStudyIsWhole(t *testing.T) {
	const seeds = 5
	for _, p := range studyParts(t) {
		w, have := study(t, p)
		if len(have) != 1+len(w.Cells)/seeds*len(cellSets)*len(cellModels) || have[0][len(w.Keys)-1] != "rows" {
			t.Errorf("%s: %d lines for %d cells", p, len(have), len(w.Cells))
		}
	}
}

// smallPart is the part of which every run of the tests plays a group.
const smallPart = "cic-ids2017"

// TestStudyCell plays one group of cells of a part again, under all seeds, and compares
// it with what is committed: of the small part, or of each. Another architecture may
// round otherwise, hence the tolerance.
func TestStudyCell(t *testing.T) {
	parts := []string{smallPart}
	if os.Getenv("HEDGEROW_LONG") == "1" {
		parts = studyParts(t)
	}
	data := &benches{folder: realdata.Dir(t, dataset.CICFile(dataset.CICIDS2017)), lib: Builtin()}
	for _, p := range parts {
		t.Run(p, func(t *testing.T) { replay(t, p, data) })
	}
}

// replay plays a group from the middle of a part, of the default rule if it has that.
func replay(t *testing.T, part string, data *benches) {
	w, want := study(t, part)
	seed := slices.Index(w.Keys, "seed")
	group := func(values []string) []string { return slices.Concat(values[:seed], values[seed+1:]) }
	half := len(w.Cells) / 2
	at := half + max(0, slices.IndexFunc(w.Cells[half:], func(c Cell) bool { return c.Scenario.Rule.Name == Default().Rule.Name }))
	of := group(w.Cells[at].Values)
	cells := table{head: w.head()}
	for i, c := range w.Cells {
		if !slices.Equal(group(c.Values), of) {
			continue
		}
		r, err := Run(t.Context(), &c.Scenario, Options{data: data})
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
