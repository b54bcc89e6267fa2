package feed

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// MaxFeeds is how many feeds one set may have.
const MaxFeeds = 64

// Source is one feed's list.
type Source struct {
	Name  string
	List  *List
	Until time.Time // end of every entry that does not name an earlier one itself
}

// Feeds is a set of feeds: bit i is the i-th source of Build.
type Feeds uint64

// Has says whether the i-th feed is in the set.
func (f Feeds) Has(i int) bool { return f>>i&1 == 1 }

// Entry is one network of the merged set.
type Entry struct {
	Prefix netip.Prefix
	Until  time.Time
	Feeds  Feeds // all that list it, or a network around it
}

// Part is what became of one source.
type Part struct {
	Name   string
	Given  int    // networks of the list
	Kept   int    // of them enforced, in whole or in parts
	Counts Counts // of the others, and of those that were split
}

// Set is the merge of all sources.
type Set struct {
	Parts []Part

	cells [families][]cell
}

// cell is an entry in the making. Its order is that of its block.
type cell struct {
	block
	until uint32
	feeds Feeds
}

func (c *cell) same(d *cell) bool { return c.until == d.until && c.feeds == d.feeds }

// Len is the number of entries.
func (s *Set) Len() int { return len(s.cells[v4]) + len(s.cells[v6]) }

// Each calls f for every entry in order, IPv4 first. Entries may lie inside each
// other: then the inner one has all that is true of the outer one too.
func (s *Set) Each(f func(Entry)) {
	for family, cells := range s.cells {
		for i := range cells {
			c := &cells[i]
			f(Entry{Prefix: c.prefix(family), Until: time.Unix(int64(c.until), 0), Feeds: c.feeds})
		}
	}
}

// Has says which feeds list an address, after the guard. It is the set's own
// answer, to be compared with what a packet path enforces.
func (s *Set) Has(a netip.Addr) (e Entry, ok bool) {
	if !a.IsValid() {
		return e, false
	}
	a = a.Unmap().WithZone("")
	b, family := blockOf(netip.PrefixFrom(a, a.BitLen()))
	cells := s.cells[family]
	for n := width[family]; n >= 0; n-- {
		want := block{b.and(mask(n)), uint8(n)}
		if i, found := slices.BinarySearchFunc(cells, want, func(c cell, w block) int { return c.compare(w) }); found {
			c := &cells[i]
			return Entry{Prefix: c.prefix(family), Until: time.Unix(int64(c.until), 0), Feeds: c.feeds}, true
		}
	}
	return e, false
}

// Build merges sources. What the guard refuses, splits, or what has expired is
// told to note with the index of its source (nil tells nobody). maxEntries
// bounds the merged set; 0 sets no bound.
func Build(now time.Time, sources []Source, g *Guard, maxEntries int, note func(source int, n Note)) (*Set, error) {
	if len(sources) > MaxFeeds {
		return nil, fmt.Errorf("%d feeds: at most %d can be merged", len(sources), MaxFeeds)
	}
	if g != nil && !g.sorted {
		return nil, errors.New("guard is not sealed")
	}
	if note == nil {
		note = func(int, Note) {}
	}
	if g == nil {
		g = &Guard{sorted: true}
	}
	s := &Set{}
	for i, src := range sources {
		s.gather(now, i, src, g, note)
		if n := s.Len(); maxEntries > 0 && n > 4*maxEntries {
			return nil, fmt.Errorf("feed %s: %d entries so far, before the merge: at most %d are enforced after it", src.Name, n, maxEntries)
		}
	}
	for family := range s.cells {
		s.cells[family] = merge(s.cells[family], widest[family])
	}
	if n := s.Len(); maxEntries > 0 && n > maxEntries {
		return nil, fmt.Errorf("%d entries: at most %d can be enforced: raise min_score, or leave a feed out", n, maxEntries)
	}
	return s, nil
}

