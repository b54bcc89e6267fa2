package softplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// LinkType says what stands ahead of the IP header, by the numbers of the
// registry of link-layer header types (https://www.tcpdump.org/linktypes.html).
type LinkType uint16

// Link types that Frame understands.
const (
	Null      LinkType = 0   // BSD loopback: address family in the capturing host's byte order
	Ethernet  LinkType = 1   // with up to two VLAN tags
	RawOld    LinkType = 12  // raw IP, as some systems write it
	RawBSD    LinkType = 14  // raw IP, as OpenBSD writes it
	Raw       LinkType = 101 // raw IP
	Loop      LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinuxSLL  LinkType = 113 // Linux cooked capture v1
	IPv4      LinkType = 228
	IPv6      LinkType = 229
	LinuxSLL2 LinkType = 276 // Linux cooked capture v2
)

// Supported says whether Frame finds the IP header in frames of this type.
func (l LinkType) Supported() bool {
	switch l {
	case Null, Ethernet, RawOld, RawBSD, Raw, Loop, LinuxSLL, IPv4, IPv6, LinuxSLL2:
		return true
	}
	return false
}

// malformed is how a packet is broken.
type malformed uint8

const (
	fine malformed = iota
	badLink
	badEthernet
	badVLAN
	badIPv4
	badIPv6
	badExt
	badTCP
	badUDP
	badICMP
	kinds
)

func (m malformed) String() string {
	return [kinds]string{"", "link", "ethernet", "vlan", "ipv4", "ipv6", "ipv6-ext", "tcp", "udp", "icmp"}[m]
}

// parsed is a packet taken apart.
type parsed struct {
	policy.Packet // Size is that of the IP packet
	bad           malformed
	ip            bool // the IP header is good: addresses and size are known
	later         bool // a fragment other than the first
	fromB         bool // the packet travels from Key.B to Key.A
	payload       int
	flags         uint8
	seq, ack      uint32
	window        uint16
	ttl           uint8
	head          [4]byte // first payload bytes
	hasHead       bool    // all four are there
	at            uint8   // bit of the hook that saw it; 0: known by its addresses only
}

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	maxExt    = 6
)

// parse takes a frame apart. wire is the frame's length on the wire, which is
// above len(b) when a capture kept less. With lax, an IP length of zero (as
// captures of segmentation offload have it) means the rest of the frame.
func (q *parsed) parse(link LinkType, b []byte, wire int, lax bool) {
	*q = parsed{}
	ether, n, bad := linkHeader(link, b)
	if bad != fine {
		q.bad = bad
		return
	}
	wire = max(wire, len(b)) - n
	b = b[n:]
	switch ether {
	case etherIPv4:
		q.parseIPv4(b, wire, lax)
	case etherIPv6:
		q.parseIPv6(b, wire, lax)
	}
}

// linkHeader returns the ethertype of what follows the link header and how long
// that header is.
func linkHeader(link LinkType, b []byte) (ether uint16, n int, bad malformed) {
	switch link {
	case Ethernet:
		if len(b) < 14 {
			return 0, 0, badEthernet
		}
		return vlanTags(b, binary.BigEndian.Uint16(b[12:]), 14)
	case LinuxSLL:
		if len(b) < 16 {
			return 0, 0, badLink
		}
		return vlanTags(b, binary.BigEndian.Uint16(b[14:]), 16)
	case LinuxSLL2:
		if len(b) < 20 {
			return 0, 0, badLink
		}
		return vlanTags(b, binary.BigEndian.Uint16(b), 20)
	case Null, Loop:
		return loopback(b)
	case Raw, RawOld, RawBSD, IPv4, IPv6:
		if len(b) == 0 {
			return 0, 0, badLink
		}
		switch b[0] >> 4 {
		case 4:
			return etherIPv4, 0, fine
		case 6:
			return etherIPv6, 0, fine
		}
	}
	return 0, 0, badLink
}

func vlanTags(b []byte, ether uint16, n int) (uint16, int, malformed) {
	for range 2 {
		if ether != 0x8100 && ether != 0x88a8 {
			break
		}
		if len(b) < n+4 {
			return 0, 0, badVLAN
		}
		ether = binary.BigEndian.Uint16(b[n+2:])
		n += 4
	}
	return ether, n, fine
}

