package intake

import (
	"encoding/binary"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// Magic numbers of pcap (draft-ietf-opsawg-pcap), in the writer's byte order.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34 // record header with eight more bytes
)

// pcap is the classic format: one header, one link type, records.
type pcap struct {
	order  binary.ByteOrder
	unit   int64 // ns in a unit of the time's fraction
	extra  int   // bytes of the record header behind the common 16
	link   softplane.LinkType
	minor  uint16
	header [24]byte
}

func openPcap(s *source) (*pcap, error) {
	head, _ := s.peek(24)
	p := &pcap{unit: 1000}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(head) {
		case magicNano:
			p.unit, p.order = 1, order
		case magicMicro:
			p.order = order
		case magicModified:
			p.order, p.extra = order, 8
		}
	}
	if p.order == nil {
		return nil, s.fault(0, "expected a pcap or pcapng capture, found %s", foreign(head))
	}
	if err := s.full(0, p.header[:], "pcap header"); err != nil {
		return nil, err
	}
	if major := p.order.Uint16(p.header[4:]); major != 2 {
		return nil, s.fault(4, "pcap version %d, expected 2", major)
	}
	p.minor = p.order.Uint16(p.header[6:])
	// The upper bits hold the length of a frame check sequence.
	p.link = softplane.LinkType(p.order.Uint32(p.header[20:]))
	return p, nil
}

func (p *pcap) next(c *Capture) (Packet, error) {
	at := c.src.off
	h := p.header[:16+p.extra]
	if err := c.src.start(h, "packet header"); err != nil {
		return Packet{}, err
	}
	kept, orig := p.order.Uint32(h[8:]), p.order.Uint32(h[12:])
	if p.minor <= 3 && kept > orig { // old writers swapped the two
		kept, orig = orig, kept
	}
	if kept > MaxPacket {
		return Packet{}, c.src.fault(at, "packet of %d bytes, expected at most %d: the length is broken", kept, MaxPacket)
	}
	data, err := c.data(at, int(kept))
	if err != nil {
		return Packet{}, err
	}
	sec, frac := int64(p.order.Uint32(h)), int64(p.order.Uint32(h[4:]))
	return Packet{
		At:      time.Unix(sec, frac*p.unit).UTC(),
		Link:    p.link,
		Data:    data,
		OrigLen: wireLength(orig, len(data)),
	}, nil
}

// wireLength is the claimed length on the wire as far as it makes sense.
func wireLength(claimed uint32, kept int) int {
	return int(max(min(int64(claimed), 1<<30), int64(kept)))
}
