package trees

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
)

// ForestOptions say how to grow a random forest. Zero values take the defaults.
type ForestOptions struct {
	Trees   int     // default 100
	Columns int     // columns tried at each node; default the root of their number
	Bins    int     // 3 to 255; default 128
	Rows    float64 // rows drawn for each tree, with replacement, as a share; default 1
	Seed    uint64
}

// Forest is a random forest (Breiman 2001): deep trees, each on rows drawn with
// replacement, trying a few random columns at each node. It is what our models
// are measured beside, not part of them, so it is neither stored nor shared.
type Forest struct {
	columns, classes int
	borders          [][]float32
	trees            [][]node
	leaves           [][]float32 // shares of the classes, leaf after leaf
}

// node asks whether the value is in a bin above; else it is a leaf.
type node struct {
	column int32 // -1: a leaf
	above  uint8
	high   int32 // node for yes; the node for no follows this one. Of a leaf, its place in leaves
}

// smallNode is below which sorting is quicker than clearing a histogram.
const smallNode = 96

// GrowForest learns classes 0 to classes-1 of rows.
func GrowForest(ctx context.Context, d Data, class []int, weight []float32, classes int, o ForestOptions) (*Forest, error) {
	if o.Trees == 0 {
		o.Trees = 100
	}
	if o.Bins == 0 {
		o.Bins = 128
	}
	if o.Rows == 0 {
		o.Rows = 1
	}
	if o.Columns == 0 {
		o.Columns = max(1, int(math.Sqrt(float64(len(d)))))
	}
	if o.Trees < 1 || o.Trees > 10_000 || o.Bins < 3 || o.Bins > MaxBins || !(o.Rows > 0 && o.Rows <= 1) || o.Columns < 1 {
		return nil, fmt.Errorf("grow forest: options %+v: expected up to 10000 trees, 3 to %d bins, a share of rows up to 1, at least one column", o, MaxBins)
	}
	if err := errors.Join(d.check(), checkTarget(d.Rows(), class, weight, classes)); err != nil {
		return nil, fmt.Errorf("grow forest: %w", err)
	}
	b := newBinned(d, o.Bins, o.Seed)
	f := &Forest{columns: len(d), classes: classes, borders: b.borders}
	p := &planter{data: b, class: class, weight: weight, f: f, tries: min(o.Columns, len(d)), rng: rand.New(rand.NewPCG(o.Seed, 0xf0e57))}
	p.hist = make([]float64, MaxBins*classes)
	for c := range d {
		if len(b.borders[c]) > 0 {
			p.cols = append(p.cols, c)
		}
	}
	for t := range o.Trees {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("grow forest: tree %d of %d: %w", t, o.Trees, err)
		}
		f.trees = append(f.trees, p.plant(int(math.Ceil(o.Rows*float64(b.rows)))))
		runtime.Gosched()
	}
	return f, nil
}

// planter grows one tree at a time.
type planter struct {
	data   *binned
	class  []int
	weight []float32
	f      *Forest
	tries  int
	cols   []int
	rng    *rand.Rand
	hist   []float64 // bins by classes
	pairs  []uint32  // bin and class of a small node's rows
	times  []float32 // how often each row was drawn, times its weight
}

func (p *planter) plant(draws int) []node {
	p.times = make([]float32, p.data.rows)
	for range draws {
		p.times[p.rng.IntN(p.data.rows)]++
	}
	var rows []int32
	for r, n := range p.times {
		if n > 0 {
			if p.weight != nil {
				p.times[r] *= p.weight[r]
			}
			if p.times[r] > 0 {
				rows = append(rows, int32(r))
			}
		}
	}
	var nodes []node
	p.grow(&nodes, rows)
	return nodes
}

// grow appends the tree of these rows, the node for no first. Depth is bounded
// by the number of bins over all columns.
func (p *planter) grow(nodes *[]node, rows []int32) {
	share := make([]float64, p.f.classes)
	for _, r := range rows {
		share[p.class[r]] += float64(p.times[r])
	}
	at := len(*nodes)
	*nodes = append(*nodes, node{column: -1})
	column, above, ok := p.question(rows, share)
	if !ok {
		(*nodes)[at].high = int32(len(p.f.leaves))
		p.f.leaves = append(p.f.leaves, normal(share))
		return
	}
	col := p.data.cols[column]
	cut := 0 // low rows first
	for i, r := range rows {
		if col[r] <= above {
			rows[i], rows[cut] = rows[cut], r
			cut++
		}
	}
	p.grow(nodes, rows[:cut])
	(*nodes)[at] = node{int32(column), above, int32(len(*nodes))}
	p.grow(nodes, rows[cut:])
}

