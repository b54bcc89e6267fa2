package config

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane"
	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// ParseDuration reads Go's durations, and days as "90d" or "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("found %q: expected a duration such as \"30s\", \"4h\" or \"90d\"", s)
	rest, days := s, int64(0)
	if head, tail, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, bad
		}
		if tail == "" {
			return time.Duration(n) * day, nil
		}
		days, rest = int64(n), tail
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > 100*365*day {
		return 0, bad
	}
	return d + time.Duration(days)*day, nil
}

// FormatDuration is the shortest form that ParseDuration reads back.
func FormatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var units = []struct { // longest first: "GiB" must not be read as "B"
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a number of bytes with a unit: "2GiB", "500 MB", "1.5TiB".
func ParseSize(s string) (int64, error) {
	for _, u := range units {
		num, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(num), 64)
		if err != nil || math.IsNaN(f) || f < 0 || f*u.bytes > 1<<60 {
			break
		}
		return int64(f * u.bytes), nil
	}
	return 0, fmt.Errorf("found %q: expected a size such as \"512MiB\" or \"2GiB\"", s)
}

// FormatSize prints bytes in the largest binary unit that divides them.
func FormatSize(n int64) string {
	suffix, div := "B", int64(1)
	for _, u := range units[:4] {
		if n >= int64(u.bytes) && n%int64(u.bytes) == 0 {
			suffix, div = u.suffix, int64(u.bytes)
		}
	}
	return strconv.FormatInt(n/div, 10) + suffix
}

// ParseNever reads one never-block entry: ADDRESS or PREFIX, then optionally a
// protocol with or without a port (the port at that address's side), then
// optionally the word any-side: "192.0.2.1 tcp/443", "198.51.100.0/24",
// "10.0.0.1 udp/53 any-side". Widest: /8 and /16 for IPv6.
func ParseNever(s string) (dataplane.Never, error) {
	words := strings.Fields(s)
	if len(words) == 0 || len(words) > 3 {
		return dataplane.Never{}, fmt.Errorf("found %q: expected \"ADDRESS[/BITS] [PROTOCOL[/PORT]] [any-side]\"", s)
	}
	p, err := parsePrefix(words[0])
	if err != nil {
		return dataplane.Never{}, err
	}
	if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 {
		return dataplane.Never{}, fmt.Errorf("found %q: too wide: expected /8 or narrower (IPv6: /16)", words[0])
	}
	n := dataplane.Never{Prefix: p}
	if len(words) > 1 {
		if n.Proto, n.Port, err = parseService(words[1]); err != nil {
			return dataplane.Never{}, err
		}
	}
	if len(words) == 3 {
		if words[2] != "any-side" || n.Port == 0 {
			return dataplane.Never{}, fmt.Errorf("found %q: expected the word any-side, and only after a port", words[2])
		}
		n.AnySide = true
	}
	return n, nil
}

// FormatNever prints an entry so that ParseNever reads it back.
func FormatNever(n dataplane.Never) string {
	s := n.Prefix.String()
	if n.Prefix.IsSingleIP() {
		s = n.Prefix.Addr().String()
	}
	if n.Proto != 0 {
		s += " " + strings.TrimPrefix(flow.ProtoName(n.Proto), "proto-")
	}
	if n.Port != 0 {
		s += "/" + strconv.Itoa(int(n.Port))
	}
	if n.AnySide {
		s += " any-side"
	}
	return s
}

// parsePrefix reads an address or a prefix without host bits.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("found %q: expected an address such as 192.0.2.1 or a prefix such as 10.1.0.0/24", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("found %q: host bits are set: expected %s", s, p.Masked())
	}
	return p, nil
}

