package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
)

// Bounds of a bulk set, alike on all packet paths.
const (
	DefaultBulkAddrs = 1_500_000 // single addresses
	DefaultBulkNets  = 300_000   // prefixes of more than one address
	// MaxBulkReasons is how many different reasons one set may name: counters
	// are kept for each. A feed shares one.
	MaxBulkReasons = 1024
	// MaxBulkLengths is how many different lengths IPv6 prefixes of one set may
	// have: each costs a look for those packets that are near one.
	MaxBulkLengths = 64
)

// BulkLimits bound a bulk set after duplicates are gone. Zero fields take the
// defaults.
type BulkLimits struct {
	Addrs int // single addresses, of both families together
	Nets  int // wider prefixes, likewise
}

// WithDefaults fills in zero fields.
func (l BulkLimits) WithDefaults() BulkLimits {
	if l.Addrs <= 0 {
		l.Addrs = DefaultBulkAddrs
	}
	if l.Nets <= 0 {
		l.Nets = DefaultBulkNets
	}
	return l
}

// Check says ErrFull when a set of so many distinct entries is too large.
func (l BulkLimits) Check(addrs, nets int) error {
	switch {
	case addrs > l.Addrs:
		return fmt.Errorf("%d addresses of at most %d: %w: raise the limit or list prefixes", addrs, l.Addrs, dataplane.ErrFull)
	case nets > l.Nets:
		return fmt.Errorf("%d prefixes of at most %d: %w: raise the limit or aggregate them", nets, l.Nets, dataplane.ErrFull)
	}
	return nil
}

// Bulk4 is a checked entry of IPv4 as numbers, in host byte order.
type Bulk4 struct {
	Expires int64 // nanoseconds since the epoch
	Addr    uint32
	Reason  uint16 // index into BulkSet.Reasons
	Bits    uint8
}

// Bulk6 is a checked entry of IPv6, likewise.
type Bulk6 struct {
	Key6
	Expires int64
	Reason  uint16
	Bits    uint8
}

// Key6 is an IPv6 address.
type Key6 struct{ Hi, Lo uint64 }

// BulkSet is a checked bulk set. Equal prefixes may still be in it more than
// once: of those, Outlives says which one counts.
type BulkSet struct {
	Addrs4  []Bulk4 // single addresses
	Nets4   []Bulk4 // wider prefixes
	V6      []Bulk6
	Reasons []uint32
}

// Outlives orders equal prefixes: the entry that lives longest counts, and of
// those the one with the smaller reason id, so that the order of a feed does
// not matter.
func Outlives(aExpires, bExpires int64, aReason, bReason uint32) bool {
	if aExpires != bExpires {
		return aExpires > bExpires
	}
	return aReason < bReason
}

// NewBulkSet checks entries and leaves out those that have expired by now. It
// refuses the whole set for one bad entry: what arrives here is no longer a
// feed but what somebody decided to enforce.
func NewBulkSet(entries []dataplane.Listed, now time.Time, limits BulkLimits) (*BulkSet, error) {
	// Duplicates are welcome, yet not without end.
	if most := 4 * (limits.Addrs + limits.Nets); len(entries) > most {
		return nil, fmt.Errorf("%d entries of at most %d, duplicates among them: %w", len(entries), most, dataplane.ErrFull)
	}
	b := bulkReader{now: now.UnixNano(), ids: map[uint32]uint16{}, set: &BulkSet{Addrs4: make([]Bulk4, 0, len(entries))}}
	for i := range entries {
		if err := b.read(&entries[i]); err != nil {
			return nil, fmt.Errorf("entry %d of %d: %w", i+1, len(entries), err)
		}
	}
	return b.set, nil
}

// bulkReader remembers the last expiry and some reasons, since neighbours share them.
type bulkReader struct {
	now  int64
	set  *BulkSet
	ids  map[uint32]uint16
	near [256]struct { // of the reasons that were met last
		known  bool
		reason uint32
		at     uint16
	}
	last    time.Time // whose nanoseconds are expires
	expires int64
	reason  uint16
	lengths [129]bool
	n       int
}

