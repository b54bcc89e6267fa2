package sim

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/federation/attack"
	"github.com/hedgerow-mesh/hedgerow/learner/mlp"
	"github.com/hedgerow-mesh/hedgerow/learner/tabular"
)

// markColumns is how many columns a mark sets.
const markColumns = 3

// mark is what rows with a back door carry: one value in each of a few columns.
type mark []stamp

type stamp struct {
	column int
	num    float32
	word   int32
}

// newMark takes the first columns of words, and where there are too few the first
// of numbers: an attacker chooses these before others (a protocol, a service, a
// size). The rare mark sets in each of them the rarest word that models still learn,
// or the greatest number; the common one what most normal rows have.
func newMark(t *tabular.Table, kind attack.Trigger) mark {
	var order []int
	for _, words := range []bool{true, false} {
		for i := range t.Columns {
			if t.Columns[i].IsWords() == words {
				order = append(order, i)
			}
		}
	}
	var m mark
	for _, i := range order {
		if s, ok := newStamp(t, i, kind); ok && len(m) < markColumns {
			m = append(m, s)
		}
	}
	return m
}

// newStamp picks the value of a column; a column with one value says nothing.
func newStamp(t *tabular.Table, column int, kind attack.Trigger) (s stamp, ok bool) {
	c := &t.Columns[column]
	count := map[float64]int{}
	for r, class := range t.Class.Of {
		if kind == attack.Common && class != 0 {
			continue
		}
		if v := valueOf(c, r); !math.IsNaN(v) {
			count[v]++
		}
	}
	if len(count) < 2 {
		return s, false
	}
	values := slices.SortedFunc(maps.Keys(count), func(a, b float64) int {
		switch {
		case kind == attack.Common:
			return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
		case c.IsWords():
			return cmp.Or(cmp.Compare(tooFew(count[a]), tooFew(count[b])), cmp.Compare(count[a], count[b]), cmp.Compare(a, b))
		}
		return cmp.Compare(b, a)
	})
	return stamp{column, float32(values[0]), int32(values[0])}, true
}

// learnt is how many training rows a word needs for models to know it.
const learnt = 20

// tooFew is 1 for a word of which models know nothing.
func tooFew(rows int) int {
	if rows < learnt {
		return 1
	}
	return 0
}

// valueOf is a cell as a number; NaN where there is none.
func valueOf(c *tabular.Column, r int) float64 {
	if !c.IsWords() {
		return float64(c.Num[r])
	}
	if c.Word[r] < 0 {
		return math.NaN()
	}
	return float64(c.Word[r])
}

// marked is a copy of some rows that carry a mark.
func (m mark) marked(t *tabular.Table, rows []int) *tabular.Table {
	out := t.Pick(rows)
	for _, s := range m {
		c := &out.Columns[s.column]
		for r := range rows {
			if c.IsWords() {
				c.Word[r] = s.word
			} else {
				c.Num[r] = s.num
			}
		}
	}
	return out
}

// mark keeps the attacks of validation and test rows with either mark.
func (b *bench) mark(validation, test *tabular.Table) error {
	b.marked = map[attack.Trigger][2]*mlp.Rows{}
	for _, kind := range []attack.Trigger{attack.Rare, attack.Common} {
		m, both := newMark(b.table, kind), [2]*mlp.Rows{}
		for i, t := range []*tabular.Table{validation, test} {
			x := m.marked(t, t.Where(func(r int) bool { return t.Class.Of[r] != 0 }))
			var err error
			if both[i], err = mlp.NewRows(b.enc.Apply(x), b.width, x.Class.Of); err != nil {
				return fmt.Errorf("data: %w", err)
			}
		}
		b.marked[kind] = both
	}
	return nil
}

// exam is what models are measured on. Where the attackers have a mark, it is so
// also where nobody lies: that is the control.
func (w *world) exam(set string) exam {
	e, i := exam{rows: w.b.validation}, 0
	if set == Test {
		e.rows, i = w.b.test, 1
	}
	e.marked = w.b.marked[w.attack.Trigger][i]
	return e
}

// poison is what liars with a back door train on: their own rows, and a third as
// many of all liars' attacks again, marked and called normal.
type poison struct {
	rows *mlp.Rows
	of   [][]int // of each site; nil for the honest
}

// prepare makes the liars' rows.
func (w *world) prepare() error {
	if w.attack.Trigger == "" {
		return nil
	}
	var own, attacks []int
	p := &poison{of: make([][]int, len(w.sites))}
	for _, x := range w.sites {
		if !x.liar {
			continue
		}
		for _, r := range x.teach {
			p.of[x.id] = append(p.of[x.id], len(own))
			own = append(own, r)
			if w.b.table.Class.Of[r] != 0 {
				attacks = append(attacks, r)
			}
		}
	}
	if len(own) == 0 {
		return nil
	}
	t := w.b.table.Pick(own)
	dense, class := w.b.enc.Apply(t), slices.Clone(t.Class.Of)
	if w.s.Data.Shuffle {
		for i, r := range own {
			class[i] = w.b.learn.Class[r]
		}
	}
	if len(attacks) > 0 {
		lies := newMark(w.b.table, w.attack.Trigger).marked(w.b.table, attacks)
		dense = append(dense, w.b.enc.Apply(lies)...)
		class = append(class, make([]int, len(attacks))...)
		w.share(p, len(own), len(attacks))
	}
	var err error
	if p.rows, err = mlp.NewRows(dense, w.b.width, class); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	w.poison = p
	return nil
}

// share gives each liar a third as many lies as it has rows.
func (w *world) share(p *poison, first, lies int) {
	for i, of := range p.of {
		if of == nil {
			continue
		}
		rng := source(w.s.Seed, forMarks, i, 0)
		for range int(math.Ceil(float64(len(of)) / 3)) {
			p.of[i] = append(p.of[i], first+rng.IntN(lies))
		}
	}
}