// parseService reads "tcp", "udp/53" or a protocol's number.
func parseService(s string) (proto uint8, port uint16, err error) {
	name, num, hasPort := strings.Cut(s, "/")
	switch name {
	case "tcp":
		proto = flow.TCP
	case "udp":
		proto = flow.UDP
	case "icmp":
		proto = flow.ICMP
	case "icmpv6":
		proto = flow.ICMPv6
	default:
		n, e := strconv.ParseUint(name, 10, 8)
		if e != nil || n == 0 {
			return 0, 0, fmt.Errorf("found %q: expected tcp, udp, icmp, icmpv6 or a protocol number", name)
		}
		proto = uint8(n)
	}
	if !hasPort {
		return proto, 0, nil
	}
	if proto != flow.TCP && proto != flow.UDP {
		return 0, 0, fmt.Errorf("found %q: only tcp and udp have ports", s)
	}
	n, e := strconv.ParseUint(num, 10, 16)
	if e != nil || n == 0 {
		return 0, 0, fmt.Errorf("found port %q: expected 1 to 65535", num)
	}
	return proto, uint16(n), nil
}

// checkMultiaddr accepts the form of a libp2p address; package gossip, which
// may import libp2p, parses it in full.
func checkMultiaddr(s string) error {
	bad := fmt.Errorf("found %q: expected a multiaddress such as /ip4/192.0.2.1/tcp/4400 or /dns4/gw.example.org/udp/4400/quic-v1", s)
	parts := strings.Split(s, "/")
	if len(s) > 512 || len(parts) < 5 || parts[0] != "" {
		return bad
	}
	switch parts[1] {
	case "ip4", "ip6":
		a, err := netip.ParseAddr(parts[2])
		if err != nil || a.Zone() != "" || a.Is4() != (parts[1] == "ip4") {
			return bad
		}
	case "dns", "dns4", "dns6":
		if parts[2] == "" || len(parts[2]) > 253 {
			return bad
		}
	default:
		return bad
	}
	if parts[3] != "tcp" && parts[3] != "udp" {
		return bad
	}
	if _, err := strconv.ParseUint(parts[4], 10, 16); err != nil {
		return bad
	}
	return nil
}

// checkName holds names of sites and organisations to a form that is safe in
// topics, file names and log lines.
func checkName(s string) error {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return fmt.Errorf("found %q: expected 1 to 63 lower-case letters, digits and inner hyphens", s)
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("found %q: expected 1 to 63 lower-case letters, digits and inner hyphens", s)
		}
	}
	return nil
}

func checkPath(s string) error {
	if !strings.HasPrefix(s, "/") || strings.ContainsRune(s, 0) || len(s) > 4000 {
		return fmt.Errorf("found %q: expected an absolute path", s)
	}
	return nil
}

func checkSocket(s string) error {
	if err := checkPath(s); err != nil {
		return err
	}
	if len(s) > 107 {
		return fmt.Errorf("found a path of %d bytes: expected at most 107, the limit of unix sockets", len(s))
	}
	return nil
}

func checkInterface(s string) error {
	if s == "" {
		return nil
	}
	if len(s) > 15 || strings.ContainsAny(s, "/ \t\n\x00") || s == "." || s == ".." {
		return fmt.Errorf("found %q: expected an interface name of at most 15 bytes, or \"\" to find it", s)
	}
	return nil
}

func checkListen(s string) error {
	if s == "" {
		return nil
	}
	if _, err := netip.ParseAddrPort(s); err != nil {
		return fmt.Errorf("found %q: expected an address and port such as 127.0.0.1:9464, or \"\" for none", s)
	}
	return nil
}

func checkID(s string) error {
	if len(s) < 16 || len(s) > 128 {
		return errors.New("expected the identity that `hedgerow id` prints at that site")
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return fmt.Errorf("found %q: expected the identity that `hedgerow id` prints at that site", s)
		}
	}
	return nil
}

// parseGuarded reads a TCP service of one or many addresses, as in
// "198.51.100.0/28 tcp/443"; without a port it is every one.
func parseGuarded(s string) (dataplane.Guarded, error) {
	n, err := ParseNever(s)
	if err != nil {
		return dataplane.Guarded{}, err
	}
	if n.AnySide || n.Proto != 0 && n.Proto != flow.TCP {
		return dataplane.Guarded{}, fmt.Errorf("found %q: expected \"ADDRESS[/BITS] [tcp/PORT]\"", s)
	}
	return dataplane.Guarded{Prefix: n.Prefix, Port: n.Port}, nil
}
