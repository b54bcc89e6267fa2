package tabular

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// blobs is a table of n rows: normal ones about 0 with a word of their own, and
// three attacks about elsewhere, of which two share a class. Every fifth row is
// a copy of the row before.
func blobs(n int, seed uint64) *Table {
	rng := rand.New(rand.NewPCG(seed, 1))
	t := &Table{
		Columns: []Column{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "noise"}, {Name: "word", Words: []string{"x", "y", "z"}}},
		Class:   Labels{Names: []string{"normal", "low", "high"}},
		Family:  Labels{Names: []string{"normal", "low1", "low2", "high1"}},
		Place:   Labels{Names: []string{"p", "q"}},
	}
	for r := range n {
		if r%5 == 4 {
			for i := range t.Columns {
				c := &t.Columns[i]
				if c.IsWords() {
					c.Word = append(c.Word, c.Word[r-1])
				} else {
					c.Num = append(c.Num, c.Num[r-1])
				}
			}
			t.Class.Of, t.Family.Of = append(t.Class.Of, t.Class.Of[r-1]), append(t.Family.Of, t.Family.Of[r-1])
			t.Group = append(t.Group, t.Group[r-1])
		} else {
			f := max(0, rng.IntN(9)-5) // 6 of 9 are normal
			x, y := rng.NormFloat64(), rng.NormFloat64()
			far := []float64{0, -12, -9, 14}[f]
			t.Columns[0].Num = append(t.Columns[0].Num, float32(x))
			t.Columns[1].Num = append(t.Columns[1].Num, float32(x+0.1*y+far*float64(f%2)))
			t.Columns[2].Num = append(t.Columns[2].Num, float32(y+far))
			t.Columns[3].Num = append(t.Columns[3].Num, rng.Float32())
			t.Columns[4].Word = append(t.Columns[4].Word, int32(min(f, rng.IntN(3))))
			t.Class.Of, t.Family.Of = append(t.Class.Of, []int{0, 1, 1, 2}[f]), append(t.Family.Of, f)
			t.Group = append(t.Group, r)
		}
		t.Place.Of, t.Time = append(t.Place.Of, rng.IntN(2)), append(t.Time, rng.Float64())
	}
	return t
}

// apartBy wants two sides that make the whole and share no key.
func apartBy(t *testing.T, rows int, first, second []int, key []int) {
	t.Helper()
	all := slices.Sorted(slices.Values(slices.Concat(first, second)))
	if len(all) != rows || len(slices.Compact(all)) != rows {
		t.Fatalf("%d and %d rows do not make %d", len(first), len(second), rows)
	}
	on := map[int]bool{}
	for _, r := range first {
		on[key[r]] = true
	}
	for _, r := range second {
		if on[key[r]] {
			t.Fatalf("row %d has a twin on the other side", r)
		}
	}
}

func TestSplitsDoNotLeak(t *testing.T) {
	tab := blobs(3000, 1)
	if err := tab.Validate(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(5) {
		a, b := tab.ByGroup(0.7, seed)
		apartBy(t, tab.Rows(), a, b, tab.Group)
		if share := float64(len(a)) / 3000; share < 0.67 || share > 0.73 {
			t.Fatalf("%v of the rows on the first side", share)
		}
		for k := range tab.Class.Names { // every class on both sides, in its share
			is := func(r int) bool { return tab.Class.Of[r] == k }
			in, of := len(slices.DeleteFunc(slices.Clone(a), func(r int) bool { return !is(r) })), len(tab.Where(is))
			if s := float64(in) / float64(of); s < 0.6 || s > 0.8 {
				t.Fatalf("%v of class %d on the first side", s, k)
			}
		}
		fold := tab.Folds(4, seed)
		for k := range 4 {
			apartBy(t, tab.Rows(), tab.Where(func(r int) bool { return fold[r] == k }), tab.Where(func(r int) bool { return fold[r] != k }), tab.Group)
		}
	}
	a, b := tab.ByGroup(0.7, 1)
	c, d := tab.ByGroup(0.7, 1)
	e, _ := tab.ByGroup(0.7, 2)
	if !reflect.DeepEqual(a, c) || !reflect.DeepEqual(b, d) || reflect.DeepEqual(a, e) {
		t.Fatal("splits do not follow their seed")
	}
}

func TestByTimeAndPlace(t *testing.T) {
	tab := blobs(1000, 2)
	a, b, err := tab.ByTime(0.7)
	if err != nil {
		t.Fatal(err)
	}
	for p := range 2 {
		last, first := -1.0, 2.0
		for _, r := range a {
			if tab.Place.Of[r] == p {
				last = max(last, tab.Time[r])
			}
		}
		for _, r := range b {
			if tab.Place.Of[r] == p {
				first = min(first, tab.Time[r])
			}
		}
		if last > first {
			t.Fatalf("place %d: training goes on to %v, the test begins at %v", p, last, first)
		}
	}
	here, there := tab.ByPlace(1)
	apartBy(t, tab.Rows(), here, there, tab.Place.Of)
	tab.Time = nil
	if _, _, err := tab.ByTime(0.7); !errors.Is(err, ErrNoSplit) {
		t.Fatalf("without times: %v", err)
	}
	without := tab.WithoutClass(firstRows(tab.Rows()), 2)
	if slices.ContainsFunc(without, func(r int) bool { return tab.Class.Of[r] == 2 }) || len(without) == 0 {
		t.Fatal("a class that was left out is there")
	}
}

func firstRows(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestPickKeepsRowsTogether(t *testing.T) {
	tab := blobs(100, 3)
	p := tab.Pick([]int{7, 3, 7})
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	if p.Columns[0].Num[1] != tab.Columns[0].Num[3] || p.Columns[4].Word[0] != tab.Columns[4].Word[7] || p.Family.Of[2] != tab.Family.Of[7] || p.Group[0] != p.Group[2] {
		t.Fatalf("%+v", p)
	}
}
