package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/hedgerow-mesh/hedgerow/federation/attack"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// learnShare is the share of training rows that sites learn from; on the others,
// whole groups of equal rows, rules are chosen.
const learnShare = 0.85

// bench is a data set made ready: what sites learn from, and what they are
// measured on. It does not depend on seeds, and is shared by all runs on it.
type bench struct {
	hashes     []string
	table      *tabular.Table // the rows to deal out
	learn      *mlp.Rows      // the same rows, encoded
	validation *mlp.Rows
	test       *mlp.Rows
	width      int
	classes    int
	common     int // the commonest class of attacks
	enc        *tabular.Encoder
	marked     map[attack.Trigger][2]*mlp.Rows // attacks of validation and test, marked
}

// benches keeps data sets between the runs of a sweep.
type benches struct {
	folder string
	lib    *Library
	mu     sync.Mutex
	made   map[string]*bench
}

// of is the bench of a scenario.
func (b *benches) of(s *Scenario) (*bench, error) {
	key := fmt.Sprint(s.Data.Set, "|", s.Data.File, "|", s.Data.Mapping, "|", s.Data.Captures, "|", s.Data.Rows, "|", s.Measure.Rows, "|", strings.Join(s.Data.SHA256, ","))
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.made[key]; x != nil {
		return x, nil
	}
	x, err := newBench(b.lib, b.folder, s)
	if err != nil {
		return nil, err
	}
	if b.made == nil {
		b.made = map[string]*bench{}
	}
	b.made[key] = x
	return x, nil
}

// in is the set that data are of.
func (d *Data) in(lib *Library) (Set, error) {
	switch {
	case d.Captures != "":
		return captureSet{d.Captures}, nil
	case d.Set == "":
		return csvSet{d.File, d.Mapping}, nil
	}
	set, err := lib.set(d.Set)
	if err != nil {
		return nil, fmt.Errorf("data.set: %w", err)
	}
	return set, nil
}

func newBench(lib *Library, folder string, s *Scenario) (*bench, error) {
	set, err := s.Data.in(lib)
	if err != nil {
		return nil, err
	}
	b := &bench{}
	if b.hashes, err = checkFiles(set.Files(folder), s.Data.SHA256); err != nil {
		return nil, err
	}
	train, test, err := set.Load(folder)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if err := errors.Join(train.Validate(), test.Validate()); err != nil {
		return nil, fmt.Errorf("data: %s: %w", set.Name(), err)
	}
	return b, b.encode(train, test, s)
}

// encode fits the scale on the rows that sites learn from. On gateways the schema
// gives it, the same for all; here it stands for that.
func (b *bench) encode(train, test *tabular.Table, s *Scenario) error {
	first, second := train.ByGroup(learnShare, splitSeed)
	b.table = train.Pick(few(first, s.Data.Rows))
	validation := train.Pick(few(second, s.Measure.Rows))
	test = test.Pick(few(test.Where(func(int) bool { return true }), s.Measure.Rows))
	enc := tabular.FitEncoder(b.table)
	b.width, b.classes = enc.Width(), len(b.table.Class.Names)
	if b.width == 0 || b.classes < 2 {
		return fmt.Errorf("data: %d inputs and %d classes: expected at least 1 and 2", b.width, b.classes)
	}
	for _, x := range []struct {
		t    *tabular.Table
		into **mlp.Rows
		what string
	}{{b.table, &b.learn, "training"}, {validation, &b.validation, "validation"}, {test, &b.test, "test"}} {
		normal := 0
		for _, k := range x.t.Class.Of {
			if k == 0 {
				normal++
			}
		}
		if normal == 0 || normal == x.t.Rows() {
			return fmt.Errorf("data: %d of %d %s rows are normal: expected both normal rows and attacks", normal, x.t.Rows(), x.what)
		}
		var err error
		if *x.into, err = mlp.NewRows(enc.Apply(x.t), b.width, x.t.Class.Of); err != nil {
			return fmt.Errorf("data: %w", err)
		}
	}
	b.common, b.enc = commonest(b.table.Class.Of, b.classes), enc
	return b.mark(validation, test)
}

// few picks at most a number of rows, always the same; 0 picks all.
func few(rows []int, most int) []int {
	if most == 0 || len(rows) <= most {
		return rows
	}
	rows = slices.Clone(rows)
	rand.New(rand.NewPCG(splitSeed, 0xfe3)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	rows = rows[:most]
	slices.Sort(rows)
	return rows
}

// commonest is the class of attacks with most rows.
func commonest(class []int, classes int) int {
	count := make([]int, classes)
	for _, k := range class {
		count[k]++
	}
	best := 1
	for k := range count[1:] {
		if count[k+1] > count[best] {
			best = k + 1
		}
	}
	return best
}

func (b *bench) shape(hidden []int) mlp.Shape {
	return append(append(mlp.Shape{b.width}, hidden...), b.classes)
}

// shuffled is the bench with its training labels in another order: what is learnt
// from it is chance.
func (b *bench) shuffled(seed uint64) (*bench, error) {
	class := slices.Clone(b.table.Class.Of)
	source(seed, forShuffle, 0, 0).Shuffle(len(class), func(i, j int) { class[i], class[j] = class[j], class[i] })
	out, table := *b, *b.table
	table.Class.Of = class
	out.table = &table
	var err error
	out.learn, err = b.learn.Relabelled(class)
	return &out, err
}
