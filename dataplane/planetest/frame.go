package planetest

import (
	"encoding/binary"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// Ext is one IPv6 extension header. Body is what follows the two first bytes
// (next header, length); it is padded to the header's unit of eight bytes.
type Ext struct {
	Type uint8
	Body []byte
}

// Packet describes one packet to build. Checksums and lengths come out right,
// so a kernel accepts the frame; tests that want a wrong one alter the bytes.
type Packet struct {
	SrcMAC, DstMAC [6]byte
	VLAN           []uint16 // tags, outermost first; more than one makes the outer ones 0x88a8
	Session        uint16   // of PPPoE, behind the tags; 0 is none
	Src, Dst       netip.AddrPort
	Proto          uint8 // flow.TCP, flow.UDP, flow.ICMP, flow.ICMPv6, or any other: payload only
	TTL            uint8 // 0 is 64
	Flags          uint8 // TCP flags, as flow.SYN
	Seq, Ack       uint32
	Window         uint16
	Type, Code     uint8  // ICMP
	Options        []byte // IPv4 options, padded to four bytes; at most 40
	Ext            []Ext  // IPv6 extension headers ahead of the transport header
	Payload        []byte

	// Fragmentation. FragOffset is in units of eight bytes; a packet with an
	// offset carries Payload alone, without a transport header. Fragment forces
	// an IPv6 fragment header even when offset and flag are zero.
	Fragment   bool
	FragOffset uint16
	MoreFrags  bool
	FragID     uint32
}

// Frame returns the packet as an Ethernet frame.
func (p Packet) Frame() []byte { return p.Append(nil) }

// Append appends the packet as an Ethernet frame to b.
func (p Packet) Append(b []byte) []byte {
	b = append(b, p.DstMAC[:]...)
	b = append(b, p.SrcMAC[:]...)
	for i, id := range p.VLAN {
		tpid := uint16(0x8100)
		if i < len(p.VLAN)-1 {
			tpid = 0x88a8
		}
		b = binary.BigEndian.AppendUint16(b, tpid)
		b = binary.BigEndian.AppendUint16(b, id&0xfff)
	}
	v4 := p.Src.Addr().Unmap().Is4()
	switch {
	case p.Session != 0:
		return p.appendPPPoE(b, v4)
	case v4:
		b = append(b, 0x08, 0x00)
	default:
		b = append(b, 0x86, 0xdd)
	}
	return p.AppendIP(b)
}

func (p Packet) appendPPPoE(b []byte, v4 bool) []byte {
	ppp := []byte{0, 0x57}
	if v4 {
		ppp[1] = 0x21
	}
	b = binary.BigEndian.AppendUint16(append(b, 0x88, 0x64, 0x11, 0), p.Session)
	start := len(b)
	b = p.AppendIP(append(append(b, 0, 0), ppp...))
	binary.BigEndian.PutUint16(b[start:], uint16(len(b)-start-2))
	return b
}

// AppendIP appends the packet from its IP header on to b.
func (p Packet) AppendIP(b []byte) []byte {
	if p.TTL == 0 {
		p.TTL = 64
	}
	if p.Src.Addr().Unmap().Is4() {
		return p.appendIPv4(b)
	}
	return p.appendIPv6(b)
}

func (p Packet) appendIPv4(b []byte) []byte {
	opts := pad(p.Options, 4)
	start := len(b)
	b = append(b, 0x40|uint8(5+len(opts)/4), 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(p.FragID))
	frag := p.FragOffset & 0x1fff
	if p.MoreFrags {
		frag |= 0x2000
	}
	b = binary.BigEndian.AppendUint16(b, frag)
	b = append(b, p.TTL, p.Proto, 0, 0)
	src, dst := p.Src.Addr().Unmap().As4(), p.Dst.Addr().Unmap().As4()
	b = append(append(b, src[:]...), dst[:]...)
	b = append(b, opts...)
	hdr := b[start:]
	hdrLen := len(hdr)
	b = p.appendTransport(b, src[:], dst[:])
	hdr = b[start:]
	binary.BigEndian.PutUint16(hdr[2:], uint16(len(hdr)))
	binary.BigEndian.PutUint16(hdr[10:], ^fold(sum(0, hdr[:hdrLen])))
	return b
}

func (p Packet) appendIPv6(b []byte) []byte {
	start := len(b)
	b = append(b, 0x60, 0, 0, 0, 0, 0, p.Proto, p.TTL)
	src, dst := p.Src.Addr().As16(), p.Dst.Addr().As16()
	b = append(append(b, src[:]...), dst[:]...)
	exts := p.Ext
	if p.Fragment || p.FragOffset != 0 || p.MoreFrags {
		frag := binary.BigEndian.AppendUint16(nil, p.FragOffset<<3)
		if p.MoreFrags {
			frag[1] |= 1
		}
		exts = append(exts[:len(exts):len(exts)], Ext{Type: 44, Body: binary.BigEndian.AppendUint32(frag, p.FragID)})
	}
	next := start + 6 // where the type of the next header stands
	for _, e := range exts {
		b[next] = e.Type
		body := e.Body
		if rest := (len(body) + 2) % 8; rest != 0 {
			body = append(body[:len(body):len(body)], make([]byte, 8-rest)...)
		}
		units := uint8((len(body)+2)/8 - 1)
		switch e.Type {
		case 44:
			units = 0 // reserved in a fragment header
		case 51:
			units = uint8((len(body)+2)/4 - 2) // AH counts in units of four
		}
		next = len(b)
		b = append(b, p.Proto, units)
		b = append(b, body...)
	}
	b = p.appendTransport(b, src[:], dst[:])
	binary.BigEndian.PutUint16(b[start+4:], uint16(len(b)-start-40))
	return b
}

func (p Packet) appendTransport(b, src, dst []byte) []byte {
	start := len(b)
	if p.FragOffset != 0 {
		return append(b, p.Payload...)
	}
	at := -1 // of the checksum
	switch p.Proto {
	case flow.TCP:
		b = binary.BigEndian.AppendUint16(b, p.Src.Port())
		b = binary.BigEndian.AppendUint16(b, p.Dst.Port())
		b = binary.BigEndian.AppendUint32(b, p.Seq)
		b = binary.BigEndian.AppendUint32(b, p.Ack)
		b = append(b, 5<<4, p.Flags)
		b = binary.BigEndian.AppendUint16(b, p.Window)
		b = append(b, 0, 0, 0, 0)
		at = 16
	case flow.UDP:
		b = binary.BigEndian.AppendUint16(b, p.Src.Port())
		b = binary.BigEndian.AppendUint16(b, p.Dst.Port())
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(p.Payload)))
		b = append(b, 0, 0)
		at = 6
	case flow.ICMP, flow.ICMPv6:
		b = append(b, p.Type, p.Code, 0, 0, 0, 1, 0, 1)
		at = 2
	}
	b = append(b, p.Payload...)
	if at < 0 {
		return b
	}
	seg := b[start:]
	var c uint32
	if p.Proto != flow.ICMP { // ICMPv4 has no pseudo header
		c = sum(sum(c, src), dst) + uint32(p.Proto) + uint32(len(seg))
	}
	check := ^fold(sum(c, seg))
	if check == 0 && p.Proto == flow.UDP {
		check = 0xffff // zero means "none" in UDP
	}
	binary.BigEndian.PutUint16(seg[at:], check)
	return b
}

func pad(b []byte, unit int) []byte {
	if rest := len(b) % unit; rest != 0 {
		return append(b[:len(b):len(b)], make([]byte, unit-rest)...)
	}
	return b
}

func sum(c uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		c += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		c += uint32(b[0]) << 8
	}
	return c
}

func fold(c uint32) uint16 {
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	return uint16(c)
}
