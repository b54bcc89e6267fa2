package feed

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// parsed is what one token of a list says.
type parsed struct {
	family int
	one    block
	last   wide // of a range
	ranged bool
	kind   Kind   // "" taken as it stands; a Mended kind: taken; else not taken
	detail string // for the note
}

func (p parsed) taken() bool { return p.kind == "" || ClassOf(p.kind) == Mended }

func not(k Kind, detail string) parsed { return parsed{kind: k, detail: detail} }

// parseToken reads an address, a prefix or a range without spaces.
func parseToken(tok []byte) parsed {
	if b, ok := plain4(tok); ok {
		return bounded(parsed{family: v4, one: b})
	}
	s := string(tok)
	switch {
	case strings.Contains(s, "/"):
		return parsePrefix(s)
	case strings.Contains(s, "-"):
		if p, ok := parseRange(s); ok {
			return p
		}
	}
	if spelled(s) { // most lines of a list of names: not worth three parsers
		return notAddress(s)
	}
	if a, mend, err := parseAddr(s); err == nil {
		b, family := blockOf(netip.PrefixFrom(a, a.BitLen()))
		return parsed{family: family, one: b, kind: mend, detail: asTaken(mend, a.String())}
	}
	return notAddress(s)
}

// spelled says whether a letter occurs that no address has.
func spelled(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; c > 'f' && c <= 'z' {
			return true
		}
	}
	return false
}

// plain4 reads the common case, an IPv4 address or prefix without flaw, from
// bytes: lists have a million of them.
func plain4(t []byte) (b block, ok bool) {
	var addr uint32
	i := 0
	for octet := range 4 {
		start, n := i, uint32(0)
		for i < len(t) && i < start+3 && t[i] >= '0' && t[i] <= '9' {
			n = n*10 + uint32(t[i]-'0')
			i++
		}
		if i == start || n > 255 || t[start] == '0' && i > start+1 {
			return b, false
		}
		addr = addr<<8 | n
		if octet < 3 {
			if i >= len(t) || t[i] != '.' {
				return b, false
			}
			i++
		}
	}
	b = block{wide{hi: uint64(addr) << 32}, 32}
	if i == len(t) {
		return b, true
	}
	if t[i] != '/' || len(t)-i < 2 || len(t)-i > 3 {
		return b, false
	}
	n := uint8(0)
	for _, c := range t[i+1:] {
		if c < '0' || c > '9' {
			return b, false
		}
		n = n*10 + c - '0'
	}
	if n > 32 || t[i+1] == '0' && len(t)-i > 2 || b.and(mask(int(n))) != b.wide {
		return b, false
	}
	b.bits = n
	return b, true
}

// bounded refuses what is too wide.
func bounded(p parsed) parsed {
	if int(p.one.bits) < widest[p.family] {
		p.kind, p.detail = TooWide, fmt.Sprintf("at widest /%d may be listed", widest[p.family])
	}
	return p
}

var errAddr = errors.New("no address")

// parseAddr reads an address; mend says how it had to be read.
func parseAddr(s string) (a netip.Addr, mend Kind, err error) {
	a, err = netip.ParseAddr(s)
	if err != nil {
		if a, ok := padded(s); ok {
			return a, Padded, nil
		}
		return a, "", errAddr
	}
	if a.Zone() != "" {
		return a, "", errAddr
	}
	if a.Is4In6() {
		return a.Unmap(), Mapped, nil
	}
	return a, "", nil
}

// padded reads an IPv4 address whose octets all have three digits. Any other
// form with leading zeros is refused: half of the world reads 010 as eight.
func padded(s string) (netip.Addr, bool) {
	if len(s) != 15 {
		return netip.Addr{}, false
	}
	var x [4]byte
	for i, part := range strings.SplitN(s, ".", 4) {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || len(part) != 3 || part[0] == '+' {
			return netip.Addr{}, false
		}
		x[i] = byte(n)
	}
	return netip.AddrFrom4(x), true
}

func asTaken(mend Kind, as string) string {
	if mend == "" {
		return ""
	}
	return "taken as " + as
}

