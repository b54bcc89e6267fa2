package xdp

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// Values of bpf/bulk.h that the code generator does not carry over.
const (
	bulkSlots     = 2
	bulkReasons   = 1024
	bulkBloom     = 1 << 18
	bulkRegions   = 8192
	bulkHops      = 16
	bulkWays      = 8
	bulkWays6     = 3
	reasonBits    = 10
	untilCoarse   = 1 << 21
	coarseShift   = 6
	cells24       = 1 << 24 / 512 // a bit for each /24
	bloomBitsEach = 16
)

// untilMeta packs an expiry, in seconds since base, and a reason's index into
// the meta of an entry. Beyond 24 days it is rounded down to 64 s; beyond four
// years it is four years.
func untilMeta(until uint64, reason uint16) uint32 {
	until = max(until, 1)
	if until >= untilCoarse {
		until = min(until>>coarseShift, untilCoarse-1) | untilCoarse
	}
	return uint32(until)<<reasonBits | uint32(reason)
}

// metaUntil is the expiry of a meta in seconds since base.
func metaUntil(meta uint32) uint64 {
	u := uint64(meta >> reasonBits)
	if u&untilCoarse != 0 {
		return (u &^ untilCoarse) << coarseShift
	}
	return u
}

func metaReason(meta uint32) uint16 { return uint16(meta & (bulkReasons - 1)) }

// seeds are the secret of a generation's hashes; see bulk_hash in bpf/bulk.h,
// which these functions repeat.
type seeds [4]uint64

func (s *seeds) hash(key uint32) uint64 {
	x := (uint64(key) ^ s[0]) * s[1]
	x ^= x >> 32
	return x * s[2]
}

func (s *seeds) hash6(k policy.Key6, n int) uint64 {
	x := (k.Hi ^ s[0]) * s[1]
	x ^= x >> 32
	x = (x + k.Lo) * s[2]
	x ^= x >> 32
	x = (x ^ s[3] ^ uint64(n)) * s[1]
	x ^= x >> 32
	return x * s[2]
}

func scale(hash uint64, n uint32) uint32 { return uint32((hash >> 32) * uint64(n) >> 32) }

func bloomMask(hash uint64) uint64 {
	return 1<<(hash>>2&63) | 1<<(hash>>8&63) | 1<<(hash>>14&63) | 1<<(hash>>20&63)
}

// netKey is a masked address and its length in one number: the first bit
// behind the prefix is set.
func netKey(addr uint32, n int) uint32 { return addr | 1<<(31-n) }

// netOf takes a netKey apart.
func netOf(key uint32) (addr uint32, n int) {
	b := bits.TrailingZeros32(key)
	return key &^ (1 << b), 31 - b
}

// item is an entry on its way into a table.
type item[K comparable] struct {
	hash uint64
	key  K
	meta uint32
}

type key6 struct {
	policy.Key6
	bits uint8
}

// partSize is how many items are sorted out at once: few enough for the cache.
const partSize = 4096

// partition brings n items in order of the upper bits of their hashes, which
// is also the order of their places in a table of any size, and drops
// duplicates: of equal keys the one stays that better says.
func partition[K comparable](n int, at func(i int) item[K], better func(a, b uint32) bool) []item[K] {
	if n == 0 {
		return nil
	}
	shift := 64 - min(bits.Len(uint(n/partSize)), 12)
	starts := make([]int, 1<<(64-shift)+1)
	for i := range n {
		starts[at(i).hash>>shift+1]++
	}
	for i := 1; i < len(starts); i++ {
		starts[i] += starts[i-1]
	}
	items := make([]item[K], n)
	next := slices.Clone(starts[:len(starts)-1])
	for i := range n {
		it := at(i)
		p := it.hash >> shift
		items[next[p]] = it
		next[p]++
	}
	kept := items[:0]
	var seen dedup[K]
	for p := range len(starts) - 1 {
		kept = seen.append(kept, items[starts[p]:starts[p+1]], better)
	}
	return kept
}

// dedup is a scratch hash table from the hash to an index of the output.
type dedup[K comparable] struct{ slots []int32 }

