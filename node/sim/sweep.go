package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2"
)

// Sweep is a scenario and a grid: every key of the grid takes each of its values,
// with each value of every other key. A cell is one of these scenarios.
type Sweep struct {
	Keys   []string // of the grid, in the order of their names
	Cells  []Cell   // the last key changes fastest
	folder string   // from which the files of the scenario are named
	text   []byte   // the sweep in full, which tells it from others
}

// Cell is one scenario of a sweep.
type Cell struct {
	Scenario Scenario
	Values   []string // of the sweep's keys
	id       string   // hash of the scenario in full
}

// maxCells bounds a sweep.
const maxCells = 100_000

// sweepFile is a scenario with a grid.
type sweepFile struct {
	Scenario
	Grid map[string]any `toml:"grid"`
}

// ParseSweep reads a scenario with a table [grid] of lists of values, by key:
// "rule.name" = ["mean", "median"]. Every cell is checked.
func ParseSweep(r io.Reader, name, folder string, lib *Library) (*Sweep, error) {
	b, err := readBounded(r, name)
	if err != nil {
		return nil, err
	}
	f := sweepFile{Scenario: Default()}
	if err := decode(b, name, &f); err != nil {
		return nil, err
	}
	grid := map[string][]any{}
	if err := flatten(grid, "", f.Grid); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w := &Sweep{Keys: slices.Sorted(maps.Keys(grid)), folder: folder}
	if err := w.expand(&f.Scenario, grid, lib); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	base, err := f.Encode()
	if err != nil {
		return nil, err
	}
	list, err := toml.Marshal(map[string]any{"grid": grid})
	if err != nil {
		return nil, fmt.Errorf("%s: grid: %w", name, err)
	}
	w.text = slices.Concat(base, []byte("\n"), list)
	return w, nil
}

// flatten names the lists of a grid by dotted keys, however they were written.
func flatten(into map[string][]any, prefix string, from map[string]any) error {
	for k, v := range from {
		switch v := v.(type) {
		case map[string]any:
			if err := flatten(into, prefix+k+".", v); err != nil {
				return err
			}
		case []any:
			if len(v) == 0 {
				return fmt.Errorf("grid.%s%s: found no values", prefix, k)
			}
			into[prefix+k] = v
		default:
			return fmt.Errorf("grid.%s%s: found %v: expected a list of values", prefix, k, v)
		}
	}
	return nil
}

func (w *Sweep) expand(base *Scenario, grid map[string][]any, lib *Library) error {
	n := 1
	for _, k := range w.Keys {
		if n *= len(grid[k]); n > maxCells {
			return fmt.Errorf("grid: more than %d cells", maxCells)
		}
	}
	seen := map[string]int{}
	for i := range n {
		at, set := i, map[string]any{}
		for _, k := range slices.Backward(w.Keys) {
			set[k], at = grid[k][at%len(grid[k])], at/len(grid[k])
		}
		c, err := newCell(base, w.Keys, set)
		if err == nil {
			err = c.Scenario.Check(lib)
		}
		if err == nil && i > 0 && c.Scenario.Depth != w.Cells[0].Scenario.Depth {
			err = fmt.Errorf("depth: found %q after %q: a sweep is of one depth", c.Scenario.Depth, w.Cells[0].Scenario.Depth)
		}
		if err != nil && len(w.Keys) == 0 {
			return err
		}
		if err != nil {
			return fmt.Errorf("grid: cell %d (%s): %w", i+1, describe(w.Keys, set), err)
		}
		if k, twice := seen[c.id]; twice {
			return fmt.Errorf("grid: cells %d and %d are the same: %s", k+1, i+1, describe(w.Keys, set))
		}
		seen[c.id] = i
		w.Cells = append(w.Cells, *c)
	}
	return nil
}

func describe(keys []string, set map[string]any) string {
	var out []string
	for _, k := range keys {
		out = append(out, fmt.Sprintf("%s = %v", k, set[k]))
	}
	return strings.Join(out, ", ")
}

