package softplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
	"github.com/hedgerow-mesh/hedgerow/dataplane/policy"
)

// malformed is how a packet is broken. docs/packets.md tells each kind.
type malformed uint8

const (
	fine malformed = iota
	badLink
	badEthernet
	badVLAN
	badPPPoE
	badIPv4
	badIPv4Length
	badIPv6
	badIPv6Length
	badExt
	badFragment
	badTCP
	badUDP
	badICMP
	kinds
)

func (m malformed) String() string {
	return [kinds]string{"", "link", "ethernet", "vlan", "pppoe", "ipv4", "ipv4-length", "ipv6", "ipv6-length",
		"ipv6-ext", "fragment", "tcp", "udp", "icmp"}[m]
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
	body          []byte  // payload of TCP and UDP, in the frame
	hasHead       bool    // all four are there
	way           way     // where it is in its path through the machine
	judged        bool    // only the plane's own scorer drops it, which comes last
	show          uint8   // which payload packet of its flow, from 1, if it may hold a hello; see hello.go
	at            uint8   // bit of the hook that saw it; 0: known by its addresses only
}

const maxExt = 6

// parse takes a frame apart. wire is the frame's length on the wire, which is
// above len(b) when a capture kept less. With lax, an IP length of zero (as
// captures of segmentation offload have it) means the rest of the frame.
func (q *parsed) parse(link LinkType, b []byte, wire int, lax bool) {
	*q = parsed{}
	ether, n, carried, bad := linkHeader(link, b, max(wire, len(b)))
	if bad != fine {
		q.bad = bad
		return
	}
	b = b[n:]
	switch ether {
	case etherIPv4:
		q.parseIPv4(b, carried, lax)
	case etherIPv6:
		q.parseIPv6(b, carried, lax)
	}
}

// ipLength is how long an IP packet is: the length field says 0 where
// segmentation or reassembly made it longer than the field can say.
func ipLength(field, fixed, carried int, lax bool) int {
	if field == 0 && (lax || carried > 0xffff+fixed) {
		return carried
	}
	return field + fixed
}

func (q *parsed) parseIPv4(b []byte, carried int, lax bool) {
	q.bad = badIPv4
	if len(b) < 20 || b[0]>>4 != 4 {
		return
	}
	hdr := int(b[0]&0xf) * 4
	if hdr < 20 {
		return
	}
	size := ipLength(int(binary.BigEndian.Uint16(b[2:])), 0, carried, lax)
	if size < hdr || size > carried {
		q.bad = badIPv4Length
		return
	}
	if hdr > len(b) { // the capture kept less than the header
		return
	}
	q.bad, q.ip, q.Size, q.ttl, q.Proto = fine, true, size, b[8], b[9]
	q.Src = netip.AddrFrom4([4]byte(b[12:16]))
	q.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	frag := binary.BigEndian.Uint16(b[6:])
	if frag&0x1fff != 0 {
		q.fragment(int(frag&0x1fff)*8, size-hdr)
		return
	}
	q.transport(b[hdr:min(len(b), size)], size-hdr, frag&0x2000 != 0)
}

func (q *parsed) parseIPv6(b []byte, carried int, lax bool) {
	q.bad = badIPv6
	if len(b) < 40 || b[0]>>4 != 6 {
		return
	}
	size := ipLength(int(binary.BigEndian.Uint16(b[4:])), 40, carried, lax)
	if size > carried {
		q.bad = badIPv6Length
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
	more := false
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
			q.transport(b, rest, more)
			return
		}
		if n == 0 || n > len(b) {
			break
		}
		isFragment, at := q.Proto == 44, binary.BigEndian.Uint16(b[2:])
		q.Proto = b[0]
		b, rest = b[n:], rest-n
		if isFragment && at&0xfff8 != 0 {
			q.fragment(int(at&0xfff8), rest)
			return
		}
		more = more || isFragment && at&1 != 0
	}
	q.bad, q.NoPorts = badExt, true
}

// fragment is one that is not the first, n bytes at an offset. Nobody needs one
// that begins inside the TCP header (RFC 3128) or ends above what a packet can hold.
func (q *parsed) fragment(at, n int) {
	q.later, q.NoPorts = true, true
	if at < 20 && q.Proto == flow.TCP || at+n > 0xffff {
		q.bad = badFragment
	}
}

// transport reads the transport header from b; rest is the length on the wire
// of that header and the payload. first says that more fragments follow.
func (q *parsed) transport(b []byte, rest int, first bool) {
	hdr, ok := 0, true
	switch q.Proto {
	case flow.TCP:
		hdr, ok = q.tcp(b, rest)
	case flow.UDP:
		ok = len(b) >= 8
		if hdr = 8; ok {
			q.SrcPort, q.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
			q.body = b[8:]
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
		if first {
			q.bad = badFragment
		}
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
	q.body = b[min(hdr, len(b)):]
	q.SrcPort, q.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	q.seq, q.ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	q.flags = b[13] & 0x3f // the flags that package flow names
	q.window = binary.BigEndian.Uint16(b[14:])
	return hdr, true
}