func (d *dedup[K]) append(out, in []item[K], better func(a, b uint32) bool) []item[K] {
	size := 1 << bits.Len(uint(2*len(in)))
	if len(d.slots) < size {
		d.slots = make([]int32, size)
	}
	slots := d.slots[:size]
	clear(slots)
	first := len(out)
	for i := range in {
		it := in[i]
		at := int(it.hash) & (size - 1)
		for ; ; at = (at + 1) & (size - 1) {
			if slots[at] == 0 {
				out = append(out, it)
				slots[at] = int32(len(out) - first)
				break
			}
			if was := &out[first+int(slots[at])-1]; was.hash == it.hash && was.key == it.key {
				if better(it.meta, was.meta) {
					was.meta = it.meta
				}
				break
			}
		}
	}
	return out
}

// plan is a bulk set in the form of the tables, before there is memory for them.
type plan struct {
	seed    seeds
	base    uint64 // seconds of boot time
	reasons []uint32
	addrs   []item[uint32]
	nets    []item[uint32] // keys are netKeys
	v6      []item[key6]
}

func newPlan(set *policy.BulkSet, seed seeds, base uint64, bootSeconds func(ns int64) uint64) *plan {
	p := &plan{seed: seed, base: base, reasons: set.Reasons}
	meta := newMetaMaker(base, bootSeconds)
	better := func(a, b uint32) bool {
		return policy.Outlives(int64(metaUntil(a)), int64(metaUntil(b)), p.reasons[metaReason(a)], p.reasons[metaReason(b)])
	}
	p.addrs = partition(len(set.Addrs4), func(i int) item[uint32] {
		e := &set.Addrs4[i]
		return item[uint32]{p.seed.hash(e.Addr), e.Addr, meta.of(e.Expires, e.Reason)}
	}, better)
	p.nets = partition(len(set.Nets4), func(i int) item[uint32] {
		e := &set.Nets4[i]
		k := netKey(e.Addr, int(e.Bits))
		return item[uint32]{p.seed.hash(k), k, meta.of(e.Expires, e.Reason)}
	}, better)
	p.v6 = partition(len(set.V6), func(i int) item[key6] {
		e := &set.V6[i]
		return item[key6]{p.seed.hash6(e.Key6, int(e.Bits)), key6{e.Key6, e.Bits}, meta.of(e.Expires, e.Reason)}
	}, better)
	return p
}

// metaMaker makes metas and remembers the last expiry: neighbours share it.
type metaMaker struct {
	base        uint64
	bootSeconds func(ns int64) uint64
	expires     int64
	until       uint64
}

func newMetaMaker(base uint64, bootSeconds func(ns int64) uint64) *metaMaker {
	return &metaMaker{base: base, bootSeconds: bootSeconds, expires: -1}
}

func (m *metaMaker) of(expires int64, reason uint16) uint32 {
	if expires != m.expires {
		m.expires = expires
		m.until = 1
		if s := m.bootSeconds(expires); s > m.base {
			m.until = s - m.base
		}
	}
	return untilMeta(m.until, reason)
}

// sizes counts single addresses and wider prefixes.
func (p *plan) sizes() (addrs, nets int) {
	addrs, nets = len(p.addrs), len(p.nets)
	for i := range p.v6 {
		if p.v6[i].key.bits == 128 {
			addrs++
		} else {
			nets++
		}
	}
	return addrs, nets
}

// layout says where the tables lie for a load factor, and how many cells there are.
type layout struct {
	addrs, nets, v6, bits24 kernelBulkTable
	cells                   uint32
}

// place gives every table the cells that it needs at a load (entries a cell of
// 8) and those that entries may spill into behind the last.
func (p *plan) layout(load float64) layout {
	var l layout
	put := func(t *kernelBulkTable, places uint32) {
		*t = kernelBulkTable{At: l.cells, N: places}
		l.cells += places + bulkHops - 1
	}
	places := func(n int, each float64) uint32 { return uint32(float64(n)/each) + 1 }
	put(&l.addrs, places(len(p.addrs), load))
	put(&l.nets, places(len(p.nets), load))
	put(&l.v6, places(len(p.v6), load*bulkWays6/bulkWays*0.75))
	if len(p.nets) > 0 {
		l.bits24 = kernelBulkTable{At: l.cells, N: cells24}
		l.cells += cells24
	}
	return l
}

// errCrowded says that an entry found no room near its place.
var errCrowded = errors.New("an entry is too far from its place")

