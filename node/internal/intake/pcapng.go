package intake

import (
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"github.com/hedgerow-mesh/hedgerow/dataplane/softplane"
)

// Block types of pcapng (draft-ietf-opsawg-pcapng).
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacketOld = 2
	blockSimple    = 3
	blockPacket    = 6

	byteOrderMagic = 0x1a2b3c4d
	maxBlock       = 64 << 20 // of blocks that are passed over
	maxDescription = 64 << 10 // of an interface description
	maxInterfaces  = 4096     // of a section
)

// pcapng is a file of blocks in sections.
type pcapng struct {
	order  binary.ByteOrder
	ifaces []iface
	head   [28]byte
}

type iface struct {
	link   softplane.LinkType
	snap   uint32
	perSec uint64 // units of time in a second
	offset int64  // seconds to add
}

// block is the block at hand.
type block struct {
	at   int64
	kind uint32
	left int64 // bytes of the body that were not read yet
	size uint32
}

func (f *pcapng) next(c *Capture) (Packet, error) {
	for {
		b, err := f.begin(c.src)
		if err != nil {
			return Packet{}, err
		}
		var p Packet
		found := false
		switch b.kind {
		case blockSection:
			err = f.section(c.src)
		case blockInterface:
			err = f.describe(c.src, b)
		case blockPacket, blockPacketOld:
			found = true
			p, err = f.packet(c, b)
		case blockSimple:
			found = true
			p, err = f.simple(c, b)
		}
		if err == nil {
			err = f.end(c.src, b)
		}
		if err != nil || found {
			return p, err
		}
	}
}

// begin reads a block's type and length. A section header tells the byte order
// in which its own length is to be read.
func (f *pcapng) begin(s *source) (*block, error) {
	b := &block{at: s.off}
	if err := s.start(f.head[:8], "block header"); err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(f.head[:]) == blockSection {
		if err := s.full(b.at, f.head[8:12], "section header"); err != nil {
			return nil, err
		}
		if err := f.byteOrder(s, b.at); err != nil {
			return nil, err
		}
		b.left = -4 // the magic is read already
	}
	b.kind, b.size = f.order.Uint32(f.head[:]), f.order.Uint32(f.head[4:])
	if b.size < 12 || b.size%4 != 0 || b.size > maxBlock {
		return nil, s.fault(b.at, "block of %d bytes, expected a multiple of four from 12 to %d", b.size, maxBlock)
	}
	b.left += int64(b.size) - 12
	if b.left < 0 {
		return nil, s.fault(b.at, "section header of %d bytes, expected at least 28", b.size)
	}
	return b, nil
}

func (f *pcapng) byteOrder(s *source, at int64) error {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(f.head[8:]) == byteOrderMagic {
			f.order = order
			return nil
		}
	}
	return s.fault(at+8, "byte order mark % x, expected 1a2b3c4d in either order", f.head[8:12])
}

// take reads n bytes of the body.
func (f *pcapng) take(s *source, b *block, n int, what string) ([]byte, error) {
	if b.left < int64(n) {
		return nil, s.fault(b.at, "%s: body has %d bytes left, expected %d", what, b.left, n)
	}
	b.left -= int64(n)
	return f.head[:n], s.full(b.at, f.head[:n], what)
}

// end passes over what is left of the body and checks the trailing length.
func (f *pcapng) end(s *source, b *block) error {
	if err := s.skip(b.at, b.left, "block body"); err != nil {
		return err
	}
	if err := s.full(b.at, f.head[:4], "block end"); err != nil {
		return err
	}
	if n := f.order.Uint32(f.head[:]); n != b.size {
		return s.fault(b.at, "block of %d bytes ends with length %d, expected both to be equal", b.size, n)
	}
	return nil
}

// section begins a section: its interfaces are its own.
func (f *pcapng) section(s *source) error {
	f.ifaces = f.ifaces[:0]
	var v [4]byte
	if peek, _ := s.peek(4); copy(v[:], peek) == 4 {
		if major := f.order.Uint16(v[:]); major != 1 {
			return s.fault(s.off, "pcapng version %d, expected 1", major)
		}
	}
	return nil
}

