package tabular

import (
	"errors"
	"fmt"
	"math"
)

// Limits of a table.
const (
	MaxColumns = 1024
	MaxRows    = 10_000_000
	MaxWords   = 100_000 // distinct words of a column
)

// Column is numbers (NaN where absent), or words as indices (-1 where absent).
type Column struct {
	Name  string
	Num   []float32
	Word  []int32
	Words []string // nil for a column of numbers
}

// IsWords tells the two kinds of columns apart.
func (c *Column) IsWords() bool { return c.Words != nil }

// Labels are named classes of rows.
type Labels struct {
	Of    []int // class of each row
	Names []string
}

// Table is labelled rows. Class 0 is normal, in Class as in Family.
type Table struct {
	Columns []Column
	Class   Labels    // what a row is: the classes that a report tells apart
	Family  Labels    // finer: single attacks, where the data names them; else as Class
	Group   []int     // equal for rows that may not be parted by a split
	Time    []float64 // seconds; nil where unknown
	Place   Labels    // where a row was seen; one name where unknown
}

// Rows is the number of rows.
func (t *Table) Rows() int { return len(t.Class.Of) }

// Attack says of each row whether it is one.
func (t *Table) Attack() []bool {
	out := make([]bool, t.Rows())
	for i, k := range t.Class.Of {
		out[i] = k != 0
	}
	return out
}

// Validate checks that all columns are as long as the table.
func (t *Table) Validate() error {
	n := t.Rows()
	if n == 0 || n > MaxRows || len(t.Columns) == 0 || len(t.Columns) > MaxColumns {
		return fmt.Errorf("table: %d rows of %d columns: expected 1 to %d of 1 to %d", n, len(t.Columns), MaxRows, MaxColumns)
	}
	for i := range t.Columns {
		if err := t.Columns[i].check(n); err != nil {
			return fmt.Errorf("table: column %s: %w", t.Columns[i].Name, err)
		}
	}
	for _, l := range []*Labels{&t.Class, &t.Family, &t.Place} {
		if len(l.Of) != n {
			return fmt.Errorf("table: %d labels: expected %d", len(l.Of), n)
		}
		for r, k := range l.Of {
			if k < 0 || k >= len(l.Names) {
				return fmt.Errorf("table: row %d: label %d: expected 0 to %d", r, k, len(l.Names)-1)
			}
		}
	}
	if len(t.Group) != n || (t.Time != nil && len(t.Time) != n) {
		return errors.New("table: groups or times are fewer than rows")
	}
	return nil
}

func (c *Column) check(n int) error {
	if !c.IsWords() {
		if len(c.Num) != n {
			return fmt.Errorf("%d numbers: expected %d", len(c.Num), n)
		}
		for r, x := range c.Num {
			if math.IsInf(float64(x), 0) {
				return fmt.Errorf("row %d is infinite", r)
			}
		}
		return nil
	}
	if len(c.Word) != n {
		return fmt.Errorf("%d words: expected %d", len(c.Word), n)
	}
	for r, w := range c.Word {
		if w < -1 || int(w) >= len(c.Words) {
			return fmt.Errorf("row %d: word %d: expected -1 to %d", r, w, len(c.Words)-1)
		}
	}
	return nil
}

// Pick copies some rows into a table of their own, with the same names.
func (t *Table) Pick(rows []int) *Table {
	out := &Table{
		Class:  Labels{pick(t.Class.Of, rows), t.Class.Names},
		Family: Labels{pick(t.Family.Of, rows), t.Family.Names},
		Place:  Labels{pick(t.Place.Of, rows), t.Place.Names},
		Group:  pick(t.Group, rows),
	}
	if t.Time != nil {
		out.Time = pick(t.Time, rows)
	}
	for i := range t.Columns {
		c := t.Columns[i]
		if c.IsWords() {
			c.Word = pick(c.Word, rows)
		} else {
			c.Num = pick(c.Num, rows)
		}
		out.Columns = append(out.Columns, c)
	}
	return out
}

func pick[T any](from []T, rows []int) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = from[r]
	}
	return out
}

// Where lists the rows for which keep is true.
func (t *Table) Where(keep func(row int) bool) []int {
	var out []int
	for r := range t.Rows() {
		if keep(r) {
			out = append(out, r)
		}
	}
	return out
}
