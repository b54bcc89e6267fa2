package tabular

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/learner/trees"
)

// How words become numbers for trees.
const (
	// OneHot is a column for each frequent word.
	OneHot = "one-hot"
	// Ordered is the share of attacks among earlier training rows of the same
	// word, in a random order (ordered target statistics, Prokhorenkova et al.
	// 2018): a row never tells its own label.
	Ordered = "ordered"
)

// frequent is how many training rows a word needs for a column of its own, and
// mostWords how many columns one column may become.
const (
	frequent  = 20
	mostWords = 64
	// prior weight of the overall share in an ordered statistic
	believed = 4
)

// wordColumns are the words of a column that have a column of their own.
func wordColumns(c *Column) []int32 {
	count := make([]int, len(c.Words))
	for _, w := range c.Word {
		if w >= 0 {
			count[w]++
		}
	}
	var out []int32
	for w, n := range count {
		if n >= frequent && n < len(c.Word) {
			out = append(out, int32(w))
		}
	}
	slices.SortStableFunc(out, func(a, b int32) int { return cmp.Compare(count[b], count[a]) })
	out = out[:min(len(out), mostWords)]
	slices.Sort(out)
	return out
}

// treeEncoder turns tables into numbers for trees.
type treeEncoder struct {
	names []string // of the columns made
	from  []int    // column of the table that each came from
	words [][]int32
	rate  [][]float32 // of each word, for Ordered
	how   string
}

// fitTrees learns the encoding on a training table and encodes it.
func fitTrees(t *Table, how string, seed uint64) (*treeEncoder, trees.Data) {
	e := &treeEncoder{how: how, words: make([][]int32, len(t.Columns)), rate: make([][]float32, len(t.Columns))}
	var d trees.Data
	add := func(i int, name string, col []float32) {
		d, e.names, e.from = append(d, col), append(e.names, name), append(e.from, i)
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		switch {
		case !c.IsWords():
			add(i, c.Name, c.Num)
		case how == Ordered:
			var col []float32
			col, e.rate[i] = ordered(c, t.Class.Of, seed+uint64(i))
			add(i, c.Name, col)
		default:
			e.words[i] = wordColumns(c)
			for _, w := range e.words[i] {
				add(i, c.Name+"="+c.Words[w], is(c, w))
			}
		}
	}
	return e, d
}

func is(c *Column, word int32) []float32 {
	out := make([]float32, len(c.Word))
	for r, w := range c.Word {
		if w == word {
			out[r] = 1
		}
	}
	return out
}

// ordered gives each row the share of attacks among the earlier rows of its
// word, and each word the share among all.
func ordered(c *Column, class []int, seed uint64) (col, rate []float32) {
	hits, rows := make([]float64, len(c.Words)), make([]float64, len(c.Words))
	var all float64
	for _, k := range class {
		if k != 0 {
			all++
		}
	}
	mean := all / float64(len(class))
	stat := func(w int32) float32 { return float32((hits[w] + believed*mean) / (rows[w] + believed)) }
	col = make([]float32, len(class))
	for _, r := range rand.New(rand.NewPCG(seed, 0x0bde)).Perm(len(class)) {
		w := c.Word[r]
		if w < 0 {
			col[r] = float32(math.NaN())
			continue
		}
		col[r] = stat(w)
		rows[w]++
		if class[r] != 0 {
			hits[w]++
		}
	}
	rate = make([]float32, len(c.Words))
	for w := range rate {
		rate[w] = stat(int32(w))
	}
	return col, rate
}

// apply encodes any table with the same columns.
func (e *treeEncoder) apply(t *Table) trees.Data {
	var d trees.Data
	for i := range t.Columns {
		c := &t.Columns[i]
		switch {
		case !c.IsWords():
			d = append(d, c.Num)
		case e.how == Ordered:
			col := make([]float32, len(c.Word))
			for r, w := range c.Word {
				if w < 0 {
					col[r] = float32(math.NaN())
				} else {
					col[r] = e.rate[i][w]
				}
			}
			d = append(d, col)
		default:
			for _, w := range e.words[i] {
				d = append(d, is(c, w))
			}
		}
	}
	return d
}

// netEncoder turns rows into inputs of a network: numbers as the signed
// logarithm, in standard deviations of the training rows, clipped; words as
// flags. What is absent is 0, and where a column is sometimes absent a flag
// says so.
type netEncoder struct {
	cols  []netColumn
	width int
}

type netColumn struct {
	mean, inv float32
	absent    bool    // sometimes absent in training
	words     []int32 // for a column of words
	isWords   bool
	skip      bool // says nothing in training
}

// clipNet is where a number stops to count more.
const clipNet = 5

func fitNet(t *Table) *netEncoder {
	e := &netEncoder{}
	for i := range t.Columns {
		c := &t.Columns[i]
		k := netColumn{isWords: c.IsWords()}
		if k.isWords {
			k.words = wordColumns(c)
			e.width += len(k.words)
		} else {
			k.fit(c.Num)
			if !k.skip {
				e.width++
			}
			if k.absent {
				e.width++
			}
		}
		e.cols = append(e.cols, k)
	}
	return e
}

func (k *netColumn) fit(num []float32) {
	var n, sum, sq float64
	for _, x := range num {
		if x != x {
			k.absent = true
			continue
		}
		z := signedLog(x)
		n, sum, sq = n+1, sum+z, sq+z*z
	}
	if n == 0 {
		k.skip, k.absent = true, false
		return
	}
	mean := sum / n
	sd := math.Sqrt(max(0, sq/n-mean*mean))
	k.mean, k.inv = float32(mean), float32(1/max(sd, minSpread))
}

// minSpread keeps a column that hardly moved in training from shouting at its
// first small move.
const minSpread = 0.03

func signedLog(x float32) float64 {
	return math.Copysign(math.Log1p(math.Abs(float64(x))), float64(x))
}

// apply encodes a table, row after row.
func (e *netEncoder) apply(t *Table) []float32 {
	out := make([]float32, t.Rows()*e.width)
	at := 0
	for i := range t.Columns {
		c, k := &t.Columns[i], &e.cols[i]
		if k.isWords {
			for _, w := range k.words {
				for r, x := range c.Word {
					if x == w {
						out[r*e.width+at] = 1
					}
				}
				at++
			}
			continue
		}
		if k.skip {
			continue
		}
		for r, x := range c.Num {
			if x == x {
				z := (float32(signedLog(x)) - k.mean) * k.inv
				out[r*e.width+at] = min(max(z, -clipNet), clipNet)
			} else if k.absent {
				out[r*e.width+at+1] = 1
			}
		}
		at++
		if k.absent {
			at++
		}
	}
	return out
}
