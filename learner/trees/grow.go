package trees

import (
	"slices"
	"sync"
)

// cell is one bin of a histogram.
type cell struct{ g, h float64 }

// grower is the memory for one tree at a time.
type grower struct {
	rows, spare []int32 // the sample, leaf after leaf
	grad, gap   []pair  // in the order of rows
	ends        []int32 // rows[ends[l-1]:ends[l]] are leaf l
	hist, next  [][]cell
	best        []choice // of each column asked
}

// choice is the best question of one column.
type choice struct {
	gain   float64
	border int
}

// grow fits a tree to the derivatives of the sample.
func (b *booster) grow() Tree {
	g := &b.grow1
	g.begin(b)
	t := Tree{}
	total := g.whole(b.o.L2)
	for depth := range b.o.Depth {
		b.histograms(depth)
		at := 0
		for i := range b.cols {
			if g.best[i].gain > g.best[at].gain {
				at = i
			}
		}
		if len(b.cols) == 0 || !(g.best[at].gain > total*(1+1e-9)+1e-9) {
			break // no question tells more than what is known
		}
		total = g.best[at].gain
		c := b.cols[at]
		t.Column = append(t.Column, uint16(c))
		t.Border = append(t.Border, uint8(g.best[at].border))
		g.part(b.data.cols[c], uint8(g.best[at].border)+1)
		g.hist, g.next = g.next, g.hist
	}
	b.leaves(&t)
	return t
}

func (g *grower) begin(b *booster) {
	g.rows = append(g.rows[:0], b.rows...)
	g.spare = slices.Grow(g.spare[:0], len(g.rows))[:len(g.rows)]
	g.grad = slices.Grow(g.grad[:0], len(g.rows))[:len(g.rows)]
	g.gap = slices.Grow(g.gap[:0], len(g.rows))[:len(g.rows)]
	for i, r := range g.rows {
		g.grad[i] = b.grad[r]
	}
	g.ends = append(g.ends[:0], int32(len(g.rows)))
	g.best = slices.Grow(g.best[:0], len(b.cols))[:len(b.cols)]
	for len(g.hist) < len(b.cols) {
		g.hist, g.next = append(g.hist, nil), append(g.next, nil)
	}
}

// whole is what the sample explains unparted.
func (g *grower) whole(l2 float64) float64 {
	var s cell
	for _, p := range g.grad {
		s.g, s.h = s.g+float64(p.g), s.h+float64(p.h)
	}
	return s.g * s.g / (s.h + l2)
}

// histograms sums the leaves of this level for every column and finds the best
// question of each. Columns are shared out among workers.
func (b *booster) histograms(depth int) {
	work := func(i int) {
		c := b.cols[i]
		b.grow1.sum(i, b.data.cols[c], len(b.data.borders[c])+2, depth)
		b.grow1.best[i] = b.grow1.ask(i, len(b.data.borders[c]), b.o.L2)
	}
	if b.o.Workers == 1 {
		for i := range b.cols {
			work(i)
		}
		return
	}
	var wg sync.WaitGroup
	for w := range b.o.Workers {
		wg.Go(func() {
			for i := w; i < len(b.cols); i += b.o.Workers {
				work(i)
			}
		})
	}
	wg.Wait()
}

// sum makes next[i], the histograms of a column's leaves: of two siblings the
// smaller is summed, the other is what the parent has beyond it.
func (g *grower) sum(i int, col []uint8, bins, depth int) {
	n := len(g.ends) * bins
	if cap(g.next[i]) < n {
		g.next[i] = make([]cell, n)
	}
	next := g.next[i][:n]
	g.next[i] = next
	clear(next)
	if depth == 0 {
		g.count(next, col, 0)
		return
	}
	for l := 0; l < len(g.ends); l += 2 {
		small, large := l, l+1
		if g.size(l) > g.size(l+1) {
			small, large = l+1, l
		}
		s, o := next[small*bins:(small+1)*bins], next[large*bins:(large+1)*bins]
		g.count(s, col, small)
		for k, p := range g.hist[i][l/2*bins : (l/2+1)*bins] {
			o[k] = cell{p.g - s[k].g, p.h - s[k].h}
		}
	}
}

func (g *grower) first(leaf int) int32 {
	if leaf == 0 {
		return 0
	}
	return g.ends[leaf-1]
}

func (g *grower) size(leaf int) int32 { return g.ends[leaf] - g.first(leaf) }

func (g *grower) count(into []cell, col []uint8, leaf int) {
	from, to := g.first(leaf), g.ends[leaf]
	grad := g.grad[from:to]
	for j, r := range g.rows[from:to] {
		c := &into[col[r]]
		c.g += float64(grad[j].g)
		c.h += float64(grad[j].h)
	}
}

// ask finds the border at which the leaves of all nodes, parted, explain most.
func (g *grower) ask(i, borders int, l2 float64) choice {
	var gain [MaxBins]float64
	bins := borders + 2
	for l := range g.ends {
		leaf := g.next[i][l*bins : (l+1)*bins]
		var all, low cell
		for _, c := range leaf {
			all.g, all.h = all.g+c.g, all.h+c.h
		}
		if !(all.h > 1e-9) {
			continue
		}
		last := 0.0
		for k := range borders + 1 {
			if k > 0 && leaf[k] == (cell{}) {
				gain[k-1] += last
				continue
			}
			low.g, low.h = low.g+leaf[k].g, low.h+leaf[k].h
			hg, hh := all.g-low.g, all.h-low.h
			last = low.g*low.g/(max(low.h, 0)+l2) + hg*hg/(max(hh, 0)+l2)
			if k > 0 {
				gain[k-1] += last
			}
		}
	}
	best := choice{gain[0], 0}
	for k := 1; k < borders; k++ {
		if gain[k] > best.gain {
			best = choice{gain[k], k}
		}
	}
	return best
}

// part cuts every leaf in two, those whose bin is above to the right, and keeps
// the order of rows within each.
func (g *grower) part(col []uint8, above uint8) {
	ends := make([]int32, 0, 2*len(g.ends))
	at, from := int32(0), int32(0)
	for _, end := range g.ends {
		at = g.move(col, above, from, end, at, false)
		ends = append(ends, at)
		at = g.move(col, above, from, end, at, true)
		ends = append(ends, at)
		from = end
	}
	g.ends = ends
	g.rows, g.spare = g.spare, g.rows
	g.grad, g.gap = g.gap, g.grad
}

func (g *grower) move(col []uint8, above uint8, from, to, at int32, high bool) int32 {
	for j := from; j < to; j++ {
		if (col[g.rows[j]] > above) == high {
			g.spare[at], g.gap[at] = g.rows[j], g.grad[j]
			at++
		}
	}
	return at
}

// leaves values a grown tree's leaves by one Newton step, and counts how much
// of the sample lies in each. The growing order has the first question as the
// highest bit, the table as the lowest.
func (b *booster) leaves(t *Tree) {
	g := &b.grow1
	t.Leaf, t.Cover = make([]float32, len(g.ends)), make([]float32, len(g.ends))
	for l := range g.ends {
		var s cell
		for _, p := range g.grad[g.first(l):g.ends[l]] {
			s.g, s.h = s.g+float64(p.g), s.h+float64(p.h)
		}
		at := 0
		for q := range t.Column {
			at |= (l >> (len(t.Column) - 1 - q) & 1) << q
		}
		t.Leaf[at] = float32(-b.o.Rate * s.g / (s.h + b.o.L2))
		t.Cover[at] = float32(g.size(l))
	}
}