// describe reads an interface description.
func (f *pcapng) describe(s *source, b *block) error {
	if b.left > maxDescription {
		return s.fault(b.at, "interface description of %d bytes, expected at most %d", b.left, maxDescription)
	}
	if len(f.ifaces) == maxInterfaces {
		return s.fault(b.at, "more than %d interfaces in one section", maxInterfaces)
	}
	h, err := f.take(s, b, 8, "interface description")
	if err != nil {
		return err
	}
	i := iface{link: softplane.LinkType(f.order.Uint16(h)), snap: f.order.Uint32(h[4:]), perSec: 1e6}
	options := make([]byte, b.left)
	b.left = 0
	if err := s.full(b.at, options, "interface options"); err != nil {
		return err
	}
	if !i.options(f.order, options) {
		return s.fault(b.at, "interface options do not fit their block or hold a time resolution beyond 10^-19 or 2^-63")
	}
	f.ifaces = append(f.ifaces, i)
	return nil
}

// options reads if_tsresol and if_tsoffset.
func (i *iface) options(order binary.ByteOrder, b []byte) bool {
	for len(b) >= 4 {
		code, n := order.Uint16(b), int(order.Uint16(b[2:]))
		b = b[4:]
		if code == 0 {
			return true
		}
		if n > len(b) {
			return false
		}
		switch {
		case code == 9 && n == 1:
			if i.perSec = resolution(b[0]); i.perSec == 0 {
				return false
			}
		case code == 14 && n == 8:
			i.offset = int64(order.Uint64(b))
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return true
}

// resolution is the number of units in a second, 0 when there are too many.
func resolution(v byte) uint64 {
	n := v & 0x7f
	if v&0x80 != 0 {
		if n > 63 {
			return 0
		}
		return 1 << n
	}
	if n > 19 {
		return 0
	}
	r := uint64(1)
	for range n {
		r *= 10
	}
	return r
}

// time turns a count of units into a time, if it is one that fits nanoseconds
// since 1970 in 64 bits.
func (i *iface) time(ticks uint64) (time.Time, bool) {
	sec, rest := ticks/i.perSec, ticks%i.perSec
	hi, lo := bits.Mul64(rest, 1e9)
	ns, _ := bits.Div64(hi, lo, i.perSec) // rest is below perSec, so this cannot overflow
	const most = math.MaxInt64/int64(1e9) - 1
	if sec > uint64(most) || i.offset > most || i.offset < -most {
		return time.Time{}, false
	}
	at := int64(sec) + i.offset
	return time.Unix(at, int64(ns)).UTC(), at >= 0 && at <= most
}

// packet reads an enhanced packet block, or the packet block that it replaced.
func (f *pcapng) packet(c *Capture, b *block) (Packet, error) {
	h, err := f.take(c.src, b, 20, "packet block")
	if err != nil {
		return Packet{}, err
	}
	id := f.order.Uint32(h)
	if b.kind == blockPacketOld {
		id = uint32(f.order.Uint16(h))
	}
	ticks := uint64(f.order.Uint32(h[4:]))<<32 | uint64(f.order.Uint32(h[8:]))
	kept, orig := f.order.Uint32(h[12:]), f.order.Uint32(h[16:])
	return f.deliver(c, b, id, kept, orig, &ticks)
}

// simple reads a simple packet block: no time, first interface.
func (f *pcapng) simple(c *Capture, b *block) (Packet, error) {
	h, err := f.take(c.src, b, 4, "simple packet block")
	if err != nil {
		return Packet{}, err
	}
	orig := f.order.Uint32(h)
	kept := uint32(min(int64(orig), b.left))
	if len(f.ifaces) > 0 && f.ifaces[0].snap != 0 {
		kept = min(kept, f.ifaces[0].snap)
	}
	return f.deliver(c, b, 0, kept, orig, nil)
}

func (f *pcapng) deliver(c *Capture, b *block, id, kept, orig uint32, ticks *uint64) (Packet, error) {
	switch {
	case uint64(id) >= uint64(len(f.ifaces)):
		return Packet{}, c.src.fault(b.at, "packet of interface %d, expected one of the %d described so far", id, len(f.ifaces))
	case kept > MaxPacket:
		return Packet{}, c.src.fault(b.at, "packet of %d bytes, expected at most %d: the length is broken", kept, MaxPacket)
	case int64(kept) > b.left:
		return Packet{}, c.src.fault(b.at, "packet of %d bytes in a block with %d left, expected no more than these", kept, b.left)
	}
	data, err := c.data(b.at, int(kept))
	if err != nil {
		return Packet{}, err
	}
	b.left -= int64(kept)
	i := &f.ifaces[id]
	p := Packet{At: c.last, Link: i.link, Data: data, OrigLen: wireLength(orig, len(data))}
	if ticks != nil {
		if at, ok := i.time(*ticks); ok {
			p.At = at
		}
	}
	return p, nil
}
