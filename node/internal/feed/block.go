package feed

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// wide is an unsigned number of 128 bits.
type wide struct{ hi, lo uint64 }

func (a wide) cmp(b wide) int {
	if c := cmp.Compare(a.hi, b.hi); c != 0 {
		return c
	}
	return cmp.Compare(a.lo, b.lo)
}

func (a wide) or(b wide) wide  { return wide{a.hi | b.hi, a.lo | b.lo} }
func (a wide) and(b wide) wide { return wide{a.hi & b.hi, a.lo & b.lo} }
func (a wide) xor(b wide) wide { return wide{a.hi ^ b.hi, a.lo ^ b.lo} }

func (a wide) add(b wide) (sum wide, carry uint64) {
	sum.lo, carry = bits.Add64(a.lo, b.lo, 0)
	sum.hi, carry = bits.Add64(a.hi, b.hi, carry)
	return sum, carry
}

// bitAt is 1 at position n, counted from the most significant bit.
func bitAt(n int) wide {
	if n < 64 {
		return wide{hi: 1 << (63 - n)}
	}
	return wide{lo: 1 << (127 - n)}
}

// mask has its first n bits set.
func mask(n int) wide {
	switch {
	case n <= 0:
		return wide{}
	case n <= 64:
		return wide{hi: ^uint64(0) << (64 - n)}
	}
	return wide{^uint64(0), ^uint64(0) << (128 - n)}
}

// Families index what is kept apart for IPv4 and IPv6.
const (
	v4 = iota
	v6
	families
)

var (
	width  = [families]int{32, 128}
	widest = [families]int{MinBits4, MinBits6}
)

// block is a prefix: IPv4 addresses stand in the first 32 bits, so that all
// arithmetic on prefixes is the same for both families.
type block struct {
	wide
	bits uint8
}

func blockOf(p netip.Prefix) (b block, family int) {
	b.bits = uint8(p.Bits())
	if a := p.Addr(); a.Is4() {
		x := a.As4()
		b.hi = uint64(binary.BigEndian.Uint32(x[:])) << 32
		return b, v4
	}
	x := p.Addr().As16()
	b.hi, b.lo = binary.BigEndian.Uint64(x[:8]), binary.BigEndian.Uint64(x[8:])
	return b, v6
}

func (b block) prefix(family int) netip.Prefix {
	var x [16]byte
	binary.BigEndian.PutUint64(x[:8], b.hi)
	binary.BigEndian.PutUint64(x[8:], b.lo)
	if family == v4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(x[:4])), int(b.bits))
	}
	return netip.PrefixFrom(netip.AddrFrom16(x), int(b.bits))
}

// compare orders by first address, and a network before those inside it.
func (b block) compare(c block) int {
	if x := b.cmp(c.wide); x != 0 {
		return x
	}
	return cmp.Compare(b.bits, c.bits)
}

func (b block) contains(c block) bool {
	return b.bits <= c.bits && c.and(mask(int(b.bits))) == b.wide
}

// end is the block's last address, with everything behind the family's width set.
func (b block) end() wide {
	m := mask(int(b.bits))
	return b.or(wide{^m.hi, ^m.lo})
}

func (b block) parent() block {
	n := int(b.bits) - 1
	return block{b.and(mask(n)), uint8(n)}
}

// halves of a block that is no single address.
func (b block) halves() (lower, upper block) {
	n := b.bits + 1
	return block{b.wide, n}, block{b.or(bitAt(int(b.bits))), n}
}

// siblings says whether a and b are the two halves of one block, a the lower.
func siblings(a, b block) bool {
	return a.bits == b.bits && a.bits > 0 && a.xor(b.wide) == bitAt(int(a.bits)-1) && a.cmp(b.wide) < 0
}

// cover calls emit for the fewest blocks that together are the addresses from
// first to last, both included, in order.
func cover(first, last wide, family int, emit func(block)) {
	for first.cmp(last) <= 0 {
		n := width[family]
		for n > 0 { // widen while the block begins here and ends within
			next := block{first, uint8(n - 1)}
			if first.and(mask(n-1)) != first || clip(next.end(), family).cmp(last) > 0 {
				break
			}
			n--
		}
		b := block{first, uint8(n)}
		emit(b)
		if n == 0 {
			return
		}
		var carry uint64
		if first, carry = first.add(bitAt(n - 1)); carry != 0 {
			return
		}
	}
}

// clip clears what is behind the family's width.
func clip(a wide, family int) wide { return a.and(mask(width[family])) }
