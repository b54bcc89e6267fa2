//go:build !race

package sim

import (
	"os"
	"path/filepath"
	"testing"
)

// examples are the scenarios that are shown to people.
func examples(t testing.TB) map[string]*Scenario {
	t.Helper()
	dir := filepath.Join("..", "..", "examples", "consortium")
	list, err := filepath.Glob(filepath.Join(dir, "*.toml"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*Scenario{}
	for _, file := range list {
		if filepath.Base(file) == "flows.toml" {
			continue // the mapping of a CSV file
		}
		if filepath.Base(file) == "sweep.toml" {
			continue // see TestSweepExample
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(f, file, dir, Builtin())
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		out[s.Name] = s
	}
	return out
}

// What is learnt together reaches those who never saw it, three liars ruin the
// plain mean's model, and the gates keep it out.
func TestExamples(t *testing.T) {
	all := examples(t)
	for _, name := range []string{"honest", "liars", "csv"} {
		if all[name] == nil {
			t.Fatalf("no example %s among %d", name, len(all))
		}
	}
	honest := run(t, all["honest"])
	if mesh, alone := honest.Last(Test, Mesh), honest.Last(Test, Alone); mesh.Passed > alone.Passed-0.1 || mesh.At1 < alone.At1 {
		t.Errorf("honest: mesh %+v, alone %+v", mesh, alone)
	}
	liars := run(t, all["liars"])
	if mesh, used := liars.Last(Test, Mesh), liars.Last(Test, Used); mesh.AUC > 0.7 || used.AUC < mesh.AUC+0.1 {
		t.Errorf("liars: mesh %+v, used %+v", mesh, used)
	}
	if f := run(t, all["csv"]).Last(Test, Mesh); f.AUC < 0.9 {
		t.Errorf("csv: %+v", f)
	}
}

func TestSweepExample(t *testing.T) {
	f, err := os.Open(filepath.Join("..", "..", "examples", "consortium", "sweep.toml"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	w, err := ParseSweep(f, "sweep.toml", ".", Builtin())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if !play(t, w, dir, Shard{}, Options{}) {
		t.Fatal("not complete")
	}
	for _, name := range []string{"cells.csv", "groups.csv", "heat-mesh.svg", "heat-used.svg", "report.html"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || len(b) < 500 {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}
