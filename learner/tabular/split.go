package tabular

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// ErrNoSplit says that a table lacks what a split goes by.
var ErrNoSplit = errors.New("cannot split")

// ByGroup puts about share of the rows on the first side, whole groups only.
func (t *Table) ByGroup(share float64, seed uint64) (first, second []int) {
	fold := t.groupFolds(1000, seed)
	for r, f := range fold {
		if float64(f) < share*1000 {
			first = append(first, r)
		} else {
			second = append(second, r)
		}
	}
	return first, second
}

// Folds gives each row one of n folds. Groups stay whole.
func (t *Table) Folds(n int, seed uint64) []int { return t.groupFolds(n, seed) }

// groupFolds shuffles the groups of each class and deals them out in turn, so
// that each fold has its share of every class. A group is of its first row's class.
func (t *Table) groupFolds(n int, seed uint64) []int {
	byClass := make([][]int, len(t.Class.Names))
	seen := map[int]bool{}
	for r, g := range t.Group {
		if !seen[g] {
			seen[g] = true
			byClass[t.Class.Of[r]] = append(byClass[t.Class.Of[r]], g)
		}
	}
	rng := rand.New(rand.NewPCG(seed, 0x5b117))
	fold := make(map[int]int, len(seen))
	for _, groups := range byClass {
		rng.Shuffle(len(groups), func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
		for i, g := range groups {
			// Spread, so that a few groups do not all land in the first folds.
			fold[g] = int((uint64(i)*uint64(n) + uint64(rng.IntN(n))) / uint64(max(len(groups), 1)) % uint64(n))
		}
	}
	out := make([]int, t.Rows())
	for r, g := range t.Group {
		out[r] = fold[g]
	}
	return out
}

// ByTime puts the first share of the rows of each place, in the order of time,
// on the first side.
func (t *Table) ByTime(share float64) (first, second []int, err error) {
	if t.Time == nil {
		return nil, nil, fmt.Errorf("%w by time: the table has none", ErrNoSplit)
	}
	for p := range t.Place.Names {
		rows := t.Where(func(r int) bool { return t.Place.Of[r] == p })
		slices.SortStableFunc(rows, func(a, b int) int { return cmp.Compare(t.Time[a], t.Time[b]) })
		n := int(share * float64(len(rows)))
		first, second = append(first, rows[:n]...), append(second, rows[n:]...)
	}
	return first, second, nil
}

// ByPlace parts the rows of one place from all others.
func (t *Table) ByPlace(place int) (here, elsewhere []int) {
	here = t.Where(func(r int) bool { return t.Place.Of[r] == place })
	elsewhere = t.Where(func(r int) bool { return t.Place.Of[r] != place })
	return here, elsewhere
}

// WithoutClass is rows that are not of a class.
func (t *Table) WithoutClass(rows []int, class int) []int {
	return slices.DeleteFunc(slices.Clone(rows), func(r int) bool { return t.Class.Of[r] == class })
}
