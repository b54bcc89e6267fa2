package xdp

import (
	"unsafe"

	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// generation is a view of the memory that the programs read.
type generation struct {
	head  *kernelBulkHead
	cells []kernelBulkCell
}

func asCell6(c *kernelBulkCell) *kernelBulkCell6 {
	return (*kernelBulkCell6)(unsafe.Pointer(c)) // both are the same 64 bytes
}

// census is what a walk over all cells found.
type census struct {
	living  uint64 // entries that a packet would find and that act now
	expired uint64
	lost    uint64 // entries that no packet finds: damage
}

// census walks the tables and follows, for each entry, the way of a packet to
// it: an entry that lies in memory but is not found does not count as enforced.
// now is in seconds since the generation's base.
func (g generation) census(now uint64) census {
	var c census
	s := seeds(g.head.Seed)
	count := func(meta uint32, found bool) {
		switch {
		case !found:
			c.lost++
		case metaUntil(meta) > now:
			c.living++
		default:
			c.expired++
		}
	}
	g.walk(g.head.Addrs, func(at uint32, key, meta uint32) {
		h := s.hash(key)
		count(meta, g.bloom(h) && g.near(g.head.Addrs, h, at))
	})
	g.walk(g.head.Nets, func(at uint32, key, meta uint32) {
		count(meta, g.marked(key) && g.near(g.head.Nets, s.hash(key), at))
	})
	g.walk6(func(at uint32, k key6, meta uint32) {
		h := s.hash6(k.Key6, int(k.bits))
		count(meta, g.bloom(h) && g.marked6(&s, k) && g.near6(h, at))
	})
	return c
}

// span are the cells of a table, those behind its last place included.
func (g generation) span(t kernelBulkTable) (from, to uint32) {
	n := uint64(len(g.cells))
	return uint32(min(uint64(t.At), n)), uint32(min(uint64(t.At)+uint64(t.N)+bulkHops-1, n))
}

func (g generation) walk(t kernelBulkTable, visit func(at uint32, key, meta uint32)) {
	for at, to := g.span(t); at < to; at++ {
		for _, w := range g.cells[at].W {
			if w>>32 != 0 {
				visit(at, uint32(w), uint32(w>>32))
			}
		}
	}
}

func (g generation) walk6(visit func(at uint32, k key6, meta uint32)) {
	for at, to := g.span(g.head.V6); at < to; at++ {
		c := asCell6(&g.cells[at])
		for i, meta := range c.Meta {
			if meta != 0 {
				visit(at, key6{policy.Key6{Hi: c.Hi[i], Lo: c.Lo[i]}, c.Bits[i]}, meta)
			}
		}
	}
}

func (g generation) bloom(hash uint64) bool {
	m := bloomMask(hash)
	return g.head.Bloom[scale(hash, g.head.BloomWords)&(bulkBloom-1)]&m == m
}

// near says whether a packet whose key hashes so reaches cell at.
func (g generation) near(t kernelBulkTable, hash uint64, at uint32) bool {
	home := t.At + scale(hash, t.N)
	if at < home || at-home >= bulkHops {
		return false
	}
	for ; home < at; home++ {
		for _, w := range g.cells[home].W {
			if w>>32 == 0 {
				return false
			}
		}
	}
	return true
}

func (g generation) near6(hash uint64, at uint32) bool {
	home := g.head.V6.At + scale(hash, g.head.V6.N)
	if at < home || at-home >= bulkHops {
		return false
	}
	for ; home < at; home++ {
		if asCell6(&g.cells[home]).Meta[bulkWays6-1] == 0 {
			return false
		}
	}
	return true
}

// marked says whether both ends of a prefix lead to it.
func (g generation) marked(key uint32) bool {
	addr, n := netOf(key)
	if n < 0 || uint64(g.head.Bits24.At)+cells24 > uint64(len(g.cells)) {
		return false
	}
	for _, a := range []uint32{addr, addr | uint32(1<<(32-n)-1)} {
		at16, at24 := a>>16, a>>8
		if g.head.Bits16[at16>>6]>>(at16&63)&1 == 0 || g.head.Lengths[at16]>>(32-n)&1 == 0 ||
			g.cells[g.head.Bits24.At+at24>>9].W[at24>>6&7]>>(at24&63)&1 == 0 {
			return false
		}
	}
	return true
}

func (g generation) marked6(s *seeds, k key6) bool {
	mask := g.head.Wide6
	if k.bits >= 32 {
		mask = g.head.Region6[regionOf(s, k.Hi)]
	}
	for i := range min(g.head.N_lengths6, policy.MaxBulkLengths) {
		if g.head.Lengths6[i] == k.bits {
			return mask>>i&1 == 1
		}
	}
	return false
}
