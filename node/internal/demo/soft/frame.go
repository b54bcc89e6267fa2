package soft

import (
	"encoding/binary"
	"net/netip"

	"github.com/hedgerow-mesh/hedgerow/dataplane/flow"
)

// packet is one IPv4 packet of a rendered session.
type packet struct {
	src, dst netip.AddrPort
	proto    uint8
	ttl      uint8
	id       uint16
	flags    uint8
	seq, ack uint32
	window   uint16
	head     []byte // first payload bytes
	size     int    // payload length; what head does not fill is padding
}

// frame appends the packet as an Ethernet frame with right lengths and sums.
func (p *packet) frame(b []byte) []byte {
	b = append(b, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0)
	ip := len(b)
	src, dst := p.src.Addr().As4(), p.dst.Addr().As4()
	b = append(b, 0x45, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, p.id)
	b = append(b, 0x40, 0, p.ttl, p.proto, 0, 0)
	b = append(append(b, src[:]...), dst[:]...)
	l4 := len(b)
	b = binary.BigEndian.AppendUint16(b, p.src.Port())
	b = binary.BigEndian.AppendUint16(b, p.dst.Port())
	sumAt := l4 + 6
	if p.proto == flow.TCP {
		b = binary.BigEndian.AppendUint32(b, p.seq)
		b = binary.BigEndian.AppendUint32(b, p.ack)
		b = append(b, 5<<4, p.flags)
		b = binary.BigEndian.AppendUint16(b, p.window)
		b = append(b, 0, 0, 0, 0)
		sumAt = l4 + 16
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(8+p.size))
		b = append(b, 0, 0)
	}
	b = append(b, p.head[:min(len(p.head), p.size)]...)
	for i := len(p.head); i < p.size; i++ {
		b = append(b, byte(i))
	}
	binary.BigEndian.PutUint16(b[ip+2:], uint16(len(b)-ip))
	binary.BigEndian.PutUint16(b[ip+10:], checksum(0, b[ip:l4]))
	pseudo := add(add(uint32(p.proto)+uint32(len(b)-l4), src[:]), dst[:])
	binary.BigEndian.PutUint16(b[sumAt:], checksum(pseudo, b[l4:]))
	return b
}

func add(c uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		c += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		c += uint32(b[0]) << 8
	}
	return c
}

func checksum(c uint32, b []byte) uint16 {
	c = add(c, b)
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	return ^uint16(c)
}

// Segment is one packet that a driver makes itself, where no session of a script does.
type Segment struct {
	Src, Dst netip.AddrPort // IPv4
	Proto    uint8
	Flags    uint8 // of TCP
	Seq, Ack uint32
	Payload  int
}

// Frame appends the segment as an Ethernet frame.
func (s *Segment) Frame(b []byte) []byte {
	p := packet{
		src: s.Src, dst: s.Dst, proto: s.Proto, ttl: 57, flags: s.Flags, seq: s.Seq, ack: s.Ack, window: 64240, size: s.Payload,
	}
	return p.frame(b)
}
