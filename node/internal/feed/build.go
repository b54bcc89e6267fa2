package feed

import (
	"cmp"
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
	Out    string // why the whole source was left out, "" when it was not
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

// Limits bound a merged set. Zero fields set no bound.
type Limits struct {
	Entries  int // all
	Networks int // of them, those of more than one address
	Lengths  int // different ones, of IPv6 networks
}

// Build merges sources. What the guard refuses, splits, or what has expired is
// told to note with the index of its source (nil tells nobody). A set that is too
// large is built without its largest source, whose Part says so: a list that
// grew out of hand does not keep the others from being renewed.
func Build(now time.Time, sources []Source, g *Guard, limits Limits, note func(source int, n Note)) (*Set, error) {
	if len(sources) > MaxFeeds {
		return nil, fmt.Errorf("%d feeds: at most %d can be merged", len(sources), MaxFeeds)
	}
	if g == nil {
		g = &Guard{sorted: true}
	}
	if !g.sorted {
		return nil, errors.New("guard is not sealed")
	}
	if note == nil {
		note = func(int, Note) {}
	}
	out := map[int]string{} // sources that do not fit, and why
	for {
		s := &Set{}
		for i, src := range sources {
			s.gather(now, i, src, g, out[i], note)
			if limits.Entries > 0 && s.Len() > 4*limits.Entries {
				break // no merge will make that fit
			}
		}
		why := s.finish(limits)
		if why == "" {
			return s, nil
		}
		largest := 0
		for i := range s.Parts {
			if s.Parts[i].Kept > s.Parts[largest].Kept {
				largest = i
			}
		}
		out[largest] = why
		note = func(int, Note) {} // all was told in the first round
	}
}

// finish merges the cells, and says why they do not fit.
func (s *Set) finish(limits Limits) string {
	if limits.Entries > 0 && s.Len() > 4*limits.Entries {
		return tooMany(s.Len(), limits.Entries, "entries before the merge")
	}
	for family := range s.cells {
		s.cells[family] = merge(s.cells[family], widest[family])
	}
	s.fit(limits)
	if n := s.Len(); limits.Entries > 0 && n > limits.Entries {
		return tooMany(n, limits.Entries, "entries")
	}
	if n := s.networks(); limits.Networks > 0 && n > limits.Networks {
		return tooMany(n, limits.Networks, "networks")
	}
	return ""
}

func tooMany(n, limit int, what string) string {
	return fmt.Sprintf("with it there are %d %s, and at most %d can be enforced: raise min_score or feeds.max_entries", n, what, limit)
}

// fit trades networks for addresses, and rare lengths of IPv6 for common ones,
// where a packet path has no room for more. It says the same of every address.
func (s *Set) fit(limits Limits) {
	for bits := uint8(31); limits.Networks > 0 && s.networks() > limits.Networks && bits >= 28; bits-- {
		s.cells[v4] = spread(s.cells[v4], func(n uint8) uint8 {
			if n >= bits {
				return 32
			}
			return n
		})
	}
	if limits.Lengths > 0 && lengths(s.cells[v6]) > limits.Lengths {
		room := 4*limits.Entries + 1<<20
		s.cells[v6] = spread(s.cells[v6], func(n uint8) uint8 {
			if n <= host6 {
				return n
			}
			if room -= 1 << (7 - (n-1)%8); room < 0 {
				return n
			}
			return (n + 7) / 8 * 8
		})
	}
}

// spread replaces networks by all networks of the length that to gives for
// theirs. cells are in order, and so is the result.
func spread(cells []cell, to func(bits uint8) uint8) []cell {
	out := make([]cell, 0, len(cells))
	for _, c := range cells {
		last := clip(c.end(), v6)
		c.bits = to(c.bits)
		for {
			out = append(out, c)
			next, carry := c.add(bitAt(int(c.bits) - 1))
			if carry != 0 || next.cmp(last) > 0 {
				break
			}
			c.wide = next
		}
	}
	slices.SortStableFunc(out, func(a, b cell) int { return a.compare(b.block) })
	return flatten(out)
}

func lengths(cells []cell) (n int) {
	var seen [129]bool
	for i := range cells {
		if b := cells[i].bits; !seen[b] {
			seen[b] = true
			n++
		}
	}
	return n
}

// networks is the number of entries with more than one address.
func (s *Set) networks() (n int) {
	for family, cells := range s.cells {
		for i := range cells {
			if int(cells[i].bits) < width[family] {
				n++
			}
		}
	}
	return n
}

// gather puts one source through the guard.
func (s *Set) gather(now time.Time, index int, src Source, g *Guard, out string, note func(int, Note)) {
	p := Part{Name: src.Name, Given: src.List.Len(), Counts: Counts{}, Out: out}
	if out != "" {
		s.Parts = append(s.Parts, p)
		return
	}
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
	if !slices.IsSortedFunc(cells, compareCells) {
		slices.SortFunc(cells, compareCells)
	}
	return flatten(aggregate(flatten(cells), minBits))
}

func compareCells(a, b cell) int { return a.compare(b.block) }

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
	var made []cell
	for bits := 128; bits > minBits; bits-- {
		byBits[bits], made = pair(overlay(byBits[bits], made))
	}
	byBits[minBits] = overlay(byBits[minBits], made)
	return mergeRuns(byBits[:])
}

// mergeRuns joins ordered runs into one, the short ones first: few networks are
// wide.
func mergeRuns(runs [][]cell) []cell {
	slices.SortFunc(runs, func(a, b []cell) int { return cmp.Compare(len(a), len(b)) })
	var all []cell
	for _, r := range runs {
		all = overlay(all, r)
	}
	return all
}

// pair joins the halves in a level; kept is what has no other half.
func pair(level []cell) (kept, made []cell) {
	kept = level[:0]
	for i := 0; i < len(level); i++ {
		if i+1 < len(level) && siblings(level[i].block, level[i+1].block) && level[i].same(&level[i+1]) {
			made = append(made, cell{level[i].parent(), level[i].until, level[i].feeds})
			i++
			continue
		}
		kept = append(kept, level[i])
	}
	return kept, made
}

// overlay merges two ordered levels. Where both have a network the joined one
// holds: its halves say what is true of every address in it.
func overlay(level, made []cell) []cell {
	if len(made) == 0 {
		return level
	}
	if len(level) == 0 {
		return made
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