// gather puts one source through the guard.
func (s *Set) gather(now time.Time, index int, src Source, g *Guard, note func(int, Note)) {
	p := Part{Name: src.Name, Given: src.List.Len(), Counts: Counts{}}
	tell := func(n Note) {
		p.Counts[n.Kind]++
		note(index, n)
	}
	own := src.List.exceptions()
	end, past := seconds(src.Until), seconds(now)
	for family, items := range src.List.items {
		s.cells[family] = slices.Grow(s.cells[family], len(items))
		for _, it := range items {
			until := min(it.until, end)
			if until <= past {
				tell(Note{Line: int(it.line), Value: text(family, it.block), Kind: Outdated})
				continue
			}
			kept := 0
			g.filter(family, it, tell, func(b block) {
				own.filter(family, item{b, it.until, it.line}, tell, func(b block) {
					s.cells[family] = append(s.cells[family], cell{b, until, 1 << index})
					kept++
				})
			})
			if kept > 0 {
				p.Kept++
			}
		}
	}
	s.Parts = append(s.Parts, p)
}

// exceptions are what the list itself takes out, as a guard.
func (l *List) exceptions() *Guard {
	g := &Guard{sources: []source{{Exception, "nomatch in the same file"}}}
	for family, items := range l.except {
		for _, it := range items {
			g.nets[family] = append(g.nets[family], protected{it.block, 0})
		}
	}
	g.Seal()
	return g
}

// merge brings cells into order and joins them, without changing for any
// address which feeds list it and until when:
//
//   - equal networks become one; a network inside another takes over what is
//     true of the outer one, and goes when nothing is left that is its own;
//   - two halves of a network with the same feeds and end become that network,
//     up to the width that feeds may list.
func merge(cells []cell, minBits int) []cell {
	slices.SortFunc(cells, func(a, b cell) int { return a.compare(b.block) })
	return flatten(aggregate(flatten(cells), minBits))
}

// flatten joins equal networks, hands down what holds for outer ones, and drops
// what says nothing new. cells are in order.
func flatten(cells []cell) []cell {
	var around [129]int // indices in out of the networks around the present one
	depth := 0
	out := cells[:0]
	for i := 0; i < len(cells); {
		c := cells[i]
		for i++; i < len(cells) && cells[i].block == c.block; i++ {
			c.feeds |= cells[i].feeds
			c.until = max(c.until, cells[i].until)
		}
		for depth > 0 && !out[around[depth-1]].contains(c.block) {
			depth--
		}
		if depth > 0 {
			outer := &out[around[depth-1]]
			c.feeds |= outer.feeds
			c.until = max(c.until, outer.until)
			if c.same(outer) {
				continue
			}
		}
		around[depth] = len(out)
		depth++
		out = append(out, c)
	}
	return out
}

// aggregate joins halves, from the narrowest networks to the widest that is
// allowed. cells are in order, each network once; so is the result.
func aggregate(cells []cell, minBits int) []cell {
	var byBits [129][]cell
	var count [129]int
	for i := range cells {
		count[cells[i].bits]++
	}
	for i := range cells {
		c := &cells[i]
		if byBits[c.bits] == nil {
			byBits[c.bits] = make([]cell, 0, count[c.bits])
		}
		byBits[c.bits] = append(byBits[c.bits], *c)
	}
	out := cells[:0]
	var made []cell
	for bits := 128; bits >= 0; bits-- {
		level := overlay(byBits[bits], made)
		if bits <= minBits {
			out, made = append(out, level...), nil
			continue
		}
		out, made = pair(level, out)
		byBits[bits] = nil
	}
	slices.SortFunc(out, func(a, b cell) int { return a.compare(b.block) })
	return out
}

// pair joins the halves in a level; what has no other half goes to out.
func pair(level, out []cell) (kept, made []cell) {
	for i := 0; i < len(level); i++ {
		if i+1 < len(level) && siblings(level[i].block, level[i+1].block) && level[i].same(&level[i+1]) {
			made = append(made, cell{level[i].parent(), level[i].until, level[i].feeds})
			i++
			continue
		}
		out = append(out, level[i])
	}
	return out, made
}

// overlay merges two ordered levels. Where both have a network the joined one
// holds: its halves say what is true of every address in it.
func overlay(level, made []cell) []cell {
	if len(made) == 0 {
		return level
	}
	out := make([]cell, 0, len(level)+len(made))
	for len(level) > 0 && len(made) > 0 {
		switch c := level[0].compare(made[0].block); {
		case c < 0:
			out, level = append(out, level[0]), level[1:]
		case c == 0:
			level = level[1:]
		default:
			out, made = append(out, made[0]), made[1:]
		}
	}
	return append(append(out, level...), made...)
}