// newCell is the base with some keys set.
func newCell(base *Scenario, keys []string, set map[string]any) (*Cell, error) {
	b, err := base.Encode()
	if err != nil {
		return nil, err
	}
	tree := map[string]any{}
	if err := toml.Unmarshal(b, &tree); err != nil {
		return nil, err
	}
	c := &Cell{}
	for _, k := range keys {
		at, parts := tree, strings.Split(k, ".")
		for _, p := range parts[:len(parts)-1] {
			sub, ok := at[p].(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%s: is not a known key", k)
			}
			at = sub
		}
		at[parts[len(parts)-1]] = set[k]
		c.Values = append(c.Values, fmt.Sprint(set[k]))
	}
	if b, err = toml.Marshal(tree); err != nil {
		return nil, err
	}
	if err := decode(b, "cell", &c.Scenario); err != nil {
		return nil, err
	}
	if b, err = c.Scenario.Encode(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	c.id = hex.EncodeToString(sum[:12])
	return c, nil
}

// Shard is a part of a sweep: cells I, I+N, I+2N and so on, counted from 1. The
// zero value is the whole.
type Shard struct{ I, N int }

// ParseShard reads "2/8".
func ParseShard(s string) (Shard, error) {
	var sh Shard
	if _, err := fmt.Sscanf(s, "%d/%d", &sh.I, &sh.N); err != nil || fmt.Sprintf("%d/%d", sh.I, sh.N) != s || sh.I < 1 || sh.I > sh.N || sh.N > maxCells {
		return Shard{}, fmt.Errorf("--shard: found %q: expected i/n with 1 <= i <= n, as in 2/8", s)
	}
	return sh, nil
}

func (s Shard) has(i int) bool { return s.N == 0 || i%s.N == s.I-1 }

// The folders and files of a sweep.
const (
	sweepName = "sweep.toml"
	cellsName = "cells"
)

// Run plays the cells of a shard that are not done yet, each on one core, as many at
// a time as there are workers. What is done stays done, whatever happens: start
// again to go on. Once the cells of all shards are in the folder, it writes the
// sweep's tables and figures.
func (w *Sweep) Run(ctx context.Context, dir string, s Shard, o Options) (complete bool, err error) {
	if o.Library == nil {
		o.Library = Builtin()
	}
	if o.data == nil {
		o.data = &benches{folder: o.Folder, lib: o.Library}
	}
	if o.paths == nil {
		o.paths = &paths{room: pathRoom}
	}
	if err := w.claim(dir); err != nil {
		return false, err
	}
	if err := w.play(ctx, dir, s, o); err != nil {
		return false, err
	}
	return w.finish(dir)
}

// claim makes a sweep's folder, or finds that it belongs to this sweep.
func (w *Sweep) claim(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, cellsName), 0o755); err != nil {
		return fmt.Errorf("sim: output: %w", err)
	}
	name := filepath.Join(dir, sweepName)
	have, err := os.ReadFile(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return wholly(name, func(out io.Writer) error { _, err := out.Write(w.text); return err })
	case err != nil:
		return fmt.Errorf("sim: output: %w", err)
	case !bytes.Equal(have, w.text):
		return fmt.Errorf("sim: %s is of another sweep: give another --out, or remove it", name)
	}
	return nil
}

func (w *Sweep) play(ctx context.Context, dir string, s Shard, o Options) error {
	var todo []int
	for i := range w.Cells {
		if s.has(i) {
			if _, err := w.read(dir, i); err != nil {
				todo = append(todo, i)
			}
		}
	}
	n := o.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	told := o.Told
	o.Workers, o.Told = 1, nil
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range min(n, len(todo)) {
		wg.Go(func() {
			for i := range next {
				if err := w.cell(ctx, dir, i, o); err != nil {
					stop(fmt.Errorf("cell %d of %d: %w", i+1, len(w.Cells), err))
					continue
				}
				mu.Lock()
				if done++; told != nil {
					told(done, len(todo))
				}
				mu.Unlock()
			}
		})
	}
feed:
	for _, i := range todo {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	if ctx.Err() != nil {
		return fmt.Errorf("sim: %w; what is done stays done: start again to go on", context.Cause(ctx))
	}
	return nil
}

// cell plays one cell and keeps what it found.
func (w *Sweep) cell(ctx context.Context, dir string, i int, o Options) error {
	s := w.Cells[i].Scenario
	s.Data.from(w.folder)
	r, err := Play(ctx, &s, o)
	if err != nil {
		return err
	}
	t := table{head: w.head(), rows: w.rows(i, r)}
	return wholly(w.file(dir, i), t.write)
}

func (w *Sweep) file(dir string, i int) string {
	return filepath.Join(dir, cellsName, w.Cells[i].id+".csv")
}

// Merge puts the folders of all shards of a sweep together, as if it had not been
// parted. Cells that are in several must be the same in each.
func Merge(dir string, shards []string, lib *Library) error {
	if len(shards) == 0 {
		return errors.New("sim: merge: expected the folders of shards")
	}
	text, err := os.ReadFile(filepath.Join(shards[0], sweepName))
	if err != nil {
		return fmt.Errorf("sim: merge: %w", err)
	}
	w, err := ParseSweep(bytes.NewReader(text), filepath.Join(shards[0], sweepName), ".", lib)
	if err != nil {
		return err
	}
	if err := w.claim(dir); err != nil {
		return err
	}
	for _, from := range shards {
		if have, err := os.ReadFile(filepath.Join(from, sweepName)); err != nil || !bytes.Equal(have, w.text) {
			return errors.Join(fmt.Errorf("sim: merge: %s is not a shard of the sweep in %s", from, shards[0]), err)
		}
		for i := range w.Cells {
			if err := w.take(dir, from, i); err != nil {
				return fmt.Errorf("sim: merge: %w", err)
			}
		}
	}
	complete, err := w.finish(dir)
	if err == nil && !complete {
		missing := 0
		for i := range w.Cells {
			if _, err := w.read(dir, i); err != nil {
				missing++
			}
		}
		return fmt.Errorf("sim: merge: %d of %d cells are in none of the shards", missing, len(w.Cells))
	}
	return err
}

// take copies a cell that a shard has.
func (w *Sweep) take(dir, from string, i int) error {
	if _, err := w.read(from, i); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	b, err := os.ReadFile(w.file(from, i))
	if err != nil {
		return err
	}
	have, err := os.ReadFile(w.file(dir, i))
	switch {
	case err == nil && bytes.Equal(have, b):
		return nil
	case err == nil:
		return fmt.Errorf("%s differs from the same cell of another shard", w.file(from, i))
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return wholly(w.file(dir, i), func(out io.Writer) error { _, err := out.Write(b); return err })
}