// loopback reads the address family in whichever byte order makes sense of it;
// the number for IPv6 differs between systems.
func loopback(b []byte) (uint16, int, malformed) {
	if len(b) < 4 {
		return 0, 0, badLink
	}
	family := binary.LittleEndian.Uint32(b)
	if family > 0xffff {
		family = binary.BigEndian.Uint32(b)
	}
	switch family {
	case 2:
		return etherIPv4, 4, fine
	case 10, 24, 28, 30:
		return etherIPv6, 4, fine
	}
	return 0, 4, fine
}

func (q *parsed) parseIPv4(b []byte, wire int, lax bool) {
	q.bad = badIPv4
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	hdr := int(b[0]&0xf) * 4
	size := int(binary.BigEndian.Uint16(b[2:]))
	if size == 0 && lax {
		size = wire
	}
	if hdr < 20 || hdr > len(b) || size < hdr || size > wire {
		return
	}
	q.bad, q.ip, q.Size, q.ttl, q.Proto = fine, true, size, b[8], b[9]
	q.Src = netip.AddrFrom4([4]byte(b[12:16]))
	q.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	frag := binary.BigEndian.Uint16(b[6:])
	if frag&0x1fff != 0 {
		q.fragment()
		return
	}
	q.transport(b[hdr:min(len(b), size)], size-hdr)
}

func (q *parsed) parseIPv6(b []byte, wire int, lax bool) {
	q.bad = badIPv6
	if len(b) < 40 || b[0]>>4 != 6 {
		return
	}
	size := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if size == 40 && lax {
		size = wire
	}
	if size > wire {
		return
	}
	q.bad, q.ip, q.Size, q.ttl, q.Proto = fine, true, size, b[7], b[6]
	q.Src = netip.AddrFrom16([16]byte(b[8:24])).Unmap()
	q.Dst = netip.AddrFrom16([16]byte(b[24:40])).Unmap()
	q.extensions(b[40:min(len(b), size)], size-40)
}

// extensions walks the extension headers; rest is how many bytes the packet has
// behind the fixed header.
func (q *parsed) extensions(b []byte, rest int) {
	for range maxExt + 1 {
		n := 0
		switch q.Proto {
		case 0, 43, 60: // hop-by-hop, routing, destination
			if len(b) >= 2 {
				n = 8 + int(b[1])*8
			}
		case 51: // authentication
			if len(b) >= 2 {
				n = 8 + int(b[1])*4
			}
		case 44:
			n = 8
		default:
			q.transport(b, rest)
			return
		}
		if n == 0 || n > len(b) {
			break
		}
		later := q.Proto == 44 && binary.BigEndian.Uint16(b[2:])&0xfff8 != 0
		q.Proto = b[0]
		if later {
			q.fragment()
			return
		}
		b, rest = b[n:], rest-n
	}
	q.bad, q.NoPorts = badExt, true
}

func (q *parsed) fragment() { q.later, q.NoPorts = true, true }

// transport reads the transport header from b; rest is the length on the wire
// of that header and the payload.
func (q *parsed) transport(b []byte, rest int) {
	hdr, ok := 0, true
	switch q.Proto {
	case flow.TCP:
		hdr, ok = q.tcp(b, rest)
	case flow.UDP:
		ok = len(b) >= 8
		if hdr = 8; ok {
			q.SrcPort, q.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		} else {
			q.bad = badUDP
		}
	case flow.ICMP, flow.ICMPv6:
		ok = len(b) >= 8
		if hdr = 8; ok {
			q.Type, q.Code = b[0], b[1]
		} else {
			q.bad = badICMP
		}
	}
	if !ok {
		q.NoPorts = true
		return
	}
	q.payload = rest - hdr
	if q.payload >= 4 && len(b) >= hdr+4 {
		q.head, q.hasHead = [4]byte(b[hdr:hdr+4]), true
	}
	q.Key, q.fromB = flow.NewKey(netip.AddrPortFrom(q.Src, q.SrcPort), netip.AddrPortFrom(q.Dst, q.DstPort), q.Proto)
}

func (q *parsed) tcp(b []byte, rest int) (hdr int, ok bool) {
	q.bad = badTCP
	if len(b) < 20 {
		return 0, false
	}
	if hdr = int(b[12]>>4) * 4; hdr < 20 || hdr > rest {
		return 0, false
	}
	q.bad = fine
	q.SrcPort, q.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	q.seq, q.ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	q.flags = b[13] & 0x3f // the flags that package flow names
	q.window = binary.BigEndian.Uint16(b[14:])
	return hdr, true
}