func parsePrefix(s string) parsed {
	head, tail, _ := strings.Cut(s, "/")
	a, mend, err := parseAddr(head)
	if err != nil {
		return notAddress(s)
	}
	n, masked, ok := prefixLength(tail, a, mend == Mapped)
	if !ok {
		if strings.Trim(tail, "0123456789.-") == "" {
			return not(Malformed, "the length of the prefix is none")
		}
		return not(Name, "") // 203.0.113.4/gate.php
	}
	if mend == Mapped {
		if n -= 96; n < 0 {
			return not(TooWide, "covers all of IPv4")
		}
	}
	if masked && mend == "" {
		mend = Netmask
	}
	p := netip.PrefixFrom(a, n).Masked()
	if p.Addr() != a {
		mend = HostBits
	}
	b, family := blockOf(p)
	return bounded(parsed{family: family, one: b, kind: mend, detail: asTaken(mend, p.String())})
}

// prefixLength reads "24" or, for IPv4, "255.255.255.0". That of an IPv4-mapped
// address counts from the IPv6 one.
func prefixLength(s string, a netip.Addr, mapped bool) (n int, masked, ok bool) {
	limit := a.BitLen()
	if mapped {
		limit = 128
	}
	if a.Is4() && !mapped && strings.Contains(s, ".") {
		m, err := netip.ParseAddr(s)
		if err != nil || !m.Is4() {
			return 0, false, false
		}
		b, _ := blockOf(netip.PrefixFrom(m, 32))
		n = bits.LeadingZeros64(^b.hi)
		return n, true, b.hi == mask(n).hi && n <= 32
	}
	u, err := strconv.ParseUint(s, 10, 8)
	if err != nil || len(s) > 1 && s[0] == '0' || int(u) > limit {
		return 0, false, false
	}
	return int(u), false, true
}

// parseRange reads "a-b"; ok is false when the two are no addresses.
func parseRange(s string) (p parsed, ok bool) {
	head, tail, _ := strings.Cut(s, "-")
	a, mend, err := parseAddr(strings.TrimSpace(head))
	b, mendB, errB := parseAddr(strings.TrimSpace(tail))
	if err != nil || errB != nil {
		return p, false
	}
	if mend == "" {
		mend = mendB
	}
	if a.Is4() != b.Is4() || b.Less(a) {
		return not(Malformed, "the range ends before it begins"), true
	}
	first, family := blockOf(netip.PrefixFrom(a, a.BitLen()))
	last, _ := blockOf(netip.PrefixFrom(b, b.BitLen()))
	if tooLong(first.wide, last.wide, family) {
		return not(TooWide, fmt.Sprintf("the range is wider than a /%d", widest[family])), true
	}
	return parsed{family: family, one: first, last: last.wide, ranged: true, kind: mend, detail: asTaken(mend, a.String()+"-"+b.String())}, true
}

// tooLong says whether a range holds more addresses than the widest network.
func tooLong(first, last wide, family int) bool {
	end, carry := first.add(bitAt(widest[family] - 1)) // one behind the longest that is allowed
	return carry == 0 && last.cmp(end) >= 0
}

// notAddress tells names and services from nonsense.
func notAddress(s string) parsed {
	switch {
	case isService(s):
		return not(Service, "")
	case strings.Contains(s, "://"), isName(s):
		return not(Name, "")
	}
	return not(Malformed, "")
}

// isService recognises 192.0.2.1:80, [2001:db8::1]:80 and ipset's 192.0.2.1,tcp:80.
func isService(s string) bool {
	if strings.IndexByte(s, ':') < 0 {
		return false
	}
	if _, err := netip.ParseAddrPort(s); err == nil {
		return true
	}
	head, tail, _ := strings.Cut(s, ",")
	proto, port, ok := strings.Cut(tail, ":")
	if !ok || proto == "" || port == "" || strings.ContainsAny(tail, ", \t") {
		return false
	}
	if _, err := netip.ParseAddr(head); err == nil {
		return true
	}
	_, err := netip.ParsePrefix(head)
	return err == nil
}

// isName recognises host names, also with a path, a port or a leading "*.".
func isName(s string) bool {
	host, _, _ := strings.Cut(strings.TrimPrefix(s, "*."), "/")
	host, _, _ = strings.Cut(host, ":")
	host = strings.TrimSuffix(host, ".")
	if len(host) > 253 {
		return false
	}
	labels, letters := 0, false
	for more := true; more; labels++ {
		var l string
		if l, host, more = strings.Cut(host, "."); !isLabel(l) {
			return false
		}
		letters = strings.Trim(l, "0123456789") != ""
	}
	return labels > 1 && letters // the last label is no number
}

func isLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for i := range len(l) {
		c := l[i]
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