// fill writes the tables. head and cells must be zero.
func (p *plan) fill(head *kernelBulkHead, cells []kernelBulkCell, l layout) error {
	head.Entries = uint64(len(p.addrs) + len(p.nets) + len(p.v6))
	head.Seed = p.seed
	head.Base = uint32(p.base)
	head.BloomWords = uint32(min(max((len(p.addrs)+len(p.v6))*bloomBitsEach/64, 1), bulkBloom))
	head.Addrs, head.Nets, head.V6, head.Bits24 = l.addrs, l.nets, l.v6, l.bits24
	head.N_reasons = uint32(copy(head.Reasons[:], p.reasons))
	for i := range p.addrs {
		head.Bloom[scale(p.addrs[i].hash, head.BloomWords)] |= bloomMask(p.addrs[i].hash)
	}
	if err := fillTable(cells, l.addrs, p.addrs); err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	if err := fillTable(cells, l.nets, p.nets); err != nil {
		return fmt.Errorf("prefixes: %w", err)
	}
	for i := range p.nets {
		markNet(head, cells, p.nets[i].key)
	}
	return p.fill6(head, cells, l.v6)
}

// fillTable puts items at their places or, where a cell is full, into the next.
func fillTable(cells []kernelBulkCell, t kernelBulkTable, items []item[uint32]) error {
	for i := range items {
		it := &items[i]
		if !putCell(cells[t.At+scale(it.hash, t.N):][:bulkHops], uint64(it.meta)<<32|uint64(it.key)) {
			return errCrowded
		}
	}
	return nil
}

func putCell(near []kernelBulkCell, w uint64) bool {
	for hop := range near {
		c := &near[hop].W
		if at := wayOf(uint32(w)); c[at] == 0 {
			c[at] = w
			return true
		}
		for i := range c {
			if c[i] == 0 {
				c[i] = w
				return true
			}
		}
	}
	return false
}

// wayOf is bulk_way of bpf/bulk.h.
func wayOf(key uint32) uint32 { return key * 0x9e3779b1 >> 29 }

// markNet sets what leads packets to a prefix: the bits of all /16 and /24 that
// it touches, and its length in each of the former.
func markNet(head *kernelBulkHead, cells []kernelBulkCell, key uint32) {
	addr, n := netOf(key)
	last := addr | uint32(1<<(32-n)-1)
	for at := addr >> 16; at <= last>>16; at++ {
		head.Bits16[at>>6] |= 1 << (at & 63)
		head.Lengths[at] |= 1 << (32 - n)
	}
	first24, last24 := addr>>8, last>>8
	for at := first24; at <= last24; {
		w := &cells[head.Bits24.At+at>>9].W[at>>6&7]
		if at&63 == 0 && last24-at >= 63 {
			*w = ^uint64(0)
			at += 64
			continue
		}
		*w |= 1 << (at & 63)
		at++
	}
}

func (p *plan) fill6(head *kernelBulkHead, cells []kernelBulkCell, t kernelBulkTable) error {
	var pos [129]int
	present := make([]bool, 129)
	for i := range p.v6 {
		present[p.v6[i].key.bits] = true
	}
	for n := 128; n >= 0; n-- {
		if !present[n] {
			continue
		}
		if head.N_lengths6 == policy.MaxBulkLengths {
			return fmt.Errorf("more than %d different lengths of IPv6 prefixes", policy.MaxBulkLengths)
		}
		pos[n] = int(head.N_lengths6)
		head.Lengths6[pos[n]] = uint8(n)
		head.N_lengths6++
	}
	for i := range p.v6 {
		it := &p.v6[i]
		bit := uint64(1) << pos[it.key.bits]
		if it.key.bits < 32 {
			head.Wide6 |= bit
		} else {
			head.Region6[regionOf(&p.seed, it.key.Hi)] |= bit
		}
		head.Bloom[scale(it.hash, head.BloomWords)] |= bloomMask(it.hash)
		if !putCell6(cells[t.At+scale(it.hash, t.N):][:bulkHops], it) {
			return fmt.Errorf("IPv6: %w", errCrowded)
		}
	}
	return nil
}

func regionOf(s *seeds, hi uint64) uint64 { return s.hash(uint32(hi>>32)) >> 51 & (bulkRegions - 1) }

func putCell6(near []kernelBulkCell, it *item[key6]) bool {
	for hop := range near {
		c := asCell6(&near[hop])
		for i := range c.Meta {
			if c.Meta[i] == 0 {
				c.Hi[i], c.Lo[i], c.Meta[i], c.Bits[i] = it.key.Hi, it.key.Lo, it.meta, it.key.bits
				return true
			}
		}
	}
	return false
}
