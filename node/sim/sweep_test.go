package sim

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sweepText = `
name = "small"
[data]
set = "made-up"
[sites]
count = 7
[training]
rounds = 2
steps = 3
hidden = [6]
[measure]
rows = 200
[attackers]
share = 0.3
[grid]
seed = [1, 2]
"rule.name" = ["mean", "median"]
attackers.attack = ["sign-flip", "gaussian"]
`

func parseSweep(t testing.TB, text string) *Sweep {
	t.Helper()
	w, err := ParseSweep(strings.NewReader(text), "sweep.toml", ".", Builtin())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func play(t testing.TB, w *Sweep, dir string, s Shard, o Options) bool {
	t.Helper()
	o.data = shared
	complete, err := w.Run(t.Context(), dir, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return complete
}

// Shards put together are the unsharded sweep, byte for byte.
func TestMergedShardsEqualTheWhole(t *testing.T) {
	w, dir := parseSweep(t, sweepText), t.TempDir()
	if len(w.Cells) != 8 {
		t.Fatalf("%d cells of %v: expected 8", len(w.Cells), w.Keys)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if !play(t, w, at("whole"), Shard{}, Options{Workers: 2}) {
		t.Fatal("the whole is not complete")
	}
	var parts []string
	for i := range 3 {
		part := at(fmt.Sprintf("part-%d", i+1))
		if play(t, w, part, Shard{i + 1, 3}, Options{Workers: 1}) {
			t.Fatalf("%s is complete by itself", part)
		}
		parts = append(parts, part)
	}
	if err := Merge(at("few"), parts[:2], Builtin()); err == nil || !strings.Contains(err.Error(), "2 of 8 cells are in none") {
		t.Errorf("a shard is missing: %v", err)
	}
	if err := Merge(at("merged"), parts, Builtin()); err != nil {
		t.Fatal(err)
	}
	same(t, at("whole/cells"), at("merged/cells"))
	if err := os.RemoveAll(at("whole/cells")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(at("merged/cells")); err != nil {
		t.Fatal(err)
	}
	same(t, at("whole"), at("merged"))
}

// What is done stays done, what was cut off is done again, and nothing else is.
func TestSweepGoesOn(t *testing.T) {
	w, dir := parseSweep(t, sweepText), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	_, err := w.Run(ctx, dir, Shard{}, Options{data: shared, Workers: 1, Told: func(done, _ int) {
		if done == 3 {
			stop()
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "what is done stays done") {
		t.Fatalf("interrupted: %v", err)
	}
	kept := files(t, filepath.Join(dir, cellsName))
	if len(kept) < 3 || len(kept) == len(w.Cells) {
		t.Fatalf("%d cells after an interruption at the third", len(kept))
	}
	for name := range kept { // as a machine that lost its power leaves it
		if err := os.WriteFile(filepath.Join(dir, cellsName, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		break
	}
	total := 0
	if !play(t, w, dir, Shard{}, Options{Told: func(_, n int) { total = n }}) {
		t.Error("not complete")
	}
	if total != len(w.Cells)-len(kept)+1 {
		t.Errorf("played %d cells: expected %d", total, len(w.Cells)-len(kept)+1)
	}
	for name, b := range files(t, filepath.Join(dir, cellsName)) {
		if old := kept[name]; len(old) > 0 && string(old) != string(b) {
			t.Errorf("%s changed", name)
		}
	}
}

func TestSweepRefuses(t *testing.T) {
	w, dir := parseSweep(t, sweepText), t.TempDir()
	if err := w.claim(dir); err != nil {
		t.Fatal(err)
	}
	other := parseSweep(t, strings.Replace(sweepText, "seed = [1, 2]", "seed = [1, 3]", 1))
	if _, err := other.Run(t.Context(), dir, Shard{}, Options{data: shared}); err == nil || !strings.Contains(err.Error(), "is of another sweep") {
		t.Errorf("another sweep's folder: %v", err)
	}
	second := t.TempDir()
	if err := other.claim(second); err != nil {
		t.Fatal(err)
	}
	if err := Merge(t.TempDir(), []string{dir, second}, Builtin()); err == nil || !strings.Contains(err.Error(), "is not a shard of the sweep") {
		t.Errorf("a shard of another scenario: %v", err)
	}
	for text, want := range map[string]string{
		"seed = 1":                         "grid.seed: found 1: expected a list",
		"seed = []":                        "grid.seed: found no values",
		"seed = [1, 1]":                    "cells 1 and 2 are the same",
		`"rule.nmea" = ["mean"]`:           "rule.nmea: is not a known key",
		`"rule.name" = ["best"]`:           `cell 1 (rule.name = best): rule.name: found "best"`,
		`"rule.name" = ["median", "mean"]`: "rule.f: mean:",
		`"rules.name" = ["mean"]`:          "rules.name: is not a known key",
		`"attackers.share" = ["many"]`:     "attackers.share",
	} {
		_, err := ParseSweep(strings.NewReader("[data]\nset='made-up'\n[rule]\nname='median'\nf=2\n[grid]\n"+text), "s.toml", ".", Builtin())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v: expected %q", text, err, want)
		}
	}
	for _, s := range []string{"0/3", "4/3", "1", "1/2/3", "-1/3", "a/b"} {
		if _, err := ParseShard(s); err == nil {
			t.Errorf("shard %q was accepted", s)
		}
	}
}

// What the cells of a sweep have in common is computed once; each has the figures that
// it has when it is run by itself.
func TestCellsAreRunsOfTheirOwn(t *testing.T) {
	w := parseSweep(t, strings.Replace(sweepText, "[measure]", "[gate]\non = true\n[measure]\nevery = 1", 1))
	dir := t.TempDir()
	o := Options{Workers: 2, paths: &paths{room: pathRoom}}
	if !play(t, w, dir, Shard{}, o) {
		t.Fatal("not complete")
	}
	if n := len(o.paths.made); n != 2 {
		t.Errorf("%d seeds' sites are kept: expected 2", n)
	}
	for i, c := range w.Cells {
		want := w.rows(i, run(t, &c.Scenario))
		have, err := w.read(dir, i)
		if err != nil || len(want) != 2*len(cellSets)*len(cellModels) {
			t.Fatalf("%d rows, %v", len(want), err)
		}
		for k := range want {
			if !slices.Equal(have[k], want[k]) {
				t.Errorf("cell %d: %q, by itself %q", i, have[k], want[k])
			}
		}
	}
}

// Memory for what cells have in common is bounded; what was not used for long makes way.
func TestPathsAreBounded(t *testing.T) {
	p, s := &paths{room: 250}, small()
	s.Sites.Count, s.Training.Rounds = 2, 5 // a hundred numbers with models of ten
	kept := func(seed uint64) bool {
		s.Seed = seed
		x, whole, keep, err := p.of(s, 10)
		if err != nil {
			t.Fatal(err)
		}
		for i := range x.models {
			for r := range x.models[i] {
				x.models[i][r] = make([]float32, 10)
			}
		}
		keep()
		return whole
	}
	if kept(1) || kept(2) || kept(3) || !kept(1) || !kept(2) || kept(3) {
		t.Error("expected room for two, and the third to be made each time")
	}
	for range 10 {
		kept(1)
	}
	if kept(3); !kept(3) || p.room < 0 || len(p.made) != 2 {
		t.Errorf("%d are kept, room for %d more: expected the second, long unused, to make way", len(p.made), p.room)
	}
}

// A folder that cannot be written to stops the sweep with the file's name.
func TestSweepOnAFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Fatalf("a Linux without /dev/full: %v", err)
	}
	err := wholly(filepath.Join(t.TempDir(), "cell.csv"), func(io.Writer) error {
		return os.WriteFile("/dev/full", []byte("x"), 0o600)
	})
	if err == nil || !strings.Contains(err.Error(), "cell.csv") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v", err)
	}
}