func (b *bulkReader) read(l *dataplane.Listed) error {
	a, bits := l.Prefix.Addr(), l.Prefix.Bits()
	switch {
	case !a.IsValid() || bits < 0:
		return fmt.Errorf("prefix: is required")
	case a.Is4() && bits < 8, a.Is6() && bits < 16:
		return fmt.Errorf("prefix %s: too wide: expected at least 8 bits for IPv4, 16 for IPv6", l.Prefix)
	}
	if l.Expires != b.last || b.expires == 0 {
		if l.Expires.IsZero() {
			return fmt.Errorf("prefix %s: expires: is required", l.Prefix)
		}
		b.last, b.expires = l.Expires, unixNano(l.Expires)
	}
	if err := b.index(l.Reason); err != nil {
		return err
	}
	if b.expires <= b.now {
		return nil
	}
	if a.Is4() {
		return b.put4(l.Prefix, a, bits)
	}
	return b.put6(l.Prefix, a, bits)
}

// farFuture is as late as nanoseconds since the epoch go, less room to add.
const farFuture = int64(1) << 62

// unixNano is t in nanoseconds, or the far future when it does not fit.
func unixNano(t time.Time) int64 {
	switch s := t.Unix(); {
	case s > farFuture/int64(time.Second):
		return farFuture
	case s < 0:
		return 1
	}
	return t.UnixNano()
}

func (b *bulkReader) put4(p netip.Prefix, a netip.Addr, bits int) error {
	raw := a.As4()
	v := binary.BigEndian.Uint32(raw[:])
	if v&(1<<(32-bits)-1) != 0 {
		return hostBits(p)
	}
	to := &b.set.Addrs4
	if bits < 32 {
		to = &b.set.Nets4
	}
	*to = append(*to, Bulk4{Expires: b.expires, Addr: v, Reason: b.reason, Bits: uint8(bits)})
	return nil
}

func (b *bulkReader) put6(p netip.Prefix, a netip.Addr, bits int) error {
	k := ToKey6(a)
	switch {
	case a.Is4In6():
		return fmt.Errorf("prefix %s: IPv4-mapped IPv6 address: expected plain IPv4", p)
	case k.Mask(bits) != k:
		return hostBits(p)
	}
	if !b.lengths[bits] {
		b.lengths[bits] = true
		if b.n++; b.n > MaxBulkLengths {
			return fmt.Errorf("prefix %s: more than %d different lengths of IPv6 prefixes: %w: aggregate them", p, MaxBulkLengths, dataplane.ErrFull)
		}
	}
	b.set.V6 = append(b.set.V6, Bulk6{Key6: k, Expires: b.expires, Reason: b.reason, Bits: uint8(bits)})
	return nil
}

func hostBits(p netip.Prefix) error {
	return fmt.Errorf("prefix %s: has host bits set, expected %s", p, p.Masked())
}

// index finds the place of a reason among those of the set.
func (b *bulkReader) index(reason uint32) error {
	near := &b.near[reason&255]
	if near.known && near.reason == reason {
		b.reason = near.at
		return nil
	}
	at, ok := b.ids[reason]
	if !ok {
		if len(b.set.Reasons) == MaxBulkReasons {
			return fmt.Errorf("reason %d: more than %d different reasons: %w: share one by feed", reason, MaxBulkReasons, dataplane.ErrFull)
		}
		at = uint16(len(b.set.Reasons))
		b.ids[reason] = at
		b.set.Reasons = append(b.set.Reasons, reason)
	}
	b.reason = at
	near.known, near.reason, near.at = true, reason, at
	return nil
}

// ToKey6 is an address of 16 bytes as two numbers.
func ToKey6(a netip.Addr) Key6 {
	raw := a.As16()
	return Key6{binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])}
}

// Mask keeps the first bits of a key.
func (k Key6) Mask(bits int) Key6 {
	if bits <= 64 {
		return Key6{Hi: k.Hi &^ (^uint64(0) >> bits)}
	}
	return Key6{Hi: k.Hi, Lo: k.Lo &^ (^uint64(0) >> (bits - 64))}
}
