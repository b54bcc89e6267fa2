package hello

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Versions of QUIC.
const (
	quic1 = 0x00000001
	quic2 = 0x6b3343cf
	// quic29 is the last draft that was widely used.
	quic29 = 0xff00001d
)

// Bounds of one datagram.
const (
	maxCoalesced = 8
	maxID        = 20
	sampleSize   = 16
)

// MinDatagram is how long a datagram with a client's Initial packet is at least:
// shorter ones have to be discarded (RFC 9000, section 14.1).
const MinDatagram = 1200

// Types of packets with a long header, of version 1.
const (
	typeInitial = iota
	typeZeroRTT
	typeHandshake
	typeRetry
)

// version is what differs between versions: the salt of RFC 9001, section 5.2,
// the labels, and the numbers of packet types.
type version struct {
	salt   []byte
	prefix string
	shift  byte // of the packet types
}

var versions = map[uint32]*version{
	quic1:  {salt: []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}, prefix: "quic "},
	quic29: {salt: []byte{0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8, 0x99}, prefix: "quic "},
	quic2:  {salt: []byte{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9}, prefix: "quicv2 ", shift: 1},
}

// IsInitial says whether a datagram begins as a client's first does: a long
// header of type Initial, of a version that is known here.
func IsInitial(b []byte) bool {
	if len(b) < 5 || b[0]&0xc0 != 0xc0 {
		return false
	}
	v := versions[binary.BigEndian.Uint32(b[1:])]
	return v != nil && v.kind(b[0]) == typeInitial
}

func (v *version) kind(first byte) byte { return (first>>4&3 - v.shift) & 3 }

// keys protect the client's Initial packets of one connection.
type keys struct {
	id   []byte
	iv   []byte
	aead cipher.AEAD
	mask cipher.Block
}

// clientKeys derives them from the connection ID that the client chose first.
func (v *version) clientKeys(id []byte) (*keys, error) {
	secret, err := hkdf.Extract(sha256.New, id, v.salt)
	if err != nil {
		return nil, err
	}
	if secret, err = expand(secret, "client in", sha256.Size); err != nil {
		return nil, err
	}
	var part [3][]byte
	for i, x := range [3]struct {
		label string
		n     int
	}{{"key", 16}, {"iv", 12}, {"hp", 16}} {
		if part[i], err = expand(secret, v.prefix+x.label, x.n); err != nil {
			return nil, err
		}
	}
	block, err := aes.NewCipher(part[0])
	if err != nil {
		return nil, err
	}
	k := &keys{id: bytes.Clone(id), iv: part[1]}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	k.mask, err = aes.NewCipher(part[2])
	return k, err
}

// expand is HKDF-Expand-Label of TLS 1.3 (RFC 8446, section 7.1).
func expand(secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := append([]byte{byte(n >> 8), byte(n), byte(len(label))}, label...)
	return hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
}

// longPacket is a packet with a long header, still protected.
type longPacket struct {
	kind   byte
	v      *version
	id     []byte // of the destination
	whole  []byte // header and payload
	number int    // where the packet number begins
}

// nextPacket takes one packet off a datagram. The error says that what follows
// cannot be read.
func nextPacket(r *reader) (p longPacket, err error) {
	all := *r
	first := byte(r.u8())
	p.v = versions[uint32(r.u16())<<16|uint32(r.u16())]
	if *r == nil || first&0xc0 != 0xc0 || p.v == nil {
		return p, errors.New("no long header of version 1 or 2")
	}
	p.kind = p.v.kind(first)
	p.id = r.take(r.u8())
	source := r.take(r.u8())
	if *r == nil || len(p.id) > maxID || len(source) > maxID || p.kind == typeRetry {
		return p, errors.New("header")
	}
	if p.kind == typeInitial {
		r.take(r.varint())
	}
	n := r.varint()
	p.number = len(all) - len(*r)
	r.take(n)
	if *r == nil {
		return p, errors.New("cut short")
	}
	p.whole = all[:p.number+n]
	return p, nil
}

