package policy

import (
	"fmt"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

const (
	// MaxNeverTuples is how many (protocol, port) tuples one prefix may have on
	// the never-block list; the kernel path has the same bound.
	MaxNeverTuples = 8
	maxNever       = 4096
	// The built-in exceptions together are worth this many saved packets a
	// second: enough for a link, too few for a flood that forges them.
	builtinPerSecond = 1000
)

// SetNever replaces the never-block list. On an error the old list stays.
func (t *Table) SetNever(entries []dataplane.Never) error {
	m, err := neverMap(entries)
	if err != nil {
		return fmt.Errorf("set never-block list: %w", err)
	}
	t.never = m
	return nil
}

// SetRemediation replaces what quarantined hosts may still reach. On an error
// the old list stays.
func (t *Table) SetRemediation(entries []dataplane.Never) error {
	m, err := neverMap(entries)
	if err != nil {
		return fmt.Errorf("set remediation list: %w", err)
	}
	t.remedies = m
	return nil
}

// Spares lists the never-block list and the remediation list, in no order.
func (t *Table) Spares() (never, remedies []dataplane.Never) {
	for _, tuples := range t.never.values {
		never = append(never, tuples...)
	}
	for _, tuples := range t.remedies.values {
		remedies = append(remedies, tuples...)
	}
	return never, remedies
}

func neverMap(entries []dataplane.Never) (m prefixMap[[]dataplane.Never], err error) {
	if len(entries) > maxNever {
		return m, fmt.Errorf("%d entries of at most %d: %w", len(entries), maxNever, dataplane.ErrFull)
	}
	for _, n := range entries {
		switch {
		case !n.Prefix.IsValid():
			return m, fmt.Errorf("entry %v: prefix: is required", n)
		case n.Prefix != n.Prefix.Masked():
			return m, fmt.Errorf("entry %s: prefix has host bits set, expected %s", n.Prefix, n.Prefix.Masked())
		case n.Prefix.Addr().Is4In6():
			return m, fmt.Errorf("entry %s: IPv4-mapped IPv6 address: expected plain IPv4", n.Prefix)
		case len(m.values[n.Prefix]) == MaxNeverTuples:
			return m, fmt.Errorf("entry %s: more than %d tuples for one prefix: %w", n.Prefix, MaxNeverTuples, dataplane.ErrFull)
		}
		m.put(n.Prefix, append(m.values[n.Prefix], n))
	}
	return m, nil
}

// neverDrop is asked only when a rule would drop the packet.
func (t *Table) neverDrop(p *Packet, now int64) bool {
	if builtIn(p) && t.builtin.take(now, 1) {
		return true
	}
	return neverMatches(&t.never, p.Src, p.SrcPort, p.DstPort, p) || neverMatches(&t.never, p.Dst, p.DstPort, p.SrcPort, p)
}

// neverMatches says whether an entry for address a saves the packet; own is the
// port at the side of a.
func neverMatches(m *prefixMap[[]dataplane.Never], a netip.Addr, own, other uint16, p *Packet) bool {
	saved := false
	if len(m.values) == 0 {
		return false
	}
	m.each(a, func(tuples []dataplane.Never) {
		for i := range tuples {
			n := &tuples[i]
			if n.Proto != 0 && n.Proto != p.Proto {
				continue
			}
			port := n.Port == 0 || !p.NoPorts && (n.Port == own || n.AnySide && n.Port == other)
			saved = saved || port
		}
	})
	return saved
}

// builtIn says whether a link cannot work without the packet: neighbour
// discovery (RFC 4861), path MTU discovery (RFC 1191, RFC 8201), DHCP.
func builtIn(p *Packet) bool {
	if p.NoPorts {
		return false
	}
	switch p.Proto {
	case flow.ICMPv6:
		return p.Type == 2 || p.Type >= 133 && p.Type <= 137
	case flow.ICMP:
		return p.Type == 3 && p.Code == 4
	case flow.UDP:
		return within(p, 67, 68) || within(p, 546, 547)
	}
	return false
}

func within(p *Packet, lo, hi uint16) bool {
	return p.SrcPort >= lo && p.SrcPort <= hi && p.DstPort >= lo && p.DstPort <= hi
}
