//go:build !race

package sim

import (
	"bytes"
	"encoding/csv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/hedgerow-mesh/hedgerow/dataplane/planetest/realdata"
	"github.com/hedgerow-mesh/hedgerow/node/internal/dataset"
)

// TestStudyCell plays one cell of the study again and compares it with what is
// committed. Another architecture may round otherwise, hence the tolerance.
func TestStudyCell(t *testing.T) {
	if os.Getenv("HEDGEROW_LONG") != "1" {
		t.Skip("some seconds of training: HEDGEROW_LONG=1 runs it")
	}
	root := filepath.Join("..", "..")
	folder, dir := realdata.Dir(t, dataset.NSLKDD), filepath.Join(root, "docs", "study")
	b, err := os.ReadFile(filepath.Join(dir, "small.toml"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := ParseSweep(bytes.NewReader(b), "small.toml", dir, Builtin())
	if err != nil {
		t.Fatal(err)
	}
	want := committed(t, filepath.Join(dir, "small.csv"))
	if len(want) != 1+cellRows*len(w.Cells) || !slices.Equal(want[0], w.head()) {
		t.Fatalf("small.csv has %d rows of %q: expected %d of %q", len(want), want[0], 1+cellRows*len(w.Cells), w.head())
	}
	const cell = 2 // any
	r, err := Run(t.Context(), &w.Cells[cell].Scenario, Options{Folder: folder})
	if err != nil {
		t.Fatal(err)
	}
	first := len(w.head()) - len(figuresHead)
	for k, row := range w.rows(cell, r) {
		old := want[1+cell*cellRows+k]
		if !slices.Equal(row[:len(w.Keys)], old[:len(w.Keys)]) {
			t.Fatalf("row %d is of %q: expected %q", k, old[:len(w.Keys)], row[:len(w.Keys)])
		}
		for c := first; c < len(row); c++ {
			x, _ := strconv.ParseFloat(row[c], 64)
			y, err := strconv.ParseFloat(old[c], 64)
			if err != nil || x-y > 0.01 || y-x > 0.01 {
				t.Errorf("%q: %s is %s, committed %s", row[:first], w.head()[c], row[c], old[c])
			}
		}
	}
}

func committed(t *testing.T, file string) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return all
}