func normal(share []float64) []float32 {
	var sum float64
	for _, x := range share {
		sum += x
	}
	out := make([]float32, len(share))
	for i, x := range share {
		if sum > 0 {
			out[i] = float32(x / sum)
		}
	}
	return out
}

// question is the best of a few columns by Gini impurity. Columns that part
// nothing here do not count as tried.
func (p *planter) question(rows []int32, share []float64) (column int, above uint8, ok bool) {
	kinds := 0
	for _, x := range share {
		if x > 0 {
			kinds++
		}
	}
	if kinds < 2 {
		return 0, 0, false
	}
	best, tried := purity(share), 0
	for i := range p.cols {
		j := i + p.rng.IntN(len(p.cols)-i)
		p.cols[i], p.cols[j] = p.cols[j], p.cols[i]
		score, cut, parts := p.try(p.data.cols[p.cols[i]], len(p.data.borders[p.cols[i]])+2, rows, share)
		if !parts {
			continue
		}
		if score > best+1e-12 || !ok {
			best, column, above, ok = score, p.cols[i], cut, true
		}
		if tried++; tried == p.tries {
			break
		}
	}
	return column, above, ok
}

// purity is the sum of squares over the sum: greater is purer.
func purity(share []float64) float64 {
	var sum, sq float64
	for _, x := range share {
		sum, sq = sum+x, sq+x*x
	}
	if sum == 0 {
		return 0
	}
	return sq / sum
}

// try finds a column's best cut of these rows.
func (p *planter) try(col []uint8, bins int, rows []int32, share []float64) (score float64, cut uint8, parts bool) {
	low, high := make([]float64, len(share)), slices.Clone(share)
	look := func(b uint8) {
		if s := purity(low) + purity(high); !parts || s > score {
			score, cut, parts = s, b, true
		}
	}
	if len(rows) < smallNode {
		p.trySorted(col, rows, low, high, look)
		return score, cut, parts
	}
	n := len(share)
	hist := p.hist[:bins*n]
	clear(hist)
	for _, r := range rows {
		hist[int(col[r])*n+p.class[r]] += float64(p.times[r])
	}
	before := false
	for b := range bins {
		here := hist[b*n : (b+1)*n]
		if !slices.ContainsFunc(here, func(x float64) bool { return x > 0 }) {
			continue
		}
		if before {
			look(uint8(b - 1))
		}
		before = true
		for k, x := range here {
			low[k], high[k] = low[k]+x, high[k]-x
		}
	}
	return score, cut, parts
}

func (p *planter) trySorted(col []uint8, rows []int32, low, high []float64, look func(uint8)) {
	p.pairs = p.pairs[:0]
	for _, r := range rows {
		p.pairs = append(p.pairs, uint32(col[r])<<24|uint32(len(p.pairs)))
	}
	slices.Sort(p.pairs)
	for i, x := range p.pairs {
		if b := x >> 24; i > 0 && b != p.pairs[i-1]>>24 {
			look(uint8(b - 1))
		}
		r := rows[x&0xffffff]
		w := float64(p.times[r])
		low[p.class[r]] += w
		high[p.class[r]] -= w
	}
}

// Probabilities gives the classes' mean shares for all rows: [class][row].
func (f *Forest) Probabilities(d Data) ([][]float64, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("forest: %w", err)
	}
	if len(d) != f.columns {
		return nil, fmt.Errorf("forest: %d columns: expected %d", len(d), f.columns)
	}
	out := make([][]float64, f.classes)
	for k := range out {
		out[k] = make([]float64, d.Rows())
	}
	row := make([]uint8, f.columns)
	for r := range d.Rows() {
		for c := range d {
			row[c] = bin(f.borders[c], d[c][r])
		}
		for _, t := range f.trees {
			for k, x := range f.leaves[walk(t, row)] {
				out[k][r] += float64(x) / float64(len(f.trees))
			}
		}
	}
	return out, nil
}

func walk(t []node, row []uint8) int32 {
	at := int32(0)
	for t[at].column >= 0 {
		if row[t[at].column] > t[at].above {
			at = t[at].high
		} else {
			at++
		}
	}
	return t[at].high
}
