package softplane

import "encoding/binary"

// LinkType says what stands ahead of the IP header, by the numbers of the
// registry of link-layer header types (https://www.tcpdump.org/linktypes.html).
type LinkType uint16

// Link types that Frame understands.
const (
	Null      LinkType = 0   // BSD loopback: address family in the capturing host's byte order
	Ethernet  LinkType = 1   // with up to two VLAN tags, and PPPoE
	PPP       LinkType = 9   // PPP, with or without HDLC framing
	RawOld    LinkType = 12  // raw IP, as some systems write it
	RawBSD    LinkType = 14  // raw IP, as OpenBSD writes it
	PPPSerial LinkType = 50  // PPP in HDLC framing
	PPPoE     LinkType = 51  // PPPoE session header ahead of PPP
	Raw       LinkType = 101 // raw IP
	CiscoHDLC LinkType = 104
	Loop      LinkType = 108 // OpenBSD loopback: address family in network byte order
	LinuxSLL  LinkType = 113 // Linux cooked capture v1
	IPv4      LinkType = 228
	IPv6      LinkType = 229
	LinuxSLL2 LinkType = 276 // Linux cooked capture v2
)

// Supported says whether Frame finds the IP header in frames of this type.
func (l LinkType) Supported() bool {
	switch l {
	case Null, Ethernet, PPP, RawOld, RawBSD, PPPSerial, PPPoE, Raw, CiscoHDLC, Loop, LinuxSLL, IPv4, IPv6, LinuxSLL2:
		return true
	}
	return false
}

const (
	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherPPPoE = 0x8864
	otherProto = 0 // neither IPv4 nor IPv6
)

// linkHeader returns the ethertype of what follows the link header, how long
// that header is, and how much of the wire bytes the link says that it carries.
func linkHeader(link LinkType, b []byte, wire int) (ether uint16, n, carried int, bad malformed) {
	ether, n, bad = outerHeader(link, b)
	carried = wire - n
	if bad == fine && ether == etherPPPoE {
		return pppoe(b, n, carried)
	}
	return ether, n, carried, bad
}

func outerHeader(link LinkType, b []byte) (ether uint16, n int, bad malformed) {
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
	case PPP, PPPSerial:
		return ppp(b)
	case PPPoE:
		return etherPPPoE, 0, fine
	case CiscoHDLC:
		if len(b) < 4 {
			return 0, 0, badLink
		}
		return binary.BigEndian.Uint16(b[2:]), 4, fine
	case Raw, RawOld, RawBSD, IPv4, IPv6:
		return bare(b)
	}
	return 0, 0, badLink
}

// bare is a link without a header: the IP version says what follows.
func bare(b []byte) (ether uint16, n int, bad malformed) {
	if len(b) > 0 {
		switch b[0] >> 4 {
		case 4:
			return etherIPv4, 0, fine
		case 6:
			return etherIPv6, 0, fine
		}
	}
	return 0, 0, badLink
}

// vlanTags passes over two tags; a third is one that no link here carries.
func vlanTags(b []byte, ether uint16, n int) (uint16, int, malformed) {
	for i := 0; ether == 0x8100 || ether == 0x88a8; i++ {
		if i == 2 || len(b) < n+4 {
			return 0, 0, badVLAN
		}
		ether = binary.BigEndian.Uint16(b[n+2:])
		n += 4
	}
	return ether, n, fine
}

// pppoe reads the session header (RFC 2516) and PPP's protocol behind it.
func pppoe(b []byte, n, carried int) (ether uint16, ahead, left int, bad malformed) {
	if len(b) < n+8 {
		return 0, 0, 0, badPPPoE
	}
	h := b[n:]
	size := int(binary.BigEndian.Uint16(h[4:]))
	if h[0] != 0x11 || h[1] != 0 || size < 2 || size > carried-6 {
		return 0, 0, 0, badPPPoE
	}
	return pppProtocol(binary.BigEndian.Uint16(h[6:])), n + 8, size - 2, fine
}

// ppp passes over HDLC's address and control, which may have been negotiated
// away. Cisco's HDLC, which some captures call PPP, has an ethertype instead.
func ppp(b []byte) (ether uint16, n int, bad malformed) {
	if len(b) >= 4 && (b[0] == 0x0f || b[0] == 0x8f) && b[1] == 0 {
		return binary.BigEndian.Uint16(b[2:]), 4, fine
	}
	if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
		n = 2
	}
	if len(b) < n+2 {
		return 0, 0, badLink
	}
	return pppProtocol(binary.BigEndian.Uint16(b[n:])), n + 2, fine
}

func pppProtocol(p uint16) uint16 {
	switch p {
	case 0x0021:
		return etherIPv4
	case 0x0057:
		return etherIPv6
	}
	return otherProto
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
	return otherProto, 4, fine
}
