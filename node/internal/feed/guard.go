package feed

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
)

// maxHoles is how many protected networks a listed one may cover and still be
// taken without them. One that covers more says little about any of its parts.
const maxHoles = 64

// Guard holds networks that no feed may block. The zero value holds none; it is
// filled by Protect and may then be used by several goroutines.
type Guard struct {
	sources []source
	nets    [families][]protected
	sorted  bool
}

// source is who protects a network.
type source struct {
	kind Kind
	name string
}

type protected struct {
	block
	source int32
}

// Protect adds networks under a kind (Special, Own, Never, Warned) and a name
// that tells people where they come from. The first to protect a network names
// it. Call Seal after the last.
func (g *Guard) Protect(kind Kind, name string, nets ...netip.Prefix) {
	g.sources = append(g.sources, source{kind, name})
	for _, p := range nets {
		if p.IsValid() && !p.Addr().Is4In6() {
			b, family := blockOf(p.Masked())
			g.nets[family] = append(g.nets[family], protected{b, int32(len(g.sources) - 1)})
		}
	}
}

// A warning list that protects half of the world would make every feed void
// without a word: these are the widest networks that it may hold.
var widestWarned = [families]uint8{4, 7}

// Warn adds the networks of a warning list under its name and returns how many
// were taken. It should have been read with Options.Warning. Wider networks than
// /4 and, for IPv6, /7 are not taken.
func (g *Guard) Warn(name string, l *List) int {
	g.sources = append(g.sources, source{Warned, name})
	n := 0
	for family, items := range l.items {
		for _, it := range items {
			if it.bits >= widestWarned[family] {
				g.nets[family] = append(g.nets[family], protected{it.block, int32(len(g.sources) - 1)})
				n++
			}
		}
	}
	return n
}

// Seal puts the guard in order. Networks inside others go: what is left is
// disjoint.
func (g *Guard) Seal() {
	for family, nets := range g.nets {
		slices.SortStableFunc(nets, func(a, b protected) int { return a.compare(b.block) })
		out := nets[:0]
		for _, p := range nets {
			if n := len(out); n == 0 || !out[n-1].contains(p.block) {
				out = append(out, p)
			}
		}
		g.nets[family] = slices.Clip(out)
	}
	g.sorted = true
}

// Len is the number of protected networks, those inside others not counted.
func (g *Guard) Len() int { return len(g.nets[v4]) + len(g.nets[v6]) }

// Why says what protects an address, if anything does.
func (g *Guard) Why(a netip.Addr) (kind Kind, name string, net netip.Prefix, ok bool) {
	if !a.IsValid() {
		return "", "", net, false
	}
	a = a.Unmap().WithZone("")
	b, family := blockOf(netip.PrefixFrom(a, a.BitLen()))
	if p := g.holder(family, b); p != nil {
		s := g.sources[p.source]
		return s.kind, s.name, p.prefix(family), true
	}
	return "", "", net, false
}

// holder is the protected network that contains b.
func (g *Guard) holder(family int, b block) *protected {
	nets := g.nets[family]
	i := sort.Search(len(nets), func(i int) bool { return nets[i].compare(b) > 0 })
	if i > 0 && nets[i-1].contains(b) {
		return &nets[i-1]
	}
	return nil
}

// within are the protected networks inside b, in order.
func (g *Guard) within(family int, b block) []protected {
	nets := g.nets[family]
	i := sort.Search(len(nets), func(i int) bool { return nets[i].compare(b) >= 0 })
	j := i
	for j < len(nets) && b.contains(nets[j].block) {
		j++
	}
	return nets[i:j]
}

// filter passes to emit what of an item may be blocked: all, nothing, or the
// parts around what is protected.
func (g *Guard) filter(family int, it item, note func(Note), emit func(block)) {
	tell := func(k Kind, detail string) {
		note(Note{Line: int(it.line), Value: printable(text(family, it.block)), Kind: k, Detail: printable(detail)})
	}
	if p := g.holder(family, it.block); p != nil {
		s := g.sources[p.source]
		detail := s.name
		if p.block != it.block {
			detail += ", inside " + text(family, p.block)
		}
		tell(s.kind, detail)
		return
	}
	holes := g.within(family, it.block)
	if len(holes) == 0 {
		emit(it.block)
		return
	}
	first := g.sources[holes[0].source]
	if len(holes) > maxHoles {
		tell(first.kind, fmt.Sprintf("covers %d protected networks, %s (%s) the first", len(holes), text(family, holes[0].block), first.name))
		return
	}
	detail := "without " + text(family, holes[0].block) + " (" + first.name + ")"
	if len(holes) > 1 {
		detail += fmt.Sprintf(" and %d more", len(holes)-1)
	}
	tell(Split, detail)
	if family == v6 && it.bits <= host6 {
		holes = hosts(holes)
	}
	around(it.block, holes, emit)
}

// host6 is the network of one IPv6 site's link: nobody lists or protects less of
// it in earnest, and cutting out single addresses would cost a hundred prefixes
// of as many lengths.
const host6 = 64

// hosts widens holes to at least that.
func hosts(holes []protected) []protected {
	out := make([]protected, 0, len(holes))
	for _, h := range holes {
		if h.bits > host6 {
			h.block = block{h.and(mask(host6)), host6}
		}
		if n := len(out); n == 0 || out[n-1].block != h.block {
			out = append(out, h)
		}
	}
	return out
}

// around emits the parts of b outside the holes, in order. Holes are disjoint
// and inside b.
func around(b block, holes []protected, emit func(block)) {
	if len(holes) == 0 {
		emit(b)
		return
	}
	if holes[0].block == b {
		return
	}
	lower, upper := b.halves()
	i := 0
	for i < len(holes) && lower.contains(holes[i].block) {
		i++
	}
	around(lower, holes[:i], emit)
	around(upper, holes[i:], emit)
}

// text prints a single address without its length.
func text(family int, b block) string {
	p := b.prefix(family)
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// ProtectSpecial adds the special-purpose networks of RFC 6890 and its
// successors: what is there is no host on the Internet, and blocking it cuts
// off one's own.
func (g *Guard) ProtectSpecial() {
	for _, s := range special() {
		var nets []netip.Prefix
		for _, p := range s.nets {
			nets = append(nets, netip.MustParsePrefix(p))
		}
		g.Protect(Special, s.name, nets...)
	}
}

type specialNets struct {
	name string
	nets []string
}

func special() []specialNets {
	return []specialNets{
		{"private (RFC 1918)", []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}},
		{"unique local (RFC 4193)", []string{"fc00::/7"}},
		{"loopback", []string{"127.0.0.0/8", "::1/128"}},
		{"this network (RFC 791)", []string{"0.0.0.0/8"}},
		{"unspecified", []string{"::/128"}},
		{"link-local", []string{"169.254.0.0/16", "fe80::/10", "fec0::/10"}},
		{"shared by carriers (RFC 6598)", []string{"100.64.0.0/10"}},
		{"protocol assignments (RFC 6890)", []string{"192.0.0.0/24", "2001::/23"}},
		{"documentation", []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"}},
		{"benchmarking (RFC 2544)", []string{"198.18.0.0/15"}},
		{"multicast", []string{"224.0.0.0/4", "ff00::/8"}},
		{"reserved", []string{"240.0.0.0/4"}},
		{"IPv4 in IPv6", []string{"::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"}},
		{"discard (RFC 6666)", []string{"100::/64"}},
		{"segment routing (RFC 9602)", []string{"5f00::/16"}},
	}
}