// open removes both protections (RFC 9001, section 5) and gives the frames.
func (k *keys) open(p *longPacket) ([]byte, error) {
	at := p.number
	if len(p.whole) < at+4+sampleSize {
		return nil, errors.New("too short for a sample")
	}
	var mask [aes.BlockSize]byte
	k.mask.Encrypt(mask[:], p.whole[at+4:at+4+sampleSize])
	head := bytes.Clone(p.whole[:at+4])
	head[0] ^= mask[0] & 0x0f
	n := int(head[0]&3) + 1
	head = head[:at+n]
	number := uint64(0)
	for i := range n {
		head[at+i] ^= mask[1+i]
		number = number<<8 | uint64(head[at+i])
	}
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(number >> (8 * i))
	}
	return k.aead.Open(nil, nonce, p.whole[at+n:], head)
}

// Datagram takes one that the client sent. Its Initial packets may stand beside
// others; what they say of the handshake may come in any order.
func (a *Assembly) Datagram(b []byte) {
	a.quic = true
	r := reader(b)
	for range maxCoalesced {
		if len(r) == 0 {
			return
		}
		p, err := nextPacket(&r)
		if err != nil {
			return // what follows is padding, or for others
		}
		if p.kind != typeInitial {
			continue
		}
		frames, err := a.unlock(&p)
		if err != nil {
			continue // forged, or cut by who recorded it
		}
		if a.crypto(frames) != nil {
			a.bad = true
			return
		}
	}
}

// unlock opens a packet by the keys of the connection's first ID; after a Retry
// the client's ID is another, and so are the keys.
func (a *Assembly) unlock(p *longPacket) ([]byte, error) {
	if a.keys != nil {
		if frames, err := a.keys.open(p); err == nil || bytes.Equal(a.keys.id, p.id) {
			return frames, err
		}
	}
	k, err := p.v.clientKeys(p.id)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	frames, err := k.open(p)
	if err == nil {
		a.keys = k
	}
	return frames, err
}

// Frames that an Initial packet may hold (RFC 9000, section 17.2.2).
const (
	framePadding = 0
	framePing    = 1
	frameACK     = 2
	frameACKECN  = 3
	frameCrypto  = 6
	frameClose   = 0x1c
)

// crypto takes the pieces of the handshake out of frames.
func (a *Assembly) crypto(frames []byte) error {
	r := reader(frames)
	for len(r) > 0 {
		switch kind := r.varint(); kind {
		case framePadding, framePing:
		case frameACK, frameACKECN:
			r.skipACK(kind == frameACKECN)
		case frameCrypto:
			at := r.varint()
			piece := r.take(r.varint())
			if r != nil {
				a.put(at, piece)
			}
		case frameClose:
			return nil
		default:
			return fmt.Errorf("frame of type %d", kind)
		}
	}
	if r == nil {
		return errors.New("a frame is cut short")
	}
	return nil
}

// skipACK passes over the fields of an ACK frame.
func (r *reader) skipACK(ecn bool) {
	r.varint()
	r.varint()
	ranges := r.varint()
	r.varint()
	for range min(ranges, len(*r)) {
		r.varint()
		r.varint()
	}
	if ecn {
		r.varint()
		r.varint()
		r.varint()
	}
}

// varint is a number of QUIC's variable length (RFC 9000, section 16). One that
// no datagram can hold is taken for one that is not there.
func (r *reader) varint() int {
	if len(*r) == 0 {
		*r = nil
		return 0
	}
	b := r.take(1 << ((*r)[0] >> 6))
	if b == nil {
		return 0
	}
	v := uint64(b[0] & 0x3f)
	for _, c := range b[1:] {
		v = v<<8 | uint64(c)
	}
	if v > 1<<30 {
		*r = nil
		return 0
	}
	return int(v)
}
