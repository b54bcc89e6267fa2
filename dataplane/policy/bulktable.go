package policy

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// bulk is a bulk set to look things up in: for each length that occurs, the
// prefixes in order. That is small, needs no hash, and is fast enough for a
// path whose speed nobody measures.
type bulk struct {
	generation uint64
	v4         levels[uint32]
	v6         levels[Key6]
	reasons    []*entry // by index: what a match counts and tells
}

type level[K any] struct {
	bits    int
	keys    []K
	expires []int64
	reasons []uint16
}

type levels[K any] struct {
	byLength []level[K] // longest first
	compare  func(a, b K) int
}

// find is the index of the reason of the longest living prefix, or -1.
func (l *levels[K]) find(mask func(bits int) K, now int64) int {
	for i := range l.byLength {
		at := &l.byLength[i]
		if k, ok := slices.BinarySearchFunc(at.keys, mask(at.bits), l.compare); ok && at.expires[k] > now {
			return int(at.reasons[k])
		}
	}
	return -1
}

func (l *levels[K]) living(now int64) (n uint64) {
	for _, at := range l.byLength {
		for _, e := range at.expires {
			if e > now {
				n++
			}
		}
	}
	return n
}

// add appends one entry; they come by falling length, then by key, and of equal
// prefixes the one that counts comes first.
func (l *levels[K]) add(bits int, key K, expires int64, reason uint16) {
	n := len(l.byLength)
	if n == 0 || l.byLength[n-1].bits != bits {
		l.byLength = append(l.byLength, level[K]{bits: bits})
		n++
	}
	at := &l.byLength[n-1]
	if k := len(at.keys); k > 0 && l.compare(at.keys[k-1], key) == 0 {
		return
	}
	at.keys = append(at.keys, key)
	at.expires = append(at.expires, expires)
	at.reasons = append(at.reasons, reason)
}

// size counts entries of full length and others.
func (l *levels[K]) size(full int) (addrs, nets int) {
	for _, at := range l.byLength {
		if at.bits == full {
			addrs += len(at.keys)
		} else {
			nets += len(at.keys)
		}
	}
	return addrs, nets
}

func compareKey6(a, b Key6) int {
	return cmp.Or(cmp.Compare(a.Hi, b.Hi), cmp.Compare(a.Lo, b.Lo))
}

// outlives is Outlives as an order to sort by.
func (s *BulkSet) outlives(aExpires, bExpires int64, a, b uint16) int {
	return cmp.Or(cmp.Compare(bExpires, aExpires), cmp.Compare(s.Reasons[a], s.Reasons[b]))
}

func newBulk(s *BulkSet) *bulk {
	b := &bulk{v4: levels[uint32]{compare: cmp.Compare[uint32]}, v6: levels[Key6]{compare: compareKey6}}
	for _, v4 := range [][]Bulk4{s.Addrs4, s.Nets4} {
		slices.SortFunc(v4, func(x, y Bulk4) int {
			return cmp.Or(cmp.Compare(y.Bits, x.Bits), cmp.Compare(x.Addr, y.Addr), s.outlives(x.Expires, y.Expires, x.Reason, y.Reason))
		})
		for _, e := range v4 {
			b.v4.add(int(e.Bits), e.Addr, e.Expires, e.Reason)
		}
	}
	slices.SortFunc(s.V6, func(x, y Bulk6) int {
		return cmp.Or(cmp.Compare(y.Bits, x.Bits), compareKey6(x.Key6, y.Key6), s.outlives(x.Expires, y.Expires, x.Reason, y.Reason))
	})
	for _, e := range s.V6 {
		b.v6.add(int(e.Bits), e.Key6, e.Expires, e.Reason)
	}
	for _, id := range s.Reasons {
		b.reasons = append(b.reasons, &entry{rule: dataplane.Rule{Action: dataplane.Block, Reason: id}, expires: farFuture})
	}
	return b
}

// find is what the set says of one address, or nil.
func (b *bulk) find(a netip.Addr, now int64) *entry {
	var at int
	if a = a.Unmap(); a.Is4() {
		raw := a.As4()
		v := binary.BigEndian.Uint32(raw[:])
		at = b.v4.find(func(bits int) uint32 { return v &^ (1<<(32-bits) - 1) }, now)
	} else {
		at = b.v6.find(ToKey6(a).Mask, now)
	}
	if at < 0 {
		return nil
	}
	return b.reasons[at]
}

// match counts and returns what the set says of a packet: the source is asked
// first, and the destination only when the source is not listed.
func (b *bulk) match(p *Packet, now int64) *entry {
	e := b.find(p.Src, now)
	if e == nil {
		e = b.find(p.Dst, now)
	}
	if e != nil {
		e.packets++
	}
	return e
}

// bulk looks a packet up in the bulk set.
func (s *search) bulk(b *bulk) {
	if b == nil {
		return
	}
	if e := b.match(s.p, s.now); e != nil {
		s.best = e
	}
}

// ReplaceBulk makes entries the bulk set; see dataplane.Bulk. A reason that the
// old set had too stays told: the first drop is not told anew.
func (t *Table) ReplaceBulk(now time.Time, entries []dataplane.Listed, limits BulkLimits) error {
	limits = limits.WithDefaults()
	set, err := NewBulkSet(entries, now, limits)
	if err != nil {
		return fmt.Errorf("replace bulk set: %w", err)
	}
	b := newBulk(set)
	addrs4, nets4 := b.v4.size(32)
	addrs6, nets6 := b.v6.size(128)
	if err := limits.Check(addrs4+addrs6, nets4+nets6); err != nil {
		return fmt.Errorf("replace bulk set: %w", err)
	}
	b.generation = 1
	if t.bulk != nil {
		b.generation = t.bulk.generation + 1
		b.inherit(t.bulk)
	}
	t.bulk = b
	return nil
}

func (b *bulk) inherit(old *bulk) {
	told := make(map[uint32][2]bool, len(old.reasons))
	for _, e := range old.reasons {
		told[e.rule.Reason] = e.told
	}
	for _, e := range b.reasons {
		e.told = told[e.rule.Reason]
	}
}

// BulkState says what is enforced of the bulk set at now.
func (t *Table) BulkState(now time.Time) dataplane.BulkState {
	s := dataplane.BulkState{Hits: map[uint32]uint64{}}
	b := t.bulk
	if b == nil {
		return s
	}
	s.Generation = b.generation
	s.Enforced = b.v4.living(now.UnixNano()) + b.v6.living(now.UnixNano())
	s.Intended = s.Enforced // one table: what is intended is what is enforced
	s.Bytes = b.v4.bytes(4) + b.v6.bytes(16)
	for _, e := range b.reasons {
		if e.packets > 0 {
			s.Hits[e.rule.Reason] = e.packets
		}
	}
	return s
}

// bytes is the memory of the arrays, for keys of a size.
func (l *levels[K]) bytes(key int) (n uint64) {
	for _, at := range l.byLength {
		n += uint64(cap(at.keys)*key + cap(at.expires)*8 + cap(at.reasons)*2)
	}
	return n
}
