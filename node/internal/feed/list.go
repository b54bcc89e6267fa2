package feed

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// item is one network that a list names. A million of them take 32 MB.
type item struct {
	block
	until uint32 // seconds since the epoch; never says that the list set no end
	line  uint32 // where it stands first
}

const never = math.MaxUint32

func seconds(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), never-1))
}

// List is what was read of one file: networks in order and each once.
type List struct {
	Format Format
	Lines  int    // read, those without an entry among them
	Taken  int    // entries, duplicates and the parts of ranges not counted apart
	Counts Counts // what was not simply taken

	items  [families][]item
	except [families][]item // what ipset's nomatch takes out
}

// Len is the number of different networks.
func (l *List) Len() int { return len(l.items[v4]) + len(l.items[v6]) }

// Each calls f for each network in order, IPv4 first, with its line. until is
// zero where the list itself says no end.
func (l *List) Each(f func(p netip.Prefix, line int, until time.Time)) {
	for family, items := range l.items {
		for _, it := range items {
			var until time.Time
			if it.until != never {
				until = time.Unix(int64(it.until), 0)
			}
			f(it.prefix(family), int(it.line), until)
		}
	}
}

// Where finds the narrowest entry that holds a, and its line.
func (l *List) Where(a netip.Addr) (p netip.Prefix, line int, ok bool) {
	if !a.IsValid() {
		return p, 0, false
	}
	a = a.Unmap().WithZone("")
	b, family := blockOf(netip.PrefixFrom(a, a.BitLen()))
	items := l.items[family]
	for n := width[family]; n >= 0; n-- {
		want := block{b.and(mask(n)), uint8(n)}
		if i, found := slices.BinarySearchFunc(items, want, func(it item, w block) int { return it.compare(w) }); found {
			return want.prefix(family), int(items[i].line), true
		}
	}
	return p, 0, false
}

// collector gathers a list while it is read.
type collector struct {
	list *List
	o    Options
	note func(Note)
	line int
}

// tell counts a line that was not simply taken, and passes it on.
func (c *collector) tell(k Kind, value, detail string) {
	c.list.Counts[k]++
	c.note(Note{Line: c.line, Value: printable(value), Kind: k, Detail: printable(detail)})
}

// token takes one token, or tells why not. An error ends the reading.
func (c *collector) token(tok []byte, until uint32) error {
	p := parseToken(tok)
	if p.kind == TooWide && c.o.Warning && p.one.bits >= widestWarned[p.family] {
		p.kind = "" // to protect the whole of multicast does no harm
	}
	if p.kind != "" {
		c.tell(p.kind, string(tok), p.detail)
	}
	if !p.taken() {
		return c.garbage()
	}
	c.list.Taken++
	return c.take(p, until, &c.list.items)
}

// take stores the networks of a token.
func (c *collector) take(p parsed, until uint32, into *[families][]item) error {
	if !p.ranged {
		return c.put(p.family, p.one, until, into)
	}
	var err error
	cover(p.one.wide, p.last, p.family, func(b block) {
		if err == nil {
			err = c.put(p.family, b, until, into)
		}
	})
	return err
}

func (c *collector) put(family int, b block, until uint32, into *[families][]item) error {
	if len(into[v4])+len(into[v6]) >= c.o.MaxEntries {
		return fmt.Errorf("more than %d entries: raise max_entries if that is meant", c.o.MaxEntries)
	}
	into[family] = append(into[family], item{b, until, uint32(min(c.line, math.MaxUint32))})
	return nil
}

// maxGarbage lines that nobody can read end the reading, unless more than that
// could be read; so do maxNames names without any address.
const (
	maxGarbage = 10_000
	maxNames   = 1_000_000
)

func (c *collector) garbage() error {
	if n := c.list.Counts[Name]; n > maxNames && c.list.Taken == 0 {
		return fmt.Errorf("%d names and no address so far: this is a list of names, and only addresses can be listed", n)
	}
	if bad := c.list.Counts[Malformed]; bad > maxGarbage && bad > c.list.Taken {
		return fmt.Errorf("%d lines hold no address or network, and %d do: this is no list of format %s", bad, c.list.Taken, c.list.Format)
	}
	return nil
}

// finish puts the list in order, each network once, its line the first one. Of
// several ends the latest holds.
func (c *collector) finish() *List {
	for family := range c.list.items {
		c.list.items[family] = c.unique(family, c.list.items[family])
		slices.SortFunc(c.list.except[family], func(a, b item) int { return a.compare(b.block) })
	}
	return c.list
}

func compareItems(a, b item) int {
	if x := a.compare(b.block); x != 0 {
		return x
	}
	return cmp.Compare(a.line, b.line)
}

func (c *collector) unique(family int, items []item) []item {
	if !slices.IsSortedFunc(items, compareItems) {
		slices.SortFunc(items, compareItems)
	}
	out := items[:0]
	for _, it := range items {
		if n := len(out); n > 0 && out[n-1].block == it.block {
			out[n-1].until = max(out[n-1].until, it.until)
			c.line = int(it.line)
			c.tell(Duplicate, it.prefix(family).String(), fmt.Sprintf("first on line %d", out[n-1].line))
			continue
		}
		out = append(out, it)
	}
	return slices.Clip(out)
}
